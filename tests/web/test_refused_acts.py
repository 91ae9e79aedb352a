"""Refused acts on the trail: every one that would have changed something, and no look."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.registration.registration import Configured
from portal.domain.trail import refused_acts
from portal.domain.trail.refused_acts import SECONDS, Flood
from portal.models import AuditEvent, Role
from tests.api.registering import Office
from tests.cast import Cast, csrf_of, sign_in
from tests.web.reading import words


def post(client: FlaskClient, address: str, **fields: str) -> int:
    """Send a form that the person was never shown, with a good CSRF token."""
    csrf = csrf_of(client.get("/-/account/password").get_data(as_text=True))
    return client.post(address, data={"csrf_token": csrf, **fields}).status_code


def told(session: Session, action: str) -> list[AuditEvent]:
    session.expire_all()
    return list(session.scalars(select(AuditEvent).where(AuditEvent.action == action).order_by(AuditEvent.id)))


@pytest.mark.parametrize(
    ("who", "address", "status", "answer", "wanted", "path"),
    [
        ("erin", "/groups/acme/-/members", 403, "not allowed", "change its members", "acme"),
        ("charlie", "/groups/acme/-/runners/new", 404, "not found", "see this", "acme"),
        ("charlie", "/acme/web/-/members", 404, "not found", "see this", "acme/web"),
        ("alice", "/admin/people/new", 404, "not found", "see this", ""),
    ],
)
def test_a_refused_act_is_told_with_who_what_and_where(
    cast: Cast, client: FlaskClient, session: Session, who: str, address: str, status: int, answer: str,
    wanted: str, path: str,
) -> None:  # fmt: skip
    sign_in(client, who)
    assert post(client, address, tags="docker") == status
    (event,) = told(session, "act_refused")
    assert (event.actor_kind, event.actor_id) == ("user", getattr(cast, who).id)
    assert (event.scope_path, event.address) == (path, "127.0.0.1")
    assert event.request_id
    assert event.changes["answer"] == [None, answer]
    assert event.changes["request"] == [None, f"POST {address}"]
    assert event.changes["wanted"] == [None, wanted]


def test_it_stands_in_the_trail_of_the_place_in_words(cast: Cast, client: FlaskClient, session: Session) -> None:
    post(sign_in(client, "erin"), "/groups/acme/-/members", login="charlie", role="10")
    post(sign_in(client.application.test_client(), "charlie"), "/acme/web/-/members")
    alice = sign_in(client.application.test_client(), "alice")
    page = alice.get("/groups/acme/-/trail").get_data(as_text=True)
    newest, before = [words(each) for each in page.split('<div class="event-what">')[1:3]]
    assert newest.startswith("Charlie Fox was refused an act in acme/web answer: not found")
    assert before.startswith("Erin Day was refused to change members in acme answer: not allowed")


def test_a_refused_deletion_by_script_is_told_as_one(cast: Cast, client: FlaskClient) -> None:
    runner_id = cast.runner().runner.id
    cast.member(cast.bob, cast.acme, Role.MAINTAINER)
    cast.session.commit()
    token = cast.access_token(cast.bob)
    refused = client.delete(f"/api/v4/runners/{runner_id}", headers={"PRIVATE-TOKEN": token})
    assert refused.status_code == 403
    page = sign_in(client, "alice").get("/groups/acme/-/trail").get_data(as_text=True)
    newest = next(each for each in map(words, page.split('<div class="event-what">')) if "was refused" in each)
    assert "was refused to create, change or delete runners in acme answer: not allowed" in newest
    assert f"request: DELETE /api/v4/runners/{runner_id}" in newest


def test_a_refused_look_is_not_told_since_no_get_changes_anything(
    cast: Cast, client: FlaskClient, session: Session
) -> None:
    sign_in(client, "charlie")
    assert client.get("/groups/acme/-/runners").status_code == 404
    assert client.head("/groups/acme/-/runners").status_code == 404
    assert told(session, "act_refused") == []


def test_what_does_not_exist_is_not_told(cast: Cast, client: FlaskClient, session: Session) -> None:
    sign_in(client, "charlie")
    assert post(client, "/groups/nowhere/-/runners/new") == 404
    assert told(session, "act_refused") == []


def test_a_forged_form_is_refused_before_anybody_asks_who_may(
    cast: Cast, client: FlaskClient, session: Session
) -> None:
    sign_in(client, "charlie")
    assert client.post("/groups/acme/-/runners/new", data={"csrf_token": "forged"}).status_code == 400
    assert told(session, "act_refused") == []


def test_nothing_of_the_form_is_told(cast: Cast, client: FlaskClient, session: Session) -> None:
    post(sign_in(client, "erin"), "/groups/acme/-/runners/new", description="hunter2", tags="docker")
    (event,) = told(session, "act_refused")
    assert "hunter2" not in str(event.changes)


def test_a_trail_that_cannot_be_written_does_not_change_the_refusal(
    cast: Cast, client: FlaskClient, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(refused_acts, "record", fail)
    assert post(sign_in(client, "erin"), "/groups/acme/-/runners/new", tags="docker") == 403


# Registrations by machines


def register(client: FlaskClient, token: str, address: str = "192.0.2.1") -> int:
    body = {"token": token, "description": "box"}
    return client.post("/api/v4/runners", json=body, environ_overrides={"REMOTE_ADDR": address}).status_code


@pytest.fixture(autouse=True)
def _forgotten(app: Flask) -> None:
    app.extensions["refused_registrations"] = Flood(each=1, most=60)
    app.extensions["refused_acts"] = Flood(each=30, most=600)


def test_a_registration_with_nobodys_token_is_told_without_the_token(
    cast: Cast, client: FlaskClient, session: Session
) -> None:
    assert register(client, "GR1348941nobodysnobodysnobody") == 403
    (event,) = told(session, "registration_refused")
    assert (event.actor_kind, event.address, event.scope_kind) == ("visitor", "192.0.2.1", "instance")
    assert event.changes == {"because": [None, "nobody has this registration token"]}


def test_a_registration_where_that_is_off_is_told_in_its_scope(
    cast: Cast, client: FlaskClient, session: Session, configured: Configured
) -> None:
    office = Office(configured, session)
    token = office.token(cast.acme)
    office.turn_off(cast.acme)
    assert register(client, token) == 410
    (event,) = told(session, "registration_refused")
    assert (event.scope_path, event.changes) == ("acme", {"because": [None, "registration tokens are off"]})
    assert token not in str(event.changes)


def test_a_flood_of_bad_tokens_leaves_one_event_for_each_address(
    cast: Cast, client: FlaskClient, session: Session
) -> None:
    for number in range(20):
        register(client, f"GR1348941{number:020}", f"192.0.2.{number % 2}")
    assert len(told(session, "registration_refused")) == 2


def test_a_flood_of_refused_acts_leaves_so_many_events_a_minute_of_each_person(
    cast: Cast, client: FlaskClient, session: Session, app: Flask
) -> None:
    flood = app.extensions["refused_acts"] = Flood(each=3, most=600)
    erin_id = str(cast.erin.id)
    sign_in(client, "erin")
    for _ in range(5):
        assert post(client, "/groups/acme/-/members") == 403
    post(sign_in(app.test_client(), "charlie"), "/acme/web/-/members")
    assert [event.actor_name for event in told(session, "act_refused")] == ["Erin Day"] * 3 + ["Charlie Fox"]
    flood._known[erin_id] = (flood._known[erin_id][0] - SECONDS, *flood._known[erin_id][1:])  # a minute goes by
    post(client, "/groups/acme/-/members")
    assert told(session, "act_refused")[-1].changes["not_recorded_before"] == [None, 2]


class TestFlood:
    def test_so_many_for_each_key_and_minute_and_the_others_are_counted(self) -> None:
        flood = Flood(each=1, most=60)
        assert [flood.take("a", at) for at in (0.0, 1.0, 59.0)] == [0, None, None]
        assert flood.take("b", 59.0) == 0
        assert flood.take("a", 60.0) == 2
        assert flood.take("a", 120.0) == 0
        twice = Flood(each=2, most=60)
        assert [twice.take("a", at) for at in (0.0, 1.0, 2.0, 60.0, 61.0)] == [0, 0, None, 1, 0]

    def test_no_more_than_so_many_a_minute_from_all_keys_together(self) -> None:
        flood = Flood(each=1, most=3)
        assert [flood.take(each, 0.0) for each in "abcde"] == [0, 0, 0, None, None]
        assert flood.take("e", 61.0) == 1

    def test_it_does_not_grow_without_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(refused_acts, "KEYS", 10)
        flood = Flood(each=1, most=1_000_000)
        for number in range(1000):
            flood.take(str(number), float(number * 10))
        assert len(flood._known) <= 11
