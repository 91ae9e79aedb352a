"""Who asks through the doors for scripts: the access token, enrolment key or browser session of a request."""

from __future__ import annotations

from dataclasses import dataclass

from flask import current_app, g, request
from flask_login import current_user

from portal.database import db, now
from portal.domain import actors, tokens
from portal.domain.actors import Actor
from portal.domain.enrolment import enrolment_keys
from portal.domain.errors import CredentialMissing, CredentialRefused, ScopeTooSmall
from portal.domain.last_uses import LastUses
from portal.domain.people import access_tokens
from portal.models import AccessToken, EnrolmentKey, TokenScope, User, UserSession
from portal.requests import client_address, second_factor_configured

READING = (TokenScope.API, TokenScope.READ_API)
WRITING = (TokenScope.API,)
READS = ("GET", "HEAD")
KEY_OPENS = (
    "An enrolment key opens nothing but the creation of runners, and reading those that it made. For this, send an "
    "access token in its place."
)
SEND = "Send an access token (glpat-…) in the header PRIVATE-TOKEN"


@dataclass(frozen=True, slots=True)
class Credential:
    """What a request showed, and who that is. Exactly one of `token`, `key` and `session` is there.

    Of an enrolment key the actor is nobody: the domain lets it create runners by itself, and nothing else.
    """

    actor: Actor
    token: AccessToken | None = None
    key: EnrolmentKey | None = None
    session: UserSession | None = None

    @property
    def limited_by(self) -> str:
        """Whose requests are counted together by the rate limits."""
        if self.token is not None:
            return f"token {self.token.id}"
        return f"key {self.key.id}" if self.key is not None else f"person {self.actor.id}"

    def require(self, opens: tuple[TokenScope, ...], *, enrolment: bool = False) -> None:
        """Refuse with ScopeTooSmall unless the token has one of these scopes; a session may all that its person may.

        `enrolment` says that an enrolment key will do.
        """
        if self.key is not None and not enrolment:
            raise ScopeTooSmall(opens, KEY_OPENS)
        if self.token is not None and not set(opens) & set(self.token.scopes):
            raise ScopeTooSmall(opens)


def given() -> str:
    """The access token or enrolment key that the request shows in a header; empty without one.

    What stands in an address is never read: addresses are logged everywhere.
    """
    if shown := request.headers.get("PRIVATE-TOKEN", ""):
        return shown.strip()
    kind, _, rest = request.headers.get("Authorization", "").partition(" ")
    return rest.strip() if kind.lower() == "bearer" else ""


def of_request(*, session: bool = False) -> Credential:
    """The credential of this request. `session` says that the browser's session will do, as it does for reading.

    Raises CredentialMissing or CredentialRefused.
    """
    if shown := given():
        found = _by_key(shown) if shown.startswith(tokens.ENROLMENT) else _by_token(shown)
    elif session or request.method in READS:
        found = _by_session()
    else:
        reading = " Being signed in opens reading only." if current_user.is_authenticated else ""
        raise CredentialMissing(f"{SEND}, or as Authorization: Bearer.{reading}")
    g.credential = found
    return found


def actor() -> Actor:
    """Who asks, once the guard has looked."""
    found: Credential = g.credential
    return found.actor


def _by_token(shown: str) -> Credential:
    token = access_tokens.find(db.session(), shown)
    uses: LastUses = current_app.extensions["token_uses"]
    uses.note(token.id, now(), client_address())
    g.signed_in_id = token.user_id  # for the log
    return Credential(actors.by_token(token, address=client_address(), request_id=g.request_id), token=token)


def _by_key(shown: str) -> Credential:
    key = enrolment_keys.find(db.session(), shown)
    g.enrolment_key_id = key.id  # for the log
    nobody = actors.by_enrolment_key(key, address=client_address(), request_id=g.request_id)
    return Credential(nobody, key=key)


def _by_session() -> Credential:
    if not current_user.is_authenticated:
        raise CredentialMissing(f"{SEND}, or as Authorization: Bearer; or sign in, to read in the browser.")
    user: User = current_user._get_current_object()
    begun: UserSession = g.user_session
    if user.must_change_password and begun.method == "password":
        raise CredentialRefused("Choose a password of your own first, in the browser.")
    if not begun.second_factor and second_factor_configured().demands_of(user):
        raise CredentialRefused("Set up a second factor first, in the browser.")
    return Credential(
        actors.person(user, address=client_address(), request_id=g.request_id),
        session=begun,
    )
