"""Authentication tokens of runners: digests only, several to a runner."""

from __future__ import annotations

import enum
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    String,
    and_,
    func,
    or_,
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
    `cut` is set, together with `ends_at`, when a token is ended for good, and is never taken back: no first use, and
    no clock of another host that is behind, brings such a token back.
    `request_key` is the form's nonce: the same POST sent again finds it taken. `request_digest` is of what was asked
    for with it, where a script chose the key: for something else it may not be used again.
    """

    __tablename__ = "ci_runner_tokens"
    __table_args__ = (
        CheckConstraint("octet_length(digest) = 32", name="digest_is_sha256"),
        Index("ix_ci_runner_tokens_short", "short", postgresql_ops={"short": "text_pattern_ops"}),
        # Few tokens expire, and those are asked for: which are due, which are over.
        Index("ix_ci_runner_tokens_expires_at", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
        Index("ix_ci_runner_tokens_runner_id_id", "runner_id", "id"),
        # A person's next reset asks for the newest that was shown, among many that machines got by themselves.
        Index("ix_ci_runner_tokens_shown", "runner_id", "id", postgresql_where=text("origin <> 2")),
        # Those that are over, in the order in which they are deleted one day.
        Index("ix_ci_runner_tokens_over", text("least(expires_at, ends_at)")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    runner_id: Mapped[int] = mapped_column(ForeignKey("ci_runners.id", ondelete="CASCADE"))
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    short: Mapped[str] = mapped_column(String(9))
    origin: Mapped[int] = mapped_column(SmallInteger)
    minted_from_id: Mapped[int | None] = mapped_column(
        ForeignKey("ci_runner_tokens.id", ondelete="SET NULL"), index=True
    )
    request_key: Mapped[UUID | None] = mapped_column(unique=True)
    request_digest: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(default=now)
    first_used_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    ends_at: Mapped[datetime | None]
    cut: Mapped[bool] = mapped_column(default=False, server_default=text("false"))

    def is_live(self, at: datetime) -> bool:
        """Whether a machine may use it at this moment."""
        return not self.cut and all(end is None or end > at for end in (self.expires_at, self.ends_at))

    @classmethod
    def lives(cls, at: datetime) -> ColumnElement[bool]:
        """The same as a condition."""
        return and_(cls.cut.is_(False), *(or_(end.is_(None), end > at) for end in (cls.expires_at, cls.ends_at)))

    @classmethod
    def over_since(cls) -> ColumnElement[datetime]:
        """When it ended or expired, whichever came first, or will; null for never."""
        return func.least(cls.expires_at, cls.ends_at)
