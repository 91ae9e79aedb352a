"""Stretches of a log: which lines a page shows, and how sections fold, whatever is written between their marks."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from portal.domain.jobs import job_logs, log_stretches
from portal.domain.jobs.job_logs import LogExtent
from portal.domain.jobs.log_lines import LineReader, Look
from portal.domain.jobs.log_stretches import DEEPEST, Closing, Item, Opening, Row, Section, StrayEnd, Stretch
from portal.models import Job
from tests.cast import Cast


def start(name: str, at: int = 100, options: str = "") -> bytes:
    return f"\x1b[0Ksection_start:{at}:{name}{options}\r\x1b[0K".encode()


def end(name: str, at: int = 100) -> bytes:
    return f"\x1b[0Ksection_end:{at}:{name}\r\x1b[0K".encode()


def items(raw: bytes) -> list[Item]:
    return list(log_stretches.in_sections(enumerate(raw.split(b"\n"), 1), LineReader()))


def outline(found: list[Item]) -> list[str]:
    """What a reader sees: `>` begins a section, `<` ends it."""
    told = []
    for item in found:
        match item:
            case Row():
                told.append(f"{item.number or '-'} {item.line.text}")
            case Opening(section):
                header = section.header
                words = f": {header.number or '-'} {header.line.text}" if header else ""
                told.append(f"> {section.name}{words}")
            case Closing(section):
                told.append(f"< {section.name}")
            case StrayEnd():
                told.append(f"! {item.name}")
    return told


def sections(found: list[Item]) -> list[Section]:
    return [item.section for item in found if isinstance(item, Opening)]


class TestSections:
    def test_as_gitlab_runner_marks_them(self) -> None:
        raw = (
            b"Running with gitlab-runner\n"
            + start("prepare_executor", 100)
            + b"\x1b[0K\x1b[36;1mPreparing the executor\x1b[0;m\nUsing Shell\n"
            + end("prepare_executor", 103)
            + start("step_script", 103)
            + b"\x1b[0K\x1b[36;1mExecuting\x1b[0;m\n$ make\n"
            + end("step_script", 170)
            + b"\x1b[32;1mJob succeeded\x1b[0;m"
        )
        found = items(raw)
        assert outline(found) == [
            "1 Running with gitlab-runner",
            "> prepare_executor: 2 Preparing the executor",
            "3 Using Shell",
            "< prepare_executor",
            "> step_script: 4 Executing",
            "5 $ make",
            "< step_script",
            "6 Job succeeded",
        ]
        assert [section.took for section in sections(found)] == [3, 67]

    def test_in_one_another(self) -> None:
        raw = start("a") + b"A\n" + start("b") + b"B\nx\n" + end("b") + b"\n" + end("a") + b"y"
        assert outline(items(raw)) == ["> a: 1 A", "> b: 2 B", "3 x", "< b", "< a", "5 y"]

    def test_that_never_end(self) -> None:
        found = items(start("a") + b"A\nx")
        assert outline(found) == ["> a: 1 A", "2 x", "< a"]
        assert (sections(found)[0].ended, sections(found)[0].took) == (False, None)

    def test_that_never_began(self) -> None:
        assert outline(items(b"x\n" + end("a") + b"y")) == ["1 x", "! a", "2 y"]

    def test_that_end_in_the_wrong_order(self) -> None:
        raw = start("a") + b"A\n" + start("b") + b"B\n" + end("a") + end("b") + b"y"
        assert outline(items(raw)) == ["> a: 1 A", "> b: 2 B", "< b", "< a", "! b", "3 y"]

    def test_whose_clock_went_back_took_no_time(self) -> None:
        assert sections(items(start("a", 100) + b"A\n" + end("a", 90)))[0].took == 0

    def test_begin_folded_where_the_script_says_so(self) -> None:
        raw = start("a", options="[collapsed=true]") + b"A\n" + end("a") + start("b", options="[a=1,collapsed=false]")
        assert [section.collapsed for section in sections(items(raw))] == [True, False]

    def test_without_a_header_have_their_name(self) -> None:
        assert outline(items(start("a") + b"\nx\n" + end("a"))) == ["> a", "2 x", "< a"]

    def test_lose_no_output_without_a_line_end_before_a_mark(self) -> None:
        raw = start("a") + b"A\nno line end" + end("a") + b"done"
        assert outline(items(raw)) == ["> a: 1 A", "2 no line end", "< a", "- done"]

    def test_too_deep_are_lines_like_any_other(self) -> None:
        found = items(b"\n".join(start(f"s{number}") + b"x" for number in range(1000)))
        assert len(sections(found)) == DEEPEST
        assert sum(isinstance(item, Row) for item in found) == 1000 - DEEPEST

    @pytest.mark.parametrize("raw", [b"start:1:a", b"start:x:a\r\x1b[0K", b"start:1:a b\r\x1b[0K"])
    def test_are_marked_exactly_or_not_at_all(self, raw: bytes) -> None:
        assert sections(items(b"section_" + raw)) == []

    @given(
        st.lists(
            st.one_of(
                st.builds(start, st.sampled_from("abc"), st.integers(0, 200), st.sampled_from(["", "[a=b]"])),
                st.builds(end, st.sampled_from("abc"), st.integers(0, 200)),
                st.sampled_from([b"\n", b"text", b"\x1b[31m", b"\r"]),
            ),
            max_size=40,
        ).map(b"".join)
    )
    def test_always_close_what_they_open(self, raw: bytes) -> None:
        opened: list[Section] = []
        for item in items(raw):
            if isinstance(item, Opening):
                opened.append(item.section)
            elif isinstance(item, Closing):
                assert opened.pop() is item.section
        assert opened == []


class TestStretches:
    @pytest.fixture
    def job(self, cast: Cast) -> Job:
        return cast.job()

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(log_stretches, "MOST_LINES", 10)
        monkeypatch.setattr(log_stretches, "MOST_BYTES", 200)

    def log(self, session: Session, job: Job, data: bytes) -> LogExtent:
        job_logs.append(session, job.id, 0, data, limit=1 << 30)
        return job_logs.extent(session, job.id)

    @staticmethod
    def texts(stretch: Stretch) -> list[str]:
        return [item.line.text for item in stretch.items if isinstance(item, Row)]

    def test_the_last_lines_come_first(self, session: Session, job: Job) -> None:
        log = self.log(session, job, b"".join(b"%d\n" % number for number in range(1, 101)))
        stretch = log_stretches.last(session, log, over=True)
        assert self.texts(stretch) == [str(number) for number in range(91, 101)]
        assert (stretch.first, stretch.reaches_end, stretch.next) == (90, True, log.size)

    def test_one_leads_to_those_before_and_after(self, session: Session, job: Job) -> None:
        log = self.log(session, job, b"".join(b"%d\n" % number for number in range(1, 101)))
        stretch = log_stretches.before(session, log, 90, over=True)
        assert self.texts(stretch) == [str(number) for number in range(81, 91)]
        stretch = log_stretches.from_line(session, log, 10, over=True)
        assert self.texts(stretch) == [str(number) for number in range(11, 21)]
        assert not stretch.reaches_end
        following = log_stretches.from_byte(session, log, stretch.next, over=True)
        assert self.texts(following)[0] == "21"
        assert following.items[0].number == 21

    @settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(over=st.booleans(), lines=st.lists(st.integers(0, 450), max_size=40), ended=st.booleans())
    def test_all_of_them_together_are_the_log(
        self, session: Session, job: Job, over: bool, lines: list[int], ended: bool
    ) -> None:
        """From either end, whatever the lengths of the lines."""
        data = b"\n".join(b"x" * length for length in lines) + (b"\n" if ended else b"")
        texts = [line.decode() for line in data.split(b"\n")]
        texts = texts[:-1] if not texts[-1] else texts
        job_logs.erase(session, job.id)
        log = self.log(session, job, data)
        forwards, at = [], 0
        while at < log.size:
            stretch = log_stretches.from_byte(session, log, at, over=over)
            forwards += [item for item in stretch.items if isinstance(item, Row)]
            if stretch.reaches_end:
                break
            assert stretch.next > at
            at = stretch.next
        backwards: list[Row] = []
        stretch = log_stretches.last(session, log, over=over)
        while True:
            backwards = [item for item in stretch.items if isinstance(item, Row)] + backwards
            if not stretch.first:
                break
            before = stretch.first
            stretch = log_stretches.before(session, log, before, over=over)
            assert stretch.first < before
        for rows in (forwards, backwards):
            assert [row.number for row in rows] == list(range(1, len(texts) + 1))
            assert all(text.startswith(row.line.text) for row, text in zip(rows, texts, strict=True))
            assert all(row.line.text == text for row, text in zip(rows, texts, strict=True) if len(text) < 200)

    def test_the_last_line_of_a_job_that_runs_may_go_on(self, session: Session, job: Job) -> None:
        log = self.log(session, job, b"one\ntw")
        stretch = log_stretches.last(session, log, over=False)
        assert [(item.line.text, item.unfinished) for item in stretch.items] == [("one", False), ("tw", True)]
        assert (stretch.next, stretch.reaches_end) == (4, True)
        job_logs.append(session, job.id, 6, b"o\nthree\n", limit=1000)
        more = log_stretches.from_byte(session, job_logs.extent(session, job.id), stretch.next, over=False)
        assert self.texts(more) == ["two", "three"]
        assert [item.number for item in more.items] == [2, 3]

    def test_a_mark_in_a_line_that_may_go_on_opens_nothing_yet(self, session: Session, job: Job) -> None:
        log = self.log(session, job, b"one\n" + start("a") + b"Hea")
        stretch = log_stretches.last(session, log, over=False)
        assert outline(stretch.items) == ["1 one", "2 Hea"]
        assert outline(log_stretches.last(session, log, over=True).items) == ["1 one", "> a: 2 Hea", "< a"]

    def test_what_only_takes_a_colour_back_at_the_end_is_no_line(self, session: Session, job: Job) -> None:
        log = self.log(session, job, b"\x1b[32;1mJob succeeded\x1b[0;m\n\x1b[0;m")
        for over in (True, False):
            assert outline(log_stretches.last(session, log, over=over).items) == ["1 Job succeeded"]
        assert log_stretches.last(session, log, over=True).next == log.size

    def test_one_begins_in_the_colours_that_were_left_on(self, session: Session, job: Job) -> None:
        log = self.log(session, job, b"\x1b[31mred\n" + b"x\n" * 30)
        stretch = log_stretches.last(session, log, over=True)
        assert stretch.items[0].line.spans[0].look == Look(ink=1)

    @pytest.mark.parametrize("line", [-5, 0, 7, 10**15])
    def test_a_line_that_is_not_there_is_no_trouble(self, session: Session, job: Job, line: int) -> None:
        for data in (b"", b"one\n"):
            log = self.log(session, job, data)
            log_stretches.from_line(session, log, line, over=True)
            log_stretches.before(session, log, line, over=False)
            log_stretches.from_byte(session, log, max(0, line), over=False)


@pytest.mark.parametrize(("lines", "leaps"), [(4000, False), (4001, True)])
def test_what_is_new_is_the_end_where_more_came_than_two_stretches(
    cast: Cast, session: Session, lines: int, leaps: bool
) -> None:
    job = cast.job()
    seen = job_logs.append(session, job.id, 0, b"seen\n", limit=1 << 30).size
    new = b"".join(b"line %d\n" % number for number in range(2, lines + 2))
    job_logs.append(session, job.id, seen, new, limit=1 << 30)
    log = job_logs.extent(session, job.id)
    followed = log_stretches.since(session, log, seen, over=False)
    assert (followed.first, log_stretches.between(session, log, seen, followed)) == (1, None)
    found = log_stretches.since(session, log, seen, over=False, leap=True)
    skipped = log_stretches.between(session, log, seen, found)
    assert (found.first, found.reaches_end, skipped) == ((2002, True, (2, 2002)) if leaps else (1, False, None))
