"""Named jobs that a project keeps to run again."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from portal.database import Base, now
from portal.models.job import JobDefinition
from portal.models.project import Project
from portal.models.user import User


class JobTemplate(Base):
    """One named job of a project; its definition holds everything that running it needs."""

    __tablename__ = "ci_job_templates"
    __table_args__ = (
        Index("uq_ci_job_templates_project_id_lower_name", "project_id", text("lower(name)"), unique=True),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    definition_id: Mapped[int] = mapped_column(ForeignKey("p_ci_job_definitions.id"), index=True)
    name: Mapped[str] = mapped_column(String(255))
    creator_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)

    project: Mapped[Project] = relationship()
    definition: Mapped[JobDefinition] = relationship()
    creator: Mapped[User | None] = relationship()
