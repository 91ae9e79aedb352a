"""Logs of jobs: pieces are appended, nothing that stands is rewritten, and any stretch is read as fast as another."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, delete, func, insert, select, tuple_
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.errors import LogElsewhere, LogTooLong
from portal.models import JobLog, JobLogPiece

WATCHED_FOR = timedelta(minutes=1)  # after a page last looked
WATCHED_EVERY, UNWATCHED_EVERY = 3, 30  # seconds between two pieces of a log
LONGEST_PIECE = 256 * 1024  # bytes; what a client sends at once may be more, and is cut for reading
_CHECKSUM = re.compile(r"crc32:([0-9a-f]{8})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Appended:
    """How many bytes the log has now, and when a page last looked at it."""

    size: int
    watched_at: datetime | None

    @property
    def interval(self) -> int:
        """After how many seconds the next piece is welcome."""
        return interval(self.watched_at)


@dataclass(frozen=True, slots=True)
class LogExtent:
    """How far a log goes: its attempt, its bytes and the line ends among them."""

    job_id: int
    attempt: int = 0
    size: int = 0
    lines: int = 0


def extent(session: Session, job_id: int) -> LogExtent:
    """How far the job's log goes; one that has not begun has no bytes."""
    query = select(JobLog.attempt, JobLog.size, JobLog.lines).where(JobLog.job_id == job_id)
    found = session.execute(query).one_or_none()
    return LogExtent(job_id, *found) if found else LogExtent(job_id)


def append(session: Session, job_id: int, start: int, data: bytes, *, limit: int) -> Appended:
    """Put `data` at the end of the log, which must be at byte `start`; `limit` is how many bytes it may have.

    Where the sender says its piece ends counts for nothing: some clients name the last byte, others the one after it.
    Raises LogElsewhere when the log does not end at `start`, and LogTooLong when the piece would pass the limit; the
    log then stays as it is, and the caller lets the job fail.
    """
    log = _locked(session, job_id)
    if log.size != start:
        raise LogElsewhere(log.size)
    if start + len(data) > limit:
        raise LogTooLong(f"The log is longer than the {limit} bytes that the log of a job may have here.")
    before = log.lines
    log.size, log.lines, log.crc32 = start + len(data), before + data.count(b"\n"), zlib.crc32(data, log.crc32)
    session.flush()
    if data:
        session.execute(insert(JobLogPiece), _cut(job_id, log.attempt, start, before, data))
    return Appended(log.size, log.watched_at)


def _locked(session: Session, job_id: int) -> JobLog:
    """The log's row, made if it is missing; who else appends waits, and then sees what was appended before."""
    query = select(JobLog).where(JobLog.job_id == job_id).with_for_update()
    query = query.execution_options(populate_existing=True)
    found = session.scalars(query).one_or_none()
    if found is None:
        session.execute(pg_insert(JobLog).values(job_id=job_id).on_conflict_do_nothing())
        found = session.scalars(query).one()
    return found


def _cut(job_id: int, attempt: int, start: int, lines: int, data: bytes) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for offset in range(0, len(data), LONGEST_PIECE):
        part = data[offset : offset + LONGEST_PIECE]
        rows.append(
            {"job_id": job_id, "attempt": attempt, "start": start + offset, "lines_before": lines, "data": part}
        )
        lines += part.count(b"\n")
    return rows


def checksum_fits(session: Session, job_id: int, checksum: str, bytesize: int | None = None) -> bool:
    """Whether the stored log is the one that the machine sent, by its CRC-32 and its length, as far as it says them.

    `checksum` is as gitlab-runner writes it: `crc32:` and eight hexadecimal digits. Without one, or with one of
    another kind, there is nothing to compare (before 13.7 runners send none).
    """
    found = session.execute(select(JobLog.size, JobLog.crc32).where(JobLog.job_id == job_id)).one_or_none()
    size, crc32 = found or (0, 0)
    if bytesize is not None and bytesize != size:
        return False
    said = _CHECKSUM.fullmatch(checksum)
    return said is None or int(said[1], 16) == crc32


def begin_again(session: Session, job_id: int) -> None:
    """The log is sent once more from its first byte. What arrived before stays until `settle`."""
    log = _locked(session, job_id)
    log.attempt, log.size, log.lines, log.crc32 = log.attempt + 1, 0, 0, 0
    session.flush()


def settle(session: Session, job_id: int) -> None:
    """The job is over, so that nothing more arrives: one attempt's log stays, the last.

    Unless the machine fell silent while it sent the log once more: then the longest of those before tells most.
    Whoever ends a job calls this in the same transaction.
    """
    log = _locked(session, job_id)
    if log.attempt == 0:
        return
    earlier = _longest_before(session, log)
    if earlier and earlier.size > log.size:
        log.attempt, log.size, log.lines = earlier.attempt, earlier.size, earlier.lines
        log.crc32 = 0
        for data in _of(session, earlier, 0):
            log.crc32 = zlib.crc32(data, log.crc32)
    session.flush()
    others = (JobLogPiece.job_id == job_id, JobLogPiece.attempt != log.attempt)
    session.execute(delete(JobLogPiece).where(*others).execution_options(synchronize_session=False))


def _longest_before(session: Session, log: JobLog) -> LogExtent | None:
    mine = (JobLogPiece.job_id == log.job_id, JobLogPiece.attempt < log.attempt)
    ending = select(JobLogPiece.attempt, func.max(JobLogPiece.start)).where(*mine).group_by(JobLogPiece.attempt)
    last = select(JobLogPiece.attempt, JobLogPiece.start, JobLogPiece.lines_before, JobLogPiece.data).where(
        *mine, tuple_(JobLogPiece.attempt, JobLogPiece.start).in_(ending)
    )
    ends = [
        LogExtent(log.job_id, attempt, start + len(data), lines + data.count(b"\n"))
        for attempt, start, lines, data in session.execute(last)
    ]
    return max(ends, key=lambda each: each.size, default=None)


def erase(session: Session, job_id: int) -> None:
    """Take away all that was written; the caller records it. A machine that still sends then begins at its byte 0."""
    log = _locked(session, job_id)
    log.size, log.lines, log.crc32 = 0, 0, 0
    session.flush()
    session.execute(
        delete(JobLogPiece).where(JobLogPiece.job_id == job_id).execution_options(synchronize_session=False)
    )


def read(session: Session, log: LogExtent, start: int, length: int) -> bytes:
    """At most `length` bytes from byte `start` on; fewer at the end of the log."""
    end = min(start + length, log.size)
    if start >= end:
        return b""
    parts = []
    for at, data in session.execute(_pieces_from(log, start, end)):
        parts.append(data[max(0, start - at) : end - at])
    return b"".join(parts)


def pieces(session: Session, log: LogExtent) -> Iterator[bytes]:
    """The whole log piece by piece, as it stood when `log` was asked for; few pieces are in memory at any time.

    Between two of them the session may be given back: nothing is held open.
    """
    return _of(session, log, 0)


def _of(session: Session, log: LogExtent, start: int) -> Iterator[bytes]:
    while start < log.size:
        end = min(start + LONGEST_PIECE, log.size)
        found = session.execute(_pieces_from(log, start, end)).all()
        if not found:
            return  # erased meanwhile
        for at, data in found:
            part = data[max(0, start - at) : log.size - at]
            start = at + len(data)
            yield part


def _pieces_from(log: LogExtent, start: int, end: int) -> Select[int, bytes]:
    """The pieces in which the bytes from `start` to before `end` lie, with their own starts."""
    mine = (JobLogPiece.job_id == log.job_id, JobLogPiece.attempt == log.attempt)
    first = select(func.max(JobLogPiece.start)).where(*mine, JobLogPiece.start <= start).scalar_subquery()
    return (
        select(JobLogPiece.start, JobLogPiece.data)
        .where(*mine, JobLogPiece.start >= first, JobLogPiece.start < end)
        .order_by(JobLogPiece.start)
    )


def start_of_line(session: Session, log: LogExtent, line: int) -> int:
    """The byte at which a line begins, counted from 0; the size of the log when it has no such line."""
    if line <= 0:
        return 0
    if line > log.lines:
        return log.size
    query = (
        select(JobLogPiece.start, JobLogPiece.lines_before, JobLogPiece.data)
        .where(JobLogPiece.job_id == log.job_id, JobLogPiece.attempt == log.attempt, JobLogPiece.lines_before < line)
        .order_by(JobLogPiece.lines_before.desc(), JobLogPiece.start.desc())
        .limit(1)
    )
    start, lines_before, data = session.execute(query).one()
    found = -1
    for _ in range(line - lines_before):
        found = data.index(b"\n", found + 1)
    return int(start) + found + 1


def line_at(session: Session, log: LogExtent, byte: int) -> int:
    """In which line a byte lies, counted from 0."""
    query = (
        select(JobLogPiece.start, JobLogPiece.lines_before, JobLogPiece.data)
        .where(JobLogPiece.job_id == log.job_id, JobLogPiece.attempt == log.attempt, JobLogPiece.start <= byte)
        .order_by(JobLogPiece.start.desc())
        .limit(1)
    )
    found = session.execute(query).one_or_none()
    if found is None:
        return 0
    start, lines_before, data = found
    return int(lines_before) + data.count(b"\n", 0, byte - start)


def update_interval(session: Session, job_id: int) -> int:
    """How many seconds the runner may wait between two pieces: few while somebody watches."""
    watched_at = session.scalar(select(JobLog.watched_at).where(JobLog.job_id == job_id))
    return interval(watched_at)


def interval(watched_at: datetime | None) -> int:
    """The same for a log that was looked at last at this moment."""
    return WATCHED_EVERY if watched_at is not None and now() - watched_at < WATCHED_FOR else UNWATCHED_EVERY
