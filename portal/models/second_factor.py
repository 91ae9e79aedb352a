"""The second factor of a sign-in: one-time passwords of an authenticator app, and recovery codes."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Identity, LargeBinary
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from portal.database import Base, now


class SecondFactor(Base):
    """A person's authenticator app. `ciphertext` is its shared key, encrypted, as it is needed again for each check.

    It counts from `confirmed_at` on, when the person has shown that their app knows the key. `last_step` is the
    newest 30-second step whose password was taken: it and older ones are refused. `refused_at` holds when the
    newest wrong codes of the last day were typed: six digits stand only while guesses are few.
    """

    __tablename__ = "user_second_factors"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    ciphertext: Mapped[bytes] = mapped_column(LargeBinary)
    confirmed_at: Mapped[datetime] = mapped_column(default=now)
    last_step: Mapped[int] = mapped_column(BigInteger)
    refused_at: Mapped[list[datetime]] = mapped_column(ARRAY(DateTime(timezone=True)), default=list)


class RecoveryCode(Base):
    """One code that stands in for the app, once."""

    __tablename__ = "user_recovery_codes"
    __table_args__ = (CheckConstraint("octet_length(digest) = 32", name="digest_is_sha256"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    used_at: Mapped[datetime | None]
