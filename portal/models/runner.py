"""Runners: the configuration that people create and machines use."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    ForeignKey,
    Identity,
    Index,
    SmallInteger,
    String,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.orm import Mapped, deferred, mapped_column, relationship

from portal.database import Base, now
from portal.models.deletion import Deletable
from portal.models.enrolment_key import EnrolmentKey
from portal.models.group import Group
from portal.models.project import Project
from portal.models.registration_token import RegistrationToken
from portal.models.user import User


class RunnerType(enum.IntEnum):
    """GitLab's numbers; they also stand in the token (`t1_`, `t2_`, `t3_`)."""

    INSTANCE = 1
    GROUP = 2
    PROJECT = 3


class AccessLevel(enum.IntEnum):
    """Which refs a runner takes jobs of."""

    NOT_PROTECTED = 0
    REF_PROTECTED = 1


class RegistrationType(enum.IntEnum):
    """How the runner came to be."""

    REGISTRATION_TOKEN = 0
    AUTHENTICATED_USER = 1


class CreationState(enum.IntEnum):
    """Whether a machine has asked for jobs yet."""

    STARTED = 0
    FINISHED = 100


_WORDS = "regexp_replace(description, '[^[:alnum:]]+', ' ', 'g')"


class Runner(Deletable, Base):
    """One runner. The machine columns at the end are the fall-back for runners without a manager row."""

    __tablename__ = "ci_runners"
    __table_args__ = (
        CheckConstraint("runner_type IN (1, 2, 3)", name="known_type"),
        CheckConstraint(
            "(runner_type = 2) = (namespace_id IS NOT NULL) AND (runner_type = 3) = (project_id IS NOT NULL)",
            name="owner_fits_type",
        ),
        CheckConstraint("maximum_timeout IS NULL OR maximum_timeout >= 600", name="timeout_at_least_600"),
        CheckConstraint("token_expiration_interval >= 3600", name="token_lives_an_hour"),
        CheckConstraint("machines_forgotten_after >= 3600", name="machines_kept_an_hour"),
        CheckConstraint("run_untagged OR cardinality(tag_list) > 0", name="tags_or_untagged"),
        # Order by last contact and the ranges of the statuses, runners without contact at the end.
        Index(
            "ix_ci_runners_last_contact",
            text("coalesce(contacted_at, '-infinity'::timestamptz) DESC"),
            text("id DESC"),
        ),
        Index("ix_ci_runners_runner_type_id", "runner_type", text("id DESC")),
        Index("ix_ci_runners_namespace_id_id", "namespace_id", text("id DESC")),
        Index("ix_ci_runners_project_id_id", "project_id", text("id DESC")),
        Index("ix_ci_runners_created_at_id", "created_at", "id"),
        Index("ix_ci_runners_tag_list", "tag_list", postgresql_using="gin"),
        Index("ix_ci_runners_words", "words", postgresql_using="gin"),
        # Written at once: a list kept for later would be read through by every query meanwhile.
        Index(
            "ix_ci_runners_group_ids",
            "group_ids",
            postgresql_using="gin",
            postgresql_with={"fastupdate": "off"},
        ),
        # The few that no clean-up takes.
        Index("ix_ci_runners_kept_when_stale", "id", postgresql_where=text("kept_when_stale")),
        Index("ix_ci_runners_deletion_id", "deletion_id", postgresql_where=text("deletion_id IS NOT NULL")),
        # The few whose silent machines are forgotten sooner or later than others'.
        Index("ix_ci_runners_own_memory", "id", postgresql_where=text("machines_forgotten_after IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    runner_type: Mapped[int] = mapped_column(SmallInteger)
    group_id: Mapped[int | None] = mapped_column("namespace_id", ForeignKey("namespaces.id", ondelete="CASCADE"))
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    creator_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"), index=True)
    registration_type: Mapped[int] = mapped_column(SmallInteger)
    creation_state: Mapped[int] = mapped_column(SmallInteger, default=CreationState.STARTED)
    description: Mapped[str] = mapped_column(String(1024), default="")
    maintenance_note: Mapped[str] = mapped_column(String(1024), default="")
    active: Mapped[bool] = mapped_column(default=True)
    locked: Mapped[bool] = mapped_column(default=False)
    run_untagged: Mapped[bool] = mapped_column(default=True)
    access_level: Mapped[int] = mapped_column(SmallInteger, default=AccessLevel.NOT_PROTECTED)
    maximum_timeout: Mapped[int | None]
    tag_list: Mapped[list[str]] = mapped_column(ARRAY(String(255)), default=list)
    token_expiration_interval: Mapped[int | None]  # seconds; on top of what the scopes say
    machines_forgotten_after: Mapped[int | None]  # seconds of silence; null: seven days
    machines_forgotten: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    machines_forgotten_at: Mapped[datetime | None]
    kept_when_stale: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    registered_with_id: Mapped[int | None] = mapped_column(
        ForeignKey("ci_registration_tokens.id", ondelete="SET NULL"), index=True
    )
    enrolled_with_id: Mapped[int | None] = mapped_column(
        ForeignKey("enrolment_keys.id", ondelete="SET NULL"), index=True
    )
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)
    contacted_at: Mapped[datetime | None]
    restored_at: Mapped[datetime | None]  # after a deletion; its machines could not call before

    version: Mapped[str | None] = mapped_column(String(2048))
    revision: Mapped[str | None] = mapped_column(String(255))
    platform: Mapped[str | None] = mapped_column(String(255))
    architecture: Mapped[str | None] = mapped_column(String(255))
    ip_address: Mapped[str | None] = mapped_column(String(1024))
    executor_type: Mapped[int | None] = mapped_column(SmallInteger)
    config: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)

    # The groups from the top down to its owner's, none for the instance's. A trigger writes it: see migration 0006.
    group_ids: Mapped[list[int]] = mapped_column(ARRAY(BigInteger), server_default=text("'{}'"), deferred=True)
    words: Mapped[str] = deferred(
        # Split into words as the search does; left alone, PostgreSQL reads build-1 as a number and a.b as a host.
        mapped_column(TSVECTOR, Computed(f"to_tsvector('simple', {_WORDS})", persisted=True))
    )

    group: Mapped[Group | None] = relationship()
    project: Mapped[Project | None] = relationship()
    creator: Mapped[User | None] = relationship()
    registered_with: Mapped[RegistrationToken | None] = relationship()
    enrolled_with: Mapped[EnrolmentKey | None] = relationship()

    @property
    def paused(self) -> bool:
        return not self.active

    @property
    def protected(self) -> bool:
        return self.access_level == AccessLevel.REF_PROTECTED

    @property
    def type(self) -> RunnerType:
        return RunnerType(self.runner_type)

    @property
    def title(self) -> str:
        """What people call it: its description, or its number where it has none."""
        return self.description or f"Runner #{self.id}"

    @property
    def created_by_person(self) -> bool:
        return self.registration_type == RegistrationType.AUTHENTICATED_USER
