"""Runner managers: the machines that use a runner's token, each known by its system ID."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, SmallInteger, String, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from portal.database import Base, now
from portal.models.runner import CreationState, Runner
from portal.models.runner_token import RunnerToken

LEGACY = "<legacy>"  # the system ID of machines that send none (gitlab-runner up to 15.7)


class Executor(enum.IntEnum):
    """GitLab's numbers for the executors that gitlab-runner names."""

    UNKNOWN = 0
    CUSTOM = 1
    SHELL = 2
    DOCKER = 3
    DOCKER_WINDOWS = 4
    DOCKER_SSH = 5
    SSH = 6
    PARALLELS = 7
    VIRTUALBOX = 8
    DOCKER_MACHINE = 9
    DOCKER_SSH_MACHINE = 10
    KUBERNETES = 11
    DOCKER_AUTOSCALER = 12
    INSTANCE = 13

    @property
    def wire_name(self) -> str:
        """How gitlab-runner writes it."""
        special = {
            Executor.DOCKER_MACHINE: "docker+machine",
            Executor.DOCKER_SSH_MACHINE: "docker-ssh+machine",
        }
        return special.get(self, self.name.lower().replace("_", "-"))


EXECUTORS = {executor.wire_name: executor for executor in Executor}


class RunnerManager(Base):
    """One machine (or pod) of one runner. FINISHED means that it has asked for jobs at least once."""

    __tablename__ = "ci_runner_machines"  # GitLab's name
    __table_args__ = (
        UniqueConstraint("runner_id", "system_xid"),
        Index("ix_ci_runner_machines_runner_id_contacted_at", "runner_id", text("contacted_at DESC NULLS LAST")),
        Index("ix_ci_runner_machines_contacted_at", "contacted_at"),
        Index(
            "ix_ci_runner_machines_system_xid",
            "system_xid",
            postgresql_ops={"system_xid": "text_pattern_ops"},
        ),
        # Which runners have machines of a version, and which versions there are.
        Index(
            "ix_ci_runner_machines_version_runner_id",
            "version",
            "runner_id",
            postgresql_ops={"version": "text_pattern_ops"},
        ),
        Index(
            "ix_ci_runner_machines_ip_address",
            "ip_address",
            postgresql_ops={"ip_address": "text_pattern_ops"},
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    runner_id: Mapped[int] = mapped_column(ForeignKey("ci_runners.id", ondelete="CASCADE"))
    system_xid: Mapped[str] = mapped_column(String(64))
    creation_state: Mapped[int] = mapped_column(SmallInteger, default=CreationState.STARTED)
    created_at: Mapped[datetime] = mapped_column(default=now)
    contacted_at: Mapped[datetime | None]
    token_id: Mapped[int | None] = mapped_column(ForeignKey("ci_runner_tokens.id", ondelete="SET NULL"), index=True)
    version: Mapped[str | None] = mapped_column(String(2048))
    revision: Mapped[str | None] = mapped_column(String(255))
    platform: Mapped[str | None] = mapped_column(String(255))
    architecture: Mapped[str | None] = mapped_column(String(255))
    ip_address: Mapped[str | None] = mapped_column(String(1024))
    executor_type: Mapped[int | None] = mapped_column(SmallInteger)
    config: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default=text("'{}'::jsonb"))
    runtime_features: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default=text("'{}'::jsonb"))
    labels: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default=text("'{}'::jsonb"))

    runner: Mapped[Runner] = relationship()
    token: Mapped[RunnerToken | None] = relationship()

    @property
    def executor_name(self) -> str | None:
        return None if self.executor_type is None else Executor(self.executor_type).wire_name

    @property
    def has_polled(self) -> bool:
        return self.creation_state == CreationState.FINISHED
