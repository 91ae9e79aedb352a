"""`POST /jobs/request`, a runner's poll, which is its heartbeat too, and `PUT /jobs/:id`, its reports of a job."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from flask import Response, current_app, g, request

from portal.api import params
from portal.api.for_runners import job_door, job_payload
from portal.api.for_runners.door import authenticated, blueprint, hear
from portal.api.params import Params
from portal.database import db
from portal.domain.errors import BadRequest, JobRefused, LostRace
from portal.domain.jobs import job_claims, job_logs, job_reports, job_rows
from portal.domain.jobs.job_claims import Claim, Claimed, HandedOut
from portal.domain.jobs.queue_news import queue_value
from portal.domain.machines import machine_facts
from portal.domain.machines.known_runners import KnownRunner
from portal.domain.machines.polls import Polls
from portal.models import Job, JobStatus
from portal.requests import has_hung_up, note_claim

REPORTED = ("running", "success", "failed")
MOST_RESENDS = 2  # times a log may be sent once more because its checksum does not fit; then it is taken as it is


@blueprint.post("/jobs/request")
def request_job() -> Response:
    """201 with a job, or 204 with the runner's queue value when there is none; a paused runner hears the same."""
    given = params.read()
    known = authenticated(given)
    hear(known, given, polled=True)
    news, classes = _polls().news, _polls().classes
    mark = news.mark  # before the search: what is announced while it runs is looked for again
    system_xid = machine_facts.read_system_id(given.get("system_id"))
    since = _polls().quiet_since(known, system_xid, given.get("last_update"))
    if known.offer.paused or since is not None:
        return _nothing(known, mark if since is None else since)
    if not news.listening:
        classes.forget()  # nobody tells of new ones
    takeable = classes.of(db.session, known.offer)
    if has_hung_up():
        return _nothing(known, mark)
    handed = _claimed(_claim(known, system_xid), takeable)
    answer = job_payload.answer(db.session(), handed) if handed is not None else None
    claimed = Claimed.of(handed.job) if handed is not None else None
    db.session.commit()
    if claimed is not None:
        note_claim(claimed)
    if answer is None:
        news.found_nothing(known.runner_id, system_xid, known.queue_version, mark)
        return _nothing(known, mark)
    return Response(answer, status=201, mimetype="application/json")


def _claimed(claim: Claim, takeable: Sequence[int]) -> HandedOut | None:
    try:
        return job_claims.claim(db.session(), claim, takeable, job_door.vault())
    except LostRace:
        if db.session.is_active:  # what nobody could run has failed; else the next request would find it again
            db.session.commit()
        raise


def _claim(known: KnownRunner, system_xid: str) -> Claim:
    sent = request.headers.get("X-Request-Id", "")
    return Claim(
        offer=known.offer,
        token_id=known.token_id,
        system_xid=system_xid,
        request_id=g.request_id if sent == g.request_id else "",
    )


def _nothing(known: KnownRunner, mark: int) -> Response:
    return Response(status=204, headers={"X-GitLab-Last-Update": queue_value(known.queue_version, mark)})


def _polls() -> Polls:
    found: Polls = current_app.extensions["polls"]
    return found


@blueprint.put("/jobs/<int:job_id>")
def report_job(job_id: int) -> Response:
    """What the runner says of its job: that it has it and still runs it, or how it ended.

    200, 412 for a log that is to be sent once more, or 202 for a report that is to be sent again in a second since
    something else is just being written of the job. `Job-Status` tells when the job is to stop.
    """
    given = params.read()
    job = job_door.job_of_request(job_id, given, over=True)
    state = params.text(given, "state")
    if state not in REPORTED:
        raise BadRequest(f"state must be one of {', '.join(REPORTED)}")
    if state == "running":
        return _still_running(job)
    return _ended(job, given, success=state == "success")


def _still_running(job: Job) -> Response:
    if job.state.is_over:
        raise JobRefused(f"Job is not processing on runner: it is {job.status}.", status=job.status)
    job_door.hear(job)
    db.session.commit()
    return _heard(job)


def _ended(job: Job, given: Params, *, success: bool) -> Response:
    session = db.session()
    if not job_rows.is_free(session, job.id):
        return _heard(job, 202, again_in=1)
    job_door.hear(job, over=True)
    if not job.state.is_over and not _log_is_whole(job, given):
        db.session.commit()
        return _heard(job, 412)
    ended = job_reports.finish(
        session,
        job,
        success=success,
        failure_reason=params.text(given, "failure_reason") or None,
        exit_code=params.number(given, "exit_code"),
    )
    db.session.commit()
    return _heard(ended)


def _log_is_whole(job: Job, given: Params) -> bool:
    """Whether all of the log has arrived as it was sent; if not, the runner is to send it once more."""
    output = given.get("output")
    told = output if isinstance(output, dict) else {}
    checksum = params.text(told, "checksum") or params.text(given, "checksum")
    bytesize = params.number(told, "bytesize")
    if not checksum or job_logs.checksum_fits(db.session(), job.id, checksum, bytesize):
        return True
    if job_logs.extent(db.session(), job.id).attempt >= MOST_RESENDS:
        current_app.logger.warning("the log of job %d does not fit its checksum; it is kept as it is", job.id)
        return True
    job_logs.begin_again(db.session(), job.id)
    return False


def _heard(job: Job, status: int = 200, again_in: int | None = None) -> Response:
    """The status as text, as GitLab answers, whether the job is to stop, and in how many seconds to speak again."""
    interval = again_in or job_logs.update_interval(db.session(), job.id)
    headers = {"Job-Status": JobStatus(job.status).value, "X-GitLab-Trace-Update-Interval": str(interval)}
    return Response(str(HTTPStatus(status).value), status=status, headers=headers, mimetype="text/plain")
