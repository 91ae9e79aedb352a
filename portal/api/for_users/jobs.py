"""`/projects/:id/jobs`: jobs are submitted, listed, read, stopped, run again and erased."""

from __future__ import annotations

from dataclasses import asdict

from flask import Response, current_app

from portal import job_log_files
from portal.api import credentials, idempotency
from portal.api.for_users import job_shapes, places
from portal.api.for_users.door import looking_for, operation
from portal.api.for_users.job_pages import ListedJobs, listed
from portal.api.for_users.job_parameters import NAMES, JobAsked, ProjectJobsListed
from portal.api.for_users.job_shapes import JobDetails, JobShape
from portal.api.for_users.operations import Answer
from portal.api.for_users.parameters import Flag, Id
from portal.api.for_users.scope_parameters import OneProject, called
from portal.artifact_files import artifact_store
from portal.database import db, now
from portal.domain import permissions
from portal.domain.jobs import job_artifacts, job_erasure, job_lists, job_rows, jobs
from portal.domain.jobs.log_watches import LogWatches
from portal.domain.permissions import Action
from portal.models import Job
from portal.requests import job_vault

ROOM = "Jobs"
ONE = "/projects/<path:project>/jobs/<int:job_id>"


class OneJob(OneProject):
    """One job of a project."""

    job_id: Id


class JobStopped(OneJob):
    """One job of a project, to be stopped."""

    force: Flag = False


@operation("GET", "/projects/<path:project>/jobs", room=ROOM, refuses=(400, 404))
def index(given: ProjectJobsListed) -> ListedJobs:
    """The project's jobs, the newest first.

    With `ref`, `name`, `search`, `tag` or `include_retried`, pages by number are of the first 5000 jobs that have the
    statuses of `scope`. Pages by cursor go through all of them, 5000 at a time: one may be short and yet lead on.
    """
    scope = places.project(given.project)
    permissions.require(db.session(), credentials.actor(), Action.READ_JOBS, scope)
    return listed(given.narrowed(job_lists.of_project(scope)), given)


@operation(
    "POST",
    "/projects/<path:project>/jobs",
    room=ROOM,
    status=201,
    also=(200,),
    refuses=(400, 404, 409, 422),
    reads=(idempotency.HEADER,),
)
def create(given: JobAsked) -> Answer[JobShape]:
    """Submit a job: a matching runner takes it when its turn has come. GitLab makes jobs of pipelines only.

    With the header `Idempotency-Key` (1 to 255 visible ASCII characters) the same request sent again makes no second
    job: it is answered with 200 and the first one, as it stands then.
    """
    session, scope, new = db.session(), places.project(given.project), given.wanted()
    once = idempotency.of_job({"project": scope.id, **asdict(new)})
    replayed = once.request_key is not None and job_rows.is_submitted(session, once.request_key)
    with called(NAMES):
        job = jobs.submit(
            session,
            credentials.actor(),
            scope,
            new,
            job_vault(),
            request_key=once.request_key,
            request_digest=once.request_digest,
        )
    return submitted(job, replayed=replayed)


@operation("GET", ONE, room=ROOM, refuses=(404,))
def show(given: OneJob) -> JobDetails:
    """One job, with what it runs and what it needs; of its variables the names only."""
    return job_shapes.details(db.session(), credentials.actor(), found(given), job_vault())


@operation("GET", f"{ONE}/trace", room=ROOM, refuses=(404,), media="text/plain")
def trace(given: OneJob) -> Response:
    """The job's log as it was written, as far as it has come; empty before it begins and when it was erased."""
    return log_of(found(given))


@operation("POST", f"{ONE}/cancel", room=ROOM, status=201, refuses=(404, 409))
def cancel(given: JobStopped) -> JobShape:
    """Stop a job. One that runs runs its after script first, where the machine can; `force` does not wait for it."""
    return after(jobs.cancel(db.session(), credentials.actor(), found(given), force=given.force))


@operation("POST", f"{ONE}/retry", room=ROOM, status=201, refuses=(400, 404, 409))
def retry(given: OneJob) -> JobShape:
    """Run the same once more. The answer is the new job."""
    return after(jobs.retry(db.session(), credentials.actor(), found(given), job_vault()))


@operation("POST", f"{ONE}/erase", room=ROOM, status=201, refuses=(404, 409))
def erase(given: OneJob) -> JobShape:
    """Take away the log and the artifacts of a job that is over, for good."""
    session, job = db.session(), found(given)
    gone = job_erasure.erase(session, credentials.actor(), job)
    answer = after(job)
    job_artifacts.sweep_now(session, artifact_store(), now(), gone)
    session.commit()
    return answer


def found(given: OneJob) -> Job:
    """The job, if who asks may see the project's jobs. Raises NotFound, or NotAllowed for who sees the project."""
    scope = places.project(given.project)
    with looking_for("Job"):
        return jobs.find(db.session(), credentials.actor(), scope, given.job_id)


def after(job: Job) -> JobShape:
    """The job as it stands after a change, which is stored."""
    answer = job_shapes.one(db.session(), credentials.actor(), job)
    db.session.commit()
    return answer


def submitted(job: Job, *, replayed: bool) -> Answer[JobShape]:
    """The answer about a job that was submitted, or had been by the same request before."""
    answer = after(job)
    return Answer(answer, status=200, headers=idempotency.REPLAYED) if replayed else Answer(answer)


def log_of(job: Job) -> Response:
    """The job's log. While it runs, its machine then sends what it has sooner, as for a page."""
    if not job.state.is_over:
        watches: LogWatches = current_app.extensions["log_watches"]
        watches.note(job.id, now())
    return job_log_files.answer(job, saved=False)
