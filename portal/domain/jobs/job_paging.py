"""Pages of jobs for scripts: by number or by cursor, the newest or the oldest first."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NoBase64
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from portal.domain.errors import BadRequest
from portal.domain.jobs import job_walks
from portal.domain.jobs.job_walks import JobList
from portal.models import Job

_CURSOR = re.compile(r"job~(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class JobStretch:
    """A part of a list of jobs; `after` is the cursor at which the next part begins, None at the end."""

    jobs: Sequence[Job]
    after: str | None


@dataclass(frozen=True, slots=True)
class JobsInPlace:
    """Jobs of a list from a place on. `more` says whether others stand behind them.

    `after` is a cursor that leads further where places do not: behind the last job that was looked at.
    """

    jobs: Sequence[Job]
    more: bool
    after: str | None


def by_number(session: Session, jobs: JobList, *, offset: int, limit: int, oldest_first: bool = False) -> JobsInPlace:
    """The jobs from this place on, at most `limit`, with what a list says of them.

    Where each job has to be looked at, these are among the first LOOKED_THROUGH of the list; cursors lead further.
    """
    found = job_walks.walk(session, jobs, size=limit, skip=offset, oldest=oldest_first)
    if found.upto is None:
        return JobsInPlace(found.jobs, found.more, None)
    return JobsInPlace(found.jobs, False, _write(found.upto))


def by_cursor(
    session: Session, jobs: JobList, *, after: str | None, limit: int, oldest_first: bool = False
) -> JobStretch:
    """The jobs behind the cursor, perhaps few or none where it goes on. Raises BadRequest for what is no cursor."""
    place = _read(after) if after else None
    below, above = (None, place) if oldest_first else (place, None)
    found = job_walks.walk(session, jobs, size=limit, below=below, above=above, oldest=oldest_first)
    last = found.upto or (found.jobs[-1].id if found.jobs else 0)
    return JobStretch(found.jobs, _write(last) if found.more else None)


def count(session: Session, jobs: JobList, *, most: int) -> int | None:
    """How many jobs there are; None where there are, or may be, more than are counted."""
    counted = job_walks.count(session, jobs, most=most)
    return counted.number if counted.whole else None


def _write(number: int) -> str:
    return urlsafe_b64encode(f"job~{number}".encode()).decode().rstrip("=")


def _read(cursor: str) -> int:
    try:
        words = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (NoBase64, ValueError):
        words = ""
    found = _CURSOR.fullmatch(words)
    if found is None:
        raise BadRequest("This is no cursor of a list of jobs. Take one from its answer, or begin without.")
    return int(found[1])
