"""Turning registration tokens off and on: who may, what it would do, and that it can be undone."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from portal.domain import audit
from portal.domain.errors import NotAllowed, NotFound, RegistrationOff
from portal.domain.groups import memberships
from portal.domain.registration import (
    registration,
    registration_effects,
    registration_readers,
    registration_switch,
    registration_tokens,
    runner_registration,
)
from portal.domain.registration.registration import Configured
from portal.domain.registration.registration_effects import effects
from portal.domain.registration.runner_registration import Registering
from portal.domain.runners import runners
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE, Scope
from portal.models import LEGACY, RegistrationType, Role, Runner, RunnerManager
from tests.cast import SYSTEM, Cast
from tests.domain.clock import let_pass


def switch(
    session: Session, cast: Cast, configured: Configured, scope: Scope, who: str = "alice", *, allow: bool = False
) -> bool:
    actor = cast.as_(getattr(cast, who))
    return registration_switch.switch(session, actor, scope, allow=allow, configured=configured)


def register(session: Session, cast: Cast, configured: Configured, scope: Scope, name: str, address: str) -> Runner:
    row = registration_tokens.make_token(session, cast.as_(cast.dana), scope, configured)
    text = configured.vault.open(row.ciphertext or b"") or ""
    wanted = Registering(text, RunnerSettings(description=name, run_untagged=True), address=address)
    return runner_registration.register(session, configured, wanted).runner


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


def test_who_decided_is_named_to_those_who_find_them_among_people(
    session: Session, cast: Cast, configured: Configured
) -> None:
    """Bob sees nothing of acme but its members, on the page of acme/web: Alice, until she has no role there."""

    def told(who: str) -> str:
        actor = cast.as_(getattr(cast, who))
        return registration_readers.decision_for(session, actor, cast.web, configured).sentence

    switch(session, cast, configured, cast.acme)
    assert told("bob") == told("erin") == "Alice Lam turned registration tokens off for the group acme."
    cast.member(cast.dana, cast.acme, Role.OWNER)
    memberships.remove(session, SYSTEM, cast.acme, cast.alice.id)
    assert told("bob") == told("erin") == "An owner turned registration tokens off for the group acme."
    assert told("dana") == told("alice") == "Alice Lam turned registration tokens off for the group acme."
    with pytest.raises(NotAllowed, match=r"^An owner turned registration tokens off for the group acme"):
        switch(session, cast, configured, cast.web, "bob")
    with pytest.raises(RegistrationOff, match=r"^An owner turned"):
        registration_tokens.reset_token(session, cast.as_(cast.bob), cast.web, configured)


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
    found = effects(session, cast.acme)
    assert (found.registered, found.registrations, found.stopping) == (2, 3, 1)
    assert {runner.description for runner in found.lasting.first} == {"old box", "group box"}
    assert {(each.address, each.registrations) for each in found.sources.first} == {
        ("198.51.100.7", 2),
        ("203.0.113.9", 1),
    }
    assert [manager.runner.description for manager in found.refused.first] == ["old box"]
    assert [group.full_path for group in found.groups.first] == ["acme/platform"]
    assert [project.full_path for project in found.projects.first] == ["acme/web"]
    assert not found.nothing


def test_a_runner_all_of_whose_machines_are_refused_does_not_go_on_working(
    session: Session, cast: Cast, configured: Configured
) -> None:
    stops = register(session, cast, configured, cast.acme, "stops", "198.51.100.7")
    machine(session, stops, LEGACY)
    both = register(session, cast, configured, cast.acme, "one of two", "198.51.100.7")
    for system_id in (LEGACY, "s_1"):
        machine(session, both, system_id)
    found = effects(session, cast.acme)
    assert [runner.description for runner in found.lasting.first] == ["one of two"]
    assert (found.registered, found.refused.total) == (2, 2)


@pytest.mark.parametrize(
    ("version", "refused"),
    [("13.12.0", True), ("9.5.1", True), ("15.7.3", True), ("15.8.0", False), ("15.11.1", False), ("18.6.6", False)],
)
def test_a_machine_that_has_not_polled_yet_is_judged_by_its_version(
    session: Session, cast: Cast, configured: Configured, version: str, refused: bool
) -> None:
    register(session, cast, configured, cast.acme, "fresh", "198.51.100.7").version = version
    session.flush()
    found = effects(session, cast.acme)
    assert (found.expected.total, found.lasting.total) == ((1, 0) if refused else (0, 1))


def test_an_imported_runner_is_none_that_was_registered_here(session: Session, cast: Cast) -> None:
    cast.runner(cast.acme).runner.registration_type = RegistrationType.REGISTRATION_TOKEN
    session.flush()
    assert effects(session, cast.acme).registered == 0


def test_machines_of_a_group_that_is_off_already_are_not_counted_again(
    session: Session, cast: Cast, configured: Configured
) -> None:
    runner = register(session, cast, configured, cast.platform, "old box", "198.51.100.7")
    machine(session, runner, LEGACY)
    assert effects(session, cast.acme).stopping == 1
    switch(session, cast, configured, cast.platform)
    found = effects(session, cast.acme)
    assert (found.stopping, found.registered) == (0, 0)
    assert registration_effects.turned_off_below(session, cast.acme).first == ["acme/platform"]


def test_a_long_list_is_cut_and_says_how_much_is_left(session: Session, cast: Cast, configured: Configured) -> None:
    for number in range(23):
        register(session, cast, configured, cast.acme, f"box {number}", f"198.51.100.{number}")
    found = effects(session, cast.acme)
    assert (len(found.sources.first), found.sources.rest) == (20, 3)
    assert (len(found.lasting.first), found.lasting.rest) == (20, 3)


def test_a_group_that_nobody_registers_in_would_notice_nothing(session: Session, cast: Cast) -> None:
    cast.runner(cast.other)
    assert effects(session, cast.other).nothing


def test_what_is_off_already_below_is_not_counted_as_affected(
    session: Session, cast: Cast, configured: Configured
) -> None:
    cast.project("api", cast.platform)
    assert effects(session, cast.acme).projects.total == 2
    switch(session, cast, configured, cast.platform)
    found = effects(session, cast.acme)
    assert (found.groups.total, found.projects.total) == (0, 1)
    switch(session, cast, configured, cast.web, "bob")
    assert effects(session, cast.acme).projects.total == 0
    whole = effects(session, INSTANCE)
    assert (whole.groups.total, whole.projects.total) == (2, 0)  # acme, other


@pytest.mark.parametrize(("passed", "counted"), [(timedelta(days=29, hours=23), 1), (timedelta(days=30), 0)])
def test_registrations_count_for_thirty_days(
    session: Session, cast: Cast, configured: Configured, passed: timedelta, counted: int
) -> None:
    register(session, cast, configured, cast.acme, "box", "198.51.100.7")
    let_pass(session, passed)
    assert effects(session, cast.acme).registrations == counted


def test_the_list_has_every_runner_machine_and_registration(
    session: Session, cast: Cast, configured: Configured
) -> None:
    runner = register(session, cast, configured, cast.web, "old box", "198.51.100.7")
    machine(session, runner, LEGACY)
    rows = list(registration_effects.listed(session, cast.acme))
    assert [row[:6] for row in rows] == [
        ("runner registered by token", "refused from then on", "acme/web", runner.id, "old box", ""),
        ("machine without system ID", "refused from then on", "acme/web", runner.id, "old box", LEGACY),
        ("registration in the last 30 days", "", "acme/web", runner.id, "old box", ""),
        ("group below", "its registration token is refused", "acme/platform", "", "", ""),
        ("project below", "its registration token is refused", "acme/web", "", "", ""),
    ]
    assert all(len(row) == len(registration_effects.COLUMNS) for row in rows)


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
    assert on.changes == {"registration_tokens_allowed": [False, True]}


def test_the_value_that_stands_is_no_change_even_where_something_above_has_decided(
    session: Session, cast: Cast, configured: Configured
) -> None:
    alice = cast.as_(cast.alice)
    registration_switch.switch(session, alice, cast.acme, allow=False, configured=configured)
    assert not registration_switch.settle(session, alice, cast.platform, allow=True, configured=configured)
    with pytest.raises(NotAllowed):
        registration_switch.settle(session, alice, cast.platform, allow=False, configured=configured)
    with pytest.raises(NotAllowed):
        registration_switch.settle(session, cast.as_(cast.erin), cast.platform, allow=True, configured=configured)
    assert registration_switch.settle(session, alice, cast.acme, allow=True, configured=configured)
