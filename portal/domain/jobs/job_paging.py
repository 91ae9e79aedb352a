"""Pages of jobs for scripts: by number or by cursor, the newest or the oldest first."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NoBase64
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Select, and_, func, select
from sqlalchemy.orm import Session

from portal.domain.errors import BadRequest
from portal.domain.jobs import job_lists
from portal.models import Job, JobMachine

_CURSOR = re.compile(r"job~(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class JobStretch:
    """A part of a list of jobs; `after` is the cursor at which the next part begins, None at the end."""

    jobs: Sequence[Job]
    after: str | None


def by_number(
    session: Session, query: Select[Job], *, offset: int, limit: int, oldest_first: bool = False
) -> list[Job]:
    """The jobs from this place on, at most `limit`, with what a list says of them, in one query."""
    ids = _in_order(query.with_only_columns(Job.id), oldest_first).offset(offset).limit(limit).subquery()
    whole = select(Job).where(Job.id.in_(select(ids.c.id))).options(*job_lists.shown())
    return list(session.scalars(_in_order(whole, oldest_first)))


def by_cursor(
    session: Session, query: Select[Job], *, after: str | None, limit: int, oldest_first: bool = False
) -> JobStretch:
    """The jobs behind the cursor. Raises BadRequest for one that is none."""
    if after:
        number = _read(after)
        query = query.where(Job.id > number if oldest_first else Job.id < number)
    query = query.options(*job_lists.shown())
    found = list(session.scalars(_in_order(query, oldest_first).limit(limit + 1)))
    jobs = found[:limit]
    return JobStretch(jobs, _write(jobs[-1]) if len(found) > limit else None)


def count(session: Session, query: Select[Job], *, most: int) -> int | None:
    """How many jobs there are; None when there are more than `most`, which are not all counted."""
    limited = query.with_only_columns(Job.id).order_by(None).limit(most + 1).subquery()
    total = session.scalar(select(func.count()).select_from(limited)) or 0
    return total if total <= most else None


def on_machine(query: Select[Job], system_xid: str) -> Select[Job]:
    """Those of the jobs that a machine with this system ID has or had, whether or not its row is there still."""
    its = and_(JobMachine.partition_id == Job.partition_id, JobMachine.job_id == Job.id)
    return query.where(select(JobMachine.job_id).where(its, JobMachine.system_xid == system_xid).exists())


def _in_order(query: Select[Job], oldest_first: bool) -> Select[Job]:
    return query.order_by(Job.id.asc() if oldest_first else Job.id.desc())


def _write(job: Job) -> str:
    return urlsafe_b64encode(f"job~{job.id}".encode()).decode().rstrip("=")


def _read(cursor: str) -> int:
    try:
        words = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (NoBase64, ValueError):
        words = ""
    found = _CURSOR.fullmatch(words)
    if found is None:
        raise BadRequest("This is no cursor of a list of jobs. Take one from its answer, or begin without.")
    return int(found[1])
