"""The runner settings of a scope: who may change what, what is refused, and what the trail keeps."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit
from portal.domain.errors import Invalid, NotAllowed, NotFound
from portal.domain.runners import runner_creation, runner_rules, runner_tokens, token_life
from portal.domain.runners.runner_rules import Endless, GroupCreation, Limits, Registrars, TokenLives
from portal.domain.scopes import INSTANCE, Scope
from portal.models import AuditEvent, User
from tests.cast import Cast

HOUR, DAY = 3600, 86_400


def last_event(session: Session) -> tuple[str, str, dict[str, Any]]:
    event = session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc()).limit(1)).one()
    return event.action, event.target_name, event.changes


def lives(session: Session, cast: Cast, scope: Scope, wanted: TokenLives, by: User | None = None) -> bool:
    return runner_rules.change_token_lives(session, cast.as_(by or cast.dana), scope, wanted)


def scopes_of(cast: Cast) -> dict[str, Scope]:
    return {"instance": INSTANCE, "group": cast.acme, "project": cast.web}


# How long tokens live


@pytest.mark.parametrize("kind", ["instance", "group", "project"])
def test_a_life_is_kept_and_counts_for_new_tokens_only(session: Session, cast: Cast, kind: str) -> None:
    scope = scopes_of(cast)[kind]
    before = cast.runner(scope)
    assert lives(session, cast, scope, TokenLives(own=30 * DAY))
    after = cast.runner(scope)
    assert runner_rules.token_lives(session, scope).own == 30 * DAY
    assert before.record.expires_at is None
    assert after.record.expires_at is not None
    assert timedelta(days=29) < after.record.expires_at - now() <= timedelta(days=30)


def test_each_number_stands_in_gitlabs_column(session: Session, cast: Cast) -> None:
    wanted = TokenLives(own=2 * HOUR, groups=3 * HOUR, projects=4 * HOUR)
    lives(session, cast, INSTANCE, wanted)
    changes = {"runner": 2 * HOUR, "group_runner": 3 * HOUR, "project_runner": 4 * HOUR}
    expected = {f"{name}_token_expiration_interval": [None, seconds] for name, seconds in changes.items()}
    assert last_event(session) == ("token_life_changed", "the instance", expected)
    lives(session, cast, cast.acme, wanted)
    expected["subgroup_runner_token_expiration_interval"] = expected.pop("group_runner_token_expiration_interval")
    assert last_event(session) == ("token_life_changed", "acme", expected)
    lives(session, cast, cast.web, wanted)
    assert last_event(session)[2] == {"runner_token_expiration_interval": [None, 2 * HOUR]}


def test_only_what_differs_is_told_and_nothing_when_nothing_does(session: Session, cast: Cast) -> None:
    lives(session, cast, cast.acme, TokenLives(own=DAY, projects=DAY))
    assert lives(session, cast, cast.acme, TokenLives(own=DAY, projects=None))
    assert last_event(session)[2] == {"project_runner_token_expiration_interval": [DAY, None]}
    told = session.query(AuditEvent).count()
    assert not lives(session, cast, cast.acme, TokenLives(own=DAY))
    assert session.query(AuditEvent).count() == told


@pytest.mark.parametrize(
    ("seconds", "possible"),
    [
        (2 * HOUR - 1, False),
        (2 * HOUR, True),
        (5 * 365 * DAY, True),
        (5 * 365 * DAY + 1, False),
        (0, False),
        (10**18, False),
    ],
)
def test_a_life_has_bounds_on_both_sides(session: Session, cast: Cast, seconds: int, possible: bool) -> None:
    if possible:
        assert lives(session, cast, cast.acme, TokenLives(projects=seconds))
        return
    with pytest.raises(Invalid) as refused:
        lives(session, cast, cast.acme, TokenLives(own=DAY, projects=seconds))
    assert list(refused.value.problems) == ["projects"]
    assert runner_rules.token_lives(session, cast.acme) == TokenLives()


def test_owners_set_a_groups_life_and_maintainers_a_projects(session: Session, cast: Cast) -> None:
    assert lives(session, cast, cast.acme, TokenLives(own=DAY), by=cast.alice)
    assert lives(session, cast, cast.web, TokenLives(own=DAY), by=cast.bob)
    for person, scope, refusal in (
        (cast.erin, cast.web, NotAllowed),
        (cast.bob, cast.acme, NotFound),
        (cast.alice, INSTANCE, NotFound),
        (cast.charlie, cast.web, NotFound),
    ):
        with pytest.raises(refusal):
            lives(session, cast, scope, TokenLives(own=2 * DAY), by=person)


# Who may create runners


def test_the_instance_says_where_runners_may_be_created(session: Session, cast: Cast) -> None:
    assert runner_rules.registrars(session) == Registrars()
    assert runner_rules.change_registrars(session, cast.as_(cast.dana), Registrars(groups=False))
    assert runner_rules.registrars(session) == Registrars(groups=False, projects=True)
    assert last_event(session) == (
        "runner_creation_changed",
        "the instance",
        {"valid_runner_registrars": [["group", "project"], ["project"]]},
    )
    assert not runner_creation.may_create(session, cast.as_(cast.alice), cast.acme)
    assert runner_creation.may_create(session, cast.as_(cast.bob), cast.web)
    assert not runner_rules.change_registrars(session, cast.as_(cast.dana), Registrars(groups=False))


def test_a_group_that_is_off_closes_everything_below_it(session: Session, cast: Cast) -> None:
    assert runner_rules.change_group_creation(session, cast.as_(cast.dana), cast.acme, enabled=False)
    assert last_event(session) == (
        "runner_creation_changed",
        "acme",
        {"runner_registration_enabled": [True, False]},
    )
    assert runner_rules.group_creation(session, cast.acme) == GroupCreation(enabled=False)
    below = runner_rules.group_creation(session, cast.platform)
    assert (below.enabled, below.locked_by and below.locked_by.title) == (True, "acme")
    assert "acme and below" in runner_creation.closed_because(session, cast.web)
    assert runner_rules.group_creation(session, cast.other) == GroupCreation(enabled=True)


def test_an_instance_that_is_off_for_groups_locks_all_of_them(session: Session, cast: Cast) -> None:
    runner_rules.change_registrars(session, cast.as_(cast.dana), Registrars(groups=False))
    assert runner_rules.group_creation(session, cast.platform) == GroupCreation(enabled=True, locked_by=INSTANCE)


# How many


def test_a_group_without_a_word_of_its_own_gets_the_limit_from_above(session: Session, cast: Cast) -> None:
    dana = cast.as_(cast.dana)
    runner_rules.change_limits(session, dana, INSTANCE, Limits(groups=50, projects=0))
    runner_rules.change_limits(session, dana, cast.acme, Limits(groups=7))
    above = runner_rules.limits_from_above(session, cast.platform)
    assert {name: (limit.most, limit.by.title) for name, limit in above.items()} == {
        "groups": (7, "acme"),
        "projects": (0, "the instance"),
    }
    assert runner_rules.limits_from_above(session, cast.acme)["groups"].most == 50
    counts = runner_creation.limit(session, cast.platform)
    assert counts is not None
    assert (counts.most, counts.by.title) == (7, "acme")


def test_a_change_of_limits_is_told_with_old_and_new(session: Session, cast: Cast) -> None:
    dana = cast.as_(cast.dana)
    assert runner_rules.change_limits(session, dana, INSTANCE, Limits(groups=5, projects=1000))
    assert last_event(session) == (
        "runner_limits_changed",
        "the instance",
        {"ci_registered_group_runners": [1000, 5]},
    )
    assert runner_rules.change_limits(session, dana, cast.acme, Limits(projects=0))
    assert last_event(session)[2] == {"ci_registered_project_runners": [None, 0]}
    assert not runner_rules.change_limits(session, dana, cast.acme, Limits(projects=0))


@pytest.mark.parametrize("most", [-1, 1_000_001, 10**18])
def test_a_limit_that_is_none_is_refused(session: Session, cast: Cast, most: int) -> None:
    with pytest.raises(Invalid) as refused:
        runner_rules.change_limits(session, cast.as_(cast.dana), cast.acme, Limits(groups=most))
    assert list(refused.value.problems) == ["groups"]


def test_the_instance_has_to_say_a_limit(session: Session, cast: Cast) -> None:
    with pytest.raises(Invalid) as refused:
        runner_rules.change_limits(session, cast.as_(cast.dana), INSTANCE, Limits(groups=None, projects=0))
    assert refused.value.problems == {"groups": ["Write a whole number up to 1,000,000, 0 for no limit."]}


def test_only_administrators_say_who_may_create_and_how_many(session: Session, cast: Cast) -> None:
    alice = cast.as_(cast.alice)
    with pytest.raises(NotAllowed, match="administrators may"):
        runner_rules.change_limits(session, alice, cast.acme, Limits(groups=5))
    with pytest.raises(NotAllowed, match="administrators may"):
        runner_rules.change_group_creation(session, alice, cast.acme, enabled=False)
    with pytest.raises(NotFound):
        runner_rules.change_registrars(session, alice, Registrars())


# Tokens without an end


def test_runners_with_endless_tokens_are_counted_by_where_they_belong(session: Session, cast: Cast) -> None:
    for scope in (INSTANCE, cast.acme, cast.acme, cast.platform, cast.web, cast.other):
        cast.runner(scope)
    assert runner_rules.endless(session, INSTANCE) == Endless(own=1, groups=4, projects=1)
    assert runner_rules.endless(session, cast.acme) == Endless(own=2, groups=1, projects=1)
    assert runner_rules.endless(session, cast.web) == Endless(own=1, groups=0, projects=0)


def test_an_ended_or_expiring_token_is_not_endless_and_a_runner_counts_once(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    grace = timedelta(hours=24)
    runner_tokens.reset_token_by_machine(session, issued.token, grace=grace)
    assert runner_rules.endless(session, cast.acme).own == 1
    lives(session, cast, cast.acme, TokenLives(own=DAY))
    runner_tokens.reset_token(session, cast.as_(cast.alice), issued.runner, seen_token_id=None)
    assert runner_rules.endless(session, cast.acme).own == 0
    assert token_life.of_new_runners(session, cast.acme) == token_life.Life(DAY, cast.acme)


def test_what_was_settled_stands_in_the_trail_of_its_scope(session: Session, cast: Cast) -> None:
    lives(session, cast, cast.web, TokenLives(own=DAY), by=cast.bob)
    event = session.scalars(audit.of_scope(cast.web).limit(1)).one()
    assert (event.action, event.target_kind, event.actor_name) == ("token_life_changed", "project", "Bob Ray")


def test_some_values_are_amended_and_the_others_stay(session: Session, cast: Cast) -> None:
    dana = cast.as_(cast.dana)
    runner_rules.change_token_lives(session, dana, cast.acme, TokenLives(own=7200, groups=7200))
    assert runner_rules.amend_token_lives(session, dana, cast.acme, {"groups": None, "projects": 9000})
    assert runner_rules.token_lives(session, cast.acme) == TokenLives(own=7200, groups=None, projects=9000)
    assert runner_rules.amend_limits(session, dana, cast.acme, {"projects": 3})
    assert runner_rules.limits(session, cast.acme) == Limits(groups=None, projects=3)
    assert not runner_rules.amend_limits(session, dana, cast.acme, {"projects": 3})
    with pytest.raises(NotAllowed):
        runner_rules.amend_limits(session, cast.as_(cast.alice), cast.acme, {"projects": 4})
