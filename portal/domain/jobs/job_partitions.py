"""Partitions of the table that says which machine ran a job: made ahead, dropped when their jobs are gone."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from portal.database import PARTITIONS
from portal.models import Job, JobPartition

FIRST = 100  # GitLab's, and the seeds'; jobs from before the first month that has one of its own belong to it
MONTHS_AHEAD = 3
_EPOCH = 2026 * 12 + 10  # the month in which partition 100 was the only one


def number_of(moment: datetime) -> int:
    """The number of the partition of this month."""
    return FIRST + max(0, moment.year * 12 + moment.month - 1 - _EPOCH)


def _begins(number: int) -> datetime:
    year, month = divmod(_EPOCH + number - FIRST, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)


def make_ahead(session: Session, at: datetime) -> int:
    """Make the partitions of this month and the next ones, where they are missing. Returns how many.

    Two processes that do so at once make each of them once.
    """
    made = 0
    for number in range(number_of(at), number_of(at) + MONTHS_AHEAD + 1):
        values = {"id": number, "starts_at": _begins(number)}
        if session.scalar(insert(JobPartition).values(**values).on_conflict_do_nothing().returning(JobPartition.id)):
            session.execute(text(_make(number)))
            made += 1
    return made


def _make(number: int) -> str:
    return (
        f"CREATE TABLE IF NOT EXISTS {PARTITIONS}{number:d} "
        f"PARTITION OF p_ci_runner_machine_builds FOR VALUES IN ({number:d})"
    )


def current(session: Session, at: datetime) -> int:
    """The partition of jobs that are submitted now: the newest that has begun, also when its successor is late."""
    newest = select(JobPartition.id).where(JobPartition.starts_at <= at).order_by(JobPartition.starts_at.desc())
    return session.scalar(newest.limit(1)) or FIRST


def drop_empty(session: Session, at: datetime) -> int:
    """Drop partitions from before the oldest job that is kept. Returns how many.

    The one before that stays too: of two jobs that are submitted while a month ends, the first may be the newer.
    """
    oldest = session.scalar(select(Job.partition_id).order_by(Job.id).limit(1)) or current(session, at)
    gone = (JobPartition.id < oldest - 1) & (JobPartition.id != FIRST)
    numbers = session.scalars(select(JobPartition.id).where(gone)).all()
    for number in numbers:
        session.execute(text(f"DROP TABLE IF EXISTS {PARTITIONS}{number:d}"))
    session.execute(delete(JobPartition).where(JobPartition.id.in_(numbers)))
    return len(numbers)
