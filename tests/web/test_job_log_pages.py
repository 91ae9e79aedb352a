"""The log on a job's page: what it shows, what it asks for later, the raw log, and that no log writes markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from flask import Flask, render_template
from flask.testing import FlaskClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal import job_log_files
from portal.config import ROOT
from portal.domain.jobs import job_logs, job_reports, log_stretches
from portal.domain.jobs.log_lines import LineReader, Look
from portal.models import Job, JobLogPiece
from portal.web import job_log_pages, log_looks
from tests.cast import Cast, sign_in
from tests.domain.queries import asked

Page = Callable[..., "Shown"]


class Shown(HTMLParser):
    """A page or fragment as a browser reads it: its elements, with their attributes, and the texts of the lines."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.elements, self.lines = html, [], []
        self._in_text = 0
        self.feed(html)

    elements: list[tuple[str, dict[str, str | None]]]
    lines: list[str]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "span" and (self._in_text or dict(attrs).get("class") == "log-text"):
            if not self._in_text:
                self.lines.append("")
            self._in_text += 1

    def handle_endtag(self, tag: str) -> None:
        if tag == "span" and self._in_text:
            self._in_text -= 1

    def handle_data(self, data: str) -> None:
        if self._in_text:
            self.lines[-1] += data

    @property
    def root(self) -> dict[str, str | None]:
        """The attributes of the log itself."""
        return next(attrs for _, attrs in self.elements if "data-next" in attrs)

    def links(self) -> set[str | None]:
        return {attrs["href"] for tag, attrs in self.elements if tag == "a"}


@pytest.fixture
def job(cast: Cast) -> Job:
    return cast.job()


@pytest.fixture
def write(session: Session, job: Job) -> Callable[[bytes], int]:
    """Add to the job's log; the size afterwards."""

    def append(data: bytes) -> int:
        at = job_logs.extent(session, job.id).size
        return job_logs.append(session, job.id, at, data, limit=1 << 30).size

    return append


@pytest.fixture
def page(app: Flask, job: Job) -> Page:
    """The log as the page of the job includes it."""

    def shown(query: str = "") -> Shown:
        with app.test_request_context(f"/acme/web/-/jobs/{job.id}{query}"):
            return Shown(render_template("jobs/_log.html", log=job_log_pages.shown(job)))

    app.extensions["log_watches"].take()
    return shown


@pytest.fixture
def news(app: Flask, job: Job) -> Page:
    """What a page that is open hears; without arguments, of everything."""

    def ask(after: Shown | None = None, **asked_for: Any) -> Shown:
        told = {name: after.root[f"data-{key}"] for name, key in KNOWN.items()} if after else {}
        told |= asked_for
        query = "&".join(f"{name}={value}" for name, value in told.items())
        with app.test_request_context(f"/acme/web/-/jobs/{job.id}/log?{query}"):
            return Shown(job_log_pages.news(job))

    return ask


KNOWN = {"from": "next", "seen": "seen", "attempt": "attempt"}


def selects(statements: list[str]) -> list[str]:
    return [each for each in statements if each.startswith("SELECT")]


def end(session: Session, job: Job) -> None:
    job.started_at = job.created_at
    job_reports.finish(session, job, success=True)
    session.flush()


class TestPage:
    def test_shows_every_line_with_its_number(self, page: Page, write: Callable[[bytes], int]) -> None:
        write(b"one\n\nthree\n")
        shown = page()
        assert shown.lines == ["one", "", "three"]
        assert [attrs["id"] for _, attrs in shown.elements if attrs.get("class") == "log-row"] == ["L1", "L2", "L3"]
        assert {"#L1", "#L2", "#L3"} <= shown.links()
        assert "data-live" in shown.root

    def test_shows_the_end_of_a_long_log_and_the_ways_to_the_rest(
        self, page: Page, write: Callable[[bytes], int], job: Job
    ) -> None:
        write(b"".join(b"line %d\n" % number for number in range(1, 5001)))
        here, shown = f"/acme/web/-/jobs/{job.id}", page()
        assert (shown.lines[0], shown.lines[-1], len(shown.lines)) == ("line 3001", "line 5000", 2000)
        assert {f"{here}?line=1", f"{here}?until=3001", f"{here}/raw", "?line=3001#L4000"} <= shown.links()
        earlier = page("?until=3001")
        assert (earlier.lines[0], earlier.lines[-1]) == ("line 1001", "line 3000")
        assert {f"{here}?until=1001", f"{here}?line=3001", here} <= earlier.links()
        assert "data-live" not in earlier.root
        assert page("?line=1").lines[:2] == ["line 1", "line 2"]
        assert page("?line=4990").lines[0] == "line 4990"

    @pytest.mark.parametrize("query", ["?line=0", "?line=-1", "?line=x", f"?line={10**19}", "?until=0", "?line=9"])
    def test_takes_whatever_stands_in_the_address(
        self, query: str, page: Page, write: Callable[[bytes], int]
    ) -> None:
        assert page(query).lines == []
        write(b"one\n")
        page(query)

    def test_says_what_an_empty_log_means(self, page: Page, job: Job, session: Session) -> None:
        assert "when a machine takes the job" in page().html
        job.started_at = job.created_at
        assert "as the machine sends them" in page().html
        end(session, job)
        assert "wrote no log" in page().html
        job.erased_at = job.created_at
        assert "was erased" in page().html

    def test_folds_sections_and_says_how_long_they_took(self, page: Page, write: Callable[[bytes], int]) -> None:
        write(
            b"\x1b[0Ksection_start:100:deps[collapsed=true]\r\x1b[0KDependencies\nx\n\x1b[0Ksection_end:170:deps\r\x1b[0Ky\n"
        )
        shown = page()
        folded = next(attrs for tag, attrs in shown.elements if tag == "details")
        assert folded["data-section"] == "deps"
        assert "open" not in folded
        assert "1 minute 10 seconds" in shown.html
        assert shown.lines == ["Dependencies", "x", "y"]

    def test_links_to_the_raw_log_where_a_line_is_cut(self, page: Page, write: Callable[[bytes], int]) -> None:
        write(b"x" * 1_000_000 + b"\nshort\n")
        shown = page("?line=1")
        assert [len(line) < 10_000 and line.endswith("in the raw log") for line in shown.lines] == [True]
        assert page("?line=2").lines == ["short"]

    def test_remembers_that_somebody_watches_while_the_job_runs(
        self, app: Flask, page: Page, job: Job, session: Session
    ) -> None:
        watches = app.extensions["log_watches"]
        page()
        assert set(watches.take()) == {job.id}
        end(session, job)
        page()
        assert watches.take() == {}

    def test_of_a_long_log_asks_the_database_little(
        self, page: Page, write: Callable[[bytes], int], session: Session
    ) -> None:
        for _ in range(20):
            write(b"some output of a test\n" * 10_000)
        with asked(session) as statements:
            page()
        assert len(selects(statements)) <= 7


class TestNews:
    def test_is_what_came_since(self, page: Page, news: Page, write: Callable[[bytes], int]) -> None:
        write(b"one\ntw")
        first = page()
        assert first.lines == ["one", "tw"]
        assert [attrs.get("id") for _, attrs in first.elements if "data-unfinished" in attrs] == ["L2"]
        write(b"o\nthree\n")
        told = news(first)
        assert told.lines == ["two", "three"]
        assert "data-live" in told.root
        assert news(told).lines == []

    def test_is_nothing_while_nothing_came(
        self, page: Page, news: Page, write: Callable[[bytes], int], session: Session
    ) -> None:
        write(b"one\ntw")
        first = page()
        with asked(session) as statements:
            assert news(first).lines == []
        assert len(selects(statements)) <= 1

    def test_comes_in_parts_when_it_is_much(self, news: Page, write: Callable[[bytes], int]) -> None:
        write(b"".join(b"%d\n" % number for number in range(1, 4502)))
        told, lines = news(), []
        for _ in range(3):
            lines += told.lines
            more = "data-more" in told.root
            told = news(told)
        assert lines == [str(number) for number in range(1, 4502)]
        assert not more

    def test_tells_the_end_with_the_last_line(
        self, page: Page, news: Page, write: Callable[[bytes], int], job: Job, session: Session
    ) -> None:
        write(b"one\ntwo")
        first = page()
        end(session, job)
        told = news(first)
        assert told.lines == ["two"]
        assert not [attrs for _, attrs in told.elements if "data-unfinished" in attrs]
        assert "data-live" not in told.root

    def test_is_everything_anew_when_the_log_is_sent_once_more(
        self, page: Page, news: Page, write: Callable[[bytes], int], job: Job, session: Session
    ) -> None:
        write(b"one\n")
        first = page()
        job_logs.begin_again(session, job.id)
        assert "data-anew" in news(first).root

    def test_tells_the_end_of_a_section_that_began_before(
        self, page: Page, news: Page, write: Callable[[bytes], int]
    ) -> None:
        write(b"section_start:100:a\r\x1b[0KA\n")
        first = page()
        assert [attrs["data-section"] for _, attrs in first.elements if "data-going-on" in attrs] == ["a"]
        write(b"x\nsection_end:103:a\r\x1b[0Ky\n")
        told = news(first)
        assert told.lines == ["x", "y"]
        marks = [(attrs["data-end"], attrs["data-ended"]) for _, attrs in told.elements if "data-end" in attrs]
        assert marks == [("a", "103")]

    @pytest.mark.parametrize("wrong", [{"from": "x"}, {"from": 10**17}, {"seen": "-"}, {"attempt": 7}, {"from": 2}])
    def test_of_whatever_is_asked(self, wrong: dict[str, Any], news: Page, write: Callable[[bytes], int]) -> None:
        write(b"one\ntwo\n")
        news(**wrong)


class TestRaw:
    def test_is_the_log_byte_for_byte(self, app: Flask, job: Job, write: Callable[[bytes], int]) -> None:
        data = bytes(range(256)) * 3000
        write(data)
        with app.test_request_context():
            answer = job_log_files.answer(job)
            assert b"".join(answer.response) == data
            assert answer.content_length == len(data)
            assert answer.mimetype == "text/plain"
            assert answer.headers["Content-Disposition"] == f"attachment; filename=job-{job.id}.log"

    def test_is_sent_piece_by_piece(
        self, app: Flask, job: Job, write: Callable[[bytes], int], session: Session
    ) -> None:
        write(b"x" * 3_000_000)
        with app.test_request_context():
            sent = [len(part) for part in job_log_files.answer(job).response]
        assert sum(sent) == 3_000_000
        assert max(sent) <= (session.scalar(select(func.max(func.octet_length(JobLogPiece.data)))) or 0)

    def test_is_read_while_it_is_sent(
        self, client: FlaskClient, cast: Cast, job: Job, write: Callable[[bytes], int], session: Session
    ) -> None:
        size = write(b"x" * 8_000_000)
        session.commit()
        sign_in(client, "dana")
        answer = client.get(f"/acme/web/-/jobs/{job.id}/raw")
        parts = answer.iter_encoded()
        first = len(next(parts))
        with asked(session) as statements:
            rest = sum(len(part) for part in parts)
        assert len(selects(statements)) >= 15
        assert first + rest == size
        assert answer.content_length == size
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


SAFE = {"div", "a", "span", "details", "summary"}
NAMES = {
    *("class", "id", "href", "tabindex", "open", "hidden"),
    *("data-next", "data-seen", "data-attempt", "data-live", "data-more", "data-anew", "data-unfinished"),
    *("data-section", "data-started", "data-going-on", "data-end", "data-ended", "data-size", "data-empty"),
}
EVIL = st.sampled_from(
    [
        *(
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            '" onload="x',
            "' x='",
            "</span></div>",
            "&lt;",
        ),
        *(
            "<!--",
            "-->",
            "{{ 7 * 7 }}",
            "{% raw %}",
            "javascript:",
            "\x1b]8;;javascript:alert(1)\x1b\\x\x1b]8;;\x1b\\",
        ),
        *("\x1b[31m", "\x1b[38;5;<b>m", "\r", "\n", "section_start:1:a\r\x1b[0K", "section_end:2:a\r\x1b[0K"),
        *('section_start:1:a[x="><script>]\r\x1b[0K', 'section_start:1:"><script>\r\x1b[0K', "\0", "\u202e"),
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.one_of(EVIL.map(str.encode), st.binary(max_size=12)), max_size=25).map(b"".join))
@example(b"<script>alert(1)</script>\n")
def test_no_log_writes_markup(session: Session, job: Job, news: Page, raw: bytes) -> None:
    job_logs.erase(session, job.id)
    job_logs.append(session, job.id, 0, raw, limit=1 << 20)
    shown = news()
    assert {tag for tag, _ in shown.elements} <= SAFE
    for tag, attrs in shown.elements:
        assert set(attrs) <= NAMES
        assert all(re.fullmatch(r"[\w.#/?= -]*", value or "") for value in attrs.values())
        assert tag != "a" or re.fullmatch(r"#L\d+|/acme/web/-/jobs/\d+/raw", attrs["href"] or "")
    stretch = log_stretches.from_byte(session, job_logs.extent(session, job.id), 0, over=False)
    texts = [item.line.text for item in stretch.items if isinstance(item, log_stretches.Row)]
    for text in texts:
        assert text in shown.lines


class TestLooks:
    def test_the_stylesheet_is_the_one_that_is_made(self) -> None:
        """`python -m portal.web.log_looks > static/job-log-colours.css` makes it anew."""
        assert (ROOT / "static" / "job-log-colours.css").read_text() == log_looks.stylesheet()

    @given(
        st.builds(
            Look,
            ink=st.one_of(st.none(), st.integers(0, 255)),
            ground=st.one_of(st.none(), st.integers(0, 255)),
            bold=st.booleans(),
            dim=st.booleans(),
            italic=st.booleans(),
            underline=st.booleans(),
            strike=st.booleans(),
            reverse=st.booleans(),
        )
    )
    def test_every_look_has_rules_and_can_be_read(self, look: Look) -> None:
        rules = dict(re.findall(r"\.([\w-]+) ?\{ ?([^}]*)\}", "".join(path.read_text() for path in STYLES)))
        found = {"color": "#dde4ed", "background": "#0d131d"}
        for name in log_looks.classes(look).split():
            found |= dict(re.findall(r"(color|background): ?(#[0-9a-f]{6})", rules[name]))
        ink, ground = (tuple(bytes.fromhex(found[kind][1:])) for kind in ("color", "background"))
        assert log_looks.contrast(ink, ground) >= 4.5  # type: ignore[arg-type]

    def test_the_panel_is_the_one_that_colours_are_made_for(self) -> None:
        panel = (ROOT / "static" / "job-log.css").read_text().split(".log-panel {")[1]
        assert f"background: #{bytes(log_looks.PANEL).hex()}; color: #{bytes(log_looks.INK).hex()}" in panel

    def test_a_colour_is_what_a_terminal_shows(self) -> None:
        line = LineReader().read(b"\x1b[38;5;196mred\x1b[0m")
        assert [log_looks.classes(span.look) for span in line.spans] == ["i196"]
        assert log_looks.colour(196) == (255, 0, 0)
        assert log_looks.colour(232) == (8, 8, 8)
        assert log_looks.colour(255) == (238, 238, 238)


STYLES = [ROOT / "static" / name for name in ("job-log.css", "job-log-colours.css")]
