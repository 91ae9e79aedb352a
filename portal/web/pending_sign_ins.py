"""Sign-ins that wait for their second proof: what the browser's signed cookie holds between the two pages."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from flask import session

from portal.database import db, now
from portal.models import User

GOOD_FOR = timedelta(minutes=10)
_KEY = "pending_sign_in"


@dataclass(frozen=True, slots=True)
class Pending:
    """Who has given the first proof, how, and where they wanted to go. No session of theirs exists yet.

    `proven_at` is when the first proof was given, if it was not given here and now.
    """

    user: User
    method: str
    wanted: str | None
    proven_at: datetime | None


def begin(user: User, *, method: str, wanted: str | None, proven_at: datetime | None = None) -> None:
    """Remember the first proof; nothing from before lives on in the browser's session."""
    session.clear()
    proven = proven_at.isoformat() if proven_at else None
    session[_KEY] = [user.id, method, int(now().timestamp()), _mark(user), wanted, proven]


def find(*, held: bool = False) -> Pending | None:
    """The sign-in that waits, unless its time is over, or the person was blocked or got another password since.

    `held` keeps that so until the end of the transaction.
    """
    user_id, method, begun_at, mark, wanted, proven = session.get(_KEY, [0, "", 0, "", None, None])
    if begun_at + GOOD_FOR.total_seconds() < now().timestamp():
        return None
    user = db.session.get(User, user_id, with_for_update={"key_share": True} if held else None)
    if user is None or user.blocked_at is not None or _mark(user) != mark:
        return None
    return Pending(user, method, wanted, datetime.fromisoformat(proven) if proven else None)


def end() -> None:
    """Forget it: who tries begins again with the first proof."""
    session.pop(_KEY, None)


def _mark(user: User) -> str:
    """Changes with the password, and tells nothing of it: the cookie can be read."""
    return hashlib.sha256(f"pending sign-in {user.id} {user.password_digest}".encode()).hexdigest()[:32]
