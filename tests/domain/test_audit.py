"""The trail: one event with each change, together or not at all, and never a secret."""

import re
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from portal.domain import audit
from portal.domain.groups import groups, memberships
from portal.domain.groups.groups import Naming
from portal.domain.runners import runner_tokens, runners
from portal.domain.scopes import INSTANCE, Scope
from portal.models import AuditEvent, Group, Membership, Role, Runner
from tests.cast import PASSWORD, TAGGED, Cast, send, sign_in

TOKEN = re.compile(r"glrtr?-t[123]_[0-9A-Za-z]{27}\.0r[0-9a-z]{7}")


def number(session: Session, model: Any) -> int:
    return session.scalar(select(func.count()).select_from(model)) or 0


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda s, c: runners.create_runner(s, c.as_(c.alice), c.acme, TAGGED), Runner),
        (lambda s, c: groups.create_group(s, c.as_(c.alice), c.acme, Naming("New", "newer")), Group),
        (lambda s, c: memberships.add(s, c.as_(c.alice), c.acme, "charlie", Role.GUEST), Membership),
        (lambda s, c: memberships.remove(s, c.as_(c.alice), c.acme, c.erin.id), Membership),
        (lambda s, c: groups.delete(s, c.as_(c.alice), c.platform), Group),
    ],
    ids=["runner created", "group created", "member added", "member removed", "group deleted"],
)
def test_a_change_and_its_one_event_are_stored_together_or_not_at_all(
    session: Session, cast: Cast, change: Any, what: Any
) -> None:
    things, events = number(session, what), number(session, AuditEvent)
    change(session, cast)
    session.flush()
    assert number(session, what) != things
    assert number(session, AuditEvent) == events + 1
    session.rollback()
    assert (number(session, what), number(session, AuditEvent)) == (things, events)


def told(session: Session, scope: Scope) -> list[tuple[str, str]]:
    return [(event.action, event.scope_path) for event in session.scalars(audit.of_scope(scope))]


def test_a_groups_trail_contains_what_is_below_and_nothing_beside_it(session: Session, cast: Cast) -> None:
    for scope in (cast.platform, cast.web, cast.acme, cast.other, INSTANCE):
        cast.runner(scope)
    created = "runner_created"
    assert told(session, cast.acme)[:3] == [(created, "acme"), (created, "acme/web"), (created, "acme/platform")]
    assert {path for _, path in told(session, cast.platform)} == {"acme/platform"}
    assert {path for _, path in told(session, cast.web)} == {"acme/web"}
    assert {path for _, path in told(session, cast.other)} == {"other"}
    assert told(session, INSTANCE)[:2] == [(created, ""), (created, "other")]


def test_a_trail_outlives_what_it_tells_about(session: Session, cast: Cast) -> None:
    runner = cast.runner(cast.web).runner
    number_, title = runner.id, runner.title
    runners.delete_runner(session, cast.as_(cast.bob), runner)
    groups.delete(session, cast.as_(cast.alice), cast.web)
    session.commit()
    events = session.scalars(audit.of_scope(cast.acme)).all()
    assert [event.action for event in events[:3]] == ["project_deleted", "runner_deleted", "runner_created"]
    assert (events[1].target_id, events[1].target_name, events[1].actor_name) == (number_, title, "Bob Ray")


def test_a_machines_change_is_told_by_its_short_token_and_address(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    minted = runner_tokens.reset_token_by_machine(
        session, issued.token, grace=timedelta(hours=1), address="192.0.2.55", request_id="r-1"
    )
    event = session.scalars(audit.of_runner(issued.runner).limit(1)).one()
    short = issued.record.short
    assert (event.actor_kind, event.actor_id, event.actor_name) == ("runner", issued.runner.id, f"runner {short}")
    assert (event.action, event.address, event.request_id) == ("runner_token_rotated", "192.0.2.55", "r-1")
    assert event.changes == {"token": [short, minted.record.short]}


def test_differences_are_what_is_not_the_same_before_and_after() -> None:
    old, new = {"a": 1, "b": 2, "c": None}, {"a": 1, "b": None, "c": 4}
    assert audit.differences(old, new) == {"b": (2, None), "c": (None, 4)}


def test_no_column_of_any_table_ever_holds_a_clear_token_or_password(
    app: Flask, client: FlaskClient, session: Session, cast: Cast
) -> None:
    sign_in(client, "alice")
    page = send(client, "/groups/acme/-/runners/new", tags="docker", description="Linux", expect=200)
    created = TOKEN.search(page.get_data(as_text=True))
    assert created
    machine = app.test_client()
    body = {"token": created[0], "system_id": "s_1", "info": {"version": "18.5.0", "config": {"gpus": ""}}}
    assert machine.post("/api/v4/runners/verify", json=body).status_code == 200
    assert machine.post("/api/v4/jobs/request", json=body).status_code == 204
    answer = machine.post("/api/v4/runners/reset_authentication_token", json=body)
    minted = answer.get_json()["token"]
    assert machine.post("/api/v4/jobs/request", json={**body, "token": minted}).status_code == 204
    runner_id = session.scalars(select(Runner.id)).one()
    page = send(client, f"/groups/acme/-/runners/{runner_id}/reset-token", expect=200)
    reset = TOKEN.search(page.get_data(as_text=True))
    assert reset
    sign_in(app.test_client(), "dana").get(f"/admin/runners/{runner_id}")
    rows = every_row(session)
    assert any(created[0][8:17] in row for row in rows), "the short form is kept, or this test reads nothing"
    for secret in (created[0], minted, reset[0]):
        tail = secret[17:35]  # what follows the short form
        assert not [row for row in rows if tail in row or tail.encode().hex() in row]
    assert not [row for row in rows if PASSWORD in row]


def every_row(session: Session) -> list[str]:
    """Every row of every table of the database as one text, byte columns in hexadecimal."""
    tables = session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
    assert {"users", "ci_runners", "ci_runner_tokens", "audit_events"} <= set(tables)
    return [row for table in tables for row in session.scalars(text(f'SELECT t::text FROM "{table}" t'))]  # noqa: S608
