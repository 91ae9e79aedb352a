"""Enrolment keys as their pages show them: how each stands, what it made, who used it from where."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session, joinedload

from portal.database import now
from portal.domain import actors, groups, permissions, runner_creation
from portal.domain.actors import Actor
from portal.domain.enrolment_keys import in_scope, lives
from portal.domain.permissions import Action
from portal.domain.scopes import Scope
from portal.models import AuditEvent, EnrolmentKey, Group, Project, Runner, User

SHOWN = 200


class State(enum.StrEnum):
    """How a key stands. Only a good one creates runners."""

    GOOD = "good"
    USED_UP = "used up"
    EXPIRED = "expired"
    REVOKED = "revoked"
    POWERLESS = "without power"  # its creator may not, or no longer, create runners


@dataclass(frozen=True, slots=True)
class Row:
    """One key with its state; `why` says in a sentence why it has no power."""

    key: EnrolmentKey
    state: State
    why: str = ""


def of_scope(
    session: Session, scope: Scope, *, actor: Actor | None = None, offset: int = 0, limit: int = SHOWN
) -> list[Row]:
    """The keys of exactly this scope: those that may still create runners first, then the newest first.

    For an `actor`, only if they may change the scope's runners. Raises NotFound or NotAllowed.
    """
    if actor is not None:
        permissions.require(session, actor, Action.WRITE_RUNNERS, scope)
    query = select(EnrolmentKey).where(in_scope(scope)).options(joinedload(EnrolmentKey.creator))
    found = session.scalars(query.order_by(lives().desc(), EnrolmentKey.id.desc()).offset(offset).limit(limit)).all()
    return with_states(session, scope, found)


def count(session: Session, scope: Scope) -> int:
    """How many keys the scope has, whatever their state."""
    return session.scalar(select(func.count()).select_from(EnrolmentKey).where(in_scope(scope))) or 0


def with_states(session: Session, scope: Scope, keys: Sequence[EnrolmentKey]) -> list[Row]:
    """Keys of one scope with their states, with a fixed number of queries."""
    reasons = _powerless(session, scope, {each.creator for each in keys if each.creator is not None})
    return [_row(each, reasons) for each in keys]


def _row(key: EnrolmentKey, reasons: dict[int, str]) -> Row:
    if key.revoked_at is not None:
        return Row(key, State.REVOKED)
    if key.expires_at <= now().date():
        return Row(key, State.EXPIRED)
    if key.runners_created >= key.most_runners:
        return Row(key, State.USED_UP)
    why = reasons.get(key.creator_id or 0, "The account of who made it is gone.")
    return Row(key, State.POWERLESS, why) if why else Row(key, State.GOOD)


def _powerless(session: Session, scope: Scope, creators: Iterable[User]) -> dict[int, str]:
    """Why each of these people may not create runners in the scope at present; empty for who may."""
    people = list(creators)
    closed = runner_creation.closed_because(session, scope)
    roles = permissions.roles_of(session, scope, [each.id for each in people])
    found = {}
    for person in people:
        actor = actors.person(person)
        if scope.id is not None:
            actor.roles[(scope.kind.value, scope.id)] = roles[person.id]
        if person.blocked_at is not None:
            found[person.id] = f"{person.name}, who made it, is blocked."
        elif not permissions.may(session, actor, Action.WRITE_RUNNERS, scope):
            found[person.id] = f"{person.name}, who made it, may not create runners here any more."
        else:
            found[person.id] = "" if person.admin else closed
    return found


def runners_of(session: Session, key: EnrolmentKey, limit: int = SHOWN) -> Sequence[Runner]:
    """The runners that the key made and that are there, the newest first."""
    query = select(Runner).where(Runner.enrolled_with_id == key.id)
    return session.scalars(query.order_by(Runner.id.desc()).limit(limit)).all()


def count_runners(session: Session, key: EnrolmentKey) -> int:
    """How many of the runners that the key made are there."""
    return session.scalar(select(func.count()).where(Runner.enrolled_with_id == key.id)) or 0


def uses(session: Session, key: EnrolmentKey, limit: int) -> Sequence[AuditEvent]:
    """What happened with the key, the newest first: runners that it created, refusals, its making and its end."""
    ids = select(AuditEvent.id).order_by(AuditEvent.id.desc()).limit(limit)
    by_it = and_(AuditEvent.actor_kind == "enrolment_key", AuditEvent.actor_id == key.id)
    about_it = and_(AuditEvent.target_kind == "enrolment_key", AuditEvent.target_id == key.id)
    # The newest of each by its own index, as for a person's events.
    newest = {number for each in (by_it, about_it) for number in session.scalars(ids.where(each))}
    query = select(AuditEvent).where(AuditEvent.id.in_(newest)).order_by(AuditEvent.id.desc())
    return session.scalars(query.limit(limit)).all()


def count_below(session: Session, scope: Scope) -> int:
    """How many keys that may still create runners there are in the scope and below."""
    in_groups, in_projects = groups.below(scope)
    held = or_(
        EnrolmentKey.group_id.in_(select(Group.id).where(in_groups)),
        EnrolmentKey.project_id.in_(select(Project.id).where(in_projects)),
    )
    return session.scalar(select(func.count()).select_from(EnrolmentKey).where(lives(), held)) or 0


def of_person(session: Session, user: User) -> Sequence[int]:
    """The numbers of the keys that the person made and that may still create runners, the lower first."""
    query = select(EnrolmentKey.id).where(EnrolmentKey.creator_id == user.id, lives()).order_by(EnrolmentKey.id)
    return session.scalars(query).all()
