"""Writing the trail: one event for each change, in the same transaction as the change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from portal.domain.actors import Actor
from portal.domain.scopes import Scope
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
    query = select(AuditEvent).order_by(AuditEvent.id.desc())
    if scope.project is not None:
        return query.where(AuditEvent.project_id == scope.project.id)
    if scope.group is not None:
        return query.where(AuditEvent.group_ids.contains([scope.group.id]))
    return query


def of_runner(runner: Runner) -> Select[AuditEvent]:
    """The events about one runner, newest first."""
    about_it = (AuditEvent.target_kind == "runner") & (AuditEvent.target_id == runner.id)
    return select(AuditEvent).where(about_it).order_by(AuditEvent.id.desc())
