"""The trail: who did what, to what, where, with old and new values and never a secret."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Identity, Index, String, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from portal.database import Base, now


class AuditEvent(Base):
    """One event, never changed again: the database refuses it.

    It names ids without foreign keys, so that it outlives what it tells about.

    `group_ids` are the groups from the top down to the scope it happened in: a group's trail is one
    index look-up that also finds what happened below it. Every index is in the order of time, so that the newest of
    a scope, a person, an action are found without sorting.
    """

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_created_at_id", "created_at", "id"),
        Index("ix_audit_events_actor_kind", "actor_kind", "created_at", "id"),
        Index("ix_audit_events_actor_id", "actor_id", "actor_kind", "created_at", "id"),
        Index("ix_audit_events_action", "action", "created_at", "id"),
        Index("ix_audit_events_target", "target_id", "target_kind", "created_at", "id"),
        Index("ix_audit_events_project_id", "project_id", "created_at", "id"),
        # A group's events with those below it, by the level of the group; the few that are deeper are looked for.
        *(
            Index(
                f"ix_audit_events_group_{level}",
                text(f"(group_ids[{level}])"),
                "created_at",
                "id",
                postgresql_where=text(f"group_ids[{level}] IS NOT NULL"),
            )
            for level in range(1, 6)
        ),
        Index("ix_audit_events_request_id", "request_id", "id"),
        Index("ix_audit_events_actor_words", text("to_tsvector('simple', actor_name)"), postgresql_using="gin"),
        Index("ix_audit_events_scope_path", "scope_path", postgresql_ops={"scope_path": "text_pattern_ops"}),
        # How many registrations there were lately, and from where: asked before the old way is turned off.
        Index("ix_audit_events_registrations", "created_at", postgresql_where=text("action = 'runner_registered'")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    actor_kind: Mapped[str] = mapped_column(String(32))
    actor_id: Mapped[int | None] = mapped_column(BigInteger)
    actor_name: Mapped[str] = mapped_column(String(255))
    action: Mapped[str] = mapped_column(String(64))
    target_kind: Mapped[str] = mapped_column(String(32))
    target_id: Mapped[int | None] = mapped_column(BigInteger)
    target_name: Mapped[str] = mapped_column(String(1024))
    scope_kind: Mapped[str] = mapped_column(String(16))
    scope_path: Mapped[str] = mapped_column(String(4096), default="")
    group_ids: Mapped[list[int]] = mapped_column(ARRAY(BigInteger), default=list)
    project_id: Mapped[int | None] = mapped_column(BigInteger)
    address: Mapped[str] = mapped_column(String(64), default="")
    request_id: Mapped[str] = mapped_column(String(64), default="")
    changes: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
