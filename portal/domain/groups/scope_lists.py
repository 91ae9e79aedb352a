"""Lists of the groups and projects that somebody may see: filters, order, slices."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from portal.domain import permissions
from portal.domain.actors import Actor
from portal.domain.groups import groups
from portal.domain.scopes import Scope
from portal.domain.slices import Slice, cut
from portal.models import Group, Project, Role, Route

T = TypeVar("T", Group, Project)


class Order(StrEnum):
    """By what a list is sorted; the id decides between equals."""

    NAME = "name"
    PATH = "path"
    ID = "id"
    CREATED_AT = "created_at"


@dataclass(frozen=True, slots=True)
class ScopeFilter:
    """What is asked for. `inside` is a group; of it only the children, or with `deep` everything below it.

    `role` leaves only what the actor has this role in as a member, here or above: an administrator who is no member
    finds nothing then.
    """

    words: str = ""
    inside: Scope | None = None
    deep: bool = False
    top_level: bool = False
    role: Role | None = None
    without: tuple[int, ...] = ()
    order: Order = Order.NAME
    descending: bool = False


def groups_seen(session: Session, actor: Actor, wanted: ScopeFilter, *, offset: int, limit: int) -> Slice[Group]:
    """The groups that the actor may see and asks for. Two statements."""
    query = groups.visible_groups(actor).order_by(None).where(_worded(wanted.words, Group))
    if wanted.inside is not None and wanted.inside.group is not None:
        here = wanted.inside.group.id
        query = query.where(Group.traversal_ids.contains([here]) if wanted.deep else Group.parent_id == here)
        query = query.where(Group.id != here)
    if wanted.top_level:
        query = query.where(Group.parent_id.is_(None))
    if wanted.role is not None:
        query = query.where(permissions.where_member(actor, wanted.role)[0])
    return cut(session, _sorted(query, Group, wanted), Group.id, offset=offset, limit=limit)


def projects_seen(session: Session, actor: Actor, wanted: ScopeFilter, *, offset: int, limit: int) -> Slice[Project]:
    """The projects that the actor may see and asks for. Two statements."""
    query = groups.visible_projects(actor).order_by(None).where(_worded(wanted.words, Project))
    if wanted.inside is not None and wanted.inside.group is not None:
        here = wanted.inside.group.id
        below = select(Group.id).where(Group.traversal_ids.contains([here]))
        query = query.where(Project.group_id.in_(below) if wanted.deep else Project.group_id == here)
    if wanted.role is not None:
        query = query.where(permissions.where_member(actor, wanted.role)[1])
    return cut(session, _sorted(query, Project, wanted), Project.id, offset=offset, limit=limit)


def _worded(words: str, model: type[Group] | type[Project]) -> ColumnElement[bool]:
    """Condition: name or path contain the words, whatever the case; with a slash, the full path does."""
    wanted = words.strip().lower()
    places = [Route.path] if "/" in wanted else [model.name, model.path]
    return or_(*(func.strpos(func.lower(place), wanted) > 0 for place in places))


def _sorted(query: Select[T], model: type[T], wanted: ScopeFilter) -> Select[T]:
    by: dict[Order, ColumnElement[Any] | InstrumentedAttribute[Any]] = {
        Order.NAME: func.lower(model.name),
        Order.PATH: func.lower(Route.path),
        Order.ID: model.id,
        Order.CREATED_AT: model.created_at,
    }
    keys = (by[wanted.order], model.id)
    return query.where(model.id.not_in(wanted.without)).order_by(
        *(key.desc() if wanted.descending else key.asc() for key in keys)
    )
