"""The lists of jobs: of a project, of a runner; and one job of a project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from portal.api.graphql import context, paging
from portal.api.graphql.context import Context, Info
from portal.api.graphql.job_nodes import JobNode, job_nodes
from portal.api.graphql.paging import Connection, Edge, Part
from portal.api.graphql.problems import NotAvailable
from portal.api.graphql.siblings import RunnerNode, ScopeNode
from portal.domain import permissions
from portal.domain.errors import NotAllowed, NotFound
from portal.domain.jobs import job_lists, job_walks
from portal.domain.jobs import jobs as domain_jobs
from portal.domain.jobs.job_lists import JobFilter
from portal.domain.jobs.job_walks import JobList
from portal.domain.permissions import Action
from portal.models import JobStatus


def of_project(node: ScopeNode, info: Info, **arguments: Any) -> Connection[JobNode]:
    """The project's jobs, for who may see them."""
    asked = context.of(info)

    def found() -> Connection[JobNode]:
        if not permissions.may(asked.session, asked.actor, Action.READ_JOBS, node.scope):
            raise NotAvailable
        return _connection(asked, job_lists.of_project(node.scope), arguments)

    return asked.one_at_a_time(info, node.scope.id, found)


def one_of_project(node: ScopeNode, info: Info, id: int) -> JobNode | None:
    """One job of the project; None for who may not see its jobs."""
    asked = context.of(info)

    def found() -> JobNode | None:
        try:
            job = domain_jobs.find(asked.session, asked.actor, node.scope, id)
        except (NotFound, NotAllowed):
            return None
        return job_nodes(asked, [job])[0]

    return asked.one_at_a_time(info, node.scope.id, found)


def of_runner(node: RunnerNode, info: Info, **arguments: Any) -> Connection[JobNode]:
    """The jobs that the runner has or had, as far as the asker may see them."""
    asked = context.of(info)

    def found() -> Connection[JobNode]:
        return _connection(asked, job_lists.of_runner(asked.session, asked.actor, node.runner), arguments)

    return asked.one_at_a_time(info, node.runner.id, found)


def count_of_runner(node: RunnerNode, _info: Info, statuses: Sequence[Any] | None = None) -> int:
    """How many jobs the runner has or had, seen or not; of all the runners on its page together."""
    known = _known(statuses)
    if known is None:
        return 0
    counts = node.page.once(
        ("count of jobs", known), lambda: job_lists.count_of_each(node.context.session, node.page.ids, known)
    )
    return counts.get(node.runner.id, 0)


def execution_status(node: RunnerNode, _info: Info) -> str:
    """Whether the runner runs a job at this moment; of all the runners on its page together."""
    busy = node.page.once("busy", lambda: job_lists.busy(node.context.session, node.page.things))
    return "ACTIVE" if node.runner.id in busy else "IDLE"


def _known(statuses: Sequence[Any] | None) -> tuple[JobStatus, ...] | None:
    """Those that jobs of the portal can have, empty for any; None when all that are asked for are others."""
    found = tuple(dict.fromkeys(each for each in statuses or () if isinstance(each, JobStatus)))
    return None if statuses and not found else found


def _connection(asked: Context, which: JobList, arguments: Mapping[str, Any]) -> Connection[JobNode]:
    window = paging.window(arguments)
    known = _known(arguments.get("statuses"))
    jobs = job_lists.narrowed(which, JobFilter(statuses=known or (), words=arguments.get("name") or ""))
    below, above = paging.read_cursor(window.after), paging.read_cursor(window.before)

    def load() -> Part[JobNode]:
        if known is None or not window.size:
            return Part((), has_next=False, has_previous=False)
        back = window.backwards
        found = job_walks.walk(asked.session, jobs, size=window.size, below=below, above=above, oldest=back)
        rows = list(found.jobs)[:: -1 if back else 1]
        edges = [Edge(paging.write_cursor(each.job.id), each) for each in job_nodes(asked, rows)]
        upto = paging.write_cursor(found.upto) if found.upto is not None else None
        if back:
            return Part(edges, above is not None, found.more, upto, backwards=True)
        return Part(edges, found.more, below is not None, upto)

    def total() -> int:
        return 0 if known is None else job_lists.count_or_more(asked.session, jobs)

    return Connection(asked, load, total)
