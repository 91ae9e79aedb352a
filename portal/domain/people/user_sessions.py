"""Sessions of signed-in people: begin, find, use, end."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit, last_uses
from portal.domain.actors import Actor
from portal.domain.errors import NotFound
from portal.domain.last_uses import LastUses, Use
from portal.domain.scopes import INSTANCE
from portal.models import User, UserSession

KEY_BYTES = 32
LONGEST_USER_AGENT = 512


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a session lasts: unused, and at the longest."""

    idle: timedelta
    longest: timedelta

    def is_over(self, found: UserSession, at: datetime, last_used: datetime | None = None) -> bool:
        """Whether the session has ended by itself at this moment."""
        used = max(found.last_used_at, last_used or found.last_used_at)
        return used + self.idle <= at or found.created_at + self.longest <= at


def write_uses(session: Session, uses: Mapping[int, Use]) -> None:
    """Write when these sessions were last used, and from where."""
    last_uses.write(session, uses, UserSession.last_used_at, UserSession.address)


def begin(
    session: Session, actor: Actor, *, method: str, second_factor: bool = False, user_agent: str = ""
) -> tuple[UserSession, str]:
    """A new session of the actor's, with the key for its cookie: shown to nobody else and stored as a digest.

    `method` is how the person proved who they are: password or openid. Raises NotFound without a person.
    """
    if actor.user is None:
        raise NotFound("Sign in first.")
    key = secrets.token_urlsafe(KEY_BYTES)
    begun = UserSession(
        user=actor.user,
        digest=_digest(key),
        method=method,
        second_factor=second_factor,
        address=actor.address,
        user_agent=user_agent[:LONGEST_USER_AGENT],
    )
    session.add(begun)
    actor.user.last_signed_in_at = now()
    session.flush()
    audit.record(
        session,
        actor,
        "signed_in",
        actor.user,
        INSTANCE,
        {"method": (None, method), "second_factor": (None, second_factor)},
    )
    return begun, key


def renew(renewed: UserSession) -> str:
    """A new key for the session's cookie, shown to nobody else; what holds the old one is signed out."""
    key = secrets.token_urlsafe(KEY_BYTES)
    renewed.digest = _digest(key)
    return key


def find(session: Session, key: str, limits: Limits, *, last_used: LastUses | None = None) -> UserSession | None:
    """The session of a cookie's key, unless it has ended, its time is over, or the person is blocked."""
    found = session.scalar(select(UserSession).where(UserSession.digest == _digest(key)))
    if found is None or found.user.blocked_at is not None:
        return None
    noted = last_used.last(found.id) if last_used else None
    return None if limits.is_over(found, now(), noted) else found


def of_person(session: Session, user: User, limits: Limits) -> Sequence[UserSession]:
    """The person's sessions that are not over, the one used last first."""
    query = select(UserSession).where(UserSession.user_id == user.id).order_by(UserSession.last_used_at.desc())
    moment = now()
    return [each for each in session.scalars(query) if not limits.is_over(each, moment)]


def own(session: Session, user: User, session_id: int) -> UserSession:
    """The person's session with this number. Raises NotFound, also for somebody else's."""
    found = session.get(UserSession, session_id)
    if found is None or found.user_id != user.id:
        raise NotFound("There is no such session. It may have ended by itself.")
    return found


def end(session: Session, actor: Actor, ended: UserSession) -> None:
    """End one session: by its own person, or by an administrator. Raises NotFound for anybody else's."""
    if not actor.is_admin and actor.kind != "system" and (actor.user is None or actor.user.id != ended.user_id):
        raise NotFound("There is no such session.")
    audit.record(session, actor, "session_ended", ended.user, INSTANCE, {"session": (ended.id, None)})
    session.delete(ended)


def end_others(session: Session, actor: Actor, here: UserSession) -> int:
    """End all sessions of the person but the one they are in. Returns how many."""
    ended = end_all(session, here.user, but=here)
    if ended:
        audit.record(session, actor, "other_sessions_ended", here.user, INSTANCE, {"sessions": (ended, 0)})
    return ended


def sign_out(session: Session, actor: Actor, ended: UserSession) -> None:
    """End the session that the person is in."""
    audit.record(session, actor, "signed_out", ended.user, INSTANCE)
    session.delete(ended)


def end_all(session: Session, user: User, *, but: UserSession | None = None) -> int:
    """End the person's sessions, except one. Returns how many; the caller records why."""
    kept = but.id if but is not None else 0
    ended = session.execute(
        delete(UserSession).where(UserSession.user_id == user.id, UserSession.id != kept).returning(UserSession.id)
    )
    return len(ended.all())


def confirm(session: Session, actor: Actor, confirmed: UserSession) -> None:
    """The person has just proved again who they are."""
    confirmed.confirmed_at = now()
    audit.record(session, actor, "sign_in_confirmed", confirmed.user, INSTANCE)


def prune(session: Session, limits: Limits, at: datetime) -> int:
    """Delete sessions whose time is over. Returns how many."""
    over = or_(UserSession.last_used_at <= at - limits.idle, UserSession.created_at <= at - limits.longest)
    return len(session.execute(delete(UserSession).where(over).returning(UserSession.id)).all())


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
