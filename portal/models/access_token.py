"""Personal access tokens, by which scripts do what their person may: digests only."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime, time
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Identity,
    LargeBinary,
    String,
    and_,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column, relationship

from portal.database import Base, now
from portal.models.user import User


class TokenScope(enum.StrEnum):
    """What a token opens, in GitLab's names: all, reading all, creating runners, looking after runners."""

    API = "api"
    READ_API = "read_api"
    CREATE_RUNNER = "create_runner"
    MANAGE_RUNNER = "manage_runner"


class AccessToken(Base):
    """One personal access token. It is good until the day `expires_at` begins (UTC), as in GitLab.

    `short` are the first characters of what is secret, by which people tell their tokens apart.
    `request_key` is the form's nonce: the same POST sent again finds it taken.
    """

    __tablename__ = "personal_access_tokens"  # GitLab's name
    __table_args__ = (
        CheckConstraint("octet_length(digest) = 32", name="digest_is_sha256"),
        CheckConstraint("cardinality(scopes) > 0", name="opens_something"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str] = mapped_column(String(1024), default="", server_default=text("''"))
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    short: Mapped[str] = mapped_column(String(4))
    scopes: Mapped[list[str]] = mapped_column(ARRAY(String(32)))
    request_key: Mapped[UUID | None] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[date]
    last_used_at: Mapped[datetime | None]
    last_used_address: Mapped[str] = mapped_column(String(64), default="", server_default=text("''"))
    revoked_at: Mapped[datetime | None]

    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)

    @property
    def ends_at(self) -> datetime:
        """The moment from which on it opens nothing, unless it is revoked before."""
        return datetime.combine(self.expires_at, time(), UTC)

    def is_live(self, at: datetime) -> bool:
        """Whether it opens anything at this moment."""
        return self.revoked_at is None and at.date() < self.expires_at

    @classmethod
    def lives(cls, at: datetime) -> ColumnElement[bool]:
        """The same as a condition."""
        return and_(cls.revoked_at.is_(None), cls.expires_at > at.date())
