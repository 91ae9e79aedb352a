"""Finding people: administrators find everybody, others whom they see on members pages or could add to them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, false, func, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from portal.domain import permissions
from portal.domain.actors import Actor
from portal.domain.errors import NOTHING_HERE, NotFound
from portal.domain.permissions import Action
from portal.domain.slices import Slice, cut
from portal.models import Group, Membership, Project, User


class Order(StrEnum):
    """By what a list of people is sorted; the id decides between equals."""

    ID = "id"
    NAME = "name"
    USERNAME = "username"
    CREATED_AT = "created_at"


@dataclass(frozen=True, slots=True)
class PeopleAsked:
    """Who is looked for: by the exact user name, by words, by state. `administrators` only administrators may ask."""

    username: str = ""
    words: str = ""
    blocked: bool | None = None
    administrators: bool = False
    order: Order = Order.ID
    descending: bool = True


def found(session: Session, actor: Actor, asked: PeopleAsked, *, offset: int, limit: int) -> Slice[User]:
    """The people whom the actor may find and asks for. Two statements.

    Whoever may give roles somewhere also finds a stranger, by the whole user name or address: the members page, which
    takes either, tells them as much. Raises NotAllowed for who may not ask for administrators.
    """
    if asked.administrators:
        permissions.require_openly(session, actor, Action.WRITE_PEOPLE)
    query = select(User).where(_called(actor, asked))
    if asked.blocked is not None:
        query = query.where(User.blocked_at.is_not(None) if asked.blocked else User.blocked_at.is_(None))
    if asked.administrators:
        query = query.where(User.admin)
    by: dict[Order, ColumnElement[Any] | InstrumentedAttribute[Any]] = {
        Order.ID: User.id,
        Order.NAME: func.lower(User.name),
        Order.USERNAME: func.lower(User.username),
        Order.CREATED_AT: User.created_at,
    }
    keys = (by[asked.order], User.id)
    query = query.order_by(*(key.desc() if asked.descending else key.asc() for key in keys))
    return cut(session, query, User.id, offset=offset, limit=limit)


def known(session: Session, actor: Actor, user_id: int) -> User:
    """The person with this number, if the actor may know them. Raises NotFound."""
    person = session.scalar(select(User).where(User.id == user_id, _known_to(actor)))
    if person is None:
        raise NotFound(NOTHING_HERE)
    return person


def knows(session: Session, actor: Actor, person: User) -> bool:
    """Whether the actor may know the person."""
    return session.scalar(select(User.id).where(User.id == person.id, _known_to(actor))) is not None


def _called(actor: Actor, asked: PeopleAsked) -> ColumnElement[bool]:
    name, words = asked.username.strip().lower(), asked.words.strip().lower()
    exactly = true() if not name else func.lower(User.username) == name
    places = [User.username, User.name]
    if actor.is_admin:
        places.append(User.email)  # others do not see addresses, nor find them out letter by letter
    worded = or_(*(func.strpos(func.lower(each), words) > 0 for each in places))
    if actor.is_admin:
        return exactly & worded
    whole = func.lower(User.username) == name if name else false()
    if words:
        address = or_(func.lower(User.username) == words, func.lower(User.email) == words)
        whole = whole & address if name else address
    return or_(_known_to(actor) & exactly & worded, whole & _gives_roles(actor))


def _known_to(actor: Actor) -> ColumnElement[bool]:
    """Condition: oneself, and everybody with a role in a group or project whose members page the actor may open.

    Such a page shows the roles that were given above, too.
    """
    if actor.is_admin or actor.kind == "system":
        return true()
    in_groups, in_projects = permissions.where_allowed(actor, Action.READ_MEMBERS)
    groups = select(func.unnest(Group.traversal_ids)).where(in_groups)
    holding = select(func.unnest(Group.traversal_ids)).join(Project, Project.group_id == Group.id).where(in_projects)
    projects = select(Project.id).where(in_projects)
    places = (Membership.group_id.in_(groups), Membership.group_id.in_(holding), Membership.project_id.in_(projects))
    members = select(Membership.user_id).where(or_(*places))
    return or_(User.id == (actor.user.id if actor.user else 0), User.id.in_(members))


def _gives_roles(actor: Actor) -> ColumnElement[bool]:
    in_groups, in_projects = permissions.where_allowed(actor, Action.WRITE_MEMBERS)
    groups, projects = select(Group.id).where(in_groups), select(Project.id).where(in_projects)
    return or_(groups.exists(), projects.exists())
