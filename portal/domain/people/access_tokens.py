"""Personal access tokens: make, find, rotate, revoke, and when each was last used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit, last_uses, tokens
from portal.domain.actors import CLEAN_UP, Actor
from portal.domain.errors import NOTHING_HERE, AlreadyMade, BadRequest, CredentialRefused, Invalid, NotFound
from portal.domain.last_uses import Use
from portal.domain.people import people, people_secrets
from portal.domain.scopes import INSTANCE
from portal.models import AccessToken, TokenScope, User

LONGEST_TEXT = 1024
USUAL = timedelta(days=30)  # how long a token lives that nobody has thought about
ROTATED = timedelta(days=7)  # how long one lives that took another's place, unless told otherwise; as in GitLab
KEPT_FOR = timedelta(days=365)  # so long its row tells what a token was; the trail does for ever
BATCH = 1000


@dataclass(frozen=True, slots=True)
class NewAccessToken:
    """What is chosen for a token; `expires_at` is the first day on which it opens nothing any more."""

    name: str
    scopes: tuple[str, ...]
    expires_at: date | None
    description: str = ""

    def problems(self, today: date, longest: timedelta) -> dict[str, list[str]]:
        """What is wrong, by field; empty when nothing is. `longest` is how long a token may live."""
        found = people_secrets.problems(self.name, self.expires_at, today, longest)
        if len(self.description) > LONGEST_TEXT:
            found["description"] = [f"It is too long: at most {LONGEST_TEXT} characters."]
        known = {scope.value for scope in TokenScope}
        if not self.scopes:
            found["scopes"] = ["Choose at least one scope."]
        elif unknown := [scope for scope in self.scopes if scope not in known]:
            found["scopes"] = [f"There is no scope {unknown[0][:40]!r}: choose from {', '.join(sorted(known))}."]
        return found


@dataclass(frozen=True, slots=True)
class IssuedAccessToken:
    """A token in clear, with its record: shown once, never stored, never logged."""

    record: AccessToken
    token: str

    def __repr__(self) -> str:
        return f"IssuedAccessToken(record={self.record.id}, token=[not shown])"


def create(
    session: Session,
    actor: Actor,
    user: User,
    wanted: NewAccessToken,
    *,
    longest: timedelta,
    request_key: UUID | None = None,
) -> IssuedAccessToken:
    """A new token of `user`, who is the actor, unless an administrator or the portal makes it.

    `request_key` is the nonce of the form: sending it again raises AlreadyMade. Raises also NotFound for somebody
    else's, and Invalid.
    """
    _require_own(actor, user)
    _refuse_repeated(session, request_key)
    _hold_person(session, actor, user)
    issued = _issue(session, user, wanted, longest, request_key)
    told = {**_told(issued.record), "scopes": (None, list(issued.record.scopes))}
    told["expires_on"] = (None, issued.record.expires_at.isoformat())
    audit.record(session, actor, "access_token_created", user, INSTANCE, told)
    return issued


def rotate(
    session: Session,
    actor: Actor,
    token: AccessToken,
    *,
    longest: timedelta,
    expires_at: date | None = None,
    request_key: UUID | None = None,
) -> IssuedAccessToken:
    """A new token in place of this one, for the same and with the same scopes; the old one ends at once.

    It lives for a week unless `expires_at` says otherwise. An expired one can be rotated, a revoked one not: of two
    scripts that rotate the same token at once, the second is refused. `request_key` is the nonce of the form: sending
    it again raises AlreadyMade. Raises also NotFound, BadRequest and Invalid.
    """
    _require_own(actor, token.user)
    _hold_person(session, actor, token.user)
    _hold(session, token)
    _refuse_repeated(session, request_key)
    if token.revoked_at is not None:
        raise BadRequest("Token already revoked")  # GitLab's words
    last = expires_at or now().date() + min(ROTATED, longest)
    wanted = NewAccessToken(token.name, tuple(token.scopes), last, token.description)
    issued = _issue(session, token.user, wanted, longest, request_key)
    token.revoked_at = issued.record.created_at
    told = {
        "access_token": (None, token.name),
        "token": (f"{token.short}…", f"{issued.record.short}…"),
        "expires_on": (token.expires_at.isoformat(), issued.record.expires_at.isoformat()),
    }
    audit.record(session, actor, "access_token_rotated", token.user, INSTANCE, told)
    return issued


def _issue(
    session: Session, user: User, wanted: NewAccessToken, longest: timedelta, request_key: UUID | None = None
) -> IssuedAccessToken:
    """The row and its token. Raises Invalid, AlreadyMade, and NotFound for a person who was deleted meanwhile."""
    if user.blocked_at is not None:
        raise Invalid({"user": [f"{user.name} is blocked, so no token of theirs would open anything."]})
    if problems := wanted.problems(now().date(), longest):
        raise Invalid(problems)
    assert wanted.expires_at is not None  # noqa: S101  (the line above has seen to it)
    clear = tokens.make_for_person()
    record = AccessToken(
        user_id=user.id,
        user=user,
        name=wanted.name.strip(),
        description=wanted.description.strip(),
        digest=tokens.digest(clear),
        short=tokens.shorten_of_people(clear),
        scopes=sorted(set(wanted.scopes)),
        request_key=request_key,
        created_at=now(),
        expires_at=wanted.expires_at,
    )
    try:
        with session.begin_nested():
            session.add(record)
            session.flush()
    except IntegrityError:
        _refuse_repeated(session, request_key)  # the same form arrived twice at once
        raise NotFound(NOTHING_HERE) from None
    return IssuedAccessToken(record, clear)


def _refuse_repeated(session: Session, request_key: UUID | None) -> None:
    if request_key and session.scalar(select(AccessToken.id).where(AccessToken.request_key == request_key)):
        raise AlreadyMade


def _told(token: AccessToken) -> dict[str, tuple[object, object]]:
    """By what the trail tells the token from the person's others; nothing of it is secret."""
    return {"access_token": (None, token.name), "token": (None, f"{token.short}…")}


def find(session: Session, text: str) -> AccessToken:
    """The good token with this text, of somebody who may come in. Raises CredentialRefused.

    What does not have the form, checksum included, is refused without a query.
    """
    if not tokens.is_of_people(text, tokens.PERSONAL):
        if belongs := tokens.of_machines(text):
            raise CredentialRefused(f"Token was not found. This is {belongs}. Send an access token (glpat-…).")
        raise CredentialRefused("Token was not found. Check it for a missing or mistyped character.")
    row = session.scalar(select(AccessToken).where(AccessToken.digest == tokens.digest(text)))
    if row is None:
        raise CredentialRefused("Token was not found. It may belong to another portal.")
    if row.revoked_at is not None:
        raise CredentialRefused("Token was revoked. Make a new one in the browser.")
    if not row.is_live(now()):
        raise CredentialRefused("Token is expired. Make a new one in the browser.")
    if row.user.blocked_at is not None:
        raise CredentialRefused("The account of this token is blocked.")
    return row


def get(session: Session, actor: Actor, token_id: int) -> AccessToken:
    """The token with this number, of the actor or, for administrators, of anybody. Raises NotFound."""
    found = session.get(AccessToken, token_id)
    if found is None:
        raise NotFound(NOTHING_HERE)
    _require_own(actor, found.user)
    return found


def revoke(session: Session, actor: Actor, token: AccessToken) -> bool:
    """End the token at once and for good. Returns whether that changed anything. Raises NotFound."""
    _require_own(actor, token.user)
    _hold(session, token)
    if token.revoked_at is not None:
        return False
    token.revoked_at = now()
    told = {name: (new, None) for name, (_, new) in _told(token).items()}
    audit.record(session, actor, "access_token_revoked", token.user, INSTANCE, told)
    return True


def prune(session: Session, at: datetime, *, batch: int = BATCH) -> int:
    """Delete at most `batch` tokens that had ended a year before this moment. Returns how many.

    What others hold is left for the next round.
    """
    over = at - KEPT_FOR
    ended = or_(AccessToken.revoked_at <= over, AccessToken.expires_at <= over.date())
    held = select(AccessToken.id).where(ended).order_by(AccessToken.id).limit(batch)
    ids = session.scalars(held.with_for_update(of=AccessToken, skip_locked=True)).all()
    if ids:
        session.execute(delete(AccessToken).where(AccessToken.id.in_(ids)))
        audit.record(
            session, CLEAN_UP, "ended_tokens_deleted", INSTANCE, INSTANCE, {"access_tokens": (None, len(ids))}
        )
    session.flush()
    return len(ids)


def _hold_person(session: Session, actor: Actor, user: User) -> None:
    """Keep the person before the token, as whoever deletes them does, and look again at who asks for somebody else.

    What is made outlives the request: who was demoted or blocked meanwhile is to have no token of another person.
    Raises NotFound.
    """
    if actor.user is not None and actor.user.id != user.id:
        people.hold(session, actor, user)
        return
    held = select(User).where(User.id == user.id).with_for_update(read=True, key_share=True)
    if session.scalar(held.execution_options(populate_existing=True)) is None:
        raise NotFound(NOTHING_HERE)


def _hold(session: Session, token: AccessToken) -> None:
    """Lock the token and read it afresh: whether somebody has revoked it meanwhile."""
    session.flush()  # a refresh forgets what was not written yet
    session.refresh(token, with_for_update={"of": AccessToken})


def _require_own(actor: Actor, user: User) -> None:
    if not (actor.is_admin or actor.kind == "system" or (actor.user is not None and actor.user.id == user.id)):
        raise NotFound(NOTHING_HERE)


def write_uses(session: Session, uses: Mapping[int, Use]) -> None:
    """Write when these tokens were last used, and from where."""
    last_uses.write(session, uses, AccessToken.last_used_at, AccessToken.last_used_address)
