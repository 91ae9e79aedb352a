"""The further projects that a project's runner serves."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from portal.database import Base, now
from portal.models.project import Project


class RunnerProject(Base):
    """One project that somebody assigned the runner to. The owner project stands in the runner itself."""

    __tablename__ = "ci_runner_projects"  # GitLab's name
    __table_args__ = (
        UniqueConstraint("runner_id", "project_id"),
        Index("ix_ci_runner_projects_project_id_runner_id", "project_id", "runner_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    runner_id: Mapped[int] = mapped_column(ForeignKey("ci_runners.id", ondelete="CASCADE"))
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(default=now)

    project: Mapped[Project] = relationship()
