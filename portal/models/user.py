"""People who sign in with a local account."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Identity, Index, String, false, text
from sqlalchemy.orm import Mapped, mapped_column

from portal.database import Base, now


class User(Base):
    """One person. Without `password_digest` they sign in only at an OpenID Connect provider.

    While `blocked_at` is set they cannot sign in, and none of their sessions and tokens is good.
    """

    __tablename__ = "users"
    __table_args__ = (
        Index("uq_users_username_lower", text("lower(username)"), unique=True),
        Index("uq_users_email_lower", text("lower(email)"), unique=True),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    username: Mapped[str] = mapped_column(String(255))
    name: Mapped[str] = mapped_column(String(255))
    email: Mapped[str] = mapped_column(String(255))
    password_digest: Mapped[str | None] = mapped_column(String(255))
    must_change_password: Mapped[bool] = mapped_column(default=False)
    admin: Mapped[bool] = mapped_column(default=False)
    # Made an administrator by the mapping of single sign-on, which alone takes that away again.
    admin_from_openid: Mapped[bool] = mapped_column(default=False, server_default=false())
    blocked_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    last_signed_in_at: Mapped[datetime | None]

    # What flask-login asks of a person; said here so that the models need not know it.
    is_authenticated = True
    is_active = True
    is_anonymous = False

    session_key = ""  # of the session that was just begun, for the cookie

    def get_id(self) -> str:
        """What a session cookie holds: a random key and nothing of the person."""
        return self.session_key
