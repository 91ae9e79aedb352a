"""Proving again who one is, before something sensitive: password, and the second factor of who has one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from portal.domain import audit
from portal.domain.actors import Actor
from portal.domain.errors import NotFound
from portal.domain.people import accounts, second_factor, user_sessions
from portal.domain.people.second_factor import Configured
from portal.domain.scopes import INSTANCE
from portal.models import User, UserIdentity, UserSession

Problems = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person is asked for. `elsewhere`: they have an account at a provider, and can prove it there."""

    password: bool
    code: bool
    elsewhere: bool


def asked_of(session: Session, user: User, *, passwords: bool = True) -> Asked:
    """What this person can be asked for. Without a password a code alone proves nothing.

    `passwords` is whether people may sign in with one at all.
    """
    known = passwords and user.password_digest is not None
    identity = session.scalar(select(exists().where(UserIdentity.user_id == user.id)))
    return Asked(known, known and second_factor.find(session, user) is not None, bool(identity))


def confirm(
    session: Session,
    actor: Actor,
    here: UserSession,
    configured: Configured,
    *,
    password: str,
    code: str,
    passwords: bool = True,
    at: datetime | None = None,
) -> Problems:
    """Confirm the session the actor is in, if all they are asked for is right: then nothing is returned.

    Otherwise the problems by field. A wrong try counts and leaves an event, so commit in either case. Raises
    NotFound for somebody without a password, TryLater when too many were tried.
    """
    user = here.user
    asked = asked_of(session, user, passwords=passwords)
    if not asked.password:
        raise NotFound("You do not sign in with a password here. Sign out and in again instead.")
    if asked.code and not code.strip():
        return {"code": ["Type the code that your app shows, or a recovery code."]}
    if accounts.signed_in(session, user.username, password) is None:
        record_refusal(session, actor, user, "wrong password")
        return {"password": ["The password is wrong."]}
    if asked.code:
        tried = second_factor.check(session, actor, user, code, configured, at=at)
        if not tried.passed:
            return {"code": [tried.sentence]}
        here.second_factor = True
    user_sessions.confirm(session, actor, here)
    return {}


def record_refusal(
    session: Session, actor: Actor, user: User, reason: str, *, method: str = "", unrecorded: int = 0
) -> None:
    """Add the event `confirmation_refused`: the person did not prove again who they are, for this reason.

    `method` says how they tried, if not by password; `unrecorded` how many more there were since the last one.
    """
    told: dict[str, tuple[object, object]] = {"reason": (None, reason)}
    if method:
        told["method"] = (None, method)
    if unrecorded:
        told["not_recorded_before"] = (None, unrecorded)
    audit.record(session, actor, "confirmation_refused", user, INSTANCE, told)
