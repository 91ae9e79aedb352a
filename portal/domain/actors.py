"""Who asks: a person, signed in or by an access token, a runner, or the server itself; and from where."""

from __future__ import annotations

from dataclasses import dataclass, field

from portal.models import AccessToken, EnrolmentKey, Role, User


@dataclass(frozen=True, slots=True)
class Actor:
    """One asker for the length of one request.

    `roles` remembers the roles that were looked up, by scope, so that a page asks the database once.
    """

    kind: str  # user, access_token, enrolment_key, runner, registration_token, system or visitor
    name: str
    id: int | None = None
    user: User | None = None
    address: str = ""
    request_id: str = ""
    roles: dict[tuple[str, int], Role] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_admin(self) -> bool:
        return self.user is not None and self.user.admin


def person(user: User, *, address: str = "", request_id: str = "") -> Actor:
    """The actor for a signed-in person."""
    return Actor("user", user.name, user.id, user, address, request_id)


def by_token(token: AccessToken, *, address: str = "", request_id: str = "") -> Actor:
    """The actor for a person's script, which shows this token: it has the person's number and says which token."""
    name = f"{token.user.name[:150]} (access token {token.name[:70]}, {token.short}…)"
    return Actor("access_token", name, token.user.id, token.user, address, request_id)


def by_enrolment_key(key: EnrolmentKey, *, acting: bool = False, address: str = "", request_id: str = "") -> Actor:
    """The actor for who shows this key: nobody, who may do nothing by themselves.

    `acting`, for the creation of a runner only, it may what its creator may at that moment.
    """
    name = f"enrolment key {key.name[:150]} ({key.short}…)"
    return Actor("enrolment_key", name, key.id, key.creator if acting else None, address, request_id)


def visitor(*, address: str = "", request_id: str = "") -> Actor:
    """Somebody of whom nothing is known yet: who tries to sign in."""
    return Actor("visitor", "somebody", None, None, address, request_id)


def runner(runner_id: int, short: str, *, address: str = "", request_id: str = "") -> Actor:
    """The actor for a machine that shows a runner's token; named by the token's short form."""
    return Actor("runner", f"runner {short}", runner_id, None, address, request_id)


def system(name: str) -> Actor:
    """The actor for what the portal does by itself or on its command line."""
    return Actor("system", name)


PEOPLE = ("user", "access_token")  # kinds whose id is a person's
CLEAN_UP = system("clean-up")  # who does, on the trail, what nobody asked for one by one
