"""The machines that use a runner: their list, and their fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ariadne import ObjectType

from portal.api.graphql import paging
from portal.api.graphql.context import Info
from portal.api.graphql.paging import Connection, Edge, Part, Window
from portal.api.graphql.siblings import RunnerNode, Siblings
from portal.domain.jobs import job_lists
from portal.domain.machines import machine_lists
from portal.domain.machines.machine_lists import MachineQuery
from portal.domain.runners import runner_status
from portal.domain.runners.runner_status import Status
from portal.models import RunnerManager

manager = ObjectType("CiRunnerManager")
Machines = Siblings[RunnerManager]

# GitLab's names of what machines tell, and ours.
FACTS = {
    "ipAddress": "ip_address",
    "version": "version",
    "revision": "revision",
    "platformName": "platform",
    "architectureName": "architecture",
    "executorName": "executor_name",
}


@dataclass(frozen=True, slots=True)
class MachineNode:
    """One machine of one runner. `beside` are the machines that were loaded together."""

    row: RunnerManager
    of: RunnerNode
    beside: Siblings[RunnerManager]


def of_runner(
    node: RunnerNode,
    _info: Info,
    system_id: str | None = None,
    status: Status | None = None,
    **arguments: Any,
) -> Connection[MachineNode]:
    """The runner's machines, loaded together with those of the other runners on its page."""
    asked, query = paging.window(arguments), MachineQuery(system_id, status)
    page, context = node.page, node.context
    which = query.condition(context.at)

    def load() -> Part[MachineNode]:
        found, beside = page.once(("machines", query, asked), lambda: _load(node, which, asked))
        return _part(node, found[node.runner.id], beside, asked)

    def total() -> int:
        counts = page.once(
            ("count of machines", query), lambda: machine_lists.counts(context.session, page.ids, which)
        )
        return counts.get(node.runner.id, 0)

    return Connection(context, load, total)


def _load(node: RunnerNode, which: Any, asked: Window) -> tuple[dict[int, list[RunnerManager]], Machines]:
    """One more than asked for, of each runner of the page, to know whether more follow; and all of them together."""
    found = machine_lists.of_each(
        node.context.session,
        node.page.ids,
        which,
        limit=asked.size + 1,
        below=paging.read_cursor(asked.after),
        above=paging.read_cursor(asked.before),
        oldest=asked.backwards,
    )
    return found, Siblings(node.context, [row for rows in found.values() for row in rows])


def _part(node: RunnerNode, rows: list[RunnerManager], beside: Machines, asked: Window) -> Part[MachineNode]:
    more = len(rows) > asked.size
    kept = rows[len(rows) - asked.size :] if asked.backwards and more else rows[: asked.size]
    edges = [Edge(paging.write_cursor(row.id), MachineNode(row, node, beside)) for row in kept]
    if asked.backwards:
        return Part(edges, asked.before is not None, more)
    return Part(edges, more, asked.after is not None)


def _plain(name: str) -> Callable[[MachineNode, Info], Any]:
    return lambda node, _info: getattr(node.row, name)


PLAIN = {**FACTS, "id": "id", "systemId": "system_xid", "contactedAt": "contacted_at", "createdAt": "created_at"}
for _field, _column in PLAIN.items():
    manager.set_field(_field, _plain(_column))


@manager.field("ipAddress")
def _ip_address(node: MachineNode, _info: Info) -> str | None:
    return node.row.ip_address if node.of.may_know_addresses() else None


@manager.field("status")
def _status(node: MachineNode, _info: Info) -> Status:
    return runner_status.of_manager(node.row, node.of.context.at)


@manager.field("jobExecutionStatus")
def _job_execution_status(node: MachineNode, _info: Info) -> str:
    beside = node.beside
    busy = beside.once("busy", lambda: job_lists.busy_managers(beside.context.session, beside.things))
    return "ACTIVE" if node.row.id in busy else "IDLE"


@manager.field("runner")
def _runner(node: MachineNode, _info: Info) -> RunnerNode:
    return node.of
