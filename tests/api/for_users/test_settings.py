"""The instance's settings by script: who reads and changes them, all or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.models import AuditEvent
from tests.api.for_users.conftest import ScriptOf
from tests.api.for_users.scripts import Script
from tests.cast import Cast

PATH = "/application/settings"
INSTALLED = {
    "id": 1,
    "allow_runner_registration_token": True,
    "runner_registration_token_allowed": True,
    "runner_registration_token_decided_by": None,
    "valid_runner_registrars": ["group", "project"],
    "runner_token_expiration_interval": None,
    "group_runner_token_expiration_interval": None,
    "project_runner_token_expiration_interval": None,
    "ci_registered_group_runners": 1000,
    "ci_registered_project_runners": 1000,
    "stale_runner_cleanup_days": None,
    "stale_runner_cleanup_legacy_only": False,
}


@pytest.fixture
def enforced(app: Flask) -> Iterator[None]:
    """The configuration has turned registration tokens off."""
    usual = app.extensions["registration"]
    app.extensions["registration"] = replace(usual, enforced=True)
    yield
    app.extensions["registration"] = usual


def test_an_administrator_reads_what_is_settled(script_of: ScriptOf, cast: Cast) -> None:
    assert script_of(cast.dana, "read_api").get(PATH) == INSTALLED


def test_others_neither_read_nor_change_it(script_of: ScriptOf, nobody: Script, cast: Cast) -> None:
    alice = script_of(cast.alice)
    assert "administrators may" in alice.get(PATH, expect=403)["message"]
    assert "administrators may" in alice.put(PATH, expect=403, ci_registered_group_runners=1)["message"]
    nobody.get(PATH, expect=401)
    assert script_of(cast.dana, "read_api").put(PATH, expect=403)["error"] == "insufficient_scope"


def test_everything_is_changed_with_one_event_for_each_thing(
    script_of: ScriptOf, session: Session, cast: Cast
) -> None:
    dana = script_of(cast.dana)
    before = session.scalar(select(func.max(AuditEvent.id)))
    wanted = {
        "allow_runner_registration_token": False,
        "valid_runner_registrars": ["group"],
        "runner_token_expiration_interval": 7200,
        "group_runner_token_expiration_interval": 86400,
        "project_runner_token_expiration_interval": 90000,
        "ci_registered_group_runners": 0,
        "ci_registered_project_runners": 50,
        "stale_runner_cleanup_days": 90,
        "stale_runner_cleanup_legacy_only": True,
    }
    changed = dana.put(PATH, **wanted)
    assert changed == INSTALLED | wanted | {
        "runner_registration_token_allowed": False,
        "runner_registration_token_decided_by": {"kind": "instance", "id": None, "full_path": None},
    }
    assert dana.get(PATH) == changed
    events = session.scalars(select(AuditEvent.action).where(AuditEvent.id > before).order_by(AuditEvent.id)).all()
    assert events == [
        "registration_tokens_turned_off",
        "runner_limits_changed",
        "token_life_changed",
        "stale_runner_cleanup_changed",
        "runner_creation_changed",
    ]


def test_what_is_read_can_be_sent_back_without_a_trace(script_of: ScriptOf, session: Session, cast: Cast) -> None:
    dana = script_of(cast.dana)
    before = session.scalar(select(func.count()).select_from(AuditEvent))
    assert dana.put(PATH, **dana.get(PATH)) == INSTALLED
    assert session.scalar(select(func.count()).select_from(AuditEvent)) == before


def test_a_form_changes_them_too_and_an_empty_list_closes_both(app: Flask, cast: Cast) -> None:
    headers = {"PRIVATE-TOKEN": cast.access_token(cast.dana)}
    form = {"valid_runner_registrars[]": "", "runner_token_expiration_interval": "7200"}
    changed = app.test_client().put(f"/api/v4{PATH}", data=form, headers=headers).get_json()
    assert (changed["valid_runner_registrars"], changed["runner_token_expiration_interval"]) == ([], 7200)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"runner_token_expiration_interval": 60}, "runner_token_expiration_interval"),
        ({"group_runner_token_expiration_interval": 10**12}, "group_runner_token_expiration_interval"),
        ({"ci_registered_group_runners": None}, "ci_registered_group_runners"),
        ({"ci_registered_project_runners": -1}, "ci_registered_project_runners"),
        ({"stale_runner_cleanup_days": 3}, "stale_runner_cleanup_days"),
        ({"stale_runner_cleanup_legacy_only": True}, "stale_runner_cleanup_legacy_only"),
    ],
)
def test_one_wrong_value_keeps_everything_as_it_was(
    script_of: ScriptOf, cast: Cast, wrong: dict[str, object], named: str
) -> None:
    dana = script_of(cast.dana)
    refused = dana.put(PATH, expect=400, allow_runner_registration_token=False, **wrong)
    assert list(refused["message"]) == [named]
    assert dana.get(PATH) == INSTALLED


def test_a_misspelt_setting_changes_nothing_and_is_named_in_a_header(script_of: ScriptOf, cast: Cast) -> None:
    answer = script_of(cast.dana).ask("PUT", PATH, allow_runner_registration_tokens=False, foo=1)
    assert (answer.status_code, answer.get_json()) == (200, INSTALLED)
    assert answer.headers["X-Unknown-Parameters"] == "allow_runner_registration_tokens, foo"


def test_unknown_registrars_and_wrong_kinds_are_named(script_of: ScriptOf, cast: Cast) -> None:
    dana = script_of(cast.dana)
    said = dana.put(PATH, expect=400, valid_runner_registrars=["group", "instance"])["error"]
    assert said == "valid_runner_registrars does not have a valid value: group, project"
    assert dana.put(PATH, expect=400, ci_registered_group_runners="many") == {
        "error": "ci_registered_group_runners is invalid: a whole number"
    }


def test_what_the_configuration_enforces_is_told_and_not_changed(
    script_of: ScriptOf, cast: Cast, enforced: None
) -> None:
    dana = script_of(cast.dana)
    shown = dana.get(PATH)
    assert (shown["allow_runner_registration_token"], shown["runner_registration_token_allowed"]) == (True, False)
    assert shown["runner_registration_token_decided_by"] == {"kind": "configuration", "id": None, "full_path": None}
    refused = dana.put(PATH, expect=403, allow_runner_registration_token=False, ci_registered_group_runners=1)
    assert "PORTAL_ENFORCE_CREATE_RUNNER_WORKFLOW" in refused["message"]
    assert dana.get(PATH)["ci_registered_group_runners"] == 1000
    decider = script_of(cast.erin).get("/groups/acme")["runner_registration_token_decided_by"]
    assert decider["kind"] == "configuration"


def test_only_an_empty_list_says_that_nobody_creates_runners(script_of: ScriptOf, cast: Cast) -> None:
    dana = script_of(cast.dana)
    assert dana.put(PATH, valid_runner_registrars=None)["valid_runner_registrars"] == ["group", "project"]
    assert dana.put(PATH, valid_runner_registrars=[])["valid_runner_registrars"] == []
