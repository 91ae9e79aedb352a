"""Which access tokens there are: of whom, in which state, by when they were made, used and end; and what is due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, func, not_, select
from sqlalchemy.orm import Session

from portal.domain.actors import Actor
from portal.domain.errors import NotFound
from portal.models import AccessToken, User

SOON = timedelta(days=7)  # so long before it ends a token's person is told


class State(StrEnum):
    """How a token stands; the last three open nothing."""

    GOOD = "good"
    EXPIRES_SOON = "expires soon"
    POWERLESS = "without power"  # as long as its person is blocked
    EXPIRED = "expired"
    REVOKED = "revoked"

    @classmethod
    def of(cls, token: AccessToken, at: datetime) -> State:
        """The token's state at this moment; who was revoked before the end stays revoked."""
        if token.revoked_at is not None:
            return cls.REVOKED
        if not token.is_live(at):
            return cls.EXPIRED
        if token.user.blocked_at is not None:
            return cls.POWERLESS
        return cls.EXPIRES_SOON if token.ends_at - at <= SOON else cls.GOOD


@dataclass(frozen=True, slots=True)
class TokenQuery:
    """What a list asks for; None and an empty text ask for nothing. Moments exclude themselves, as in GitLab."""

    user_id: int | None = None
    live: bool | None = None
    revoked: bool | None = None
    words: str = ""
    created_after: datetime | None = None
    created_before: datetime | None = None
    used_after: datetime | None = None
    used_before: datetime | None = None
    expires_after: date | None = None
    expires_before: date | None = None

    def condition(self, at: datetime) -> ColumnElement[bool]:
        """The tokens that fit at this moment."""
        parts: list[ColumnElement[bool]] = []
        if self.user_id is not None:
            parts.append(AccessToken.user_id == self.user_id)
        if self.live is not None:
            parts.append(AccessToken.lives(at) if self.live else not_(AccessToken.lives(at)))
        if self.revoked is not None:
            parts.append(AccessToken.revoked_at.is_not(None) if self.revoked else AccessToken.revoked_at.is_(None))
        if self.words:
            parts.append(func.strpos(func.lower(AccessToken.name), self.words.lower()) > 0)
        for column, after, before in (
            (AccessToken.created_at, self.created_after, self.created_before),
            (AccessToken.last_used_at, self.used_after, self.used_before),
            (AccessToken.expires_at, self.expires_after, self.expires_before),
        ):
            parts += [column > after] if after is not None else []
            parts += [column < before] if before is not None else []
        return and_(True, *parts)


def visible_to(session: Session, actor: Actor, user_id: int | None) -> int | None:
    """Whose tokens a list of the actor's is about: their own, and for administrators of whom they ask for, or all.

    None is everybody. Raises NotFound for somebody else, and for nobody.
    """
    own = actor.user.id if actor.user is not None else None
    if actor.is_admin or actor.kind == "system":
        if user_id is not None and session.get(User, user_id) is None:
            raise NotFound("There is no such person. Their account may have been deleted.")
        return user_id
    if own is None or user_id not in (None, own):
        raise NotFound("There is no such person, or you may not see their access tokens.")
    return own


def page(session: Session, wanted: TokenQuery, at: datetime, *, offset: int = 0, limit: int) -> Sequence[AccessToken]:
    """A part of what fits, the newest first, with their people: one query."""
    query = select(AccessToken).where(wanted.condition(at)).order_by(AccessToken.id.desc())
    return session.scalars(query.offset(offset).limit(limit)).all()


def count(session: Session, wanted: TokenQuery, at: datetime, *, most: int | None = None) -> int | None:
    """How many fit; None when there are more than `most`."""
    query = select(AccessToken.id).where(wanted.condition(at))
    bounded = query.limit(most + 1) if most is not None else query
    found = session.scalar(select(func.count()).select_from(bounded.subquery())) or 0
    return None if most is not None and found > most else found


def count_good(session: Session, user: User, at: datetime) -> int:
    """How many tokens of the person's open something."""
    return count(session, TokenQuery(user_id=user.id, live=True), at) or 0


def due(session: Session, user: User, at: datetime) -> Sequence[AccessToken]:
    """The person's tokens that end within a week, the first to end on top."""
    query = select(AccessToken).where(
        AccessToken.user_id == user.id, AccessToken.lives(at), AccessToken.expires_at <= (at + SOON).date()
    )
    return session.scalars(query.order_by(AccessToken.expires_at, AccessToken.id)).all()
