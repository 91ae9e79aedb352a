"""What an administrator sees of one person: roles, ways to sign in, runners they created, and what happened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, aliased

from portal.domain.actors import PEOPLE
from portal.domain.audit import NEWEST_FIRST
from portal.domain.scopes import Scope, of_group, of_project
from portal.models import (
    AuditEvent,
    Group,
    Membership,
    Project,
    Role,
    Runner,
    SecondFactor,
    User,
    UserIdentity,
)


@dataclass(frozen=True, slots=True)
class GivenRole:
    """A role that a person was given in a group or project; it holds for everything below, too."""

    scope: Scope
    membership: Membership


def roles(session: Session, user: User) -> list[GivenRole]:
    """The person's roles where they were given, by path; those in what is deleted at present are left out."""
    rows = session.scalars(select(Membership).where(Membership.user_id == user.id)).all()
    in_groups = [row.group_id for row in rows if row.group_id]
    in_projects = [row.project_id for row in rows if row.project_id]
    groups = {each.id: each for each in session.scalars(select(Group).where(Group.id.in_(in_groups)))}
    projects = {each.id: each for each in session.scalars(select(Project).where(Project.id.in_(in_projects)))}
    given = []
    for row in rows:
        if row.group_id in groups:
            given.append(GivenRole(of_group(groups[row.group_id]), row))
        elif row.project_id in projects:
            given.append(GivenRole(of_project(projects[row.project_id]), row))
    return sorted(given, key=lambda each: each.scope.full_path.lower())


def identities(session: Session, user: User) -> Sequence[UserIdentity]:
    """The accounts at other providers with which the person signs in here."""
    return session.scalars(
        select(UserIdentity).where(UserIdentity.user_id == user.id).order_by(UserIdentity.id)
    ).all()


def has_second_factor(session: Session, user: User) -> bool:
    """Whether the person has an authenticator app that counts."""
    query = exists().where(SecondFactor.user_id == user.id, SecondFactor.confirmed_at.is_not(None))
    return bool(session.scalar(select(query)))


def with_second_factor(session: Session, users: Iterable[User]) -> set[int]:
    """The numbers of those among these people who have one; one query for all."""
    asked = [each.id for each in users]
    query = select(SecondFactor.user_id).where(
        SecondFactor.user_id.in_(asked), SecondFactor.confirmed_at.is_not(None)
    )
    return set(session.scalars(query)) if asked else set()


def count_runners(session: Session, user: User) -> int:
    """How many runners there are that the person created."""
    return session.scalar(select(func.count()).where(Runner.creator_id == user.id)) or 0


def last_owner_of(session: Session, user: User) -> Sequence[Group]:
    """The top-level groups whose only owner the person is, by name."""
    other = aliased(Membership)
    theirs = exists().where(
        Membership.group_id == Group.id, Membership.user_id == user.id, Membership.access_level == Role.OWNER
    )
    somebody_elses = exists().where(
        other.group_id == Group.id, other.user_id != user.id, other.access_level == Role.OWNER
    )
    query = select(Group).where(Group.parent_id.is_(None), theirs, ~somebody_elses)
    return session.scalars(query.order_by(func.lower(Group.name))).all()


def events(session: Session, user: User, limit: int) -> Sequence[AuditEvent]:
    """The newest events by the person and about the person."""
    about = (AuditEvent.target_kind == "person", AuditEvent.target_id == user.id)
    by = [(AuditEvent.actor_kind == kind, AuditEvent.actor_id == user.id) for kind in PEOPLE]
    # The newest of each by its own index; asked for both at once, the database would read all of a busy person's.
    ids = {
        number
        for each in (about, *by)
        for number in session.scalars(select(AuditEvent.id).where(*each).order_by(*NEWEST_FIRST).limit(limit))
    }
    newest = select(AuditEvent).where(AuditEvent.id.in_(ids)).order_by(*NEWEST_FIRST)
    return session.scalars(newest.limit(limit)).all()
