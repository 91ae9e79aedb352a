"""What machines report of their jobs, and what becomes of one whose machine says nothing."""

from __future__ import annotations

from sqlalchemy import update
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.errors import JobRefused
from portal.domain.jobs import failure_reasons, job_needs, job_rows, pending_jobs
from portal.models import Job, JobLog, JobStatus


def hear(session: Session, job: Job, *, over: bool = False) -> Job:
    """The job's machine spoke of it: from now on it has it for sure. The job is held until the transaction ends.

    Raises JobRefused when it was taken back, or has ended, after the machine's token was looked at; `over` lets
    one that has ended be spoken of.
    """
    token_digest = job.token_digest
    job = job_rows.hold(session, job.id)
    if job.token_digest != token_digest or (job.state.is_over and not over):
        raise JobRefused(f"This job is {job.status}: it is not its machine's any more.", status=job.status)
    if job.state.is_over:
        return job
    moment = now()
    if job.acknowledged_at is None:
        job.acknowledged_at, job.claim_digest = moment, None  # the answer was read: it is not given again
    session.execute(update(JobLog).where(JobLog.job_id == job.id).values(heard_at=moment))
    return job


def finish(
    session: Session, job: Job, *, success: bool, failure_reason: str | None = None, exit_code: int | None = None
) -> Job:
    """The job ended as its machine, or whoever gives up on it, says. One that fails runs again while it has retries.

    A runner knows no canceled jobs: one that was canceling and ends, however, is canceled. The same report sent again
    changes nothing. Raises JobRefused for a job that is over and ended otherwise.
    """
    job = job_rows.hold(session, job.id)
    ended = JobStatus.SUCCESS if success else JobStatus.FAILED
    if job.state is JobStatus.CANCELING:
        ended = JobStatus.CANCELED
    if job.state.is_over:
        if job.state is ended:
            return job
        raise JobRefused(f"This job is over: {job.status}.", status=job.status)
    job.exit_code = _in_32_bits(exit_code) if exit_code is not None else (0 if success else None)
    if not success:
        job.failure_reason = (failure_reason or failure_reasons.UNKNOWN_FAILURE)[: failure_reasons.LONGEST_REASON]
    again = None
    if ended is JobStatus.FAILED and job.retries_left > 0 and job.failure_reason not in failure_reasons.FOR_GOOD:
        again = job_rows.again(session, job, needs=job_needs.of(session, job), retries=job.retries_left - 1)
    job_rows.end(session, job, ended, again)
    return job


def _in_32_bits(exit_code: int) -> int | None:
    """The code as the database holds it: what Windows says without a sign (0xC0000005) with one; None for no code."""
    if not -(2**31) <= exit_code < 2**32:
        return None
    return exit_code - 2**32 if exit_code >= 2**31 else exit_code


def take_back(session: Session, job: Job, *, most: int = 3) -> Job:
    """Put a job into the queue again whose machine never said a word of it; after `most` times it fails.

    The token that the machine was given is worth nothing from now on.
    """
    job = job_rows.hold(session, job.id)
    if job.state not in (JobStatus.RUNNING, JobStatus.CANCELING) or job.acknowledged_at is not None:
        return job
    if job.state is JobStatus.CANCELING:
        job_rows.end(session, job, JobStatus.CANCELED)
        return job
    if job.taken_back >= most:
        return finish(session, job, success=False, failure_reason=failure_reasons.STUCK)
    forget_machine(session, job)
    job.status, job.taken_back = JobStatus.PENDING, job.taken_back + 1
    pending_jobs.put(session, job, first=True)
    return job


def forget_machine(session: Session, job: Job) -> None:
    """Nobody has the job: no runner, no machine, no token."""
    if (machine := job_rows.machine_of(session, job)) is not None:
        session.delete(machine)
    job.runner_id = job.runner_type = job.token_digest = job.claim_digest = None
    job.started_at = job.effective_timeout = None
    session.flush()
