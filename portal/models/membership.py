"""Who has which role in a group or a project."""

from __future__ import annotations

import enum
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, SmallInteger, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from portal.database import Base, now
from portal.models.user import User


class Role(enum.IntEnum):
    """GitLab's access levels; a higher one may do all that a lower one may."""

    NONE = 0
    GUEST = 10
    REPORTER = 20
    DEVELOPER = 30
    MAINTAINER = 40
    OWNER = 50


class Membership(Base):
    """One person's role in one group or one project; it also holds for everything below."""

    __tablename__ = "members"
    __table_args__ = (
        CheckConstraint("num_nonnulls(namespace_id, project_id) = 1", name="one_scope"),
        CheckConstraint("access_level IN (10, 20, 30, 40, 50)", name="known_role"),
        UniqueConstraint("namespace_id", "user_id"),
        UniqueConstraint("project_id", "user_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    group_id: Mapped[int | None] = mapped_column("namespace_id", ForeignKey("namespaces.id", ondelete="CASCADE"))
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    access_level: Mapped[int] = mapped_column(SmallInteger)
    # Given by the mapping of single sign-on, which alone takes it away again.
    from_openid: Mapped[bool] = mapped_column(default=False, server_default=false())
    created_at: Mapped[datetime] = mapped_column(default=now)

    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)

    @property
    def role(self) -> Role:
        return Role(self.access_level)
