"""Stretches of a log, as pages show them: so many lines, in the sections that gitlab-runner and scripts mark."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from portal.domain.jobs import job_logs
from portal.domain.jobs.job_logs import LogExtent
from portal.domain.jobs.log_lines import Line, LineReader

MOST_LINES = 2_000
MOST_BYTES = 512 * 1024
DEEPEST = 8  # sections in sections; what begins deeper is a line like any other
_RUN_UP = 16 * 1024  # bytes before a stretch that are searched for the colours in which it begins
_MARK = re.compile(
    rb"(?:\x1b\[0?K)?section_(start|end):(\d{1,12}):([A-Za-z0-9_.-]{1,128})(?:\[([^\]\r\n]{0,256})\])?\r\x1b\[0?K"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A line with its number, counted from 1; a second row of the same line has none.

    `unfinished` says that more of it may come.
    """

    line: Line
    number: int | None = None
    unfinished: bool = False


@dataclass(slots=True)
class Section:
    """A part of a log that folds. `header` is the rest of the line that began it; `took` its seconds, if it ended."""

    name: str
    started: int
    collapsed: bool = False
    header: Row | None = None
    took: int | None = None
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Opening:
    section: Section


@dataclass(frozen=True, slots=True)
class Closing:
    section: Section


@dataclass(frozen=True, slots=True)
class StrayEnd:
    """The end of a section that began before the stretch, if it began at all; `ended` is in seconds since 1970."""

    name: str
    ended: int


Item = Row | Opening | Closing | StrayEnd


@dataclass(frozen=True, slots=True)
class Stretch:
    """Lines of a log in order. Each Opening has its Closing, also where the section's end is not in the stretch.

    `first` is the number of lines before it, `start` the byte it begins at, and `next` the byte to read on from: the
    beginning of the unfinished line, where there is one.
    """

    log: LogExtent
    first: int = 0
    start: int = 0
    next: int = 0
    items: list[Item] = field(default_factory=list)
    reaches_end: bool = True


def last(session: Session, log: LogExtent, *, over: bool) -> Stretch:
    """The last stretch of the log; `over` says that nothing more will come."""
    unfinished = job_logs.start_of_line(session, log, log.lines) < log.size
    return before(session, log, log.lines + unfinished, over=over)


def before(session: Session, log: LogExtent, line: int, *, over: bool) -> Stretch:
    """The stretch that ends before a line, counted from 0."""
    line = max(0, min(line, log.lines + 1))
    end = job_logs.start_of_line(session, log, line)
    lowest = end - MOST_BYTES
    first = job_logs.line_at(session, log, lowest) + 1 if lowest > 0 else 0
    first = max(0, min(max(first, line - MOST_LINES), line - 1))
    start = job_logs.start_of_line(session, log, first)
    return _read(session, log, first, start, end, over)


def from_line(session: Session, log: LogExtent, line: int, *, over: bool) -> Stretch:
    """The stretch that begins with a line, counted from 0."""
    line = max(0, min(line, log.lines))
    return _read(session, log, line, job_logs.start_of_line(session, log, line), log.size, over)


def from_byte(session: Session, log: LogExtent, byte: int, *, over: bool) -> Stretch:
    """The stretch that begins at a byte: what is new since the `next` of another."""
    return _read(session, log, job_logs.line_at(session, log, byte), min(byte, log.size), log.size, over)


def since(session: Session, log: LogExtent, byte: int, *, over: bool, leap: bool = False) -> Stretch:
    """What is new since the `next` of another stretch; with `leap` the end, where that is more than two stretches."""
    if leap:
        behind = log.lines - job_logs.line_at(session, log, byte)
        if behind > 2 * MOST_LINES or log.size - byte > 2 * MOST_BYTES:
            return last(session, log, over=over)
    return from_byte(session, log, byte, over=over)


def between(session: Session, log: LogExtent, byte: int, stretch: Stretch) -> tuple[int, int] | None:
    """The first and last line, counted from 1, that lie between a byte and a stretch behind it; None for none."""
    if stretch.start <= byte:
        return None
    return job_logs.line_at(session, log, byte) + 1, stretch.first


def _read(session: Session, log: LogExtent, first: int, start: int, end: int, over: bool) -> Stretch:
    data = job_logs.read(session, log, start, min(end - start, MOST_BYTES))
    whole, line_end, rest = data.rpartition(b"\n")
    lines = whole.split(b"\n")[:MOST_LINES] if line_end else []
    read = start + sum(map(len, lines)) + len(lines)
    shown_all = read + len(rest) == start + len(data)
    unfinished = None
    if shown_all and start + len(data) == log.size and rest:
        if over:
            lines, read = [*lines, rest] if _shows(rest) else lines, log.size
        else:
            unfinished = rest
    elif not lines and rest:  # one line is longer than a stretch: its beginning is shown
        lines, read = [rest], job_logs.start_of_line(session, log, first + 1)
        if read >= log.size and not over:
            lines, unfinished, read = [], rest, start
    reader = LineReader()
    if start:
        reader.catch_up(job_logs.read(session, log, max(0, start - _RUN_UP), min(_RUN_UP, start)))
    items = list(in_sections(enumerate(lines, first + 1), reader))
    if unfinished is not None:
        row = Row(reader.read(_MARK.sub(b"", unfinished)), first + len(lines) + 1, unfinished=True)
        items += [row] if row.line.spans else []
    return Stretch(log, first, start, read, items, reaches_end=unfinished is not None or read >= log.size)


def _shows(rest: bytes) -> bool:
    """Whether there is something to see in what follows the last line end; often it only takes a colour back."""
    return bool(_MARK.search(rest) or LineReader().read(rest).spans)


def in_sections(lines: Iterable[tuple[int, bytes]], reader: LineReader) -> Iterator[Item]:
    """Lines with their numbers as rows, between the openings and closings of their sections.

    An end closes what was opened inside its section too; one without a beginning is told on.
    """
    opened: list[Section] = []
    for number, raw in lines:
        if b"section_" not in raw or not _MARK.search(raw):
            yield Row(reader.read(raw), number)
        else:
            yield from _marked(number, raw, reader, opened)
    while opened:
        yield Closing(opened.pop())


def _marked(number: int, raw: bytes, reader: LineReader, opened: list[Section]) -> Iterator[Item]:
    """A line with marks in it. What stands before a mark was written by a script that ended without a line end."""
    at, free = 0, number
    heading: Section | None = None
    held: list[Item] = []  # what was opened last waits for its header

    def row(text: bytes) -> Row | None:
        nonlocal free
        line = reader.read(text)
        if not line.text.strip():
            return None
        found, free = Row(line, free or None), 0
        return found

    for mark in _MARK.finditer(raw):
        found = row(raw[at : mark.start()])
        if found and heading:
            heading.header = found
        elif found:
            yield found
        yield from held
        held, heading, at = [], None, mark.end()
        if mark[1] == b"end":
            yield from _ended(mark, opened)
        elif len(opened) < DEEPEST:
            heading = Section(mark[3].decode(), int(mark[2]), b"collapsed=true" in (mark[4] or b"").split(b","))
            opened.append(heading)
            held = [Opening(heading)]
    found = row(raw[at:])
    if found and heading:
        heading.header = found
    elif found:
        yield found
    yield from held


def _ended(mark: re.Match[bytes], opened: list[Section]) -> Iterator[Item]:
    name, ended = mark[3].decode(), int(mark[2])
    if not any(section.name == name for section in opened):
        yield StrayEnd(name, ended)
        return
    while True:
        section = opened.pop()
        section.ended = True
        if section.name == name:
            section.took = max(0, ended - section.started)
        yield Closing(section)
        if section.name == name:
            return
