"""Turning registration tokens off and on in a scope, and what turning them off would do there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, exists, func, select
from sqlalchemy.orm import Session, joinedload

from portal.database import now
from portal.domain import audit, registration, runner_changes, scope_settings
from portal.domain.actors import Actor
from portal.domain.errors import NotAllowed
from portal.domain.groups import below, owned_below
from portal.domain.permissions import Action, require
from portal.domain.registration import Configured
from portal.domain.scopes import Scope
from portal.models import (
    LEGACY,
    AuditEvent,
    Group,
    GroupSettings,
    Project,
    ProjectSettings,
    RegistrationType,
    Runner,
    RunnerManager,
)

LATELY = timedelta(days=30)
SHOWN = 20  # names of each kind on the page; the CSV has all


@dataclass(frozen=True, slots=True)
class Source:
    """One address that registrations came from lately."""

    address: str
    registrations: int
    last: datetime


@dataclass(frozen=True, slots=True)
class Effects:
    """What turning registration tokens off in a scope would touch; the lists hold the first `SHOWN` of each."""

    registered: int  # runners that a registration token made
    machines: int  # machines of theirs
    runners: list[Runner]
    registrations: int  # in the last 30 days, those included whose runner is gone again
    sources: list[Source]
    legacy: int  # machines that send no system ID: they are refused from then on
    legacy_managers: list[RunnerManager]
    groups: int  # below, where registration tokens are allowed now
    projects: int

    @property
    def nothing(self) -> bool:
        """Whether nobody would notice."""
        return not (self.registered or self.registrations or self.legacy)


def switch(session: Session, actor: Actor, scope: Scope, *, allow: bool, configured: Configured) -> bool:
    """Turn registration tokens on or off in the scope, for everything below too. Returns whether that changed it.

    Raises NotFound, or NotAllowed also where something above has decided already.
    """
    require(session, actor, Action.SWITCH_REGISTRATION, scope)
    registration.hold_switches(session, turning=True)
    decided = registration.decision(session, scope, configured)
    if decided.locked:
        raise NotAllowed(f"{decided.sentence} That decides for {scope.title} as well, so nothing was changed.")
    own = scope_settings.own_for_update(session, scope)
    if own.allow_runner_registration_token == allow:
        return False
    changes: dict[str, tuple[object, object]] = {"registration_tokens_allowed": (not allow, allow)}
    changes |= {name: (None, value) for name, value in _numbers(effects(session, scope)).items()}
    own.allow_runner_registration_token, own.switched_at, own.switched_by = allow, now(), actor.user
    action = "registration_tokens_turned_on" if allow else "registration_tokens_turned_off"
    audit.record(session, actor, action, scope, scope, changes)
    runner_changes.announce_everything(session)
    return True


def _numbers(found: Effects) -> dict[str, int]:
    return {
        "runners_registered_by_token": found.registered,
        "registrations_in_30_days": found.registrations,
        "machines_without_system_id": found.legacy,
        "groups_below": found.groups,
        "projects_below": found.projects,
    }


def effects(session: Session, scope: Scope) -> Effects:
    """What turning off would touch, in the scope and below, counted now. Changes nothing."""
    mine = and_(owned_below(scope), Runner.registration_type == RegistrationType.REGISTRATION_TOKEN)
    groups, projects = _allowed_below(scope)
    return Effects(
        registered=_count(session, select(Runner.id).where(mine)),
        machines=_count(session, select(RunnerManager.id).join(Runner).where(mine)),
        runners=list(session.scalars(_registered(scope).limit(SHOWN))),
        registrations=_count(session, select(AuditEvent.id).where(_registrations(scope))),
        sources=_sources(session, scope),
        legacy=_count(session, _without_system_id(scope)),
        legacy_managers=list(session.scalars(_without_system_id(scope).limit(SHOWN))),
        groups=_count(session, groups),
        projects=_count(session, projects),
    )


def _registered(scope: Scope) -> Select[Runner]:
    mine = and_(owned_below(scope), Runner.registration_type == RegistrationType.REGISTRATION_TOKEN)
    query = select(Runner).where(mine).options(joinedload(Runner.group), joinedload(Runner.project))
    return query.order_by(Runner.contacted_at.desc().nulls_last(), Runner.id.desc())


def _without_system_id(scope: Scope) -> Select[RunnerManager]:
    legacy = RunnerManager.system_xid == LEGACY
    query = (
        select(RunnerManager).join(Runner).where(legacy, owned_below(scope)).options(joinedload(RunnerManager.runner))
    )
    return query.order_by(RunnerManager.contacted_at.desc().nulls_last(), RunnerManager.id)


def _registrations(scope: Scope) -> ColumnElement[bool]:
    """The registrations of the last 30 days, from the trail: it keeps those whose runner has gone again."""
    lately = and_(AuditEvent.action == "runner_registered", AuditEvent.created_at > now() - LATELY)
    if scope.project is not None:
        return and_(lately, AuditEvent.project_id == scope.project.id)
    return and_(lately, AuditEvent.group_ids.contains([scope.group.id])) if scope.group else lately


def _sources(session: Session, scope: Scope) -> list[Source]:
    last = func.max(AuditEvent.created_at)
    query = select(AuditEvent.address, func.count(), last).where(_registrations(scope)).group_by(AuditEvent.address)
    rows = session.execute(query.order_by(last.desc()).limit(SHOWN))
    return [Source(address, count, moment) for address, count, moment in rows]


def _allowed_below(scope: Scope) -> tuple[Select[int], Select[int]]:
    """The groups and projects below the scope in which nothing below it has turned registration tokens off yet."""
    groups, projects = below(scope)
    off_above = exists().where(
        GroupSettings.group_id == func.any(Group.traversal_ids), ~GroupSettings.allow_runner_registration_token
    )
    off_here = exists().where(
        ProjectSettings.project_id == Project.id, ~ProjectSettings.allow_runner_registration_token
    )
    mine = Group.id != scope.group.id if scope.group else Group.id.is_not(None)
    inner = Project.id.is_not(None) if scope.project is None else Project.id != scope.project.id
    open_groups = select(Group.id).where(groups, mine, ~off_above)
    open_projects = (
        select(Project.id).join(Group, Group.id == Project.group_id).where(projects, inner, ~off_above, ~off_here)
    )
    return open_groups, open_projects


def _count(session: Session, query: Select[int] | Select[Runner] | Select[RunnerManager]) -> int:
    return session.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0


COLUMNS = ("kind", "scope", "runner_id", "runner", "system_id", "version", "address", "when")


def listed(session: Session, scope: Scope) -> Iterator[tuple[object, ...]]:
    """Everything that turning off would touch, as rows of `COLUMNS`, read from the database piece by piece."""
    for runner in session.scalars(_registered(scope).execution_options(yield_per=500)):
        yield _row("runner registered by token", runner, "", runner.version, runner.ip_address, runner.contacted_at)
    for manager in session.scalars(_without_system_id(scope).execution_options(yield_per=500)):
        kept = (manager.system_xid, manager.version, manager.ip_address, manager.contacted_at)
        yield _row("machine without system ID", manager.runner, *kept)
    events = select(AuditEvent).where(_registrations(scope)).order_by(AuditEvent.id.desc())
    for event in session.scalars(events.execution_options(yield_per=500)):
        what = (
            "registration in the last 30 days",
            event.scope_path or "instance",
            event.target_id,
            event.target_name,
        )
        yield (*what, "", "", event.address, event.created_at)


def _row(kind: str, runner: Runner, *rest: object) -> tuple[object, ...]:
    owner = runner.project or runner.group
    return (kind, owner.full_path if owner else "instance", runner.id, runner.title, *rest)
