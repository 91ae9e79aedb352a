"""What is settled for a scope and counts for its runners: the instance's, a group's and a project's settings."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, ForeignKey, SmallInteger, String, text, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, declared_attr, mapped_column, relationship

from portal.database import Base
from portal.models.user import User

SHORTEST_INTERVAL = 7200  # seconds a token of a scope lives at least; GitLab's rule
REGISTRARS = ("group", "project")
DEFAULT_JOB_TIMEOUT = 3600  # seconds; GitLab's


def _long_enough(*columns: str) -> CheckConstraint:
    return CheckConstraint(f"least({', '.join(columns)}) >= {SHORTEST_INTERVAL}", name="tokens_live_long_enough")


class AsInstalled:
    """Settings that nobody has stored stand as they were installed: defaults count from the first moment on."""

    installed: ClassVar[dict[str, Any]] = {}

    def __init__(self, **values: Any) -> None:
        super().__init__(**{"allow_runner_registration_token": True, **self.installed, **values})


class RegistrationSwitch(AsInstalled):
    """The columns that every scope has. `switched_*` say who last turned registration tokens off or on, and when."""

    allow_runner_registration_token: Mapped[bool] = mapped_column(default=True, server_default=true())
    switched_at: Mapped[datetime | None]
    runner_token_expiration_interval: Mapped[int | None]  # seconds; of the scope's own runners

    @declared_attr
    def switched_by_id(cls) -> Mapped[int | None]:  # noqa: N805  (a declared attribute takes the class)
        return mapped_column(ForeignKey("users.id", ondelete="SET NULL"), index=True)

    @declared_attr
    def switched_by(cls) -> Mapped[User | None]:  # noqa: N805
        return relationship()


class StaleRunnerCleanup:
    """When runners that nobody uses any more are deleted; null days: never. `…_ran_at` is when that was last done."""

    stale_runner_cleanup_days: Mapped[int | None]
    stale_runner_cleanup_legacy_only: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    stale_runner_cleanup_ran_at: Mapped[datetime | None]


class InstanceSettings(RegistrationSwitch, StaleRunnerCleanup, Base):
    """The instance's settings: one row, or none while everything stands as it was installed.

    `group_…` and `project_…` intervals count for all runners of that kind. A limit of 0 is no limit.
    """

    __tablename__ = "application_settings"  # GitLab's name
    installed: ClassVar[dict[str, Any]] = {
        "id": 1,
        "valid_runner_registrars": list(REGISTRARS),
        "ci_registered_group_runners": 1000,
        "ci_registered_project_runners": 1000,
        "stale_runner_cleanup_legacy_only": False,
    }
    __table_args__ = (
        CheckConstraint("id = 1", name="one_row"),
        _long_enough(
            "runner_token_expiration_interval",
            "group_runner_token_expiration_interval",
            "project_runner_token_expiration_interval",
        ),
        CheckConstraint("stale_runner_cleanup_days >= 7", name="stale_for_a_week"),
    )

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False, default=1)
    valid_runner_registrars: Mapped[list[str]] = mapped_column(
        ARRAY(String(16)), default=lambda: list(REGISTRARS), server_default=text("'{group,project}'")
    )
    group_runner_token_expiration_interval: Mapped[int | None]
    project_runner_token_expiration_interval: Mapped[int | None]
    ci_registered_group_runners: Mapped[int] = mapped_column(default=1000, server_default=text("1000"))
    ci_registered_project_runners: Mapped[int] = mapped_column(default=1000, server_default=text("1000"))


class GroupSettings(RegistrationSwitch, StaleRunnerCleanup, Base):
    """One group's settings; no row while nothing was settled. A limit of null leaves it to the group above."""

    __tablename__ = "namespace_settings"  # GitLab's name
    installed: ClassVar[dict[str, Any]] = {
        "runner_registration_enabled": True,
        "stale_runner_cleanup_legacy_only": False,
    }
    __table_args__ = (
        _long_enough(
            "runner_token_expiration_interval",
            "subgroup_runner_token_expiration_interval",
            "project_runner_token_expiration_interval",
        ),
        CheckConstraint("stale_runner_cleanup_days >= 7", name="stale_for_a_week"),
    )

    group_id: Mapped[int] = mapped_column(
        "namespace_id", ForeignKey("namespaces.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    runner_registration_enabled: Mapped[bool] = mapped_column(default=True, server_default=true())
    subgroup_runner_token_expiration_interval: Mapped[int | None]
    project_runner_token_expiration_interval: Mapped[int | None]
    ci_registered_group_runners: Mapped[int | None]
    ci_registered_project_runners: Mapped[int | None]


class ProjectSettings(RegistrationSwitch, Base):
    """One project's settings; no row while nothing was settled.

    `protected_refs` are patterns in which `*` stands for anything; `build_timeout` is in seconds.
    """

    __tablename__ = "project_ci_cd_settings"  # GitLab's name
    installed: ClassVar[dict[str, Any]] = {
        "shared_runners_enabled": True,
        "group_runners_enabled": True,
        "build_timeout": DEFAULT_JOB_TIMEOUT,
        "protected_refs": [],
    }
    __table_args__ = (
        _long_enough("runner_token_expiration_interval"),
        CheckConstraint("build_timeout BETWEEN 600 AND 2592000", name="jobs_end_within_a_month"),
    )

    project_id: Mapped[int] = mapped_column(
        ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    shared_runners_enabled: Mapped[bool] = mapped_column(default=True, server_default=true())
    group_runners_enabled: Mapped[bool] = mapped_column(default=True, server_default=true())
    build_timeout: Mapped[int] = mapped_column(
        default=DEFAULT_JOB_TIMEOUT, server_default=text(str(DEFAULT_JOB_TIMEOUT))
    )
    protected_refs: Mapped[list[str]] = mapped_column(ARRAY(String(255)), default=list, server_default=text("'{}'"))
