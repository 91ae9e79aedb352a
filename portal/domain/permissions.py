"""The table: which action needs which role, per kind of scope. The only place where that is decided."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, func, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from portal.domain.actors import Actor
from portal.domain.errors import NOTHING_HERE, Hidden, NotAllowed
from portal.domain.scopes import INSTANCE, Scope, ScopeKind
from portal.models import Group, Membership, Project, Role


class Action(enum.StrEnum):
    """What somebody may want to do in a scope; the words complete "you may not …"."""

    SEE = "see this"
    READ_RUNNERS = "see its runners"
    WRITE_RUNNERS = "create, change or delete its runners"
    REGISTER_RUNNERS = "see or reset its registration token"
    SWITCH_REGISTRATION = "turn registration tokens off or on"
    SET_RUNNER_RULES = "change its runner settings"
    CLEAN_UP_RUNNERS = "clean up its stale runners"
    READ_MEMBERS = "see its members"
    WRITE_MEMBERS = "change its members"
    READ_TRAIL = "read its trail"
    CREATE_GROUP = "create a group here"
    CREATE_PROJECT = "create a project here"
    RENAME = "rename it"
    DELETE = "delete it"
    WRITE_PEOPLE = "manage people"
    LIMIT_RUNNERS = "say who may create runners, and how many"
    LOOK_UP_TOKENS = "look up tokens"
    READ_JOBS = "see its jobs"
    WRITE_JOBS = "run jobs, or stop them"
    WRITE_PROTECTED_JOBS = "run jobs on protected refs"
    SET_JOB_RULES = "change its job settings"
    CHECK_RUNNERS = "check its runners"
    IMPORT_RUNNERS = "import runners"


@dataclass(frozen=True, slots=True)
class Rule:
    """The lowest role that suffices. None: administrators only. The instance knows no other roles."""

    group: Role | None = None
    project: Role | None = None


# design/product.md "Scopes and people"; reference/rest.md section 3. Administrators may do everything.
TABLE: dict[Action, Rule] = {
    Action.SEE: Rule(Role.GUEST, Role.GUEST),
    Action.READ_MEMBERS: Rule(Role.GUEST, Role.GUEST),
    Action.READ_RUNNERS: Rule(Role.MAINTAINER, Role.MAINTAINER),
    Action.WRITE_RUNNERS: Rule(Role.OWNER, Role.MAINTAINER),
    Action.REGISTER_RUNNERS: Rule(Role.OWNER, Role.MAINTAINER),
    Action.SWITCH_REGISTRATION: Rule(Role.OWNER, Role.MAINTAINER),
    Action.SET_RUNNER_RULES: Rule(Role.OWNER, Role.MAINTAINER),
    Action.CLEAN_UP_RUNNERS: Rule(Role.OWNER, Role.MAINTAINER),
    Action.READ_JOBS: Rule(Role.REPORTER, Role.REPORTER),
    Action.WRITE_JOBS: Rule(Role.DEVELOPER, Role.DEVELOPER),
    Action.WRITE_PROTECTED_JOBS: Rule(Role.MAINTAINER, Role.MAINTAINER),
    Action.SET_JOB_RULES: Rule(Role.MAINTAINER, Role.MAINTAINER),
    Action.CHECK_RUNNERS: Rule(Role.OWNER, Role.MAINTAINER),
    Action.READ_TRAIL: Rule(Role.MAINTAINER, Role.MAINTAINER),
    Action.WRITE_MEMBERS: Rule(Role.OWNER, Role.MAINTAINER),
    Action.CREATE_GROUP: Rule(Role.OWNER),
    Action.CREATE_PROJECT: Rule(Role.MAINTAINER),
    Action.RENAME: Rule(Role.OWNER, Role.MAINTAINER),
    Action.DELETE: Rule(Role.OWNER, Role.OWNER),
    Action.WRITE_PEOPLE: Rule(),
    Action.LIMIT_RUNNERS: Rule(),
    Action.LOOK_UP_TOKENS: Rule(),
    Action.IMPORT_RUNNERS: Rule(),
}

WHO = {
    Role.GUEST: "any member",
    Role.REPORTER: "reporters and above",
    Role.DEVELOPER: "developers and above",
    Role.MAINTAINER: "maintainers and owners",
    Role.OWNER: "owners",
}


def needed(action: Action, kind: ScopeKind) -> Role | None:
    """The lowest role for the action in a scope of this kind; None where only administrators may."""
    rule = TABLE[action]
    return {ScopeKind.GROUP: rule.group, ScopeKind.PROJECT: rule.project}.get(kind)


def role_in(session: Session, actor: Actor, scope: Scope) -> Role:
    """The actor's highest role in the scope, inherited ones included. One query per scope and request."""
    if actor.user is None or scope.id is None:
        return Role.NONE
    key = (scope.kind.value, scope.id)
    if key not in actor.roles:
        places: list[ColumnElement[bool]] = [Membership.group_id.in_(scope.group_ids)]
        if scope.project is not None:
            places.append(Membership.project_id == scope.project.id)
        highest = select(func.max(Membership.access_level)).where(Membership.user_id == actor.user.id, or_(*places))
        actor.roles[key] = Role(session.scalar(highest) or 0)
    return actor.roles[key]


def remember_roles(session: Session, actor: Actor, scopes: Iterable[Scope]) -> None:
    """Look up the actor's roles in all these scopes with one query, for `may` and `require` to find them."""
    asked = {(scope.kind.value, scope.id): scope for scope in scopes if scope.id is not None}
    asked = {key: scope for key, scope in asked.items() if key not in actor.roles}
    if actor.user is None or actor.is_admin or not asked:
        return
    group_ids = {group_id for scope in asked.values() for group_id in scope.group_ids}
    project_ids = {scope.project.id for scope in asked.values() if scope.project is not None}
    places = or_(Membership.group_id.in_(group_ids), Membership.project_id.in_(project_ids))
    query = select(Membership.group_id, Membership.project_id, Membership.access_level)
    rows = session.execute(query.where(Membership.user_id == actor.user.id, places)).all()
    in_groups = {row.group_id: row.access_level for row in rows if row.group_id is not None}
    in_projects = {row.project_id: row.access_level for row in rows if row.project_id is not None}
    for (kind, scope_id), scope in asked.items():
        levels = [in_groups.get(group_id, 0) for group_id in scope.group_ids]
        own = in_projects.get(scope.project.id, 0) if scope.project is not None else 0
        actor.roles[(kind, scope_id)] = Role(max([*levels, own]))


def roles_of(session: Session, pairs: Iterable[tuple[int, Scope]]) -> list[Role]:
    """The highest role of each of these people in the scope beside them, inherited ones included, with one query."""
    asked = list(pairs)
    groups = {group_id for _, scope in asked for group_id in scope.group_ids}
    projects = {scope.project.id for _, scope in asked if scope.project is not None}
    if not groups:
        return [Role.NONE] * len(asked)
    places = or_(Membership.group_id.in_(groups), Membership.project_id.in_(projects))
    query = select(Membership.user_id, Membership.group_id, Membership.project_id, Membership.access_level)
    rows = session.execute(query.where(Membership.user_id.in_({each for each, _ in asked}), places))
    given = {(row.user_id, row.group_id, row.project_id): row.access_level for row in rows}
    return [
        Role(max((given.get((user_id, *place), 0) for place in _places(scope)), default=0))
        for user_id, scope in asked
    ]


def _places(scope: Scope) -> list[tuple[int | None, int | None]]:
    """Where a role that counts in the scope may be given: (group, None) or (None, project)."""
    own: list[tuple[int | None, int | None]] = [(None, scope.project.id)] if scope.project is not None else []
    return [*((group_id, None) for group_id in scope.group_ids), *own]


def may(session: Session, actor: Actor, action: Action, scope: Scope) -> bool:
    """Whether the actor may do this here."""
    if actor.is_admin or actor.kind == "system":
        return True
    lowest = needed(action, scope.kind)
    return lowest is not None and role_in(session, actor, scope) >= lowest


def require(session: Session, actor: Actor, action: Action, scope: Scope) -> None:
    """Refuse what the actor may not do: NotFound if they may not see the scope, else NotAllowed."""
    if may(session, actor, action, scope):
        return
    if not may(session, actor, Action.SEE, scope):
        raise Hidden(NOTHING_HERE, action=action.value, where=scope)
    lowest = needed(action, scope.kind)
    who = WHO[lowest] if lowest else "administrators"
    sentence = f"You may not {action.value} ({scope.title}): {who} may. Ask one of them for the role."
    raise NotAllowed(sentence, action=action.value, where=scope)


def require_openly(session: Session, actor: Actor, action: Action) -> None:
    """Refuse with NotAllowed what only administrators may, where it is no secret that it can be done.

    The instance's pages are hidden from everybody else; of an API everybody reads what it can do.
    """
    if not may(session, actor, action, INSTANCE):
        sentence = f"You may not {action.value}: administrators may. Ask one of them."
        raise NotAllowed(sentence, action=action.value, where=INSTANCE)


def where_allowed(actor: Actor, action: Action) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Conditions for the groups and for the projects in which the actor may do this; the same as `may`, for lists."""
    if actor.is_admin or actor.kind == "system":
        return true(), true()
    rule = TABLE[action]
    groups = _below(actor, rule.group)
    direct = _with_role(actor, rule.project, Membership.project_id)
    within = select(Group.id).where(_below(actor, rule.project))
    return groups, or_(Project.group_id.in_(within), Project.id.in_(direct))


def places_with(session: Session, actor: Actor, action: Action) -> tuple[list[int], list[int], list[int]]:
    """Where the actor's roles allow this, by ids: the groups in which, those in whose projects, and single projects.

    A group's role holds for everything below it: of groups below one another the top one alone is named. One query.
    """
    in_groups, in_projects = needed(action, ScopeKind.GROUP), needed(action, ScopeKind.PROJECT)
    if actor.user is None or in_groups is None or in_projects is None:
        return [], [], []
    query = select(Group.traversal_ids, Membership.project_id, Membership.access_level).select_from(Membership)
    query = query.outerjoin(Group, Group.id == Membership.group_id).where(Membership.user_id == actor.user.id)
    rows = session.execute(query).all()

    def tops(lowest: Role) -> list[int]:
        paths = [row.traversal_ids for row in rows if row.traversal_ids and row.access_level >= lowest]
        groups = {path[-1] for path in paths}
        return [path[-1] for path in paths if not groups.intersection(path[:-1])]

    projects = [row.project_id for row in rows if row.project_id and row.access_level >= in_projects]
    return tops(in_groups), tops(in_projects), projects


def where_member(actor: Actor, lowest: Role) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Conditions for the groups and the projects in which the actor has this role or a higher one, as a member."""
    within = select(Group.id).where(_below(actor, lowest))
    direct = _with_role(actor, lowest, Membership.project_id)
    return _below(actor, lowest), or_(Project.group_id.in_(within), Project.id.in_(direct))


def _below(actor: Actor, lowest: Role | None) -> ColumnElement[bool]:
    mine = _with_role(actor, lowest, Membership.group_id)
    found: ColumnElement[bool] = Group.traversal_ids.overlap(func.array(mine.scalar_subquery()))
    return found


def _with_role(actor: Actor, lowest: Role | None, place: InstrumentedAttribute[int | None]) -> Select[int | None]:
    who = actor.user.id if actor.user is not None and lowest is not None else 0
    return select(place).where(
        Membership.user_id == who, Membership.access_level >= (lowest or Role.OWNER), place.is_not(None)
    )


def first_visible(session: Session, actor: Actor, scope: Scope) -> int:
    """How many groups, from the top, stand above what the actor may see on the way down to this scope."""
    ids = scope.group_ids
    if actor.is_admin or not ids or actor.user is None:
        return 0
    mine = select(Membership.group_id).where(Membership.user_id == actor.user.id, Membership.group_id.in_(ids))
    return min((ids.index(group_id) for group_id in session.scalars(mine) if group_id), default=len(ids))
