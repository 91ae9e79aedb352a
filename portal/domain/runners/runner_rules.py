"""What is settled for a scope's runners: how long their tokens live, who may create runners, and how many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit
from portal.domain.actors import Actor
from portal.domain.errors import Invalid, Worded
from portal.domain.groups import scope_settings
from portal.domain.groups.groups import owned_below
from portal.domain.groups.scope_settings import AnySettings, Chain
from portal.domain.permissions import Action, require
from portal.domain.runners.runner_creation import Limit
from portal.domain.runners.runner_settings import LONGEST_TOKEN_LIFE
from portal.domain.scopes import INSTANCE, Scope, ScopeKind
from portal.models import REGISTRARS, Runner, RunnerToken, RunnerType
from portal.models.scope_settings import SHORTEST_INTERVAL

MOST_RUNNERS = 1_000_000
POSSIBLE_LIVES = Worded(
    "Write a time such as 12h or 30d, from 2h to 1825d (5 years), or leave it empty.",
    gitlab=f"must be from {SHORTEST_INTERVAL} to {LONGEST_TOKEN_LIFE} seconds, or null",
)

# Which column of a scope's settings holds which life: of its own runners, of groups' below it, of projects' below it.
LIVES: dict[ScopeKind, dict[str, str]] = {
    ScopeKind.INSTANCE: {
        "own": "runner_token_expiration_interval",
        "groups": "group_runner_token_expiration_interval",
        "projects": "project_runner_token_expiration_interval",
    },
    ScopeKind.GROUP: {
        "own": "runner_token_expiration_interval",
        "groups": "subgroup_runner_token_expiration_interval",
        "projects": "project_runner_token_expiration_interval",
    },
    ScopeKind.PROJECT: {"own": "runner_token_expiration_interval"},
}
LIMITS = {"groups": "ci_registered_group_runners", "projects": "ci_registered_project_runners"}


@dataclass(frozen=True, slots=True)
class TokenLives:
    """How long new tokens live, in seconds; None: this scope says nothing.

    `own` counts for the scope's own runners, `groups` and `projects` for those of everything below it. A project
    has only `own`.
    """

    own: int | None = None
    groups: int | None = None
    projects: int | None = None

    def problems(self) -> dict[str, list[str]]:
        """What is wrong, by field. The lower bound is GitLab's (reference/rest.md section 4.2)."""
        wrong = (name for name, seconds in asdict(self).items() if not _possible_life(seconds))
        return {name: [POSSIBLE_LIVES] for name in wrong}


def _possible_life(seconds: int | None) -> bool:
    return seconds is None or SHORTEST_INTERVAL <= seconds <= LONGEST_TOKEN_LIFE


@dataclass(frozen=True, slots=True)
class Registrars:
    """Where others than administrators may create runners at all, in the whole instance."""

    groups: bool = True
    projects: bool = True


@dataclass(frozen=True, slots=True)
class Limits:
    """How many runners one group and one project may have. 0: no limit. None, in a group: what is said above it."""

    groups: int | None = None
    projects: int | None = None

    def problems(self, kind: ScopeKind) -> dict[str, list[str]]:
        """What is wrong, by field; the instance has to say something."""
        from_above = "" if kind is ScopeKind.INSTANCE else ", or leave it empty for the limit above"
        sentence = f"Write a whole number up to {MOST_RUNNERS:,}, 0 for no limit{from_above}."
        wrong = (name for name, most in asdict(self).items() if not _possible_limit(most, kind))
        return {name: [sentence] for name in wrong}


def _possible_limit(most: int | None, kind: ScopeKind) -> bool:
    if most is None:
        return kind is ScopeKind.GROUP
    return 0 <= most <= MOST_RUNNERS


@dataclass(frozen=True, slots=True)
class Endless:
    """How many runners hold a token that never expires: the scope's own, those of groups and of projects below it."""

    own: int
    groups: int
    projects: int


def token_lives(session: Session, scope: Scope) -> TokenLives:
    """What the scope itself says of the life of tokens."""
    return _lives_in(scope, scope_settings.chain(session, scope).own.settings)


def _lives_in(scope: Scope, row: AnySettings) -> TokenLives:
    return TokenLives(**{name: getattr(row, column) for name, column in LIVES[scope.kind].items()})


def change_token_lives(session: Session, actor: Actor, scope: Scope, lives: TokenLives) -> bool:
    """Say how long tokens made from now on live. Returns whether anything changed. Tokens that exist keep their life.

    Raises NotFound, NotAllowed, Invalid.
    """
    require(session, actor, Action.SET_RUNNER_RULES, scope)
    if problems := lives.problems():
        raise Invalid(problems)
    columns = LIVES[scope.kind]
    values = {column: getattr(lives, name) for name, column in columns.items()}
    return _store(session, actor, "token_life_changed", scope, values)


def amend_token_lives(session: Session, actor: Actor, scope: Scope, said: Mapping[str, int | None]) -> bool:
    """The same for some of the fields of TokenLives; the others stay as they are at this moment."""
    require(session, actor, Action.SET_RUNNER_RULES, scope)
    row = scope_settings.own_for_update(session, scope)
    return change_token_lives(session, actor, scope, replace(_lives_in(scope, row), **said))


def registrars(session: Session) -> Registrars:
    """What the instance says of who may create runners."""
    named = scope_settings.chain(session, INSTANCE).instance.valid_runner_registrars
    return Registrars(groups="group" in named, projects="project" in named)


def change_registrars(session: Session, actor: Actor, wanted: Registrars) -> bool:
    """Say where others than administrators may create runners, the old way and the new. Returns whether it changed.

    Rule: `valid_runner_registrars` (reference/rest.md section 3). Raises NotAllowed or NotFound.
    """
    require(session, actor, Action.LIMIT_RUNNERS, INSTANCE)
    allowed = {"group": wanted.groups, "project": wanted.projects}
    values = {"valid_runner_registrars": [name for name in REGISTRARS if allowed[name]]}
    return _store(session, actor, "runner_creation_changed", INSTANCE, values)


@dataclass(frozen=True, slots=True)
class GroupCreation:
    """Whether others than administrators may create runners in a group and below: its own word, and who is above it.

    `locked_by` is the scope above that has said no, so that the group's own word changes nothing.
    """

    enabled: bool
    locked_by: Scope | None = None


def group_creation(session: Session, scope: Scope) -> GroupCreation:
    """What a group says of who may create runners, and whether something above it has said no already."""
    found = scope_settings.chain(session, scope)
    *above, (_, own) = found.groups
    off = [INSTANCE] if "group" not in found.instance.valid_runner_registrars else []
    off += [group for group, row in above if not row.runner_registration_enabled]
    return GroupCreation(own.runner_registration_enabled, next(iter(off), None))


def change_group_creation(session: Session, actor: Actor, scope: Scope, *, enabled: bool) -> bool:
    """Say whether others than administrators may create runners in a group and below. Returns whether it changed.

    Rule: `runner_registration_enabled`, which all groups above must have on as well (reference/rest.md section 3).
    Raises NotFound or NotAllowed.
    """
    require(session, actor, Action.LIMIT_RUNNERS, scope)
    return _store(session, actor, "runner_creation_changed", scope, {"runner_registration_enabled": enabled})


def settle_group_creation(session: Session, actor: Actor, scope: Scope, *, enabled: bool) -> bool:
    """The same for tools that send all they have read: what stands already is no attempt to change it."""
    require(session, actor, Action.SET_RUNNER_RULES, scope)
    if group_creation(session, scope).enabled == enabled:
        return False
    return change_group_creation(session, actor, scope, enabled=enabled)


def limits(session: Session, scope: Scope) -> Limits:
    """What the instance or a group itself says of how many runners there may be."""
    row = scope_settings.chain(session, scope).own.settings
    return Limits(**{name: getattr(row, column) for name, column in LIMITS.items()})


def limits_from_above(session: Session, scope: Scope) -> dict[str, Limit]:
    """What counts for a group that says nothing itself, by the fields of Limits."""
    return {name: _limit_above(scope_settings.chain(session, scope), column) for name, column in LIMITS.items()}


def _limit_above(found: Chain, column: str) -> Limit:
    for group, row in reversed(found.groups[:-1]):
        if (most := getattr(row, column)) is not None:
            return Limit(most, group)
    return Limit(getattr(found.instance, column), INSTANCE)


def change_limits(session: Session, actor: Actor, scope: Scope, wanted: Limits) -> bool:
    """Say how many runners each group and each project may have. Returns whether it changed. None is deleted by it.

    Raises NotFound, NotAllowed, Invalid.
    """
    require(session, actor, Action.LIMIT_RUNNERS, scope)
    if problems := wanted.problems(scope.kind):
        raise Invalid(problems)
    values = {column: getattr(wanted, name) for name, column in LIMITS.items()}
    return _store(session, actor, "runner_limits_changed", scope, values)


def amend_limits(session: Session, actor: Actor, scope: Scope, said: Mapping[str, int | None]) -> bool:
    """The same for some of the fields of Limits; the others stay as they are at this moment.

    Tools send all they have read: for who may change other rules here, what stands is no attempt to change it.
    """
    require(session, actor, Action.SET_RUNNER_RULES, scope)
    if said.items() <= asdict(limits(session, scope)).items():
        return False
    require(session, actor, Action.LIMIT_RUNNERS, scope)
    scope_settings.own_for_update(session, scope)
    return change_limits(session, actor, scope, replace(limits(session, scope), **said))


def endless(session: Session, scope: Scope) -> Endless:
    """How many runners here and below hold a token that machines may use now and that never expires."""
    moment = now()
    holds_one = RunnerToken.expires_at.is_(None) & or_(RunnerToken.ends_at.is_(None), RunnerToken.ends_at > moment)
    with_one = select(RunnerToken.runner_id).where(holds_one)
    mine = Runner.runner_type == scope.runner_type
    if scope.group is not None:
        mine &= Runner.group_id == scope.group.id
    found = session.execute(
        select(
            func.count().filter(mine),
            func.count().filter(~mine, Runner.runner_type == RunnerType.GROUP),
            func.count().filter(~mine, Runner.runner_type == RunnerType.PROJECT),
        ).where(owned_below(scope), Runner.id.in_(with_one))
    ).one()
    return Endless(*found)


def _store(session: Session, actor: Actor, action: str, scope: Scope, values: Mapping[str, Any]) -> bool:
    """Write these columns of the scope's settings and an event with what differs; nothing when nothing does."""
    row = scope_settings.own_for_update(session, scope)
    changed = audit.differences({name: getattr(row, name) for name in values}, values)
    for name, (_, new) in changed.items():
        setattr(row, name, new)
    if changed:
        audit.record(session, actor, action, scope, scope, changed)
    return bool(changed)
