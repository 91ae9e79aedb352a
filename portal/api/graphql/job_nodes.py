"""The jobs of one page: what their fields have in common is loaded together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from portal.api.graphql.context import Context
from portal.api.graphql.machines import MachineNode
from portal.api.graphql.siblings import RunnerNode, ScopeNode, Siblings, runner_nodes, shown
from portal.domain.jobs import job_artifacts, job_lists, jobs
from portal.domain.permissions import Action
from portal.domain.runners import runner_access
from portal.domain.scopes import of_project
from portal.models import Job, JobArtifact, Runner, RunnerManager


class Jobs(Siblings[Job]):
    """The jobs of one page; all of them may be seen by who asks."""

    @cached_property
    def runners(self) -> dict[int, RunnerNode]:
        """The runners that have or had some of them, as far as they may be read, by the id of the runner."""
        session, actor = self.context.session, self.context.actor
        ids = {job.runner_id for job in self.things if job.runner_id is not None}
        if not ids:
            return {}
        owners = (joinedload(Runner.group), joinedload(Runner.project), joinedload(Runner.creator))
        rows = session.scalars(select(Runner).where(Runner.id.in_(ids)).options(*owners).order_by(Runner.id)).all()
        readable = runner_access.readable_among(session, actor, rows)
        nodes = runner_nodes(self.context, [row for row in rows if row.id in readable])
        return {node.runner.id: node for node in nodes}

    @cached_property
    def machines(self) -> dict[int, MachineNode]:
        """The machines that have or had them, by the id of the job; without those whose row is gone."""
        session = self.context.session
        links = job_lists.machines_of(session, self.things)
        by_job = {job_id: link.runner_machine_id for job_id, link in links.items()}
        if not by_job:
            return {}
        rows = session.scalars(select(RunnerManager).where(RunnerManager.id.in_(set(by_job.values())))).all()
        beside = Siblings(self.context, rows)
        nodes = {row.id: MachineNode(row, of, beside) for row in rows if (of := self.runners.get(row.runner_id))}
        return {job_id: nodes[machine_id] for job_id, machine_id in by_job.items() if machine_id in nodes}

    @cached_property
    def projects(self) -> dict[int, ScopeNode]:
        """The projects that they belong to, by the id of the project; the asker's roles there are known then."""
        return shown(self.context, [of_project(job.project) for job in self.things if job.project is not None])

    @cached_property
    def checkable(self) -> set[int]:
        """The ids of those runners, of the checks among them, that the asker may check."""
        checked = {job.checks_runner.id: job.checks_runner for job in self.things if job.checks_runner is not None}
        session, actor = self.context.session, self.context.actor
        return runner_access.among(session, actor, Action.CHECK_RUNNERS, list(checked.values()))

    @cached_property
    def artifacts(self) -> dict[int, list[JobArtifact]]:
        """What they have left and is still there, by the id of the job."""
        context = self.context
        return job_artifacts.of_jobs(context.session, [job.id for job in self.things], context.at)


@dataclass(frozen=True, slots=True)
class JobNode:
    """One job of a page."""

    job: Job
    page: Jobs

    def __repr__(self) -> str:
        return f"JobNode({self.job.id})"

    @property
    def context(self) -> Context:
        return self.page.context

    def may_write(self) -> bool:
        """Whether the asker may cancel it and run it again."""
        if self.job.is_check:
            return self.job.checks_runner_id in self.page.checkable
        _ = self.page.projects  # so that the roles in all of them are known
        return jobs.may_write(self.context.session, self.context.actor, self.job)


def job_nodes(context: Context, found: Sequence[Job]) -> list[JobNode]:
    """The jobs as nodes of one page."""
    page = Jobs(context, found)
    return [JobNode(job, page) for job in found]
