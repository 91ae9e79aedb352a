"""The table: which action needs which role, per kind of scope. The only place where that is decided."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from portal.domain.actors import Actor
from portal.domain.errors import NOTHING_HERE, NotAllowed, NotFound
from portal.domain.scopes import Scope, ScopeKind
from portal.models import Membership, Role


class Action(enum.StrEnum):
    """What somebody may want to do in a scope; the words complete "you may not …"."""

    SEE = "see this"
    READ_RUNNERS = "see its runners"
    WRITE_RUNNERS = "create or change its runners"
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
        raise NotFound(NOTHING_HERE)
    lowest = needed(action, scope.kind)
    who = WHO[lowest] if lowest else "administrators"
    raise NotAllowed(f"You may not {action.value} ({scope.title}): {who} may. Ask one of them for the role.")


def first_visible(session: Session, actor: Actor, scope: Scope) -> int:
    """How many groups, from the top, stand above what the actor may see on the way down to this scope."""
    ids = scope.group_ids
    if actor.is_admin or not ids or actor.user is None:
        return 0
    mine = select(Membership.group_id).where(Membership.user_id == actor.user.id, Membership.group_id.in_(ids))
    return min((ids.index(group_id) for group_id in session.scalars(mine) if group_id), default=len(ids))
