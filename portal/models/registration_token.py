"""Registration tokens: the old way, one shared token for each instance, group and project."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from portal.database import Base, now
from portal.models.group import Group
from portal.models.project import Project


class RegistrationToken(Base):
    """One registration token; of the instance when it has neither group nor project.

    It must be shown again and again while registration tokens are allowed, so it is kept encrypted
    (`ciphertext`), with a digest to find it by. A token that was reset ends: its ciphertext goes, its digest
    stays, so that a pasted old token can still be explained.
    """

    __tablename__ = "ci_registration_tokens"
    __table_args__ = (
        CheckConstraint("octet_length(digest) = 32", name="digest_is_sha256"),
        CheckConstraint("num_nonnulls(namespace_id, project_id) <= 1", name="one_scope"),
        CheckConstraint("(ended_at IS NULL) = (ciphertext IS NOT NULL)", name="kept_while_it_works"),
        Index(
            "uq_ci_registration_tokens_live_scope",
            text("coalesce(namespace_id, 0)"),
            text("coalesce(project_id, 0)"),
            unique=True,
            postgresql_where=text("ended_at IS NULL"),
        ),
        Index("ix_ci_registration_tokens_namespace_id", "namespace_id"),
        Index("ix_ci_registration_tokens_project_id", "project_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    group_id: Mapped[int | None] = mapped_column("namespace_id", ForeignKey("namespaces.id", ondelete="CASCADE"))
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    ciphertext: Mapped[bytes | None] = mapped_column(LargeBinary)
    short: Mapped[str] = mapped_column(String(9))
    created_at: Mapped[datetime] = mapped_column(default=now)
    last_used_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]

    group: Mapped[Group | None] = relationship()
    project: Mapped[Project | None] = relationship()
