"""Jobs: what somebody wants run, what was asked for in each, and those that wait for a runner."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    Sequence,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from portal.database import Base, now
from portal.models.project import Project
from portal.models.runner import Runner
from portal.models.user import User


class JobStatus(enum.StrEnum):
    """GitLab's words. CANCELING: the runner was told to stop and may still run the job's after script."""

    PENDING = "pending"
    RUNNING = "running"
    CANCELING = "canceling"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_over(self) -> bool:
        return self in (JobStatus.SUCCESS, JobStatus.FAILED, JobStatus.CANCELED)


class QueueScope(enum.IntEnum):
    """Through what a pending job is found: the first three are the numbers of RunnerType."""

    INSTANCE = 1
    GROUP = 2
    PROJECT = 3
    RUNNER = 4  # the checks of one runner


# Counts what is put into the queue, in the order of the commits: who takes a number holds a lock until then.
QUEUE_MARKS = Sequence("ci_queue_marks", metadata=Base.metadata)


class JobDefinition(Base):
    """What a job runs. Several jobs may share one: a retry runs what was run before.

    `config` is what may be read again: script lines, image, artifacts. `ciphertext` is encrypted: the variables and
    the address of the repository, which may hold credentials. One that nothing refers to any more is swept away.
    """

    __tablename__ = "p_ci_job_definitions"  # GitLab's name

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    config: Mapped[dict[str, Any]] = mapped_column(JSONB)
    ciphertext: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(default=now)


class Job(Base):
    """One run of a job. It is of a project, or a check of a runner (`checks_runner_id`), which is of none.

    `token_digest` is of the job token of the machine that has it; a machine from which the job was taken back holds
    another. `claim_digest` is of the request that got the job: the same request sent again gets it again.
    `acknowledged_at` is when the runner first spoke of it; when it last did stands with its log.
    `runner_type` is that of the runner that took it. `system_xid` aims a check at one of the runner's machines.
    `ref_protected` stands as it was when the job was submitted.
    """

    __tablename__ = "ci_builds"  # GitLab's name
    __table_args__ = (
        CheckConstraint(
            "status IN ('pending', 'running', 'canceling', 'success', 'failed', 'canceled')", name="known_status"
        ),
        CheckConstraint("num_nonnulls(project_id, checks_runner_id) = 1", name="of_a_project_or_a_check"),
        CheckConstraint("token_digest IS NULL OR octet_length(token_digest) = 32", name="digest_is_sha256"),
        CheckConstraint("timeout > 0", name="ends_one_day"),
        Index("ix_ci_builds_project_id_id", "project_id", text("id DESC")),
        Index("ix_ci_builds_project_id_status_id", "project_id", "status", text("id DESC")),
        Index("ix_ci_builds_runner_id_id", "runner_id", text("id DESC")),
        Index("ix_ci_builds_runner_id_status_id", "runner_id", "status", text("id DESC")),
        Index("ix_ci_builds_checks_runner_id_id", "checks_runner_id", text("id DESC")),
        # Few run at one moment, and they are looked through: who is silent.
        Index("ix_ci_builds_running", "id", postgresql_where=text("status IN ('running', 'canceling')")),
        # Whose turn it is among the projects that share instance runners.
        Index(
            "ix_ci_builds_served",
            "project_id",
            text("started_at DESC"),
            postgresql_where=text("runner_type = 1"),
        ),
        Index("ix_ci_builds_finished_at", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        # Every job is written a few times; a fifth of all that are kept is too long to wait for.
        {"postgresql_with": {"autovacuum_vacuum_scale_factor": 0.02, "autovacuum_analyze_scale_factor": 0.02}},
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    partition_id: Mapped[int] = mapped_column(BigInteger)
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    checks_runner_id: Mapped[int | None] = mapped_column(ForeignKey("ci_runners.id", ondelete="CASCADE"))
    system_xid: Mapped[str | None] = mapped_column(String(64))
    definition_id: Mapped[int] = mapped_column(ForeignKey("p_ci_job_definitions.id"), index=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"), index=True)
    name: Mapped[str] = mapped_column(String(255))
    ref: Mapped[str] = mapped_column(String(255), default="")
    ref_protected: Mapped[bool] = mapped_column(default=False)
    tag_list: Mapped[list[str]] = mapped_column(ARRAY(String(255)), default=list)
    timeout: Mapped[int]  # seconds, before the runner's own limit
    status: Mapped[str] = mapped_column(String(16), default=JobStatus.PENDING)
    failure_reason: Mapped[str | None] = mapped_column(String(64))
    exit_code: Mapped[int | None]
    retries_left: Mapped[int] = mapped_column(SmallInteger, default=0)
    retry_of_id: Mapped[int | None] = mapped_column(ForeignKey("ci_builds.id", ondelete="SET NULL"), index=True)
    retried: Mapped[bool] = mapped_column(default=False, server_default=false())
    taken_back: Mapped[int] = mapped_column(SmallInteger, default=0, server_default=text("0"))
    request_key: Mapped[UUID | None] = mapped_column(unique=True)
    request_digest: Mapped[bytes | None] = mapped_column(LargeBinary)

    runner_id: Mapped[int | None] = mapped_column(ForeignKey("ci_runners.id", ondelete="SET NULL"))
    runner_type: Mapped[int | None] = mapped_column(SmallInteger)
    token_digest: Mapped[bytes | None] = mapped_column(LargeBinary, unique=True)
    claim_digest: Mapped[bytes | None] = mapped_column(LargeBinary, unique=True)
    effective_timeout: Mapped[int | None]  # seconds, as the runner was told

    created_at: Mapped[datetime] = mapped_column(default=now)
    queued_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    acknowledged_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    erased_at: Mapped[datetime | None]

    project: Mapped[Project | None] = relationship()
    checks_runner: Mapped[Runner | None] = relationship(foreign_keys=[checks_runner_id])
    definition: Mapped[JobDefinition] = relationship()
    runner: Mapped[Runner | None] = relationship(foreign_keys=[runner_id])
    user: Mapped[User | None] = relationship()

    @property
    def state(self) -> JobStatus:
        return JobStatus(self.status)

    @property
    def is_check(self) -> bool:
        return self.checks_runner_id is not None

    @property
    def title(self) -> str:
        return f"{self.name} (#{self.id})"


class JobClass(Base):
    """What decides which runners may take a job, apart from where it is: its tags, and whether its ref is protected.

    Jobs that are alike in that share one class; a runner knows by their numbers which it may take. `digest` is of
    the sorted tags, whose text would be too long for an index.
    """

    __tablename__ = "ci_job_classes"
    __table_args__ = (UniqueConstraint("digest", "ref_protected"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    tag_list: Mapped[list[str]] = mapped_column(ARRAY(String(255)))
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    ref_protected: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(default=now)


class PendingJob(Base):
    """A pending job in one scope through which it can be found; it has a row for each (reference/performance.md 4).

    `turn` orders the jobs of a class: the first of each project come before the second of any.

    Its rows live for seconds, and claims begin where rows have just gone: it is vacuumed by how many have, however
    long the queue is, and its indexes each time. It is not cut short, which would stop claims, since it fills again.
    """

    __tablename__ = "ci_pending_builds"  # GitLab's name
    __table_args__ = (
        Index("ix_ci_pending_builds_job_id", "job_id"),
        {
            "postgresql_with": {
                "autovacuum_vacuum_scale_factor": 0,
                "autovacuum_vacuum_threshold": 2000,
                "autovacuum_vacuum_cost_delay": 0,
                "autovacuum_analyze_scale_factor": 0.1,
                "vacuum_index_cleanup": "on",
                "vacuum_truncate": "off",
            }
        },
    )

    scope_kind: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    scope_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    class_id: Mapped[int] = mapped_column(ForeignKey("ci_job_classes.id"), primary_key=True)
    turn: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("ci_builds.id", ondelete="CASCADE"), primary_key=True)


class JobPartition(Base):
    """One partition of `p_ci_runner_machine_builds`, and from when on new jobs belong to it."""

    __tablename__ = "ci_partitions"  # GitLab's name

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    starts_at: Mapped[datetime] = mapped_column(unique=True)


class JobMachine(Base):
    """Which machine ran a job (the seeds' table). The machine's row may be gone since; its system ID stays here."""

    __tablename__ = "p_ci_runner_machine_builds"  # GitLab's name
    __table_args__ = (
        Index("ix_p_ci_runner_machine_builds_runner_machine_id", "runner_machine_id", text("build_id DESC")),
        Index("ix_p_ci_runner_machine_builds_system_xid", "system_xid", text("build_id DESC")),
        {"postgresql_partition_by": "LIST (partition_id)"},
    )

    partition_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, server_default=text("100"))
    job_id: Mapped[int] = mapped_column("build_id", BigInteger, primary_key=True)
    runner_machine_id: Mapped[int] = mapped_column(BigInteger)
    system_xid: Mapped[str] = mapped_column(String(64))


# Whose artifacts a job downloads before it runs.
job_dependencies = Table(
    "ci_job_dependencies",
    Base.metadata,
    Column("job_id", ForeignKey("ci_builds.id", ondelete="CASCADE"), primary_key=True),
    Column("needs_id", ForeignKey("ci_builds.id", ondelete="CASCADE"), primary_key=True, index=True),
)
