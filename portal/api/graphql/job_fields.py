"""The fields of a job, and of what it left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ariadne import ObjectType

from portal.addresses import url_in
from portal.api.graphql import paging
from portal.api.graphql.context import Info
from portal.api.graphql.job_nodes import JobNode
from portal.api.graphql.machines import MachineNode
from portal.api.graphql.paging import Connection
from portal.api.graphql.siblings import RunnerNode, ScopeNode
from portal.domain.jobs import failure_reasons, job_times
from portal.domain.scopes import of_project, of_runner
from portal.models import Job, JobArtifact, JobStatus

job, permissions, artifact = ObjectType("CiJob"), ObjectType("JobPermissions"), ObjectType("CiJobArtifact")


def _plain(read: Callable[[Job], Any]) -> Callable[[JobNode, Info], Any]:
    """A field that stands in the job's row."""
    return lambda node, _info: read(node.job)


PLAIN: dict[str, Callable[[Job], Any]] = {
    "id": lambda row: row.id,
    "name": lambda row: row.name,
    "status": lambda row: row.state,
    "refName": lambda row: row.ref,
    "tags": lambda row: row.tag_list,
    "createdAt": lambda row: row.created_at,
    "queuedAt": lambda row: row.queued_at,
    "startedAt": lambda row: row.started_at,
    "finishedAt": lambda row: row.finished_at,
    "erasedAt": lambda row: row.erased_at,
    "exitCode": lambda row: row.exit_code,
    "failureReason": lambda row: row.failure_reason,
    "retried": lambda row: row.retried,
    "active": lambda row: row.state in (JobStatus.PENDING, JobStatus.RUNNING),
    "cancelable": lambda row: row.state in (JobStatus.PENDING, JobStatus.RUNNING),
    "retryable": lambda row: row.state.is_over and (row.is_check or not row.retried),
    # What GitLab's jobs may be and the portal's are not: every job is a script that runs as soon as it can.
    "kind": lambda _row: "BUILD",
    "allowFailure": lambda _row: False,
    "manualJob": lambda _row: False,
    "playable": lambda _row: False,
    "scheduled": lambda _row: False,
}
for _name, _read in PLAIN.items():
    job.set_field(_name, _plain(_read))


@job.field("failureMessage")
def _failure_message(node: JobNode, _info: Info) -> str | None:
    return failure_reasons.sentence(node.job.failure_reason) if node.job.state is JobStatus.FAILED else None


@job.field("duration")
def _duration(node: JobNode, _info: Info) -> int | None:
    seconds = job_times.ran(node.job, node.context.at)
    return None if seconds is None else int(seconds)


@job.field("queuedDuration")
def _queued_duration(node: JobNode, _info: Info) -> float:
    return job_times.waited(node.job, node.context.at)


@job.field("runner")
def _runner(node: JobNode, _info: Info) -> RunnerNode | None:
    return node.page.runners.get(node.job.runner_id or 0)


@job.field("runnerManager")
def _runner_manager(node: JobNode, _info: Info) -> MachineNode | None:
    return node.page.machines.get(node.job.id)


@job.field("project")
def _project(node: JobNode, _info: Info) -> ScopeNode | None:
    return node.page.projects.get(node.job.project_id or 0)


@job.field("webPath")
def _web_path(node: JobNode, _info: Info) -> str | None:
    row = node.job
    if row.project is not None:
        return url_in(of_project(row.project), "jobs.show", job_id=row.id)
    if row.checks_runner is not None:
        place = {"runner_id": row.checks_runner.id, "check_id": row.id}
        return url_in(of_runner(row.checks_runner), "runners.show_check", **place)
    return None


@job.field("artifacts")
def _artifacts(node: JobNode, _info: Info, **arguments: Any) -> Connection[JobArtifact]:
    found = node.page.artifacts.get(node.job.id, [])
    return paging.of_list(node.context, found, lambda each: each.id, arguments)


@job.field("userPermissions")
def _permissions(node: JobNode, _info: Info) -> JobNode:
    return node


permissions.set_field("readBuild", lambda _node, _info: True)  # nobody gets a job that they may not see
permissions.set_field("readJobArtifacts", lambda _node, _info: True)
permissions.set_field("updateBuild", lambda node, _info: node.may_write())
permissions.set_field("cancelBuild", lambda node, _info: node.may_write())

artifact.set_field("name", lambda row, _info: row.filename)
artifact.set_field("fileType", lambda row, _info: row.file_type.upper())
artifact.set_field("expireAt", lambda row, _info: row.expires_at)
