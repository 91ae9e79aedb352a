"""Registration tokens: who may have them, where they are allowed, and what registering with one makes."""

import itertools
import re
from dataclasses import replace
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.domain import actors, audit, tokens
from portal.domain.errors import (
    Invalid,
    LimitReached,
    NotAllowed,
    NotFound,
    RegistrationOff,
    RegistrationTokenUnknown,
    Stale,
)
from portal.domain.groups import scope_settings
from portal.domain.machines.machine_facts import MachineFacts
from portal.domain.registration import registration, registration_tokens, runner_registration
from portal.domain.registration.registration import Configured
from portal.domain.registration.runner_registration import Registering
from portal.domain.runners import runner_tokens
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE, Scope
from portal.domain.vault import Vault
from portal.models import RegistrationToken, RegistrationType, Runner, RunnerToken
from tests.cast import Cast

SETTINGS = RunnerSettings(description="box1", tags=("docker",))


def places(cast: Cast) -> dict[str, Scope]:
    return {"instance": INSTANCE, "group": cast.acme, "project": cast.web}


def token(session: Session, cast: Cast, scope: Scope, configured: Configured) -> tuple[RegistrationToken, str]:
    row = registration_tokens.make_token(session, cast.as_(cast.dana), scope, configured)
    text = configured.vault.open(row.ciphertext or b"")
    assert text
    return row, text


def turn_off(session: Session, scope: Scope) -> None:
    scope_settings.own_for_update(session, scope).allow_runner_registration_token = False
    session.flush()


# The token


@pytest.mark.parametrize("kind", ["instance", "group", "project"])
def test_a_scope_gets_its_token_when_somebody_needs_it_and_keeps_it(
    session: Session, cast: Cast, configured: Configured, kind: str
) -> None:
    scope = places(cast)[kind]
    assert registration_tokens.live_token(session, scope) is None
    row, text = token(session, cast, scope, configured)
    assert re.fullmatch(r"GR1348941[0-9A-Za-z]{20}", text)
    assert registration_tokens.make_token(session, cast.as_(cast.dana), scope, configured).id == row.id
    assert registration_tokens.live_token(session, scope) is row
    assert registration_tokens.scope_of(row) == scope


def test_every_scope_has_a_token_of_its_own(session: Session, cast: Cast, configured: Configured) -> None:
    texts = {token(session, cast, scope, configured)[1] for scope in places(cast).values()}
    assert len(texts) == 3


def test_a_token_is_stored_encrypted_and_found_by_its_digest(
    session: Session, cast: Cast, configured: Configured
) -> None:
    row, text = token(session, cast, cast.acme, configured)
    assert text.encode() not in bytes(row.ciphertext or b"")
    assert row.digest == tokens.digest(text)
    assert row.short == text[9:18]
    assert registration_tokens.find(session, text) is row
    assert registration_tokens.find(session, text[:-1]) is None
    assert registration_tokens.find(session, "") is None
    assert registration_tokens.find(session, "GR" + "x" * 600) is None


def test_who_may_register_sees_the_token_and_nobody_else(
    session: Session, cast: Cast, configured: Configured
) -> None:
    assert registration_tokens.may_register(session, cast.as_(cast.alice), cast.acme, configured)
    assert registration_tokens.may_register(session, cast.as_(cast.bob), cast.web, configured)
    assert not registration_tokens.may_register(session, cast.as_(cast.bob), cast.acme, configured)
    assert not registration_tokens.may_register(session, cast.as_(cast.erin), cast.acme, configured)
    with pytest.raises(NotAllowed):
        registration_tokens.make_token(session, cast.as_(cast.erin), cast.acme, configured)
    with pytest.raises(NotFound):
        registration_tokens.make_token(session, cast.as_(cast.charlie), cast.acme, configured)


def test_a_reset_ends_the_old_token_at_once_and_forgets_its_text(
    session: Session, cast: Cast, configured: Configured
) -> None:
    row, old = token(session, cast, cast.acme, configured)
    fresh = registration_tokens.reset_token(session, cast.as_(cast.alice), cast.acme, configured, seen_id=row.id)
    assert (row.ciphertext, row.ended_at is not None) == (None, True)
    assert registration_tokens.live_token(session, cast.acme) is fresh
    with pytest.raises(RegistrationTokenUnknown):
        runner_registration.register(session, configured, Registering(old, SETTINGS))
    new = configured.vault.open(fresh.ciphertext or b"") or ""
    assert (
        runner_registration.register(session, configured, Registering(new, SETTINGS)).runner.group_id == cast.acme.id
    )


def test_who_resets_second_is_told_so_and_ends_nothing(session: Session, cast: Cast, configured: Configured) -> None:
    row, _ = token(session, cast, cast.acme, configured)
    alice = cast.as_(cast.alice)
    fresh = registration_tokens.reset_token(session, alice, cast.acme, configured, seen_id=row.id)
    with pytest.raises(Stale):
        registration_tokens.reset_token(session, alice, cast.acme, configured, seen_id=row.id)
    assert registration_tokens.live_token(session, cast.acme) is fresh


def test_neither_making_nor_resetting_is_possible_while_they_are_off(
    session: Session, cast: Cast, configured: Configured
) -> None:
    turn_off(session, cast.acme)
    for act in (registration_tokens.make_token, registration_tokens.reset_token):
        with pytest.raises(RegistrationOff):
            act(session, cast.as_(cast.dana), cast.web, configured)
    assert not registration_tokens.may_register(session, cast.as_(cast.dana), cast.web, configured)


def test_making_and_resetting_stand_in_the_trail_by_the_short_form(
    session: Session, cast: Cast, configured: Configured
) -> None:
    row, text = token(session, cast, cast.acme, configured)
    fresh = registration_tokens.reset_token(session, cast.as_(cast.alice), cast.acme, configured)
    events = session.scalars(audit.of_scope(cast.acme).limit(2)).all()
    assert [(event.action, event.changes["token"]) for event in events] == [
        ("registration_token_reset", [row.short, fresh.short]),
        ("registration_token_created", [None, row.short]),
    ]
    assert text not in str([event.changes for event in events])


# Where they are allowed


@st.composite
def trees(draw: st.DrawFn) -> tuple[bool, bool, list[bool]]:
    """Enforced by configuration, the instance's switch, and those of a chain of groups with a project at its end."""
    return draw(st.booleans()), draw(st.booleans()), draw(st.lists(st.booleans(), min_size=2, max_size=6))


_numbers = itertools.count()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees())
def test_they_are_allowed_exactly_where_everything_above_and_the_scope_itself_allows_them(
    session: Session, cast: Cast, configured: Configured, tree: tuple[bool, bool, list[bool]]
) -> None:
    enforced, instance, switches = tree
    configured = replace(configured, enforced=enforced)
    with session.begin_nested() as story:
        chain, place = [INSTANCE], INSTANCE
        for _ in switches[:-1]:
            place = cast.group(f"g{next(_numbers)}", inside=place)
            chain.append(place)
        chain.append(cast.project(f"p{next(_numbers)}", place))
        for scope, allow in zip(chain, [instance, *switches], strict=True):
            scope_settings.own_for_update(session, scope).allow_runner_registration_token = allow
        session.flush()
        for depth, scope in enumerate(chain):
            above = [instance, *switches][: depth + 1]
            decided = registration.decision(session, scope, configured)
            assert decided.allowed is (all(above) and not enforced)
            assert decided.enforced is enforced
            if not enforced and not decided.allowed:
                assert decided.by == chain[above.index(False)]  # the highest one that is off decides
                assert decided.locked is (above.index(False) < depth)
        story.rollback()


def test_a_sibling_is_not_touched(session: Session, cast: Cast, configured: Configured) -> None:
    turn_off(session, cast.platform)
    assert registration.decision(session, cast.acme, configured).allowed
    assert registration.decision(session, cast.web, configured).allowed
    assert not registration.decision(session, cast.project("api", cast.platform), configured).allowed


@pytest.mark.parametrize(
    ("off", "said"),
    [
        ("project", "Alice Lam turned registration tokens off for the project acme/web."),
        ("group", "Alice Lam turned registration tokens off for the group acme."),
        ("instance", "An administrator turned registration tokens off for the whole portal."),
    ],
)
def test_a_decision_says_who_turned_them_off_for_which_scope(
    session: Session, cast: Cast, configured: Configured, off: str, said: str
) -> None:
    own = scope_settings.own_for_update(session, places(cast)[off])
    own.allow_runner_registration_token, own.switched_by = False, cast.alice
    session.flush()
    assert registration.decision(session, cast.web, configured).sentence == said


def test_the_configuration_is_named_when_it_decides(session: Session, cast: Cast) -> None:
    enforced = Configured(enforced=True, vault=Vault(["k" * 32]))
    assert "PORTAL_ENFORCE_CREATE_RUNNER_WORKFLOW" in registration.decision(session, cast.web, enforced).sentence


# Registering


@pytest.mark.parametrize("kind", ["instance", "group", "project"])
def test_a_registered_runner_belongs_to_the_tokens_scope_and_to_nobody(
    session: Session, cast: Cast, configured: Configured, kind: str
) -> None:
    scope = places(cast)[kind]
    row, text = token(session, cast, scope, configured)
    facts = MachineFacts(version="13.12.0", revision="abc", platform="linux", architecture="arm64", executor_type=2)
    wanted = Registering(text, replace(SETTINGS, locked=True), facts, "198.51.100.9", "the-request")
    issued = runner_registration.register(session, configured, wanted)
    runner = session.get_one(Runner, issued.runner.id)
    assert (runner.runner_type, runner.group_id, runner.project_id) == (
        scope.runner_type,
        scope.group.id if scope.group else None,
        scope.project.id if scope.project else None,
    )
    assert (runner.registration_type, runner.creator_id) == (RegistrationType.REGISTRATION_TOKEN, None)
    assert (runner.version, runner.platform, runner.architecture, runner.ip_address) == (
        "13.12.0",
        "linux",
        "arm64",
        "198.51.100.9",
    )
    assert (runner.tag_list, runner.locked, runner.registered_with_id) == (["docker"], True, row.id)
    assert issued.token.startswith(f"glrtr-t{int(scope.runner_type)}_")
    assert not tokens.is_mistyped(issued.token)
    assert runner_tokens.token_row(session, issued.token).runner_id == runner.id
    assert row.last_used_at is not None
    event = session.scalars(audit.of_runner(runner).limit(1)).one()
    assert (event.action, event.actor_kind, event.actor_name, event.address, event.request_id) == (
        "runner_registered",
        "registration_token",
        f"registration token {row.short}",
        "198.51.100.9",
        "the-request",
    )


def test_a_token_that_nobody_has_registers_nothing(session: Session, cast: Cast, configured: Configured) -> None:
    for text in ("GR1348941abcdefghijklmnopqrst", "glrt-nobody-has-this-token", cast.runner().token):
        before = session.scalar(select(func.count()).select_from(Runner))
        with pytest.raises(RegistrationTokenUnknown):
            runner_registration.register(session, configured, Registering(text, SETTINGS))
        assert session.scalar(select(func.count()).select_from(Runner)) == before


@pytest.mark.parametrize("off", ["project", "group", "instance"])
def test_a_good_token_is_refused_where_registration_tokens_are_off(
    session: Session, cast: Cast, configured: Configured, off: str
) -> None:
    _, text = token(session, cast, cast.web, configured)
    turn_off(session, places(cast)[off])
    with pytest.raises(RegistrationOff) as refused:
        runner_registration.register(session, configured, Registering(text, SETTINGS))
    assert (refused.value.kind, refused.value.path) == (
        ("instance", "") if off == "instance" else ("project", "acme/web")
    )


def test_while_the_instance_is_off_a_good_token_and_a_wrong_one_hear_the_same(
    session: Session, cast: Cast, configured: Configured
) -> None:
    _, text = token(session, cast, cast.web, configured)
    turn_off(session, cast.acme)
    turn_off(session, INSTANCE)
    heard = set()
    for each in (text, "GR1348941abcdefghijklmnopqrst", "glrt-x"):
        with pytest.raises(RegistrationOff) as refused:
            runner_registration.register(session, configured, Registering(each, SETTINGS))
        heard.add((str(refused.value), refused.value.kind, refused.value.path))
    assert len(heard) == 1


def test_nobody_registers_where_administrators_let_nobody_create_runners(
    session: Session, cast: Cast, configured: Configured
) -> None:
    texts = {kind: token(session, cast, scope, configured)[1] for kind, scope in places(cast).items()}
    scope_settings.own_for_update(session, INSTANCE).valid_runner_registrars = ["group"]  # type: ignore[union-attr]
    session.flush()
    with pytest.raises(NotAllowed, match="projects"):
        runner_registration.register(session, configured, Registering(texts["project"], SETTINGS))
    assert runner_registration.register(session, configured, Registering(texts["group"], SETTINGS))
    scope_settings.own_for_update(session, cast.acme).runner_registration_enabled = False  # type: ignore[union-attr]
    session.flush()
    with pytest.raises(NotAllowed, match="acme and below"):
        runner_registration.register(session, configured, Registering(texts["group"], SETTINGS))
    assert runner_registration.register(session, configured, Registering(texts["instance"], SETTINGS))


def test_a_full_scope_takes_no_more_registrations(session: Session, cast: Cast, configured: Configured) -> None:
    _, text = token(session, cast, cast.web, configured)
    scope_settings.own_for_update(session, cast.acme).ci_registered_project_runners = 1  # type: ignore[union-attr]
    session.flush()
    runner_registration.register(session, configured, Registering(text, SETTINGS))
    with pytest.raises(LimitReached, match="acme/web has as many runners"):
        runner_registration.register(session, configured, Registering(text, SETTINGS))


def test_wrong_settings_register_nothing(session: Session, cast: Cast, configured: Configured) -> None:
    _, text = token(session, cast, cast.web, configured)
    with pytest.raises(Invalid) as refused:
        runner_registration.register(session, configured, Registering(text, RunnerSettings(maximum_timeout=5)))
    assert set(refused.value.problems) == {"tags", "maximum_timeout"}
    assert session.scalar(select(func.count()).select_from(Runner)) == 0


def test_the_same_request_sent_again_makes_no_second_runner(
    session: Session, cast: Cast, configured: Configured
) -> None:
    _, text = token(session, cast, cast.web, configured)
    wanted = Registering(text, SETTINGS, request_key=uuid4())
    first = runner_registration.register(session, configured, wanted)
    again = runner_registration.register(session, configured, wanted)
    assert again.runner.id == first.runner.id
    live = [row.id for row in runner_tokens.family(session, first.runner)]
    assert live == [again.record.id]


def test_a_request_id_that_comes_again_after_the_runner_works_makes_another_runner(
    session: Session, cast: Cast, configured: Configured
) -> None:
    _, text = token(session, cast, cast.web, configured)
    wanted = Registering(text, SETTINGS, request_key=uuid4())
    first = runner_registration.register(session, configured, wanted)
    runner_tokens.mark_used(session, first.runner.id, first.record.id)
    session.expire_all()
    again = runner_registration.register(session, configured, wanted)
    assert again.runner.id != first.runner.id
    assert session.get_one(RunnerToken, first.record.id).ends_at is None


def test_somebody_elses_request_id_gives_nobody_their_runner(
    session: Session, cast: Cast, configured: Configured
) -> None:
    _, text = token(session, cast, cast.web, configured)
    _, other = token(session, cast, cast.other, configured)
    key = uuid4()
    mine = runner_registration.register(session, configured, Registering(text, SETTINGS, request_key=key))
    theirs = runner_registration.register(session, configured, Registering(other, SETTINGS, request_key=key))
    assert theirs.runner.id != mine.runner.id
    assert runner_tokens.token_row(session, mine.token)


def test_a_registered_runners_next_token_begins_as_its_first(
    session: Session, cast: Cast, configured: Configured
) -> None:
    _, text = token(session, cast, cast.web, configured)
    issued = runner_registration.register(session, configured, Registering(text, SETTINGS))
    fresh = runner_tokens.reset_token(session, cast.as_(cast.bob), issued.runner, seen_token_id=None)
    assert fresh.token.startswith("glrtr-t3_")


def test_the_command_line_may_do_what_an_administrator_may(
    session: Session, cast: Cast, configured: Configured
) -> None:
    assert registration_tokens.may_register(session, actors.system("command line"), cast.acme, configured)
