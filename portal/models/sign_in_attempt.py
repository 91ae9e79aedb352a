"""Failed sign-ins of the last hours, and the networks people signed in from: what the throttle counts by."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from portal.database import Base, now


class SignInAttempt(Base):
    """One attempt that failed or is under way. It names the account by a digest, whether or not there is one.

    `network` is the address it came from (of IPv6 its /64). `device` is the digest of the mark that a browser got
    when the account signed in from it before.
    """

    __tablename__ = "sign_in_attempts"
    __table_args__ = (
        CheckConstraint("octet_length(account_digest) = 32", name="account_is_sha256"),
        Index("ix_sign_in_attempts_account", "account_digest", "created_at"),
        Index("ix_sign_in_attempts_network", "network", "created_at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    account_digest: Mapped[bytes] = mapped_column(LargeBinary)
    network: Mapped[str] = mapped_column(String(64))
    device_digest: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(default=now)


class KnownNetwork(Base):
    """A network from which a person has signed in; one attacker elsewhere does not lock them out of it."""

    __tablename__ = "user_networks"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    network: Mapped[str] = mapped_column(String(64), primary_key=True)
    last_used_at: Mapped[datetime] = mapped_column(default=now)
