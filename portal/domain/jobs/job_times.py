"""How long a job waited, and how long it ran."""

from __future__ import annotations

from datetime import datetime

from portal.models import Job


def waited(job: Job, at: datetime) -> float:
    """Seconds in the queue: until it began, until it was canceled before that, or until this moment."""
    return _seconds(job.queued_at, job.started_at or job.finished_at or at)


def ran(job: Job, at: datetime) -> float | None:
    """Seconds since a machine took it, until it ended or until this moment; None while nobody has taken it."""
    return None if job.started_at is None else _seconds(job.started_at, job.finished_at or at)


def _seconds(since: datetime, until: datetime) -> float:
    return max(0.0, (until - since).total_seconds())
