"""Members: who has which role in a group or project, given here or above."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, case, func, or_, select, tuple_
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.domain import audit
from portal.domain.actors import Actor
from portal.domain.errors import AlreadyMember, Invalid, LeftWithoutOwner, NotAllowed, NotFound
from portal.domain.people import accounts
from portal.domain.permissions import Action, require, role_in
from portal.domain.scopes import Scope
from portal.domain.slices import Slice, cut
from portal.models import Group, Membership, Role, User

PAGE_SIZE = 50


@dataclass(frozen=True, slots=True)
class Member:
    """One line of a members page. `source` is the group above that gives the role, or None for here."""

    membership: Membership
    source: Group | None


@dataclass(frozen=True, slots=True)
class MembersShown:
    """One page of a members page; `after` and `before` are the cursors of the next and the previous page."""

    members: list[Member]
    after: int | None
    before: int | None


def listed(
    session: Session, scope: Scope, *, after: int | None = None, before: int | None = None, size: int = PAGE_SIZE
) -> MembersShown:
    """Who has a role here, each time it is given: given here first, then inherited, each by name.

    `after` and `before` are memberships; one that has ended since leads to the start.
    """
    above = [each for each in scope.group_ids if scope.group is None or each != scope.group.id]
    inherited = case((_given_here(scope), 0), else_=1)
    place = (inherited, func.lower(User.name), Membership.id)
    everybody = or_(_given_here(scope), Membership.group_id.in_(above))
    query = select(Membership).join(Membership.user).where(everybody)
    cursor = before if before is not None else after
    at = select(*place).join(Membership.user).where(Membership.id == cursor, everybody)
    here = session.execute(at).one_or_none() if cursor is not None else None
    backwards = here is not None and before is not None
    if here is not None:
        beyond = tuple_(*place) < tuple_(*here) if backwards else tuple_(*place) > tuple_(*here)
        query = query.where(beyond)
    query = query.order_by(*(each.desc() if backwards else each.asc() for each in place)).limit(size + 1)
    rows = list(session.scalars(query))
    more, rows = len(rows) > size, rows[:size]
    if backwards:
        rows.reverse()
    sources = {g.id: g for g in session.scalars(select(Group).where(Group.id.in_(above)))} if above else {}
    members = [Member(row, sources.get(row.group_id) if row.group_id else None) for row in rows]
    following, earlier = (here is not None, more) if backwards else (more, here is not None)
    return MembersShown(
        members, rows[-1].id if rows and following else None, rows[0].id if rows and earlier else None
    )


@dataclass(frozen=True, slots=True)
class MembersAsked:
    """Which members: with `inherited` also those whose role was given above; by words; only these people."""

    inherited: bool = False
    words: str = ""
    user_ids: tuple[int, ...] = ()


def page(
    session: Session, actor: Actor, scope: Scope, asked: MembersAsked, *, offset: int, limit: int
) -> Slice[Membership]:
    """Members by name, everybody once, with their highest role. Two statements. Raises NotFound or NotAllowed.

    Of equal roles the one that was given nearest counts, so that it can be changed here.
    """
    require(session, actor, Action.READ_MEMBERS, scope)
    query = select(Membership).join(Membership.user).where(Membership.id.in_(_highest(scope, asked)))
    if wanted := asked.words.strip().lower():
        query = query.where(or_(*(func.strpos(func.lower(each), wanted) > 0 for each in (User.name, User.username))))
    query = query.order_by(func.lower(User.name), User.id)
    return cut(session, query, Membership.id, offset=offset, limit=limit)


def of_person(session: Session, actor: Actor, scope: Scope, user_id: int, *, inherited: bool = False) -> Membership:
    """The role that this person has here. Raises NotFound, also for who has none."""
    require(session, actor, Action.READ_MEMBERS, scope)
    highest = _highest(scope, MembersAsked(inherited=inherited, user_ids=(user_id,)))
    membership = session.scalar(select(Membership).where(Membership.id.in_(highest)))
    if membership is None:
        raise NotFound("This person has no role here.")
    return membership


def _highest(scope: Scope, asked: MembersAsked) -> Select[int]:
    """The membership of each person that counts."""
    query = select(Membership.id).ext(distinct_on(Membership.user_id))
    above = Membership.group_id.in_(scope.group_ids)
    query = query.where(or_(_given_here(scope), above) if asked.inherited else _given_here(scope))
    if asked.user_ids:
        query = query.where(Membership.user_id.in_(asked.user_ids))
    nearest = case((_given_here(scope), 0), else_=1)
    return query.order_by(Membership.user_id, Membership.access_level.desc(), nearest, Membership.group_id.desc())


def add(session: Session, actor: Actor, scope: Scope, login: str, role: Role) -> Membership:
    """Give a role here to who has this user name or address.

    Raises NotFound, NotAllowed, or Invalid for a wrong name or role.
    """
    _require_to_give(session, actor, scope, role)
    user = accounts.find(session, login)
    if user is None:
        raise Invalid(
            {"login": [f"There is nobody called '{login.strip()}'. An administrator can create the account."]}
        )
    return _give(session, actor, scope, user, role)


def add_by_number(session: Session, actor: Actor, scope: Scope, user_id: int, role: Role) -> Membership:
    """The same for the person with this number, as scripts name people. Raises also NotFound for nobody's number."""
    _require_to_give(session, actor, scope, role)
    user = session.get(User, user_id)
    if user is None:
        missing = NotFound("There is no such person. Look the number up by the user name.")
        missing.what = "User"
        raise missing
    return _give(session, actor, scope, user, role)


def _require_to_give(session: Session, actor: Actor, scope: Scope, role: Role) -> None:
    require(session, actor, Action.WRITE_MEMBERS, scope)
    _require_reach(session, actor, scope, role)


def _give(session: Session, actor: Actor, scope: Scope, user: User, role: Role) -> Membership:
    membership = Membership(
        user=user,
        group_id=scope.group.id if scope.group else None,
        project_id=scope.project.id if scope.project else None,
        access_level=role,
    )
    try:
        with session.begin_nested():
            session.add(membership)
            session.flush()
    except IntegrityError:
        raise AlreadyMember({"login": [f"{user.name} is a member already. Change the role instead."]}) from None
    audit.record(session, actor, "member_added", membership, scope, {"role": (None, role.name.lower())})
    return membership


def change_role(session: Session, actor: Actor, scope: Scope, user_id: int, role: Role) -> Membership:
    """Change a role that was given here. Raises NotFound, NotAllowed or Invalid."""
    require(session, actor, Action.WRITE_MEMBERS, scope)
    membership = _given(session, scope, user_id)
    _require_reach(session, actor, scope, max(role, membership.role))
    _leave_to_openid(actor, membership)
    if role < Role.OWNER:
        _keep_an_owner(session, scope, membership)
    changed = {"role": (membership.role.name.lower(), role.name.lower())}
    if membership.role != role:
        membership.access_level, membership.from_openid = role, False
        audit.record(session, actor, "member_role_changed", membership, scope, changed)
    return membership


def remove(session: Session, actor: Actor, scope: Scope, user_id: int) -> None:
    """Take away a role that was given here. People may always leave by themselves.

    Raises NotFound, NotAllowed or Invalid.
    """
    require(session, actor, Action.SEE, scope)
    membership = _given(session, scope, user_id)
    if actor.user is None or membership.user_id != actor.user.id:
        require(session, actor, Action.WRITE_MEMBERS, scope)
        _require_reach(session, actor, scope, membership.role)
        _leave_to_openid(actor, membership)
    _keep_an_owner(session, scope, membership)
    audit.record(session, actor, "member_removed", membership, scope, {"role": (membership.role.name.lower(), None)})
    session.delete(membership)


def _given_here(scope: Scope) -> ColumnElement[bool]:
    if scope.project is not None:
        return Membership.project_id == scope.project.id
    return Membership.group_id == scope.id


def _given(session: Session, scope: Scope, user_id: int) -> Membership:
    """The role that was given here, held. Where an owner must stay all owners are, the lower id first.

    Two owners who demote each other at once would wait for each other otherwise.
    """
    wanted = Membership.user_id == user_id
    if _keeps_an_owner(scope):
        wanted |= Membership.access_level == Role.OWNER
    query = select(Membership).where(_given_here(scope), wanted).order_by(Membership.id)
    held = session.scalars(query.with_for_update(of=Membership).execution_options(populate_existing=True))
    membership = next((each for each in held if each.user_id == user_id), None)
    if membership is None:
        raise NotFound("This person has no role that was given here.")
    return membership


def _require_reach(session: Session, actor: Actor, scope: Scope, role: Role) -> None:
    """Nobody hands out, changes or takes away more than they have themselves."""
    if not actor.is_admin and actor.kind != "system" and role > role_in(session, actor, scope):
        raise NotAllowed(f"You may not give or change the role {role.name.lower()}: it is above your own.")


def _leave_to_openid(actor: Actor, membership: Membership) -> None:
    """Only administrators change by hand what single sign-on has given: with the next sign-in it would be back."""
    if membership.from_openid and not actor.is_admin and actor.kind != "system":
        raise Invalid(
            {
                "role": [
                    f"Single sign-on gives {membership.user.name} this role. It is changed in the groups there, "
                    "or by an administrator of this portal."
                ]
            }
        )


def _keep_an_owner(session: Session, scope: Scope, leaving: Membership) -> None:
    """A top-level group keeps one owner, or nobody but an administrator could manage it any more."""
    if not _keeps_an_owner(scope) or leaving.role < Role.OWNER:
        return
    owners = select(func.count()).where(_given_here(scope), Membership.access_level == Role.OWNER)
    if (session.scalar(owners) or 0) <= 1:
        raise LeftWithoutOwner({"role": ["This is the group's last owner. Make somebody else an owner first."]})


def _keeps_an_owner(scope: Scope) -> bool:
    return scope.group is not None and scope.group.parent_id is None
