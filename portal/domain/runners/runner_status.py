"""Online, offline, never contacted, stale: of runners and of their managers, in Python and in SQL."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, or_, text

from portal.models import Runner, RunnerManager

ONLINE_WINDOW = timedelta(hours=2)  # GitLab's rule, kept for compatibility
STALE_AFTER = timedelta(days=7)


class Status(enum.StrEnum):
    ONLINE = "online"
    OFFLINE = "offline"
    STALE = "stale"
    NEVER_CONTACTED = "never_contacted"


# One expression for order and ranges, so that one index serves both; runners without contact come last.
LAST_CONTACT: ColumnElement[datetime] = func.coalesce(Runner.contacted_at, text("'-infinity'::timestamptz"))


def of_runner(runner: Runner, at: datetime) -> Status:
    """The runner's status at this moment (reference/rest.md section 5)."""
    return _status(runner.created_at, runner.contacted_at, runner.contacted_at is not None, at)


def of_manager(manager: RunnerManager, at: datetime) -> Status:
    """The manager's status; one that was only registered and never polled is "never contacted"."""
    return _status(manager.created_at, manager.contacted_at, manager.has_polled, at)


def _status(created: datetime, contacted: datetime | None, has_polled: bool, at: datetime) -> Status:
    if max(created, contacted or created) <= at - STALE_AFTER:
        return Status.STALE
    if contacted is None or not has_polled:
        return Status.NEVER_CONTACTED
    return Status.ONLINE if contacted > at - ONLINE_WINDOW else Status.OFFLINE


def condition(status: Status, at: datetime) -> ColumnElement[bool]:
    """Runners that have this status at this moment; every runner fits exactly one."""
    fresh, deadline = at - ONLINE_WINDOW, at - STALE_AFTER
    stale = and_(Runner.created_at <= deadline, deadline >= LAST_CONTACT)
    if status is Status.ONLINE:
        return fresh < LAST_CONTACT
    if status is Status.STALE:
        return stale
    if status is Status.NEVER_CONTACTED:
        return and_(Runner.contacted_at.is_(None), Runner.created_at > deadline)
    recent = or_(deadline < LAST_CONTACT, Runner.created_at > deadline)
    return and_(fresh >= LAST_CONTACT, Runner.contacted_at.is_not(None), recent)
