"""Authentication tokens of runners: digests only, several to a runner."""

from __future__ import annotations

import enum
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    String,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from portal.database import Base, now


class TokenOrigin(enum.IntEnum):
    """Which act minted the token."""

    CREATED = 0
    RESET_BY_PERSON = 1
    RESET_BY_MACHINE = 2
    REGISTERED = 3
    IMPORTED = 4


class RunnerToken(Base):
    """One token of a runner's family.

    `expires_at` is the life that the client was told. `ends_at` is when we stop accepting it for another
    reason: replaced by a machine's reset (after the grace period), cut by a person's reset (at once), or
    minted and not used yet (after the grace period, unless a machine uses it).
    `request_key` is the form's nonce: the same POST sent again finds it taken.
    """

    __tablename__ = "ci_runner_tokens"
    __table_args__ = (
        CheckConstraint("octet_length(digest) = 32", name="digest_is_sha256"),
        Index("ix_ci_runner_tokens_short", "short", postgresql_ops={"short": "text_pattern_ops"}),
        # Few tokens expire, and those are asked for: which are due, which are over.
        Index("ix_ci_runner_tokens_expires_at", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    runner_id: Mapped[int] = mapped_column(ForeignKey("ci_runners.id", ondelete="CASCADE"), index=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    short: Mapped[str] = mapped_column(String(9))
    origin: Mapped[int] = mapped_column(SmallInteger)
    minted_from_id: Mapped[int | None] = mapped_column(
        ForeignKey("ci_runner_tokens.id", ondelete="SET NULL"), index=True
    )
    request_key: Mapped[UUID | None] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    first_used_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    ends_at: Mapped[datetime | None]

    def is_live(self, at: datetime) -> bool:
        """Whether a machine may use it at this moment."""
        return all(end is None or end > at for end in (self.expires_at, self.ends_at))
