"""Artifacts of jobs: which files a job left in the store."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, LargeBinary, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from portal.database import Base, now
from portal.models.job import Job


class JobArtifact(Base):
    """One file. `key` is its name in the store, `size` in bytes; `expires_at` null keeps it as long as the job.

    A row whose job is gone has no job: its file is deleted next, and then the row.
    """

    __tablename__ = "ci_job_artifacts"  # GitLab's name
    __table_args__ = (
        UniqueConstraint("job_id", "file_type"),
        Index("ix_ci_job_artifacts_expires_at", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
        Index("ix_ci_job_artifacts_left_over", "id", postgresql_where=text("job_id IS NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("ci_builds.id", ondelete="SET NULL"))
    file_type: Mapped[str] = mapped_column(String(32))
    file_format: Mapped[str] = mapped_column(String(16))
    filename: Mapped[str] = mapped_column(String(255))
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[bytes] = mapped_column(LargeBinary)
    key: Mapped[str] = mapped_column(String(255), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]

    job: Mapped[Job | None] = relationship()
