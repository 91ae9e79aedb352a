"""Roles that come from a person's groups at the OpenID Connect provider, by the mapping in the configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.config import MappedRole
from portal.domain import audit, scopes
from portal.domain.actors import Actor
from portal.domain.errors import LastAdministrator, NotFound
from portal.domain.people import people
from portal.domain.scopes import Scope, ScopeKind
from portal.models import Group, Membership, Project, Role, User

ADMINISTRATOR = "administrator"
Place = tuple[ScopeKind, int]


def apply(
    session: Session, actor: Actor, user: User, groups: Collection[str], mapping: Collection[MappedRole]
) -> None:
    """Give the person what their groups give, and take away what they gave before and no longer give.

    What somebody gave by hand stays as it is: the mapping neither raises, lowers nor removes it. A path that does
    not exist gives nothing. The last administrator who can sign in stays one. `actor` is the portal itself.
    """
    mine = [each for each in mapping if each.group in groups]
    _set_administrator(session, actor, user, any(each.role == ADMINISTRATOR for each in mine))
    wanted = _wanted(session, [each for each in mine if each.role != ADMINISTRATOR])
    rows = session.scalars(
        select(Membership).where(Membership.user_id == user.id).order_by(Membership.id).with_for_update(of=Membership)
    ).all()
    given = {_place_of(row): row for row in rows}
    for place, row in given.items():
        if row.from_openid:
            _change(session, actor, row, wanted.get(place))
    for place, (scope, role) in wanted.items():
        if place not in given:
            _add(session, actor, user, scope, role)


def _set_administrator(session: Session, actor: Actor, user: User, wanted: bool) -> None:
    if wanted == user.admin or (user.admin and not user.admin_from_openid):
        return
    try:
        people.set_administrator(session, actor, user, wanted)
    except LastAdministrator:
        return
    user.admin_from_openid = wanted


def _wanted(session: Session, mapping: Collection[MappedRole]) -> Mapping[Place, tuple[Scope, Role]]:
    """The highest role by place, of the places that exist."""
    wanted: dict[Place, tuple[Scope, Role]] = {}
    for each in mapping:
        scope, role = _scope(session, each.path), Role[each.role.upper()]
        if scope is None or scope.id is None:
            continue
        place = (scope.kind, scope.id)
        if place not in wanted or wanted[place][1] < role:
            wanted[place] = (scope, role)
    return wanted


def _scope(session: Session, path: str) -> Scope | None:
    """The group or project at a path; no two share one."""
    for find in (scopes.find_group, scopes.find_project):
        try:
            return find(session, path)
        except NotFound:
            continue
    return None


def _place_of(row: Membership) -> Place:
    return (ScopeKind.PROJECT, row.project_id) if row.project_id else (ScopeKind.GROUP, row.group_id or 0)


def _change(session: Session, actor: Actor, row: Membership, wanted: tuple[Scope, Role] | None) -> None:
    """Raise, lower or remove a role that the mapping gave."""
    scope = wanted[0] if wanted else _scope_of(session, row)
    if scope is None:  # deleted, and may be restored: it gives nothing meanwhile
        return
    old, new = row.role, wanted[1] if wanted else None
    if old == new:
        return
    if new is None:
        audit.record(session, actor, "member_removed", row, scope, {"role": (old.name.lower(), None)})
        session.delete(row)
    else:
        row.access_level = new
        changed = {"role": (old.name.lower(), new.name.lower())}
        audit.record(session, actor, "member_role_changed", row, scope, changed)


def _scope_of(session: Session, row: Membership) -> Scope | None:
    if row.project_id:
        project = session.scalar(select(Project).where(Project.id == row.project_id))
        return scopes.of_project(project) if project else None
    group = session.scalar(select(Group).where(Group.id == row.group_id))
    return scopes.of_group(group) if group else None


def _add(session: Session, actor: Actor, user: User, scope: Scope, role: Role) -> None:
    row = Membership(
        user=user,
        group_id=scope.group.id if scope.group else None,
        project_id=scope.project.id if scope.project else None,
        access_level=role,
        from_openid=True,
    )
    try:
        with session.begin_nested():
            session.add(row)
            session.flush()
    except IntegrityError:
        return  # somebody gave them a role by hand this very moment, and that one stands
    audit.record(session, actor, "member_added", row, scope, {"role": (None, role.name.lower())})
