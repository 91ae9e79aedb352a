"""The log of a job as an answer: the whole of it, as it was written, sent on as it is read."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Response, stream_with_context

from portal.database import db
from portal.domain.jobs import job_logs
from portal.domain.jobs.job_logs import LogExtent
from portal.models import Job


def answer(job: Job, *, saved: bool = True) -> Response:
    """The log as it stands at this moment; `saved` says that a browser is to save it, not to show it."""
    log = job_logs.extent(db.session(), job.id)
    response = Response(stream_with_context(_letting_go(log)), mimetype="text/plain")
    response.content_length = log.size
    how = "attachment" if saved else "inline"
    response.headers.set("Content-Disposition", how, filename=f"job-{job.id}.log")
    return response


def _letting_go(log: LogExtent) -> Iterator[bytes]:
    """Each piece, with the database's connection given back before it is sent: a slow reader holds none."""
    for piece in job_logs.pieces(db.session(), log):
        db.session().close()
        yield piece
