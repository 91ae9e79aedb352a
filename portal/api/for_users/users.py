"""`/user` and `/users`: people."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import model_validator

from portal.api import credentials
from portal.api.for_users.door import looking_for, operation
from portal.api.for_users.operations import Nothing
from portal.api.for_users.paging import Page, Paged
from portal.api.for_users.parameters import (
    Flag,
    Id,
    OptionalFlag,
    OptionalText,
    Parameters,
    Text,
    at_least_one_of,
)
from portal.api.for_users.shapes import Moment, UserBasic, user_basic
from portal.database import db
from portal.domain import permissions
from portal.domain.errors import CredentialRefused
from portal.domain.people import people, people_search, person_deletion, person_facts
from portal.domain.people.people_search import Order, PeopleAsked
from portal.domain.people.person_deletion import Runners
from portal.domain.permissions import Action
from portal.models import User

ROOM = "People"
ORDERS = {
    "id": Order.ID,
    "name": Order.NAME,
    "username": Order.USERNAME,
    "created_at": Order.CREATED_AT,
    "updated_at": Order.CREATED_AT,
}
KEYS = ("password", "reset_password", "force_random_password")


class UserDetails(UserBasic):
    """A person, as they and administrators may know them."""

    created_at: Moment
    last_sign_in_at: Moment | None
    email: str
    is_admin: bool
    can_create_group: bool
    two_factor_enabled: bool
    external: Literal[False]  # nobody is; Ansible compares it


class PeopleListed(Paged):
    """Which people, in which order; the newest first unless told otherwise."""

    username: Text = ""
    search: Text = ""
    active: Flag = False
    blocked: Flag = False
    admins: Flag = False
    order_by: Literal["id", "name", "username", "created_at", "updated_at"] = "id"
    sort: Literal["asc", "desc"] = "desc"


class OnePerson(Parameters):
    """One person."""

    user_id: Id


class PersonMade(Parameters):
    """A new person. Without a password of the administrator's choice nobody knows one, and none is sent anywhere."""

    username: Text
    name: Text
    email: Text
    password: OptionalText = None
    reset_password: OptionalFlag = None
    force_random_password: OptionalFlag = None
    admin: OptionalFlag = None

    @model_validator(mode="after")
    def _gets_in(self) -> PersonMade:
        at_least_one_of(self, *KEYS)
        return self


class PersonChange(OnePerson):
    """What to change; nothing is changed when something of it may not be, or cannot."""

    username: OptionalText = None
    name: OptionalText = None
    email: OptionalText = None
    password: OptionalText = None
    admin: OptionalFlag = None


class PersonDeleted(OnePerson):
    """Who is deleted, what becomes of the runners that they created, and whether groups may be left ownerless."""

    created_runners: Literal["keep", "pause", "delete"] = "keep"
    leave_groups: Flag = False


def details(user: User, second_factors: Collection[int] | None = None) -> UserDetails:
    """The person, for themselves and for administrators; who has a second factor is looked up unless it is given."""
    has_one = (
        person_facts.has_second_factor(db.session(), user) if second_factors is None else user.id in second_factors
    )
    return UserDetails(
        **user_basic(user),
        created_at=user.created_at,
        last_sign_in_at=user.last_signed_in_at,
        email=user.email,
        is_admin=user.admin,
        can_create_group=user.admin,
        two_factor_enabled=has_one,
        external=False,
    )


@operation("GET", "/user", room=ROOM)
def me(_given: Nothing) -> UserDetails:
    """Who asks."""
    user = credentials.actor().user
    if user is None:
        raise CredentialRefused("An enrolment key is nobody's account.")
    return details(user)


@operation("GET", "/users", room=ROOM)
def index(given: PeopleListed) -> Page[UserDetails | UserBasic]:
    """People. Administrators find everybody; others those with whom they share a group or project.

    Who may give roles somewhere also finds a person by the whole user name or address.
    """
    session, actor = db.session(), credentials.actor()
    asked = PeopleAsked(
        username=given.username,
        words=given.search,
        blocked=given.blocked if given.active != given.blocked else None,
        administrators=given.admins,
        order=ORDERS[given.order_by],
        descending=given.sort == "desc",
    )
    found = people_search.found(session, actor, asked, offset=given.offset, limit=given.per_page)
    if not actor.is_admin:
        basic: list[UserDetails | UserBasic] = [UserBasic(**user_basic(each)) for each in found.rows]
        return Page(basic, given, found.total, found.more)
    second = person_facts.with_second_factor(session, found.rows)
    return Page([details(each, second) for each in found.rows], given, found.total, found.more)


@operation("GET", "/users/<int:user_id>", room=ROOM, refuses=(404,))
def show(given: OnePerson) -> UserDetails | UserBasic:
    """One person, if who asks may know them: all about oneself and, for administrators, about everybody."""
    actor = credentials.actor()
    with looking_for("User"):
        user = people_search.known(db.session(), actor, given.user_id)
    if actor.is_admin or (actor.user is not None and actor.user.id == user.id):
        return details(user)
    return UserBasic(**user_basic(user))


@operation("POST", "/users", room=ROOM, status=201)
def create(given: PersonMade) -> UserDetails:
    """A new person. They choose a password of their own at the first sign-in.

    With `reset_password` or `force_random_password` they have none: they come in by single sign-on, or an
    administrator gives them one on their page.
    """
    session, actor = db.session(), credentials.actor()
    permissions.require_openly(session, actor, Action.WRITE_PEOPLE)
    chosen = not (given.reset_password or given.force_random_password)
    user = people.create(
        session,
        actor,
        username=given.username,
        name=given.name,
        email=given.email,
        password=(given.password or "") if chosen else None,
        admin=bool(given.admin),
    )
    answer = details(user)
    db.session.commit()
    return answer


@operation("PUT", "/users/<int:user_id>", room=ROOM, refuses=(404,))
def update(given: PersonChange) -> UserDetails:
    """Change a person: what they are called, whether they administer, and their password."""
    session, actor, user = db.session(), credentials.actor(), _writable(given.user_id)
    called = {name: getattr(given, name) or "" for name in ("username", "name", "email") if given.given(name)}
    people.edit(session, actor, user, **called)
    if given.password:
        people.give_password(session, actor, user, given.password)
    if given.admin is not None:  # the last: who takes it from themselves may nothing more
        people.set_administrator(session, actor, user, given.admin)
    answer = details(user)
    db.session.commit()
    return answer


@operation("DELETE", "/users/<int:user_id>", room=ROOM, status=204, refuses=(400, 404, 409))
def delete(given: PersonDeleted) -> None:
    """Delete a person with their roles, sessions and tokens. What they created stays, unless told otherwise."""
    user = _writable(given.user_id)
    person_deletion.delete_person(
        db.session(),
        credentials.actor(),
        user,
        created=Runners(given.created_runners),
        leave_groups=given.leave_groups,
    )
    db.session.commit()


@operation("POST", "/users/<int:user_id>/block", room=ROOM, status=201, refuses=(404,))
def block(given: OnePerson) -> bool:
    """Keep a person out: their sessions end, and none of their tokens opens anything. True also if they were out."""
    people.block(db.session(), credentials.actor(), _writable(given.user_id))
    db.session.commit()
    return True


@operation("POST", "/users/<int:user_id>/unblock", room=ROOM, status=201, refuses=(404,))
def unblock(given: OnePerson) -> bool:
    """Let a person in again. True also if they were not blocked."""
    people.unblock(db.session(), credentials.actor(), _writable(given.user_id))
    db.session.commit()
    return True


def _writable(user_id: int) -> User:
    """The person, for an administrator. Raises NotFound, or NotAllowed for who may know them and is none."""
    session, actor = db.session(), credentials.actor()
    with looking_for("User"):
        user = people_search.known(session, actor, user_id)
    permissions.require_openly(session, actor, Action.WRITE_PEOPLE)
    return user
