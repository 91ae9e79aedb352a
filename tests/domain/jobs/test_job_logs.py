"""Logs of jobs: what is appended stands, what does not fit is refused, and every part is read as fast as another."""

from __future__ import annotations

import os
import random
import threading
import zlib

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.domain.errors import LogElsewhere, LogTooLong
from portal.domain.jobs import job_logs, log_stretches
from portal.domain.jobs.job_logs import LONGEST_PIECE, LogExtent
from portal.models import Job, JobLog, JobLogPiece
from tests.api.processes import Process
from tests.cast import Cast
from tests.domain.queries import asked

LIMIT = 1 << 30
MEGABYTE = 1 << 20


@pytest.fixture
def job(cast: Cast) -> Job:
    return cast.job()


def write(session: Session, job: Job, data: bytes, start: int | None = None) -> int:
    """Append, at the end unless told otherwise; the size afterwards."""
    at = job_logs.extent(session, job.id).size if start is None else start
    return job_logs.append(session, job.id, at, data, limit=LIMIT).size


def whole(session: Session, job: Job) -> bytes:
    return b"".join(job_logs.pieces(session, job_logs.extent(session, job.id)))


def test_pieces_follow_one_another(session: Session, job: Job) -> None:
    assert write(session, job, b"one\ntwo") == 7
    assert write(session, job, b"\nthree\n") == 14
    assert whole(session, job) == b"one\ntwo\nthree\n"
    assert job_logs.extent(session, job.id) == LogExtent(job.id, attempt=0, size=14, lines=3)
    assert session.get_one(JobLog, job.id).crc32 == zlib.crc32(b"one\ntwo\nthree\n")


@pytest.mark.parametrize("start", [0, 3, 8, 100], ids=["sent again", "overlapping", "one byte left out", "a gap"])
def test_a_piece_that_does_not_continue_the_log_is_refused_and_changes_nothing(
    session: Session, job: Job, start: int
) -> None:
    write(session, job, b"one\ntwo")
    with pytest.raises(LogElsewhere) as refused:
        write(session, job, b"one\ntwo\nthree", start)
    assert refused.value.size == 7
    assert whole(session, job) == b"one\ntwo"


def test_an_empty_piece_adds_nothing(session: Session, job: Job) -> None:
    assert write(session, job, b"") == 0
    write(session, job, b"a")
    assert write(session, job, b"") == 1
    assert whole(session, job) == b"a"


def test_a_log_has_a_limit_that_it_may_reach_but_not_pass(session: Session, job: Job) -> None:
    job_logs.append(session, job.id, 0, b"12345", limit=8)
    with pytest.raises(LogTooLong):
        job_logs.append(session, job.id, 5, b"6789", limit=8)
    assert job_logs.append(session, job.id, 5, b"678", limit=8).size == 8
    assert whole(session, job) == b"12345678"


def test_nothing_that_stands_is_rewritten(session: Session, job: Job) -> None:
    write(session, job, b"one\n")
    with asked(session) as statements:
        write(session, job, b"two\n", 4)
    assert not [each for each in statements if "ci_job_log_pieces" in each and not each.startswith("INSERT")]
    assert len(statements) <= 3


def test_what_is_sent_at_once_is_cut_for_reading(session: Session, job: Job) -> None:
    data = os.urandom(3 * LONGEST_PIECE + 5)
    write(session, job, data)
    longest = session.scalar(select(func.max(func.octet_length(JobLogPiece.data))))
    assert longest == LONGEST_PIECE
    assert whole(session, job) == data


def test_two_that_append_at_once_do_not_both_succeed(process: Process) -> None:
    with process.session() as session:
        job_id = Cast(session).job().id
    results: list[object] = []
    both = threading.Barrier(2)

    def append(data: bytes) -> None:
        with process.session() as session:
            both.wait()
            try:
                results.append(job_logs.append(session, job_id, 0, data, limit=LIMIT).size)
                session.commit()
            except LogElsewhere as elsewhere:
                results.append(f"elsewhere: {elsewhere.size}")

    threads = [threading.Thread(target=append, args=(data,)) for data in (b"aaa", b"bbb")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, results)) == ["3", "elsewhere: 3"]
    with process.session() as session:
        log = job_logs.extent(session, job_id)
        assert b"".join(job_logs.pieces(session, log)) in (b"aaa", b"bbb")


class TestChecksum:
    def test_fits_the_log_that_was_sent(self, session: Session, job: Job) -> None:
        for piece in (b"one\n", b"two\n"):
            write(session, job, piece)
        said = "crc32:" + format(zlib.crc32(b"one\ntwo\n"), "08x")
        assert job_logs.checksum_fits(session, job.id, said, 8)
        assert job_logs.checksum_fits(session, job.id, said.upper().replace("CRC32", "crc32"))
        assert not job_logs.checksum_fits(session, job.id, said, 9)
        assert not job_logs.checksum_fits(session, job.id, "crc32:00000000", 8)

    @pytest.mark.parametrize("said", ["", "sha256:0", "crc32:", "crc32:12345"])
    def test_that_nobody_can_compare_says_nothing(self, session: Session, job: Job, said: str) -> None:
        write(session, job, b"one\n")
        assert job_logs.checksum_fits(session, job.id, said)

    def test_of_a_job_that_wrote_nothing(self, session: Session, job: Job) -> None:
        assert job_logs.checksum_fits(session, job.id, "crc32:00000000", 0)
        assert not job_logs.checksum_fits(session, job.id, "crc32:12345678", 4)


class TestSendingOnceMore:
    def test_begins_an_attempt_of_its_own(self, session: Session, job: Job) -> None:
        write(session, job, b"wrong\n")
        job_logs.begin_again(session, job.id)
        assert job_logs.extent(session, job.id) == LogExtent(job.id, attempt=1)
        write(session, job, b"right\nand longer\n", 0)
        assert whole(session, job) == b"right\nand longer\n"
        assert session.get_one(JobLog, job.id).crc32 == zlib.crc32(b"right\nand longer\n")

    def test_leaves_one_attempt_when_the_job_is_over(self, session: Session, job: Job) -> None:
        write(session, job, b"wrong\n")
        job_logs.begin_again(session, job.id)
        write(session, job, b"right\n", 0)
        job_logs.settle(session, job.id)
        assert [piece.data for piece in session.scalars(select(JobLogPiece))] == [b"right\n"]
        assert whole(session, job) == b"right\n"

    def test_that_breaks_off_leaves_the_longest_of_those_before(self, session: Session, job: Job) -> None:
        write(session, job, b"one\n")
        write(session, job, b"two\n")
        job_logs.begin_again(session, job.id)
        write(session, job, b"one\n", 0)
        job_logs.settle(session, job.id)
        assert whole(session, job) == b"one\ntwo\n"
        assert job_logs.extent(session, job.id) == LogExtent(job.id, attempt=0, size=8, lines=2)
        assert session.get_one(JobLog, job.id).crc32 == zlib.crc32(b"one\ntwo\n")

    def test_and_never_begun_keeps_what_there_was(self, session: Session, job: Job) -> None:
        write(session, job, b"one\n")
        job_logs.begin_again(session, job.id)
        job_logs.settle(session, job.id)
        assert whole(session, job) == b"one\n"


def test_an_erased_log_is_gone(session: Session, job: Job) -> None:
    write(session, job, b"one\n")
    job_logs.erase(session, job.id)
    assert whole(session, job) == b""
    assert session.scalars(select(JobLogPiece)).all() == []
    assert write(session, job, b"new\n", 0) == 4


class TestReading:
    @pytest.fixture
    def data(self) -> bytes:
        chance = random.Random(7)  # noqa: S311
        lines = [b"x" * chance.choice([0, 1, 3, 80, 900]) for _ in range(400)]
        return b"\n".join(lines)

    @pytest.fixture
    def log(self, session: Session, job: Job, data: bytes, monkeypatch: pytest.MonkeyPatch) -> LogExtent:
        """The same in pieces of every size, many without a line end."""
        monkeypatch.setattr(job_logs, "LONGEST_PIECE", 700)
        chance, at = random.Random(8), 0  # noqa: S311
        while at < len(data):
            at = write(session, job, data[at : at + chance.choice([1, 2, 40, 650, 3000])])
        return job_logs.extent(session, job.id)

    def test_finds_every_byte(self, session: Session, log: LogExtent, data: bytes) -> None:
        assert b"".join(job_logs.pieces(session, log)) == data
        chance = random.Random(9)  # noqa: S311
        for _ in range(50):
            start, length = chance.randrange(len(data) + 10), chance.choice([0, 1, 5, 700, 10_000])
            assert job_logs.read(session, log, start, length) == data[start : start + length]

    def test_finds_every_line(self, session: Session, log: LogExtent, data: bytes) -> None:
        starts = [0, *(at + 1 for at, byte in enumerate(data) if byte == ord("\n"))]
        assert log.lines == len(starts) - 1
        assert [job_logs.start_of_line(session, log, line) for line in range(len(starts))] == starts
        assert job_logs.start_of_line(session, log, len(starts)) == len(data)
        assert [job_logs.line_at(session, log, start) for start in starts] == list(range(len(starts)))

    def test_stops_where_the_log_ended_when_it_was_asked_for(self, session: Session, job: Job) -> None:
        write(session, job, b"one\n")
        log = job_logs.extent(session, job.id)
        write(session, job, b"two\n")
        assert b"".join(job_logs.pieces(session, log)) == b"one\n"
        assert job_logs.read(session, log, 0, 100) == b"one\n"


def test_a_page_in_the_middle_of_100_mib_costs_as_much_as_the_first(session: Session, job: Job) -> None:
    line = b"%09d " + b"x" * 89 + b"\n"
    block = len(line % 0)
    each = MEGABYTE // block
    total, at = 100 * MEGABYTE // block, 0
    for number in range(0, total, each):
        data = b"".join(line % count for count in range(number, min(number + each, total)))
        at = write(session, job, data, at)
    log = job_logs.extent(session, job.id)
    assert log.size > 99 * MEGABYTE
    for wanted in (0, log.lines // 2, log.lines - 2000):
        with asked(session) as statements:
            found = log_stretches.from_line(session, log, wanted, over=True)
        assert len(statements) <= 4
        assert found.items[0].line.text.startswith(f"{wanted:09d} ")
        assert len(found.items) == log_stretches.MOST_LINES
    with asked(session) as statements:
        assert log_stretches.last(session, log, over=True).first == log.lines - log_stretches.MOST_LINES
    assert len(statements) <= 6
    # However long the log, a stretch reads few pieces, and each is small.
    most = select(func.max(func.octet_length(JobLogPiece.data)))
    assert (session.scalar(most) or 0) <= LONGEST_PIECE
