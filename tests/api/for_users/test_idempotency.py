"""`Idempotency-Key`: a creation that is sent again makes no second runner, and shows no token again."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from portal.database import now
from portal.domain.groups import scope_settings
from portal.models import Membership, Runner, RunnerToken
from tests.api.for_users.conftest import ScriptOf
from tests.api.for_users.scripts import Script
from tests.api.processes import Process
from tests.api.test_races import at_once
from tests.cast import Cast

KEY = "one-runner-please"


def send(script: Script, key: str | None, path: str = "/user/runners", **wanted: Any) -> TestResponse:
    return script.ask("POST", path, headers={} if key is None else {"Idempotency-Key": key}, **wanted)


def in_acme(cast: Cast, **more: Any) -> dict[str, Any]:
    return {"runner_type": "group_type", "group_id": cast.acme.id, "description": "Box", **more}


def count(session: Session, model: type = Runner) -> int:
    return session.scalar(select(func.count()).select_from(model)) or 0


@pytest.mark.parametrize("path", ["/user/runners", "/runners"])
def test_the_same_again_answers_the_first_runner_without_its_token(
    script_of: ScriptOf, cast: Cast, session: Session, path: str
) -> None:
    script = script_of(cast.alice, "create_runner")
    first, again = send(script, KEY, path, **in_acme(cast)), send(script, KEY, path, **in_acme(cast))
    assert (first.status_code, again.status_code) == (201, 200)
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    body = again.get_json()
    assert set(body) == {"id", "token", "token_expires_at", "message"}
    assert (body["id"], body["token"]) == (first.get_json()["id"], None)
    assert f"POST /api/v4/runners/{body['id']}/reset_authentication_token" in body["message"]
    assert first.get_json()["token"] not in again.get_data(as_text=True)
    assert (count(session), count(session, RunnerToken)) == (1, 1)


def test_both_paths_and_all_tokens_of_a_person_share_their_keys(
    script_of: ScriptOf, cast: Cast, session: Session
) -> None:
    first = send(script_of(cast.alice), KEY, "/runners", **in_acme(cast))
    again = send(script_of(cast.alice, "create_runner"), KEY, "/user/runners", **in_acme(cast))
    assert first.get_json()["id"] == again.get_json()["id"]
    assert count(session) == 1


def test_two_people_with_the_same_key_have_a_runner_each(script_of: ScriptOf, cast: Cast, session: Session) -> None:
    first, second = (send(script_of(who), KEY, **in_acme(cast)) for who in (cast.alice, cast.dana))
    assert (first.status_code, second.status_code) == (201, 201)
    assert count(session) == 2


def test_without_a_key_and_with_another_one_there_are_more(script_of: ScriptOf, cast: Cast, session: Session) -> None:
    script = script_of(cast.alice)
    assert [send(script, key, **in_acme(cast)).status_code for key in (None, None, "a", "b")] == [201] * 4
    assert count(session) == 4


@pytest.mark.parametrize(
    "other",
    [
        {"description": "Another"},
        {"paused": True},
        {"tag_list": ["a"]},
        {"maximum_timeout": 600},
        {"runner_type": "project_type"},
        {"token_expires_at": (now() + timedelta(days=9)).isoformat()},
    ],
)
def test_the_same_key_for_something_else_is_refused(
    script_of: ScriptOf, cast: Cast, session: Session, other: dict[str, Any]
) -> None:
    script = script_of(cast.alice)
    send(script, KEY, **in_acme(cast))
    refused = send(script, KEY, **{**in_acme(cast, project_id=cast.web.id), **other})
    assert refused.status_code == 422
    assert "Idempotency-Key was sent before with other values" in refused.get_json()["message"]
    assert count(session) == 1


def test_the_same_said_otherwise_is_the_same(app: Flask, cast: Cast, session: Session) -> None:
    """JSON or a form, defaults written or not: what counts is what is asked for."""
    headers = {"PRIVATE-TOKEN": cast.access_token(cast.alice), "Idempotency-Key": KEY}
    client = app.test_client()
    first = client.post("/api/v4/user/runners", json=in_acme(cast, tag_list=["a", "b"]), headers=headers)
    form = {**in_acme(cast), "tag_list": "a,b", "run_untagged": "true", "paused": "false"}
    again = client.post("/api/v4/user/runners", data=form, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert count(session) == 1


def test_an_end_of_the_token_is_compared_as_it_was_asked_for(
    script_of: ScriptOf, cast: Cast, session: Session
) -> None:
    end = (now() + timedelta(days=9)).isoformat()
    first, again = (send(script_of(cast.alice), KEY, **in_acme(cast, token_expires_at=end)) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.get_json()["token_expires_at"] == again.get_json()["token_expires_at"] is not None


def test_the_end_of_a_short_life_that_has_come_nearer_since_is_no_obstacle(
    script_of: ScriptOf, cast: Cast, session: Session
) -> None:
    script, end = script_of(cast.alice), (now() + timedelta(hours=1, seconds=1)).isoformat()
    first = send(script, KEY, **in_acme(cast, token_expires_at=end))
    time.sleep(1.6)
    again, other = (send(script, key, **in_acme(cast, token_expires_at=end)) for key in (KEY, "another"))
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 400)
    assert other.get_json()["error"].startswith("token_expires_at does not have a valid value: from 1 hour")
    assert again.get_json()["id"] == first.get_json()["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "two words", "tab\tbed", "Schlüssel"])
def test_what_is_no_key_is_refused_before_anything_is_made(
    script_of: ScriptOf, cast: Cast, session: Session, key: str
) -> None:
    refused = send(script_of(cast.alice), key, **in_acme(cast))
    assert refused.status_code == 400
    assert refused.get_json()["message"].startswith("400 Bad request - Idempotency-Key must be 1 to 255 visible")
    assert count(session) == 0


@pytest.mark.parametrize("key", ["x" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "~"])
def test_what_is_a_key_is_taken(script_of: ScriptOf, cast: Cast, key: str) -> None:
    assert send(script_of(cast.alice), key, **in_acme(cast)).status_code == 201


def test_a_refused_creation_uses_no_key_up(script_of: ScriptOf, cast: Cast, session: Session) -> None:
    script = script_of(cast.alice)
    assert send(script, KEY, **in_acme(cast, maximum_timeout=1)).status_code == 400
    assert send(script, KEY, **in_acme(cast)).status_code == 201


def test_a_full_scope_still_answers_what_it_has_made(script_of: ScriptOf, cast: Cast, session: Session) -> None:
    scope_settings.own_for_update(session, cast.acme).ci_registered_group_runners = 1
    session.commit()
    script = script_of(cast.alice)
    assert send(script, KEY, **in_acme(cast)).status_code == 201
    assert send(script, KEY, **in_acme(cast)).status_code == 200
    assert send(script, "another", **in_acme(cast)).status_code == 400


def test_who_may_not_create_there_any_more_hears_nothing_of_it(
    script_of: ScriptOf, cast: Cast, session: Session
) -> None:
    script = script_of(cast.alice)
    send(script, KEY, **in_acme(cast))
    session.execute(delete(Membership).where(Membership.user_id == cast.alice.id))
    session.commit()
    assert send(script, KEY, **in_acme(cast)).get_json() == {"message": "404 Group Not Found"}


def test_a_runner_that_was_deleted_since_is_named_and_no_other_is_made(
    script_of: ScriptOf, cast: Cast, session: Session
) -> None:
    script = script_of(cast.alice)
    runner_id = send(script, KEY, **in_acme(cast)).get_json()["id"]
    script.delete(f"/runners/{runner_id}")
    refused = send(script, KEY, **in_acme(cast))
    said = refused.get_json()["message"]
    assert refused.status_code == 409
    assert said.startswith("409 Conflict - This Idempotency-Key was sent before")
    assert "can restore it" in said
    assert "send another key" in said
    assert send(script, "another", **in_acme(cast)).status_code == 201


def test_after_a_reset_the_same_runner_is_answered_with_the_end_of_its_token(
    script_of: ScriptOf, cast: Cast, session: Session
) -> None:
    script = script_of(cast.alice)
    runner_id = send(script, KEY, **in_acme(cast)).get_json()["id"]
    token = script.post(f"/runners/{runner_id}/reset_authentication_token")["token"]
    again = send(script, KEY, **in_acme(cast))
    assert (again.status_code, again.get_json()["id"]) == (200, runner_id)
    assert token not in again.get_data(as_text=True)


def test_neither_the_key_nor_who_chose_it_stands_in_the_database(
    script_of: ScriptOf, cast: Cast, session: Session
) -> None:
    send(script_of(cast.alice), KEY, **in_acme(cast))
    row = session.scalars(select(RunnerToken)).one()
    assert row.request_key is not None
    assert row.request_digest is not None
    assert KEY not in str(row.request_key)


# Together


@pytest.mark.parametrize("most", [0, 1])
def test_eight_at_once_make_one_runner(process: Process, most: int) -> None:
    with process.session() as session:
        cast = Cast(session)
        token, wanted = cast.access_token(cast.alice), in_acme(cast)
        scope_settings.own_for_update(session, cast.acme).ci_registered_group_runners = most
        session.commit()

    def one() -> TestResponse:
        return send(Script(process.app.test_client(), token), KEY, **wanted)

    answers = at_once(*[one] * 8)
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.get_json()["id"] for answer in answers}) == 1
    assert sum(answer.get_json()["token"] is not None for answer in answers) == 1
    with process.session() as session:
        assert (count(session), count(session, RunnerToken)) == (1, 1)


def test_eight_at_once_that_want_two_things_make_one_and_refuse_the_other(process: Process) -> None:
    with process.session() as session:
        cast = Cast(session)
        token, wanted = cast.access_token(cast.alice), in_acme(cast)

    def ask(description: str) -> Callable[[], TestResponse]:
        asked = {**wanted, "description": description}
        return lambda: send(Script(process.app.test_client(), token), KEY, **asked)

    answers = at_once(*[ask("one"), ask("other")] * 4)
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] * 3 + [201] + [422] * 4
    with process.session() as session:
        assert count(session) == 1
