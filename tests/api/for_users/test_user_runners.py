"""`POST /user/runners`, and `POST /runners` with an access token: who may create what, and what they hear."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.groups import scope_settings
from portal.domain.registration.registration import Configured
from portal.domain.scopes import INSTANCE
from portal.models import AuditEvent, Runner
from tests.api.for_users.conftest import ScriptOf
from tests.api.for_users.scripts import Script
from tests.api.for_users.test_runners import sense
from tests.api.machines import Machine, through
from tests.api.registering import GONE, Office
from tests.api.test_any_body import anything, calm, texts
from tests.cast import Cast

BOTH = pytest.mark.parametrize("path", ["/user/runners", "/runners"])
ALL = {
    "description": "Linux build fleet",
    "maintenance_note": "Ask Alice",
    "paused": True,
    "locked": True,
    "access_level": "ref_protected",
    "run_untagged": False,
    "tag_list": ["docker", "linux"],
    "maximum_timeout": 3600,
}


@pytest.fixture
def office(configured: Configured, session: Session) -> Office:
    return Office(configured, session)


def count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Runner)) or 0


def in_acme(cast: Cast, **more: Any) -> dict[str, Any]:
    return {"runner_type": "group_type", "group_id": cast.acme.id, **more}


def in_web(cast: Cast, **more: Any) -> dict[str, Any]:
    return {"runner_type": "project_type", "project_id": cast.web.id, **more}


@BOTH
def test_alice_creates_a_runner_of_her_group_with_everything_that_can_be_chosen(
    script_of: ScriptOf, cast: Cast, session: Session, path: str
) -> None:
    made = script_of(cast.alice, "create_runner").post(path, **in_acme(cast, **ALL))
    assert set(made) == {"id", "token", "token_expires_at"}
    assert made["token"].startswith("glrt-t2_")
    assert made["token_expires_at"] is None
    shown = script_of(cast.alice).get(f"/runners/{made['id']}")
    assert {name: shown[name] for name in ALL} == ALL
    assert shown["created_by"]["username"] == "alice"
    event = session.scalars(select(AuditEvent).where(AuditEvent.action == "runner_created")).one()
    assert (event.actor_kind, event.scope_path) == ("access_token", "acme")
    assert made["token"] not in str(event.changes)


@BOTH
def test_the_defaults_are_gitlabs(script_of: ScriptOf, cast: Cast, path: str) -> None:
    made = script_of(cast.bob).post(path, **in_web(cast))
    shown = script_of(cast.bob).get(f"/runners/{made['id']}")
    assert made["token"].startswith("glrt-t3_")
    assert {name: shown[name] for name in ALL} == {
        "description": "",
        "maintenance_note": "",
        "paused": False,
        "locked": False,
        "access_level": "not_protected",
        "run_untagged": True,
        "tag_list": [],
        "maximum_timeout": None,
    }


def test_a_form_says_the_same_as_json(app: Flask, script_of: ScriptOf, cast: Cast) -> None:
    form = {**in_web(cast), "tag_list": "docker, linux,docker", "locked": "true", "maximum_timeout": "700"}
    token = {"PRIVATE-TOKEN": cast.access_token(cast.bob, "create_runner")}
    for path in ("/user/runners", "/runners"):
        answer = app.test_client().post(f"/api/v4{path}", data=form, headers=token)
        assert answer.status_code == 201, answer.get_data()
        shown = script_of(cast.bob).get(f"/runners/{answer.get_json()['id']}")
        assert (shown["tag_list"], shown["locked"], shown["maximum_timeout"]) == (["docker", "linux"], True, 700)


@BOTH
def test_the_token_works_for_a_machine_and_is_kept_nowhere_on_the_way(
    app: Flask, script_of: ScriptOf, cast: Cast, path: str
) -> None:
    answer = script_of(cast.alice).ask("POST", path, **in_acme(cast))
    assert answer.headers["Cache-Control"] == "no-store"
    machine = Machine(through(app.test_client()), answer.get_json()["token"])
    assert machine.verify().json["id"] == answer.get_json()["id"]


@pytest.mark.parametrize(
    ("who", "kind", "status"),
    [
        ("dana", "instance", 201),
        ("alice", "instance", 403),
        ("charlie", "instance", 403),
        ("dana", "group", 201),
        ("alice", "group", 201),
        ("erin", "group", 403),
        ("bob", "group", 404),
        ("charlie", "group", 404),
        ("dana", "project", 201),
        ("alice", "project", 201),
        ("bob", "project", 201),
        ("erin", "project", 403),
        ("charlie", "project", 404),
    ],
)
@BOTH
def test_who_may_create_where(
    script_of: ScriptOf, cast: Cast, session: Session, path: str, who: str, kind: str, status: int
) -> None:
    wanted = {"instance": {"runner_type": "instance_type"}, "group": in_acme(cast), "project": in_web(cast)}[kind]
    said = script_of(getattr(cast, who)).post(path, expect=status, **wanted)
    assert count(session) == (status == 201)
    if status == 403:
        assert said["message"].startswith("403 Forbidden - You may not create, change or delete its runners")
    if status == 404:
        assert said == {"message": f"404 {kind.capitalize()} Not Found"}


@BOTH
def test_what_is_hidden_and_what_does_not_exist_are_answered_alike(
    script_of: ScriptOf, cast: Cast, session: Session, path: str
) -> None:
    script = script_of(cast.alice)
    for kind, hidden in (("group", cast.other.id), ("project", cast.project("secret", cast.other).id)):
        session.commit()
        answers = [
            script.ask("POST", path, **{"runner_type": f"{kind}_type", f"{kind}_id": number})
            for number in (hidden, 987654321, 2**63 - 1)
        ]
        assert {answer.get_data() for answer in answers} == {answers[0].get_data()}
        assert {answer.status_code for answer in answers} == {404}


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({}, "runner_type is missing"),
        ({"runner_type": "group_type"}, "group_id is missing"),
        ({"runner_type": "project_type", "group_id": 1}, "project_id is missing"),
        ({"runner_type": "group_type", "group_id": "acme"}, "group_id is invalid"),
        ({"runner_type": "group_type", "group_id": 0}, "group_id does not have a valid value"),
        ({"runner_type": "fleet"}, "runner_type does not have a valid value"),
        ({"runner_type": "instance_type", "access_level": "x"}, "access_level does not have a valid value"),
        ({"runner_type": "instance_type", "paused": "perhaps"}, "paused is invalid"),
        ({"runner_type": "instance_type", "tag_list": [1]}, "tag_list is invalid"),
        ({"runner_type": "instance_type", "maximum_timeout": "long"}, "maximum_timeout is invalid"),
        ({"runner_type": "instance_type", "token_expires_at": "soon"}, "token_expires_at is invalid"),
        ({"runner_type": "instance_type", "token_expires_at": "2020-01-01"}, "token_expires_at does not have"),
        ({"runner_type": "instance_type", "token_expires_at": "9999-01-01"}, "token_expires_at does not have"),
    ],
)
@BOTH
def test_parameters_of_a_wrong_kind_are_named(
    script_of: ScriptOf, cast: Cast, session: Session, path: str, wanted: dict[str, Any], said: str
) -> None:
    assert script_of(cast.dana).post(path, expect=400, **wanted)["error"].startswith(said)
    assert count(session) == 0


TAGLESS = "Tags list can not be empty when runner is not allowed to pick untagged jobs"
SHORT = "Maximum timeout needs to be at least 10 minutes"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"run_untagged": False}, TAGLESS),
        ({"tag_list": [f"t{n}" for n in range(51)]}, "Tags list Too many tags specified. Please limit the number of"),
        ({"maximum_timeout": 599}, SHORT),
        ({"description": "x" * 1025}, "Description is too long (maximum is 1024 characters)"),
        ({"run_untagged": False, "maximum_timeout": 1}, f"{TAGLESS} and {SHORT}"),
        (
            {"run_untagged": False, "maximum_timeout": 1, "maintenance_note": "x" * 1025},
            f"Maintenance note is too long (maximum is 1024 characters), {TAGLESS}, and {SHORT}",
        ),
    ],
)
@BOTH
def test_values_that_cannot_be_taken_are_told_in_one_sentence_as_gitlab_joins_them(
    script_of: ScriptOf, cast: Cast, session: Session, path: str, wanted: dict[str, Any], said: str
) -> None:
    message = script_of(cast.alice).post(path, expect=400, **in_acme(cast, **wanted))["message"]
    assert message.startswith(f"400 Bad request - {said}")
    assert count(session) == 0


@BOTH
def test_a_full_group_says_so_in_gitlabs_words_and_what_to_do(
    script_of: ScriptOf, cast: Cast, session: Session, path: str
) -> None:
    scope_settings.own_for_update(session, cast.acme).ci_registered_group_runners = 1
    cast.runner()
    message = script_of(cast.alice).post(path, expect=400, **in_acme(cast))["message"]
    assert "Maximum number of ci registered group runners (1) exceeded" in message
    assert "ask an administrator of this portal" in message


@pytest.mark.parametrize("scope", ["read_api", "manage_runner"])
@BOTH
def test_a_token_for_something_else_creates_nothing(script_of: ScriptOf, cast: Cast, path: str, scope: str) -> None:
    said = script_of(cast.alice, scope).post(path, expect=403, **in_acme(cast))
    assert (said["error"], said["scope"]) == ("insufficient_scope", "api create_runner")


def test_the_small_token_opens_nothing_else(script_of: ScriptOf, cast: Cast) -> None:
    runner_id = cast.runner().runner.id
    script = script_of(cast.alice, "create_runner")
    script.get(f"/runners/{runner_id}", expect=403)
    script.put(f"/runners/{runner_id}", expect=403, paused=True)
    script.delete(f"/runners/{runner_id}", expect=403)


def test_nobody_creates_a_runner(nobody: Script) -> None:
    refused = nobody.post("/user/runners", expect=401, runner_type="instance_type")
    assert refused["message"] == "401 Unauthorized"


@BOTH
def test_a_misspelt_parameter_of_a_new_runner_is_named(script_of: ScriptOf, cast: Cast, path: str) -> None:
    alice = script_of(cast.alice)
    answer = alice.ask("POST", path, **in_acme(cast, tags_list=["docker"]))
    assert (answer.status_code, answer.headers["X-Unknown-Parameters"]) == (201, "tags_list")
    refused = alice.ask("POST", path, runner_type="fleet", tags_list=["docker"])
    assert (refused.status_code, refused.headers["X-Unknown-Parameters"]) == (400, "tags_list")
    assert "X-Unknown-Parameters" not in alice.ask("POST", path, **in_acme(cast)).headers


def test_the_token_may_be_given_an_end(script_of: ScriptOf, cast: Cast) -> None:
    script = script_of(cast.alice)
    end = now() + timedelta(days=7)
    made = script.post("/user/runners", **in_acme(cast, token_expires_at=end.isoformat()))
    assert abs(datetime.fromisoformat(made["token_expires_at"]) - end) < timedelta(seconds=2)
    naive = (now() + timedelta(hours=2)).replace(tzinfo=None).isoformat()
    script.post("/user/runners", **in_acme(cast, token_expires_at=naive))
    assert script.post("/user/runners", **in_acme(cast, token_expires_at=None))["token_expires_at"] is None


# The path that machines have too


def test_a_person_creates_where_registration_tokens_are_off_and_a_machine_does_not_register(
    script_of: ScriptOf, cast: Cast, client: Any, office: Office
) -> None:
    registration_token = office.token(cast.acme)
    office.turn_off(INSTANCE)
    machine = Machine(through(client), registration_token, None)
    assert machine.register().message.startswith(GONE)
    assert set(script_of(cast.alice).post("/runners", **in_acme(cast))) == {"id", "token", "token_expires_at"}


def test_a_machine_registers_as_before_whatever_its_headers_say(client: Any, cast: Cast, office: Office) -> None:
    """Clients 16.10 to 17.10 repeat the token of the body as PRIVATE-TOKEN, newer ones as RUNNER-TOKEN."""
    token = office.token(cast.acme)
    for headers in (
        {"PRIVATE-TOKEN": token},
        {"RUNNER-TOKEN": token},
        {"PRIVATE-TOKEN": cast.access_token(cast.alice)},
        {"Authorization": f"Bearer {cast.access_token(cast.alice)}"},
    ):
        answer = Machine(through(client), token, None, headers=headers).register(description="box")
        assert answer.status == 201, (headers, answer)
        assert answer.json["token"].startswith("glrtr-")


@pytest.mark.parametrize("shown", ["glrt-t1_x", "glrtr-t1_x", "GR1348941x"])
def test_a_machine_that_forgets_its_token_in_the_body_hears_what_it_always_heard(
    client: Any, cast: Cast, shown: str
) -> None:
    for headers in ({"PRIVATE-TOKEN": shown}, {"Authorization": f"Bearer {shown}"}, {"Runner-Token": ""}, {}):
        answer = client.post("/api/v4/runners", json={"description": "box"}, headers=headers)
        assert (answer.status_code, answer.get_json()) == (400, {"message": "400 Bad Request - token is missing"})
    with_both = {"PRIVATE-TOKEN": cast.access_token(cast.alice), "Runner-Token": shown}
    assert client.post("/api/v4/runners", json=in_acme(cast), headers=with_both).status_code == 403


def test_a_bad_access_token_at_the_machines_path_is_refused_as_everywhere(app: Flask, cast: Cast) -> None:
    answer = Script(app.test_client(), "glpat-mistyped").ask("POST", "/runners", **in_acme(cast))
    assert (answer.status_code, answer.get_json()["error"]) == (401, "invalid_token")
    assert "WWW-Authenticate" in answer.headers


def test_the_machines_path_counts_a_script_like_the_other_one(script_of: ScriptOf, cast: Cast) -> None:
    script = script_of(cast.alice)
    made, refused = script.ask("POST", "/runners", **in_acme(cast)), script.ask("POST", "/runners")
    assert (made.headers["RateLimit-Limit"], made.headers["RateLimit-Remaining"]) == ("2000", "1999")
    assert (refused.status_code, refused.headers["RateLimit-Remaining"]) == (400, "1998")


def test_an_empty_token_in_the_body_is_none(script_of: ScriptOf, cast: Cast) -> None:
    for token in ("", None):
        script_of(cast.alice).post("/runners", **in_acme(cast, token=token))


@calm
@given(
    body=st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys((*ALL, "group_id", "project_id", "token_expires_at"), anything | texts),
            "runner_type": st.sampled_from(["instance_type", "group_type", "project_type"]) | anything,
        },
    )
    | anything,
    path=st.sampled_from(["/user/runners", "/runners"]),
    key=st.none() | st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=300),
)
def test_whatever_is_sent_is_answered_with_sense(danas: Script, body: Any, path: str, key: str | None) -> None:
    sense(danas, "POST", path, body, key)
