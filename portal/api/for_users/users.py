"""`/user` and `/users`: people."""

from __future__ import annotations

from portal.api import credentials
from portal.api.for_users.door import operation
from portal.api.for_users.operations import Nothing
from portal.api.for_users.shapes import Moment, UserBasic, user_basic
from portal.domain.errors import CredentialRefused
from portal.models import User


class UserDetails(UserBasic):
    """A person, as they and administrators may know them."""

    created_at: Moment
    last_sign_in_at: Moment | None
    email: str
    is_admin: bool


def details(user: User) -> UserDetails:
    """The person, for themselves and for administrators."""
    return UserDetails(
        **user_basic(user),
        created_at=user.created_at,
        last_sign_in_at=user.last_signed_in_at,
        email=user.email,
        is_admin=user.admin,
    )


@operation("GET", "/user", room="People")
def me(_given: Nothing) -> UserDetails:
    """Who asks."""
    user = credentials.actor().user
    if user is None:
        raise CredentialRefused("An enrolment key is nobody's account.")
    return details(user)
