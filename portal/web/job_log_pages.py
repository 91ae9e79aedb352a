"""The log on a job's page: a stretch of it, what is new since, and the whole as it was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, current_app, render_template, request

from portal import job_log_files
from portal.database import db, now
from portal.domain.jobs import job_logs, log_stretches
from portal.domain.jobs.job_logs import LogExtent
from portal.domain.jobs.log_lines import Look
from portal.domain.jobs.log_stretches import Closing, Item, Opening, Row, StrayEnd, Stretch
from portal.domain.jobs.log_watches import LogWatches
from portal.models import Job
from portal.web import log_looks
from portal.web.numbers import number

FindJob = Callable[..., Job]
_KINDS = {Row: "row", Opening: "opening", Closing: "closing", StrayEnd: "end"}


@dataclass(frozen=True, slots=True)
class LogView:
    """What the templates need of a log: `jobs/_log.html` as `log`. `base` is the address of the job's page."""

    job: Job
    stretch: Stretch
    base: str

    @staticmethod
    def kind(item: Item) -> str:
        return _KINDS[type(item)]

    @staticmethod
    def classes(look: Look) -> str:
        return log_looks.classes(look)

    @property
    def extent(self) -> LogExtent:
        return self.stretch.log

    @property
    def is_live(self) -> bool:
        """Whether more may come, and what comes follows what is shown."""
        return not self.job.state.is_over and self.stretch.reaches_end

    @property
    def is_whole(self) -> bool:
        return self.stretch.first == 0 and self.stretch.reaches_end

    @property
    def last(self) -> int:
        """The number of the last line that is shown."""
        numbers = [item.number for item in self.stretch.items if isinstance(item, Row) and item.number]
        headers = [item.section.header for item in self.stretch.items if isinstance(item, Opening)]
        return max([*numbers, *(row.number for row in headers if row and row.number)], default=self.stretch.first)


def shown(job: Job, base: str = "") -> LogView:
    """The stretch of the job's log that the address asks for, as the page of the job shows it; the last by default.

    `?line=12` begins with line 12, `?until=12` ends before it. `base` is the address of the job's page, where that is
    not the present one. Notes that somebody watches.
    """
    over = job.state.is_over  # asked first: the log of a job that is over is whole
    session = db.session()
    log = job_logs.extent(session, job.id)
    watch(job)
    if (line := number("line")) is not None:
        stretch = log_stretches.from_line(session, log, line - 1, over=over)
    elif (until := number("until")) is not None:
        stretch = log_stretches.before(session, log, until - 1, over=over)
    else:
        stretch = log_stretches.last(session, log, over=over)
    return LogView(job, stretch, base or request.script_root + request.path)


def watch(job: Job) -> None:
    """Somebody looks at the log of a job that runs: its machine then sends what it has sooner."""
    if not job.state.is_over:
        watches: LogWatches = current_app.extensions["log_watches"]
        watches.note(job.id, now())


def news(job: Job) -> str:
    """What is new in the log since `?from=` (a byte), as lines for the page that is open.

    Of a log that grew by more than a page can follow, `?leap=1` asks for the end, and where to find what is left out.
    `?seen=` is how many bytes that page knew of, `?attempt=` of which sending: of another it must show all anew.
    """
    over = job.state.is_over
    session = db.session()
    log = job_logs.extent(session, job.id)
    watch(job)
    start, seen, attempt = number("from") or 0, number("seen"), number("attempt") or 0
    anew = attempt != log.attempt or start > log.size
    if anew or (seen == log.size and not over):
        stretch = Stretch(log, start=start, next=start)
    else:
        stretch = log_stretches.since(session, log, start, over=over, leap=bool(number("leap")))
    skipped = log_stretches.between(session, log, start, stretch)
    more = not stretch.reaches_end
    view = LogView(job, stretch, (request.script_root + request.path).removesuffix("/log"))
    return render_template(
        "jobs/_log_news.html", log=view, anew=anew, more=more, live=more or not over, fresh=True, skipped=skipped
    )


def mount(blueprint: Blueprint, find: FindJob, at: str = "/<int:job_id>") -> None:
    """Give a blueprint the fragment and the download of a job's log, below the job's own page.

    `find` gets what the address names, and returns the job or refuses.
    """

    def log(**place: Any) -> str:
        """What is new in the job's log."""
        return news(find(**place))

    def raw_log(**place: Any) -> Response:
        """The job's log as a file."""
        return job_log_files.answer(find(**place))

    blueprint.add_url_rule(f"{at}/log", "log", log)
    blueprint.add_url_rule(f"{at}/raw", "raw", raw_log)
