"""Writing the trail: one event for each change, in the same transaction as the change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, literal_column, select
from sqlalchemy.orm import Session

from portal.domain.actors import Actor
from portal.domain.scopes import Scope, ScopeKind
from portal.models import (
    AccessToken,
    AuditEvent,
    EnrolmentKey,
    Group,
    Job,
    JobTemplate,
    Membership,
    Project,
    RegistrationToken,
    Runner,
    User,
)

LEVELS = 5  # of groups that have an index of the trail each (models/audit_event.py)
# Clocks of several hosts differ a little: events of one moment stand in the order of their numbers.
NEWEST_FIRST = (AuditEvent.created_at.desc(), AuditEvent.id.desc())
Changes = Mapping[str, tuple[Any, Any]]
_KINDS: dict[type, str] = {
    Runner: "runner",
    Group: "group",
    Project: "project",
    User: "person",
    Membership: "member",
    RegistrationToken: "registration_token",
    AccessToken: "access_token",
    EnrolmentKey: "enrolment_key",
    Job: "job",
    JobTemplate: "job_template",
}


def record(
    session: Session, actor: Actor, action: str, target: Any, scope: Scope, changes: Changes | None = None
) -> AuditEvent:
    """Add one event about `target`, which may be the scope itself.

    `changes` maps a name to (old, new); it must never hold a secret.

    The caller's commit writes it together with the change it tells of, or neither.
    """
    event = AuditEvent(
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_name=actor.name,
        action=action,
        target_kind=target.kind.value if isinstance(target, Scope) else _KINDS[type(target)],
        target_id=target.id,
        target_name=_name(target),
        scope_kind=scope.kind.value,
        scope_path=scope.full_path,
        group_ids=scope.group_ids,
        project_id=scope.project.id if scope.project else None,
        address=actor.address,
        request_id=actor.request_id,
        changes={name: [_exact(old), _exact(new)] for name, (old, new) in (changes or {}).items()},
    )
    session.add(event)
    return event


def _exact(value: Any) -> Any:
    """A value as the chain can hold it: a number with a fraction reads differently everywhere, so it becomes text."""
    if isinstance(value, float):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _exact(each) for name, each in value.items()}
    return [_exact(each) for each in value] if isinstance(value, list | tuple) else value


def _name(target: Any) -> str:
    if isinstance(target, Runner):
        return target.title
    if isinstance(target, Membership):
        return target.user.name
    if isinstance(target, RegistrationToken):
        return target.short
    if isinstance(target, Scope | Job):
        return target.title
    if isinstance(target, JobTemplate):
        return target.name
    return target.name if isinstance(target, User | AccessToken | EnrolmentKey) else str(target.full_path)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs between two states of the same thing, as (old, new) by name."""
    return {name: (old[name], new[name]) for name in new if old.get(name) != new[name]}


def of_scope(scope: Scope) -> Select[AuditEvent]:
    """The events in a scope, newest first; a group's include those of everything below it."""
    query = select(AuditEvent).order_by(*NEWEST_FIRST)
    return query if scope.kind is ScopeKind.INSTANCE else query.where(inside(scope))


def inside(scope: Scope) -> ColumnElement[bool]:
    """Condition for the events in a group or below it, or in a project; each has an index in the order of time.

    Groups never move, so that a group stands at the same level in all its events. The levels that have an index are
    few: among the events of a deeper group's ancestor its own are looked for.
    """
    if scope.project is not None:
        return AuditEvent.project_id == scope.project.id
    ids = scope.group_ids
    level = min(len(ids), LEVELS)
    # The level stands in the text as it does in the index: a plan for any level could use none of them.
    at_level: ColumnElement[bool] = AuditEvent.group_ids[literal_column(str(level))] == ids[level - 1]
    return at_level if len(ids) <= LEVELS else and_(at_level, AuditEvent.group_ids.contains([ids[-1]]))


def of_runner(runner: Runner) -> Select[AuditEvent]:
    """The events about one runner, newest first."""
    about_it = (AuditEvent.target_kind == "runner") & (AuditEvent.target_id == runner.id)
    return select(AuditEvent).where(about_it).order_by(*NEWEST_FIRST)
