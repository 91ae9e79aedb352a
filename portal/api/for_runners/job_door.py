"""Whose job it is: the job of a request's job token, for reports, logs and artifacts (reference/rest.md 1.8)."""

from __future__ import annotations

from flask import current_app, g, request
from sqlalchemy import select

from portal.api.params import Params
from portal.database import db, now
from portal.domain import tokens
from portal.domain.errors import JobRefused
from portal.domain.jobs import job_reports, job_rows
from portal.domain.last_uses import LastUses
from portal.domain.vault import Vault
from portal.models import WITH_DELETED, Job, JobStatus, Project
from portal.requests import client_address

DELETED = "Project has been deleted!"  # in GitLab's words
LARGEST_ID = 2**63 - 1  # what the database can hold
UNKNOWN = "This token is of no job, or not of this one: it was taken back, deleted, or is another's."


def vault() -> Vault:
    """What opens the variables of jobs."""
    found: Vault = current_app.extensions["job_vault"]
    return found


def machine_uses() -> LastUses:
    found: LastUses = current_app.extensions["machine_uses"]
    return found


def job_of_request(job_id: int, params: Params | None = None, *, over: bool = False) -> Job:
    """The job with this number, whose token the request shows: as `token` in the body, or as JOB-TOKEN.

    The token is valid while the job runs; `over` takes it afterwards too. Raises JobRefused, which is answered 403,
    also while the job's project is deleted.
    """
    token = (params or {}).get("token") or request.headers.get("Job-Token", "")
    if not isinstance(token, str) or not token.startswith(tokens.JOB) or len(token) > tokens.LONGEST:
        raise JobRefused(UNKNOWN)
    query = select(Job, Project.deletion_id).outerjoin(Job.project)
    query = query.where(Job.id == min(job_id, LARGEST_ID), Job.token_digest == tokens.digest(token))
    found = db.session.execute(query, execution_options=WITH_DELETED).one_or_none()
    if found is None or found.Job.state is JobStatus.PENDING:
        raise JobRefused(UNKNOWN)
    job: Job = found.Job
    g.job_id, g.runner_id = job.id, job.runner_id  # for the log
    if found.deletion_id is not None:  # a job that runs stays as it is, until somebody gives it up; the machine stops
        raise JobRefused(DELETED, status=job.status if job.state.is_over else JobStatus.CANCELED)
    if job.state.is_over and not over:
        raise JobRefused(f"Job is not processing on runner: it is {job.status}.", status=job.status)
    return job


def hear(job: Job, *, over: bool = False) -> None:
    """The job's machine speaks: the job is its for sure, and it is alive, which is written with the heartbeats.

    A runner that works on one job at a time asks for no other meanwhile. Raises JobRefused when the job was taken
    back at this moment, or, unless `over`, has ended.
    """
    machine = job_rows.machine_of(db.session(), job) if job.runner_id is not None else None
    if machine is not None and machine.runner_machine_id:
        machine_uses().note(machine.runner_machine_id, now(), client_address())
    job_reports.hear(db.session(), job, over=over)
