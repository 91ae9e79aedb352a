"""Resetting registration tokens by script: who may, what it ends, and that it is refused while they are off."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.groups import scope_settings
from portal.domain.registration.registration import Configured
from portal.domain.scopes import INSTANCE, Scope
from portal.models import AuditEvent, RegistrationToken
from tests.api.for_users.conftest import ScriptOf
from tests.api.for_users.scripts import Script
from tests.api.machines import Machine, through
from tests.api.registering import NOBODYS, Office
from tests.cast import Cast

RESET = "runners/reset_registration_token"
PLACES = {"instance": "", "group": "/groups/acme", "project": "/projects/acme%2Fweb"}
KINDS = pytest.mark.parametrize("kind", list(PLACES))


@pytest.fixture
def office(configured: Configured, session: Session) -> Office:
    return Office(configured, session)


def scope_of(cast: Cast, kind: str) -> Scope:
    return {"instance": INSTANCE, "group": cast.acme, "project": cast.web}[kind]


@KINDS
def test_the_new_token_registers_and_the_old_one_has_ended(
    script_of: ScriptOf, cast: Cast, client: Any, session: Session, office: Office, kind: str
) -> None:
    old = office.token(scope_of(cast, kind))
    who = {"instance": cast.dana, "group": cast.alice, "project": cast.bob}[kind]
    answer = script_of(who).ask("POST", f"{PLACES[kind]}/{RESET}")
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    new = answer.get_json()
    assert set(new) == {"token", "token_expires_at"}
    assert new["token"].startswith("GR1348941")
    assert new["token_expires_at"] is None
    assert Machine(through(client), new["token"], None).register().status == 201
    assert Machine(through(client), old, None).register().message.startswith(NOBODYS)
    event = session.scalars(select(AuditEvent).where(AuditEvent.action == "registration_token_reset")).one()
    assert new["token"] not in str(event.changes)


@KINDS
def test_the_first_one_is_made_so_too(script_of: ScriptOf, cast: Cast, client: Any, kind: str) -> None:
    new = script_of(cast.dana).post(f"{PLACES[kind]}/{RESET}")["token"]
    assert Machine(through(client), new, None).register().status == 201


@pytest.mark.parametrize(
    ("who", "kind", "status"),
    [
        ("alice", "instance", 403),
        ("charlie", "instance", 403),
        ("erin", "group", 403),
        ("bob", "group", 404),
        ("charlie", "group", 404),
        ("erin", "project", 403),
        ("charlie", "project", 404),
    ],
)
def test_others_reset_none(
    script_of: ScriptOf, cast: Cast, session: Session, office: Office, who: str, kind: str, status: int
) -> None:
    token = office.token(scope_of(cast, kind))
    said = script_of(getattr(cast, who)).post(f"{PLACES[kind]}/{RESET}", expect=status)["message"]
    if status == 404:
        assert said == f"404 {kind.capitalize()} Not Found"
    assert office.token(scope_of(cast, kind)) == token


@KINDS
def test_while_they_are_off_they_are_not_reset(
    script_of: ScriptOf, cast: Cast, session: Session, office: Office, kind: str
) -> None:
    token = office.token(scope_of(cast, kind))
    office.turn_off(INSTANCE)
    said = script_of(cast.dana).post(f"{PLACES[kind]}/{RESET}", expect=403)["message"]
    assert said.startswith("403 Forbidden - An administrator turned registration tokens off for the whole portal.")
    assert "POST /api/v4/user/runners" in said
    session.expire_all()
    live = session.scalars(select(RegistrationToken).where(RegistrationToken.ended_at.is_(None))).all()
    assert [office.configured.vault.open(each.ciphertext or b"") for each in live] == [token]


def test_where_nobody_may_create_runners_nobody_resets(script_of: ScriptOf, cast: Cast, session: Session) -> None:
    scope_settings.own_for_update(session, INSTANCE).valid_runner_registrars = ["project"]
    session.commit()
    said = script_of(cast.alice).post(f"/groups/acme/{RESET}", expect=403)["message"]
    assert "let nobody else create runners in groups" in said


@KINDS
def test_a_small_token_resets_none(script_of: ScriptOf, cast: Cast, nobody: Script, kind: str) -> None:
    for scope in ("read_api", "manage_runner", "create_runner"):
        said = script_of(cast.dana, scope).post(f"{PLACES[kind]}/{RESET}", expect=403)
        assert (said["error"], said["scope"]) == ("insufficient_scope", "api")
    nobody.post(f"{PLACES[kind]}/{RESET}", expect=401)


def test_what_does_not_exist_is_answered_as_what_is_hidden(script_of: ScriptOf, cast: Cast) -> None:
    script = script_of(cast.alice)
    for place in (cast.other.id, "other", "no/such/group", 987654321):
        assert script.post(f"/groups/{place}/{RESET}", expect=404) == {"message": "404 Group Not Found"}
