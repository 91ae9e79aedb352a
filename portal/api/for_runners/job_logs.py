"""`PATCH /jobs/:id/trace`: a piece of a job's log (reference/rest.md 1.5)."""

from __future__ import annotations

import re
from http import HTTPStatus

from flask import Response, jsonify, request

from portal.api.for_runners import job_door
from portal.api.for_runners.door import blueprint
from portal.database import db
from portal.domain.errors import BadRequest, LogElsewhere, LogTooLong
from portal.domain.jobs import job_logs, job_reports
from portal.models import Job
from portal.requests import settings

TOO_LONG = "trace_size_exceeded"  # GitLab's reason
# gitlab-runner writes `0-99`; the unit and the total of RFC 9110 are taken too. The end counts for nothing.
_RANGE = re.compile(r"(?:bytes[ =])?(\d{1,18})-(?:\d{1,18})?(?:/(?:\d{1,18}|\*))?")


@blueprint.patch("/jobs/<int:job_id>/trace")
def append_to_log(job_id: int) -> Response:
    """202 for a piece that continues the log; 416 with the place where it goes on for any other."""
    job = job_door.job_of_request(job_id)
    start = _start()
    data = request.get_data(cache=False)
    job_door.hear(job)  # before the log is held: whoever ends the job holds the job first
    try:
        appended = job_logs.append(db.session(), job.id, start, data, limit=settings().job_log_limit)
    except LogElsewhere as elsewhere:
        answer = jsonify(message="416 Range Not Satisfiable")
        return _answer(answer, 416, job, elsewhere.size, job_logs.update_interval(db.session(), job.id))
    except LogTooLong as too_long:
        _fail(job)
        too_long.status = job.status
        raise
    return _answer(Response("202 Accepted", mimetype="text/plain"), 202, job, appended.size, appended.interval)


def _start() -> int:
    """The byte at which the piece begins. Raises BadRequest."""
    said = request.headers.get("Content-Range", "").strip()
    if not said:
        raise BadRequest("Missing header Content-Range")
    found = _RANGE.fullmatch(said)
    if found is None:
        raise BadRequest("Content-Range must be the first and the last byte of the piece, such as 0-99")
    return int(found[1])


def _answer(response: Response, status: int, job: Job, size: int, seconds: int) -> Response:
    response.status_code = HTTPStatus(status)
    response.headers["Range"] = f"0-{size}"  # the number of stored bytes, which is where the next piece begins
    response.headers["Job-Status"] = job.status
    response.headers["X-GitLab-Trace-Update-Interval"] = str(seconds)
    db.session.commit()
    return response


def _fail(job: Job) -> None:
    """End the job. The log that was held is let go first: who ends a job holds the job before its log."""
    db.session.rollback()
    job_reports.finish(db.session(), job, success=False, failure_reason=TOO_LONG)
    db.session.commit()
