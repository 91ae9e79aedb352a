"""Logs of jobs: appended to, never rewritten."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from portal.database import Base


class JobLog(Base):
    """How far a job's log goes. `crc32` is of all its bytes, kept up with each piece.

    `attempt` counts from 0: when the log that arrived is not the one that was sent, the runner sends it once more,
    and that is the next attempt. `heard_at` is when the job's machine last spoke, of whatever; `watched_at` when a
    page last looked.
    """

    __tablename__ = "ci_job_logs"

    job_id: Mapped[int] = mapped_column(
        ForeignKey("ci_builds.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    attempt: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    size: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))  # bytes
    lines: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))  # line ends among them
    crc32: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    heard_at: Mapped[datetime | None]
    watched_at: Mapped[datetime | None]


class JobLogPiece(Base):
    """A piece of a log: the bytes from `start` on. `lines_before` is how many line ends stand before it."""

    __tablename__ = "ci_job_log_pieces"
    # By which a line is found: the last piece before which fewer lines end holds the end of the line before it.
    __table_args__ = (Index("ix_ci_job_log_pieces_lines", "job_id", "attempt", "lines_before", "start"),)

    job_id: Mapped[int] = mapped_column(
        ForeignKey("ci_job_logs.job_id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    start: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    lines_before: Mapped[int] = mapped_column(BigInteger)
    data: Mapped[bytes] = mapped_column(LargeBinary)
