"""Turning registration tokens off and on: who may, what it would do, and that it can be undone."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from portal.domain import audit, registration, registration_switch, runners
from portal.domain.errors import NotAllowed, NotFound
from portal.domain.registration import Configured, Registering
from portal.domain.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE, Scope
from portal.models import LEGACY, Runner, RunnerManager
from tests.cast import Cast
from tests.domain.clock import let_pass


def switch(
    session: Session, cast: Cast, configured: Configured, scope: Scope, who: str = "alice", *, allow: bool = False
) -> bool:
    actor = cast.as_(getattr(cast, who))
    return registration_switch.switch(session, actor, scope, allow=allow, configured=configured)


def register(session: Session, cast: Cast, configured: Configured, scope: Scope, name: str, address: str) -> Runner:
    row = registration.make_token(session, cast.as_(cast.dana), scope, configured)
    text = configured.vault.open(row.ciphertext or b"") or ""
    wanted = Registering(text, RunnerSettings(description=name, run_untagged=True), address=address)
    return registration.register(session, configured, wanted).runner


def machine(session: Session, runner: Runner, system_id: str) -> None:
    session.add(
        RunnerManager(runner_id=runner.id, system_xid=system_id, ip_address="198.51.100.7", version="13.12.0")
    )
    session.flush()


def test_an_owner_turns_the_group_off_and_on_again(session: Session, cast: Cast, configured: Configured) -> None:
    assert switch(session, cast, configured, cast.acme)
    decided = registration.decision(session, cast.web, configured)
    assert (decided.allowed, decided.by, decided.person) == (False, cast.acme, cast.alice)
    assert not switch(session, cast, configured, cast.acme)  # off already
    assert switch(session, cast, configured, cast.acme, allow=True)
    assert registration.decision(session, cast.web, configured).allowed


@pytest.mark.parametrize(
    ("who", "place", "refusal"),
    [
        ("bob", "web", None),
        ("alice", "web", None),
        ("alice", "acme", None),
        ("dana", "acme", None),
        ("dana", "instance", None),
        ("bob", "acme", NotFound),
        ("erin", "acme", NotAllowed),
        ("erin", "web", NotAllowed),
        ("charlie", "acme", NotFound),
        ("alice", "instance", NotFound),
    ],
)
def test_who_may_turn_the_switch(
    session: Session, cast: Cast, configured: Configured, who: str, place: str, refusal: type[Exception] | None
) -> None:
    scope = INSTANCE if place == "instance" else getattr(cast, place)
    if refusal is None:
        assert switch(session, cast, configured, scope, who)
        return
    with pytest.raises(refusal):
        switch(session, cast, configured, scope, who)
    assert registration.decision(session, scope, configured).allowed


@pytest.mark.parametrize("allow", [True, False])
def test_where_something_above_has_decided_the_switch_is_locked(
    session: Session, cast: Cast, configured: Configured, allow: bool
) -> None:
    switch(session, cast, configured, cast.acme)
    with pytest.raises(NotAllowed, match="Alice Lam turned registration tokens off for the group acme"):
        switch(session, cast, configured, cast.web, "bob", allow=allow)


def test_what_the_configuration_has_decided_no_administrator_changes(
    session: Session, cast: Cast, configured: Configured
) -> None:
    with pytest.raises(NotAllowed, match="PORTAL_ENFORCE_CREATE_RUNNER_WORKFLOW"):
        switch(session, cast, replace(configured, enforced=True), INSTANCE, "dana", allow=True)


def test_the_page_before_turning_off_counts_and_names_what_it_touches(
    session: Session, cast: Cast, configured: Configured
) -> None:
    old = register(session, cast, configured, cast.web, "old box", "198.51.100.7")
    register(session, cast, configured, cast.acme, "group box", "198.51.100.7")
    register(session, cast, configured, cast.other, "somebody else's", "203.0.113.5")
    gone = register(session, cast, configured, cast.acme, "gone again", "203.0.113.9")
    runners.delete_runner(session, cast.as_(cast.dana), gone)
    machine(session, old, LEGACY)
    machine(session, old, "s_1")
    cast.runner(cast.acme)
    found = registration_switch.effects(session, cast.acme)
    assert (found.registered, found.machines, found.registrations, found.legacy) == (2, 2, 3, 1)
    assert {runner.description for runner in found.runners} == {"old box", "group box"}
    assert {(each.address, each.registrations) for each in found.sources} == {("198.51.100.7", 2), ("203.0.113.9", 1)}
    assert [manager.runner.description for manager in found.legacy_managers] == ["old box"]
    assert (found.groups, found.projects) == (1, 1)  # platform, web
    assert not found.nothing


def test_a_group_that_nobody_registers_in_would_notice_nothing(session: Session, cast: Cast) -> None:
    cast.runner(cast.other)
    assert registration_switch.effects(session, cast.other).nothing


def test_what_is_off_already_below_is_not_counted_as_affected(
    session: Session, cast: Cast, configured: Configured
) -> None:
    cast.project("api", cast.platform)
    assert registration_switch.effects(session, cast.acme).projects == 2
    switch(session, cast, configured, cast.platform)
    found = registration_switch.effects(session, cast.acme)
    assert (found.groups, found.projects) == (0, 1)
    switch(session, cast, configured, cast.web, "bob")
    assert registration_switch.effects(session, cast.acme).projects == 0
    whole = registration_switch.effects(session, INSTANCE)
    assert (whole.groups, whole.projects) == (2, 0)  # acme, other


@pytest.mark.parametrize(("passed", "counted"), [(timedelta(days=29, hours=23), 1), (timedelta(days=30), 0)])
def test_registrations_count_for_thirty_days(
    session: Session, cast: Cast, configured: Configured, passed: timedelta, counted: int
) -> None:
    register(session, cast, configured, cast.acme, "box", "198.51.100.7")
    let_pass(session, passed)
    assert registration_switch.effects(session, cast.acme).registrations == counted


def test_the_list_has_every_runner_machine_and_registration(
    session: Session, cast: Cast, configured: Configured
) -> None:
    runner = register(session, cast, configured, cast.web, "old box", "198.51.100.7")
    machine(session, runner, LEGACY)
    rows = list(registration_switch.listed(session, cast.acme))
    assert [row[:5] for row in rows] == [
        ("runner registered by token", "acme/web", runner.id, "old box", ""),
        ("machine without system ID", "acme/web", runner.id, "old box", LEGACY),
        ("registration in the last 30 days", "acme/web", runner.id, "old box", ""),
    ]
    assert all(len(row) == len(registration_switch.COLUMNS) for row in rows)


def test_each_turn_stands_in_the_trail_with_its_effect(session: Session, cast: Cast, configured: Configured) -> None:
    runner = register(session, cast, configured, cast.web, "old box", "198.51.100.7")
    machine(session, runner, LEGACY)
    switch(session, cast, configured, cast.acme)
    switch(session, cast, configured, cast.acme, allow=True)
    on, off = session.scalars(audit.of_scope(cast.acme).limit(2)).all()
    assert (off.action, on.action) == ("registration_tokens_turned_off", "registration_tokens_turned_on")
    assert (off.actor_name, off.target_kind, off.target_name) == ("Alice Lam", "group", "acme")
    assert off.changes == {
        "registration_tokens_allowed": [True, False],
        "runners_registered_by_token": [None, 1],
        "registrations_in_30_days": [None, 1],
        "machines_without_system_id": [None, 1],
        "groups_below": [None, 1],
        "projects_below": [None, 1],
    }
