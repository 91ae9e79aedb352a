"""Projects; each lives in a group."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from portal.database import Base, now
from portal.models.deletion import Deletable
from portal.models.group import Group
from portal.models.route import Route


class Project(Deletable, Base):
    """One project of a group."""

    __tablename__ = "projects"
    __table_args__ = (
        Index("ix_projects_deletion_id", "deletion_id", postgresql_where=text("deletion_id IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    group_id: Mapped[int] = mapped_column("namespace_id", ForeignKey("namespaces.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(255))
    path: Mapped[str] = mapped_column(String(255))
    description: Mapped[str] = mapped_column(String(1024), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)

    group: Mapped[Group] = relationship(lazy="joined", innerjoin=True)
    route: Mapped[Route] = relationship(
        lazy="joined", innerjoin=True, cascade="all, delete-orphan", passive_deletes=True
    )

    @property
    def full_path(self) -> str:
        return self.route.path
