"""`/personal_access_tokens`, and making them below `/user` and `/users`: people's access tokens."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

from flask import g
from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from portal.api import credentials
from portal.api.credentials import Credential
from portal.api.for_users import places
from portal.api.for_users.door import looking_for, operation
from portal.api.for_users.operations import Nothing, Shape
from portal.api.for_users.paging import MOST_COUNTED, Page, Paged
from portal.api.for_users.parameters import Day, Id, OptionalFlag, OptionalId, OptionalText, Parameters, Text, Words
from portal.api.for_users.shapes import Moment
from portal.database import db, now
from portal.domain.errors import BadRequest
from portal.domain.people import access_token_lists, access_tokens, people
from portal.domain.people.access_token_lists import TokenQuery
from portal.domain.people.access_tokens import IssuedAccessToken, NewAccessToken
from portal.domain.permissions import Action
from portal.models import AccessToken, TokenScope, User
from portal.requests import settings

ROOM = "Access tokens"
ANY = tuple(TokenScope)


def _empty_is_none(value: Any) -> Any:
    return None if value == "" else value


def _moment(value: Any) -> Any:
    """A day or a moment as ISO 8601 has them; without a zone it is UTC."""
    if value is None or value == "":
        return None
    try:
        found = datetime.fromisoformat(value.upper())
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (AttributeError, ValueError, OverflowError):
        raise PydanticCustomError("moment", "is invalid") from None


_DAY = {"type": "string", "format": "date"}
_EMPTY = [{"type": "string", "maxLength": 0}, {"type": "null"}]
OptionalDay = Annotated[Day | None, BeforeValidator(_empty_is_none), WithJsonSchema({"anyOf": [_DAY, *_EMPTY]})]
OptionalMoment = Annotated[
    datetime | None,
    BeforeValidator(_moment),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, _DAY, *_EMPTY]}),
]


class TokensAsked(Paged):
    """Which tokens: of whom, how they stand, and by when they were made, used and end."""

    user_id: OptionalId = None
    state: Literal["active", "inactive"] | None = None
    revoked: OptionalFlag = None
    search: OptionalText = None
    created_after: OptionalMoment = None
    created_before: OptionalMoment = None
    last_used_after: OptionalMoment = None
    last_used_before: OptionalMoment = None
    expires_after: OptionalDay = None
    expires_before: OptionalDay = None

    def query(self, user_id: int | None) -> TokenQuery:
        """The same in the domain's words, about this person's, or everybody's."""
        return TokenQuery(
            user_id=user_id,
            live=None if self.state is None else self.state == "active",
            revoked=self.revoked,
            words=self.search or "",
            created_after=self.created_after,
            created_before=self.created_before,
            used_after=self.last_used_after,
            used_before=self.last_used_before,
            expires_after=self.expires_after,
            expires_before=self.expires_before,
        )


class OneToken(Parameters):
    """One access token."""

    access_token_id: Id


class Rotation(Parameters):
    """Until when the token lives that takes the other's place: a week unless said."""

    expires_at: OptionalDay = None


class OneRotation(Rotation, OneToken):
    """The same of a token that is named."""


class TokenWanted(Parameters):
    """What is chosen for a new token. Without `expires_at` it lives as long as a token may."""

    name: Text
    scopes: Words
    description: OptionalText = None
    expires_at: OptionalDay = None

    def wanted(self) -> NewAccessToken:
        """The same in the domain's words."""
        last = self.expires_at or now().date() + settings().access_token_longest
        return NewAccessToken(self.name, self.scopes, last, self.description or "")


class TokenWantedFor(TokenWanted):
    """The same for a person."""

    user_id: Id


class PersonalAccessToken(Shape):
    """One access token, without what is secret of it."""

    id: int
    name: str
    revoked: bool
    created_at: Moment
    description: str | None
    scopes: list[str]
    user_id: int
    last_used_at: Moment | None
    active: bool
    expires_at: date
    last_used_ips: list[str]


class NewPersonalAccessToken(PersonalAccessToken):
    """A new access token: the only time that it is shown."""

    token: str


def attributes(token: AccessToken) -> dict[str, Any]:
    """The attributes of a PersonalAccessToken. Of addresses only the last is kept."""
    return {
        "id": token.id,
        "name": token.name,
        "revoked": token.revoked_at is not None,
        "created_at": token.created_at,
        "description": token.description or None,
        "scopes": list(token.scopes),
        "user_id": token.user_id,
        "last_used_at": token.last_used_at,
        "active": token.is_live(now()),
        "expires_at": token.expires_at,
        "last_used_ips": [token.last_used_address] if token.last_used_address else [],
    }


@operation("GET", "/personal_access_tokens", room=ROOM, refuses=(400, 404))
def index(given: TokensAsked) -> Page[PersonalAccessToken]:
    """One's own access tokens, the newest first; for administrators everybody's, or those of `user_id`."""
    session, moment = db.session(), now()
    with looking_for("User"):
        user_id = access_token_lists.visible_to(session, credentials.actor(), given.user_id)
    wanted = given.query(user_id)
    total = access_token_lists.count(session, wanted, moment, most=MOST_COUNTED)
    found = access_token_lists.page(session, wanted, moment, offset=given.offset, limit=given.per_page + 1)
    shown = [PersonalAccessToken(**attributes(each)) for each in found[: given.per_page]]
    return Page(shown, given, total, more=len(found) > given.per_page)


@operation("GET", "/personal_access_tokens/self", room=ROOM, opens=ANY, refuses=(400,))
def show_self(_given: Nothing) -> PersonalAccessToken:
    """The token that asks, whatever its scopes are."""
    return PersonalAccessToken(**attributes(_asking()))


@operation("GET", "/personal_access_tokens/<int:access_token_id>", room=ROOM, refuses=(404,))
def show(given: OneToken) -> PersonalAccessToken:
    """One access token, of one's own or, for administrators, of anybody."""
    return PersonalAccessToken(**attributes(_found(given.access_token_id)))


@operation("DELETE", "/personal_access_tokens/self", room=ROOM, opens=ANY, refuses=(400,))
def revoke_self(_given: Nothing) -> None:
    """End the token that asks, at once and for good, whatever its scopes are."""
    access_tokens.revoke(db.session(), credentials.actor(), _asking())
    db.session.commit()


@operation("DELETE", "/personal_access_tokens/<int:access_token_id>", room=ROOM, refuses=(404,))
def revoke(given: OneToken) -> None:
    """End a token at once and for good. One that has ended already stays as it is."""
    access_tokens.revoke(db.session(), credentials.actor(), _found(given.access_token_id))
    db.session.commit()


@operation("POST", "/personal_access_tokens/self/rotate", room=ROOM, refuses=(400,))
def rotate_self(given: Rotation) -> NewPersonalAccessToken:
    """A new token in place of the one that asks, which ends at once; with the same scopes, for a week unless said.

    The new one is shown in this answer only.
    """
    return _rotated(_asking(), given)


@operation("POST", "/personal_access_tokens/<int:access_token_id>/rotate", room=ROOM, refuses=(400, 404))
def rotate(given: OneRotation) -> NewPersonalAccessToken:
    """A new token in place of this one, which ends at once; with the same scopes, for a week unless said.

    The new one is shown in this answer only. A revoked token cannot be rotated.
    """
    return _rotated(_found(given.access_token_id), given)


@operation("POST", "/user/personal_access_tokens", room=ROOM, status=201, refuses=(400,))
def create_own(given: TokenWanted) -> NewPersonalAccessToken:
    """A new access token of one's own, shown in this answer only."""
    return _created(_asking().user, given)


@operation("POST", "/users/<int:user_id>/personal_access_tokens", room=ROOM, status=201, refuses=(400, 404))
def create(given: TokenWantedFor) -> NewPersonalAccessToken:
    """A new access token of somebody's, for administrators; shown in this answer only."""
    places.instance(Action.WRITE_PEOPLE)
    with looking_for("User"):
        user = people.get(db.session(), given.user_id)
    return _created(user, given)


def _asking() -> AccessToken:
    """The token of this request. Raises BadRequest for one that came with the browser's session."""
    found: Credential = g.credential
    if found.token is None:
        raise BadRequest("This endpoint requires token type to be a personal access token")  # GitLab's words
    return found.token


def _found(token_id: int) -> AccessToken:
    return access_tokens.get(db.session(), credentials.actor(), token_id)


def _rotated(token: AccessToken, given: Rotation) -> NewPersonalAccessToken:
    longest = settings().access_token_longest
    issued = access_tokens.rotate(
        db.session(), credentials.actor(), token, longest=longest, expires_at=given.expires_at
    )
    return _shown_once(issued)


def _created(user: User, given: TokenWanted) -> NewPersonalAccessToken:
    longest = settings().access_token_longest
    return _shown_once(access_tokens.create(db.session(), credentials.actor(), user, given.wanted(), longest=longest))


def _shown_once(issued: IssuedAccessToken) -> NewPersonalAccessToken:
    answer = NewPersonalAccessToken(**attributes(issued.record), token=issued.token)
    db.session.commit()
    return answer
