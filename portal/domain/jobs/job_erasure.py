"""Erasing a job: what it wrote and what it left goes, the job itself stays."""

from __future__ import annotations

from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit
from portal.domain.actors import Actor
from portal.domain.errors import Stale
from portal.domain.jobs import job_artifacts, job_logs, job_rows, jobs
from portal.models import Job


def erase(session: Session, actor: Actor, job: Job) -> list[int]:
    """Take away the log and the artifacts of a job that is over, for good.

    The artifacts' files go afterwards, by `job_artifacts.sweep` with the numbers that are returned. Raises NotFound,
    NotAllowed, or Stale when the job is not over, or was erased before.
    """
    jobs.require_write(session, actor, job)
    job = job_rows.hold(session, job.id)
    if not job.state.is_over:
        raise Stale("This job is not over yet. Cancel it first, or wait.")
    if job.erased_at is not None:
        raise Stale("This job was erased already.")
    job.erased_at = now()
    job_logs.erase(session, job.id)
    gone = job_artifacts.erase(session, job)
    told = {"job": (job.id, job.id), "artifacts": (len(gone), 0)}
    audit.record(session, actor, "job_erased", job, jobs.scope_of(job), told)
    session.flush()
    return gone
