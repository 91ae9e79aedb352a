"""Enrolment keys as their pages show them: how each stands, what it made, who used it from where."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session, joinedload

from portal.database import now
from portal.domain import actors, permissions
from portal.domain.actors import Actor
from portal.domain.audit import NEWEST_FIRST
from portal.domain.enrolment.enrolment_keys import in_scope, lives, scope_of
from portal.domain.groups import groups
from portal.domain.permissions import Action
from portal.domain.runners.runner_creation import closed_among
from portal.domain.scopes import INSTANCE, Scope
from portal.models import AuditEvent, EnrolmentKey, Group, Project, Role, Runner, User

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
    session: Session,
    scope: Scope,
    *,
    below: bool = False,
    actor: Actor | None = None,
    offset: int = 0,
    limit: int = SHOWN,
) -> list[Row]:
    """The keys of exactly this scope, or of all `below` too: those that still create runners first, then the newest.

    For an `actor`, only if they may change the scope's runners; who may so in a group may in all below it. Raises
    NotFound or NotAllowed.
    """
    if actor is not None:
        permissions.require(session, actor, Action.WRITE_RUNNERS, scope)
    return _rows(session, _held(scope, below=below), offset, limit)


def made_by(session: Session, user: User, *, limit: int) -> list[Row]:
    """The keys that the person made, wherever, in the same order; for administrators."""
    return _rows(session, and_(EnrolmentKey.creator_id == user.id, _held(INSTANCE, below=True)), 0, limit)


def _rows(session: Session, which: ColumnElement[bool], offset: int, limit: int) -> list[Row]:
    query = select(EnrolmentKey).where(which)
    query = query.options(*map(joinedload, (EnrolmentKey.creator, EnrolmentKey.group, EnrolmentKey.project)))
    found = session.scalars(query.order_by(lives().desc(), EnrolmentKey.id.desc()).offset(offset).limit(limit)).all()
    return with_states(session, found)


def _held(scope: Scope, *, below: bool) -> ColumnElement[bool]:
    """Condition for the keys of the scope, and with `below` for those below; none of what is deleted at present."""
    if not below:
        return in_scope(scope)
    in_groups, in_projects = groups.below(scope)
    return or_(
        in_scope(scope),
        EnrolmentKey.group_id.in_(select(Group.id).where(in_groups)),
        EnrolmentKey.project_id.in_(select(Project.id).where(in_projects)),
    )


def count(session: Session, scope: Scope, *, below: bool = False) -> int:
    """How many keys the scope has, or all `below` too, whatever their state."""
    return _count(session, _held(scope, below=below))


def count_made_by(session: Session, user: User) -> int:
    """How many keys the person made, whatever their state."""
    return _count(session, and_(EnrolmentKey.creator_id == user.id, _held(INSTANCE, below=True)))


def _count(session: Session, which: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).select_from(EnrolmentKey).where(which)) or 0


def with_states(session: Session, keys: Sequence[EnrolmentKey]) -> list[Row]:
    """The keys with their states, with a fixed number of queries, however many scopes they are of."""
    reasons = _powerless(session, [each for each in keys if each.creator is not None])
    return [_row(each, reasons) for each in keys]


def _row(key: EnrolmentKey, reasons: dict[int, str]) -> Row:
    if key.revoked_at is not None:
        return Row(key, State.REVOKED)
    if key.expires_at <= now().date():
        return Row(key, State.EXPIRED)
    if key.runners_created >= key.most_runners:
        return Row(key, State.USED_UP)
    why = reasons.get(key.id, "The account of who made it is gone.")
    return Row(key, State.POWERLESS, why) if why else Row(key, State.GOOD)


def _powerless(session: Session, keys: Sequence[EnrolmentKey]) -> dict[int, str]:
    """By the keys' numbers, why their creators may not create runners there at present; empty for who may."""
    scopes = [scope_of(each) for each in keys]
    pairs = [(each.creator_id or 0, scope) for each, scope in zip(keys, scopes, strict=True)]
    standing = zip(keys, scopes, closed_among(session, scopes), permissions.roles_of(session, pairs), strict=True)
    return {
        key.id: _why(session, key.creator, scope, closed, role)
        for key, scope, closed, role in standing
        if key.creator is not None
    }


def _why(session: Session, person: User, scope: Scope, closed: str, role: Role) -> str:
    if person.blocked_at is not None:
        return f"{person.name}, who made it, is blocked."
    actor = actors.person(person)
    if scope.id is not None:
        actor.roles[(scope.kind.value, scope.id)] = role
    if not permissions.may(session, actor, Action.WRITE_RUNNERS, scope):
        return f"{person.name}, who made it, may not create runners here any more."
    return "" if person.admin else closed


def runners_of(session: Session, key: EnrolmentKey, limit: int = SHOWN) -> Sequence[Runner]:
    """The runners that the key made and that are there, the newest first."""
    query = select(Runner).where(Runner.enrolled_with_id == key.id)
    return session.scalars(query.order_by(Runner.id.desc()).limit(limit)).all()


def count_runners(session: Session, key: EnrolmentKey) -> int:
    """How many of the runners that the key made are there."""
    return session.scalar(select(func.count()).where(Runner.enrolled_with_id == key.id)) or 0


def uses(session: Session, key: EnrolmentKey, limit: int) -> Sequence[AuditEvent]:
    """What happened with the key, the newest first: runners that it created, refusals, its making and its end."""
    ids = select(AuditEvent.id).order_by(*NEWEST_FIRST).limit(limit)
    by_it = and_(AuditEvent.actor_kind == "enrolment_key", AuditEvent.actor_id == key.id)
    about_it = and_(AuditEvent.target_kind == "enrolment_key", AuditEvent.target_id == key.id)
    # The newest of each by its own index, as for a person's events.
    newest = {number for each in (by_it, about_it) for number in session.scalars(ids.where(each))}
    query = select(AuditEvent).where(AuditEvent.id.in_(newest)).order_by(*NEWEST_FIRST)
    return session.scalars(query.limit(limit)).all()


def count_below(session: Session, scope: Scope) -> int:
    """How many keys that may still create runners there are in the scope and below."""
    return _count(session, and_(lives(), _held(scope, below=True)))


def of_person(session: Session, user: User) -> Sequence[int]:
    """The numbers of the keys that the person made and that may still create runners, the lower first."""
    query = select(EnrolmentKey.id).where(EnrolmentKey.creator_id == user.id, lives()).order_by(EnrolmentKey.id)
    return session.scalars(query).all()
