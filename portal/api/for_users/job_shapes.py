"""What the REST API answers about jobs, with GitLab's attribute names where it has the thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from flask import url_for
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.addresses import absolute
from portal.api.for_users import runner_shapes
from portal.api.for_users.job_artifacts import ArtifactShape, expires_at, shapes
from portal.api.for_users.operations import Shape
from portal.api.for_users.runner_shapes import RunnerBasic
from portal.api.for_users.shapes import Moment, ProjectBasic, UserBasic, names_for, project_basic, user_basic
from portal.database import now
from portal.domain.actors import Actor
from portal.domain.groups.full_names import FullNames
from portal.domain.jobs import job_artifacts, job_definitions, job_lists, job_needs, job_times
from portal.domain.jobs.job_definitions import Undecryptable, masked_url
from portal.domain.permissions import Action
from portal.domain.runners import runner_access
from portal.domain.scopes import of_project
from portal.domain.vault import Vault
from portal.models import Job, JobArtifact, JobMachine, JobStatus, Runner, RunnerManager
from portal.requests import portal_url

STAGE = "test"  # GitLab's name for the stage of a job that names none; there are no stages here


class ArtifactsFile(Shape):
    """The archive that a job left."""

    filename: str
    size: int


class JobMachineShape(Shape):
    """The machine that has or had a job. Once its row is gone, its number and system ID are all that is known."""

    id: int
    system_id: str
    version: str | None = None
    revision: str | None = None
    platform: str | None = None
    architecture: str | None = None
    created_at: Moment | None = None
    contacted_at: Moment | None = None
    ip_address: str | None = None
    status: str | None = None
    job_execution_status: str | None = None


class JobShape(Shape):
    """A job. What stands behind `tag_list` is ours, and so is `project` with these attributes."""

    id: int
    status: str
    stage: str
    name: str
    ref: str
    tag: bool
    coverage: float | None
    allow_failure: bool
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    erased_at: Moment | None
    duration: float | None
    queued_duration: float | None
    user: UserBasic | None
    commit: None
    pipeline: None
    failure_reason: str | None = Field(None, exclude_if=lambda reason: reason is None)
    web_url: str
    project: ProjectBasic | None
    artifacts_file: ArtifactsFile | None = Field(None, exclude_if=lambda file: file is None)
    artifacts: list[ArtifactShape]
    runner: RunnerBasic | None
    runner_manager: JobMachineShape | None
    artifacts_expire_at: Moment | None
    archived: bool
    tag_list: list[str]
    exit_code: int | None
    protected: bool
    timeout: int
    retried: bool
    retry_of_id: int | None
    checks_runner_id: int | None


class RepositoryShape(Shape):
    """What is checked out, without what is secret in the address."""

    url: str
    commit: str


class JobDetails(JobShape):
    """One job, with what it runs. `repository` is null for none, and where its encryption key is not configured."""

    script: list[str]
    after_script: list[str]
    image: str
    services: list[str]
    variable_names: list[str]
    repository: RepositoryShape | None
    needs: list[int]
    needed_by: list[int]
    retries_left: int


@dataclass(frozen=True, slots=True)
class _Around:
    """What the shapes of some jobs need besides the jobs, each looked up once for all of them."""

    at: datetime
    names: FullNames
    machines: Mapping[int, JobMachine]
    managers: Mapping[int, RunnerManager]
    busy_runners: set[int]
    busy_managers: set[int]
    trusted: set[int]
    artifacts: Mapping[int, Sequence[JobArtifact]]


def some(session: Session, actor: Actor, found: Sequence[Job]) -> list[JobShape]:
    """These jobs, which the actor may see, with as many statements for many as for one."""
    around = _around(session, actor, found)
    return [JobShape(**_attributes(job, around)) for job in found]


def one(session: Session, actor: Actor, job: Job) -> JobShape:
    """One job, which the actor may see."""
    return some(session, actor, [job])[0]


def details(session: Session, actor: Actor, job: Job, vault: Vault) -> JobDetails:
    """The same with what the job runs; of its variables the names only."""
    config = job.definition.config
    words = ("script", "after_script", "image", "services", "variable_names")
    return JobDetails(
        **_attributes(job, _around(session, actor, [job])),
        **{name: config[name] for name in words},
        repository=_repository(job, vault),
        needs=[each.id for each in job_needs.needed(session, job)],
        needed_by=[each.id for each in job_needs.needing(session, job)],
        retries_left=job.retries_left,
    )


def _repository(job: Job, vault: Vault) -> RepositoryShape | None:
    try:
        its = job_definitions.opened(job.definition, vault).repository
    except Undecryptable:
        return None
    return RepositoryShape(url=masked_url(its.url), commit=its.commit) if its else None


def _around(session: Session, actor: Actor, found: Sequence[Job]) -> _Around:
    runners: list[Runner] = list({job.runner.id: job.runner for job in found if job.runner is not None}.values())
    projects = {job.project.id: job.project for job in found if job.project is not None}
    machines = job_lists.machines_of(session, found)
    ids = {machine.runner_machine_id for machine in machines.values()}
    managers = session.scalars(select(RunnerManager).where(RunnerManager.id.in_(ids))).all() if ids else []
    at = now()
    return _Around(
        at=at,
        names=names_for(of_project(each) for each in projects.values()),
        machines=machines,
        managers={each.id: each for each in managers},
        busy_runners=job_lists.busy(session, runners),
        busy_managers=job_lists.busy_managers(session, managers),
        trusted=runner_access.among(session, actor, Action.READ_RUNNERS, runners) if runners else set(),
        artifacts=job_artifacts.of_jobs(session, [job.id for job in found], at),
    )


def _attributes(job: Job, around: _Around) -> dict[str, Any]:
    left = around.artifacts.get(job.id, ())
    archive = next((each for each in left if each.file_type == job_artifacts.ARCHIVE), None)
    runner = job.runner
    return {
        **_own(job),
        **_times(job, around.at),
        "user": UserBasic(**user_basic(job.user)) if job.user else None,
        "web_url": web_url(job),
        "project": ProjectBasic(**project_basic(job.project, around.names)) if job.project else None,
        "artifacts_file": ArtifactsFile(filename=archive.filename, size=archive.size) if archive else None,
        "artifacts": shapes(left),
        "artifacts_expire_at": expires_at(left),
        "runner": (
            RunnerBasic(**runner_shapes.basic(runner, around.at, busy=runner.id in around.busy_runners))
            if runner
            else None
        ),
        "runner_manager": _machine(job, around),
    }


def _own(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "status": job.status,
        "stage": STAGE,
        "name": job.name,
        "ref": job.ref,
        "tag": False,
        "coverage": None,
        "allow_failure": False,
        "commit": None,
        "pipeline": None,
        "failure_reason": job.failure_reason if job.state is JobStatus.FAILED else None,
        "archived": False,
        "tag_list": sorted(job.tag_list),
        "exit_code": job.exit_code,
        "protected": job.ref_protected,
        "timeout": job.effective_timeout or job.timeout,
        "retried": job.retried,
        "retry_of_id": job.retry_of_id,
        "checks_runner_id": job.checks_runner_id,
    }


def _times(job: Job, at: datetime) -> dict[str, Any]:
    """When what was, and how long: what still goes on lasts until now, as in GitLab."""
    ran = job_times.ran(job, at)
    return {
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "erased_at": job.erased_at,
        "duration": None if ran is None else round(ran, 3),
        "queued_duration": round(job_times.waited(job, at), 3),
    }


def _machine(job: Job, around: _Around) -> JobMachineShape | None:
    """The machine; its address is for who may see the runners of the owner, as elsewhere."""
    its = around.machines.get(job.id)
    if its is None:
        return None
    manager = around.managers.get(its.runner_machine_id)
    if manager is None or manager.runner_id != job.runner_id:
        return JobMachineShape(id=its.runner_machine_id, system_id=its.system_xid)
    trusted, busy = manager.runner_id in around.trusted, manager.id in around.busy_managers
    told = runner_shapes.manager(manager, around.at, busy=busy, trusted=trusted)
    return JobMachineShape(**dict(told))


def web_url(job: Job) -> str:
    """The job's page."""
    if job.project is not None:
        return portal_url(f"/{quote(job.project.full_path)}/-/jobs/{job.id}")
    return absolute(url_for("job_links.show", job_id=job.id))
