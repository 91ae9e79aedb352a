"""Mutations of one job: cancel it, run it again."""

from __future__ import annotations

from typing import Any

from ariadne import MutationType

from portal.api.graphql.context import Context
from portal.api.graphql.job_nodes import JobNode, job_nodes
from portal.api.graphql.mutations import Payload, changes
from portal.domain.jobs import jobs
from portal.models import Job
from portal.requests import job_vault

mutation = MutationType()


@changes(mutation, "jobCancel")
def cancel(asked: Context, given: dict[str, Any]) -> Payload:
    """Stop the job."""
    job = jobs.readable(asked.session, asked.actor, given["id"])
    canceled = jobs.cancel(asked.session, asked.actor, job, force=bool(given.get("force")))
    return {"job": _node(asked, canceled)}


@changes(mutation, "jobRetry")
def retry(asked: Context, given: dict[str, Any]) -> Payload:
    """Run the same once more, as a job of its own."""
    job = jobs.readable(asked.session, asked.actor, given["id"])
    return {"job": _node(asked, jobs.retry(asked.session, asked.actor, job, job_vault()))}


def _node(asked: Context, job: Job) -> JobNode:
    return job_nodes(asked, [job])[0]
