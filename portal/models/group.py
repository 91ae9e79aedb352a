"""Groups, nested to any depth."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, String, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column, relationship

from portal.database import Base, now
from portal.models.deletion import Deletable
from portal.models.route import Route


class Group(Deletable, Base):
    """One group. `traversal_ids` are the ids from the top-level group down to this one."""

    __tablename__ = "namespaces"  # GitLab's name
    __table_args__ = (
        Index("ix_namespaces_traversal_ids", "traversal_ids", postgresql_using="gin"),
        Index("ix_namespaces_deletion_id", "deletion_id", postgresql_where=text("deletion_id IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("namespaces.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(255))
    path: Mapped[str] = mapped_column(String(255))
    description: Mapped[str] = mapped_column(String(1024), default="")
    traversal_ids: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    created_at: Mapped[datetime] = mapped_column(default=now)

    route: Mapped[Route] = relationship(
        lazy="joined", innerjoin=True, cascade="all, delete-orphan", passive_deletes=True
    )

    @property
    def full_path(self) -> str:
        return self.route.path
