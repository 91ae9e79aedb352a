"""`/groups/:id/members` and `/projects/:id/members`: who has which role, given here or above."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from portal.api import credentials
from portal.api.for_users import places
from portal.api.for_users.door import looking_for, operation
from portal.api.for_users.paging import Page, Paged
from portal.api.for_users.parameters import (
    Id,
    OptionalId,
    OptionalText,
    Parameters,
    Text,
    at_least_one_of,
    only_one_of,
)
from portal.api.for_users.scope_parameters import AccessLevel, Ids, OneGroup, OneProject, called
from portal.api.for_users.shapes import Moment, UserBasic, user_basic
from portal.database import db
from portal.domain.groups import memberships
from portal.domain.groups.memberships import MembersAsked
from portal.domain.scopes import Scope
from portal.models import Membership

ROOM = "Members"
NAMES = {"login": "username", "role": "access_level"}


class Member(UserBasic):
    """A person with a role. Roles have no end here, so `expires_at` is always null."""

    access_level: int
    created_at: Moment
    expires_at: Moment | None
    membership_state: str


class MembersListed(Paged):
    """Which members."""

    query: Text = ""
    user_ids: Ids = ()


class GroupMembers(MembersListed, OneGroup):
    """Which members of the group."""


class ProjectMembers(MembersListed, OneProject):
    """Which members of the project."""


class OnePerson(Parameters):
    """One person."""

    user_id: Id


class GroupMember(OnePerson, OneGroup):
    """One member of the group."""


class ProjectMember(OnePerson, OneProject):
    """One member of the project."""


def _no_end(value: object) -> None:
    if value not in (None, ""):
        raise PydanticCustomError("unkept", "cannot be kept")


NoEnd = Annotated[
    None, BeforeValidator(_no_end), WithJsonSchema({"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 0}]})
]


class Role(Parameters):
    """A role. An end of it cannot be kept, so one that is asked for is refused: passed over, the role would stay."""

    access_level: AccessLevel
    expires_at: NoEnd = None


class NewMember(Role):
    """Who gets which role: by number or by user name."""

    user_id: OptionalId = None
    username: OptionalText = None

    @model_validator(mode="after")
    def _somebody(self) -> NewMember:
        only_one_of(self, "user_id", "username")
        at_least_one_of(self, "user_id", "username")
        return self


class NewGroupMember(NewMember, OneGroup):
    """Who gets which role in the group."""


class NewProjectMember(NewMember, OneProject):
    """Who gets which role in the project."""


class GroupRole(GroupMember, Role):
    """The role that a member of the group is to have."""


class ProjectRole(ProjectMember, Role):
    """The role that a member of the project is to have."""


def member(found: Membership) -> Member:
    """One member."""
    return Member(
        **user_basic(found.user),
        access_level=found.access_level,
        created_at=found.created_at,
        expires_at=None,
        membership_state="active",
    )


@operation("GET", "/groups/<path:group>/members", room=ROOM, refuses=(404,))
def of_group(given: GroupMembers) -> Page[Member]:
    """Who was given a role in this group."""
    return _page(given, places.group(given.group))


@operation("GET", "/groups/<path:group>/members/all", room=ROOM, refuses=(404,))
def all_of_group(given: GroupMembers) -> Page[Member]:
    """Everybody with a role in this group, given here or above; the highest counts."""
    return _page(given, places.group(given.group), inherited=True)


@operation("GET", "/groups/<path:group>/members/<int:user_id>", room=ROOM, refuses=(404,))
def one_of_group(given: GroupMember) -> Member:
    """The role that somebody was given in this group."""
    return _one(places.group(given.group), given.user_id)


@operation("GET", "/groups/<path:group>/members/all/<int:user_id>", room=ROOM, refuses=(404,))
def any_of_group(given: GroupMember) -> Member:
    """The role that somebody has in this group, given here or above."""
    return _one(places.group(given.group), given.user_id, inherited=True)


@operation("POST", "/groups/<path:group>/members", room=ROOM, status=201, refuses=(404, 409))
def add_to_group(given: NewGroupMember) -> Member:
    """Give somebody a role in this group and all below."""
    return _add(places.group(given.group), given)


@operation("PUT", "/groups/<path:group>/members/<int:user_id>", room=ROOM, refuses=(404, 409))
def change_in_group(given: GroupRole) -> Member:
    """Change a role that was given in this group."""
    return _change(places.group(given.group), given.user_id, given)


@operation("DELETE", "/groups/<path:group>/members/<int:user_id>", room=ROOM, refuses=(400, 404, 409))
def remove_from_group(given: GroupMember) -> None:
    """Take away a role that was given in this group. Everybody may leave."""
    _remove(places.group(given.group), given.user_id)


@operation("GET", "/projects/<path:project>/members", room=ROOM, refuses=(404,))
def of_project(given: ProjectMembers) -> Page[Member]:
    """Who was given a role in this project."""
    return _page(given, places.project(given.project))


@operation("GET", "/projects/<path:project>/members/all", room=ROOM, refuses=(404,))
def all_of_project(given: ProjectMembers) -> Page[Member]:
    """Everybody with a role in this project, given here or in a group above; the highest counts."""
    return _page(given, places.project(given.project), inherited=True)


@operation("GET", "/projects/<path:project>/members/<int:user_id>", room=ROOM, refuses=(404,))
def one_of_project(given: ProjectMember) -> Member:
    """The role that somebody was given in this project."""
    return _one(places.project(given.project), given.user_id)


@operation("GET", "/projects/<path:project>/members/all/<int:user_id>", room=ROOM, refuses=(404,))
def any_of_project(given: ProjectMember) -> Member:
    """The role that somebody has in this project, given here or in a group above."""
    return _one(places.project(given.project), given.user_id, inherited=True)


@operation("POST", "/projects/<path:project>/members", room=ROOM, status=201, refuses=(404, 409))
def add_to_project(given: NewProjectMember) -> Member:
    """Give somebody a role in this project."""
    return _add(places.project(given.project), given)


@operation("PUT", "/projects/<path:project>/members/<int:user_id>", room=ROOM, refuses=(404,))
def change_in_project(given: ProjectRole) -> Member:
    """Change a role that was given in this project."""
    return _change(places.project(given.project), given.user_id, given)


@operation("DELETE", "/projects/<path:project>/members/<int:user_id>", room=ROOM, refuses=(400, 404))
def remove_from_project(given: ProjectMember) -> None:
    """Take away a role that was given in this project. Everybody may leave."""
    _remove(places.project(given.project), given.user_id)


def _page(given: MembersListed, scope: Scope, *, inherited: bool = False) -> Page[Member]:
    asked = MembersAsked(inherited, given.query, given.user_ids)
    found = memberships.page(
        db.session(), credentials.actor(), scope, asked, offset=given.offset, limit=given.per_page
    )
    return Page([member(each) for each in found.rows], given, found.total, found.more)


def _one(scope: Scope, user_id: int, *, inherited: bool = False) -> Member:
    with looking_for("Member"):
        return member(memberships.of_person(db.session(), credentials.actor(), scope, user_id, inherited=inherited))


def _add(scope: Scope, given: NewMember) -> Member:
    session, actor = db.session(), credentials.actor()
    with called(NAMES):
        if given.user_id is not None:
            made = memberships.add_by_number(session, actor, scope, given.user_id, given.access_level)
        else:
            made = memberships.add(session, actor, scope, given.username or "", given.access_level)
    answer = member(made)
    db.session.commit()
    return answer


def _change(scope: Scope, user_id: int, given: Role) -> Member:
    with called(NAMES), looking_for("Member"):
        changed = memberships.change_role(db.session(), credentials.actor(), scope, user_id, given.access_level)
    answer = member(changed)
    db.session.commit()
    return answer


def _remove(scope: Scope, user_id: int) -> None:
    with called(NAMES), looking_for("Member"):
        memberships.remove(db.session(), credentials.actor(), scope, user_id)
    db.session.commit()
