"""One act on many runners: chosen, shown, confirmed, and done in batches."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, String, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, column_property, mapped_column, relationship

from portal.database import Base, now
from portal.models.deletion import Deletion
from portal.models.group import Group
from portal.models.project import Project
from portal.models.user import User


class BulkAct(Base):
    """What a person wants done to these runners. It is a draft until `started_at`, and over at `finished_at`.

    `done` counts how many of `runner_ids`, from the first on, have been looked at; a batch's changes, its events and
    this number are written together, so that after a crash the rest goes on where it stopped. `refused` lists
    [id, name, sentence] of those that could not be changed.
    """

    __tablename__ = "bulk_acts"
    __table_args__ = (
        Index(
            "ix_bulk_acts_unfinished", "id", postgresql_where=text("started_at IS NOT NULL AND finished_at IS NULL")
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    group_id: Mapped[int | None] = mapped_column(
        "namespace_id", ForeignKey("namespaces.id", ondelete="CASCADE"), index=True
    )
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    act: Mapped[str] = mapped_column(String(32))
    details: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    runner_ids: Mapped[list[int]] = mapped_column(ARRAY(BigInteger), deferred=True)
    done: Mapped[int] = mapped_column(default=0)
    changed: Mapped[int] = mapped_column(default=0)
    unchanged: Mapped[int] = mapped_column(default=0)
    refused: Mapped[list[Any]] = mapped_column(JSONB, default=list, deferred=True)
    address: Mapped[str] = mapped_column(String(64), default="")
    request_id: Mapped[str] = mapped_column(String(64), default="")
    deletion_id: Mapped[int | None] = mapped_column(ForeignKey("deletions.id", ondelete="SET NULL"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    # How many were chosen, and how many refused so far, without reading them.
    total: Mapped[int] = column_property(func.cardinality(runner_ids))
    refusals: Mapped[int] = column_property(func.jsonb_array_length(refused))

    user: Mapped[User] = relationship()
    group: Mapped[Group | None] = relationship()
    project: Mapped[Project | None] = relationship()
    deletion: Mapped[Deletion | None] = relationship()
