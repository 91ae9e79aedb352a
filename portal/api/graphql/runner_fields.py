"""The fields of a runner and of its machines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from ariadne import ObjectType
from flask import url_for
from markupsafe import Markup, escape

from portal.addresses import absolute, url_in
from portal.api.graphql import job_lists, machines, paging, runner_projects
from portal.api.graphql.context import Info
from portal.api.graphql.paging import Connection
from portal.api.graphql.siblings import RunnerNode, ScopeNode
from portal.domain.machines import machine_lists
from portal.domain.runners import runner_lists, runner_paging, runner_status
from portal.domain.scopes import of_runner
from portal.models import AccessLevel, CreationState, RegistrationType, RunnerType, User

runner = ObjectType("CiRunner")
permissions = ObjectType("RunnerPermissions")
TO_REGISTER = timedelta(hours=1)  # GitLab's: how long after its creation a runner's page of instructions is offered

Field = Callable[[RunnerNode, Info], Any]


def _plain(read: Callable[[Any], Any]) -> Field:
    """A field that stands in the runner's row."""
    return lambda node, _info: read(node.runner)


PLAIN: dict[str, Callable[[Any], Any]] = {
    "id": lambda row: row.id,
    "runnerType": lambda row: RunnerType(row.runner_type),
    "description": lambda row: row.description,
    "accessLevel": lambda row: AccessLevel(row.access_level),
    "locked": lambda row: row.locked,
    "paused": lambda row: row.paused,
    "active": lambda row: row.active,
    "runUntagged": lambda row: row.run_untagged,
    "tagList": lambda row: row.tag_list,
    "maximumTimeout": lambda row: row.maximum_timeout,
    "contactedAt": lambda row: row.contacted_at,
    "createdAt": lambda row: row.created_at,
    "creationMethod": lambda row: RegistrationType(row.registration_type),
    "creationState": lambda row: CreationState(row.creation_state),
}
for _name, _read in PLAIN.items():
    runner.set_field(_name, _plain(_read))


@runner.field("status")
def _status(node: RunnerNode, _info: Info) -> runner_status.Status:
    return runner_status.of_runner(node.runner, node.context.at)


@runner.field("createdBy")
def _created_by(node: RunnerNode, _info: Info) -> User | None:
    return node.runner.creator


@runner.field("shortSha")
def _short_sha(node: RunnerNode, _info: Info) -> str | None:
    found = node.page.once("shorts", lambda: runner_lists.short_tokens(node.context.session, node.page.ids))
    return found.get(node.runner.id, "")[:8] or None


@runner.field("tokenExpiresAt")
def _token_expires_at(node: RunnerNode, _info: Info) -> Any:
    found = node.page.once("expiries", lambda: runner_paging.token_expiries(node.context.session, node.page.ids))
    return found.get(node.runner.id) if node.may_write() else None


@runner.field("maintenanceNote")
def _maintenance_note(node: RunnerNode, _info: Info) -> str | None:
    return node.runner.maintenance_note if node.may_write() else None


@runner.field("maintenanceNoteHtml")
def _maintenance_note_html(node: RunnerNode, _info: Info) -> str | None:
    if not node.may_write():
        return None
    lines = [escape(line) for line in node.runner.maintenance_note.splitlines()]
    return str(Markup("<p>{}</p>").format(Markup("<br>").join(lines))) if lines else ""


@runner.field("ephemeralAuthenticationToken")
def _token(node: RunnerNode, _info: Info) -> str | None:
    return node.token


def _waits(node: RunnerNode) -> bool:
    """Whether a person created it a short while ago and no machine has come."""
    row = node.runner
    new = row.created_by_person and row.created_at > node.context.at - TO_REGISTER
    return new and row.creation_state == CreationState.STARTED and row.contacted_at is None


@runner.field("ephemeralRegisterUrl")
def _register_url(node: RunnerNode, _info: Info) -> str | None:
    asker = node.context.actor.user
    if asker is None or node.runner.creator_id != asker.id or not _waits(node):
        return None
    return absolute(url_in(of_runner(node.runner), "runners.show", runner_id=node.runner.id))


def _for_administrators(place: str, *, waiting: bool = False) -> Field:
    def address(node: RunnerNode, _info: Info) -> str | None:
        if not node.context.actor.is_admin or (waiting and not _waits(node)):
            return None
        return absolute(url_for(f"instance_runners.{place}", runner_id=node.runner.id))

    return address


runner.set_field("adminUrl", _for_administrators("show"))
runner.set_field("editAdminUrl", _for_administrators("edit"))
runner.set_field("registerAdminUrl", _for_administrators("show", waiting=True))


@runner.field("userPermissions")
def _permissions(node: RunnerNode, _info: Info) -> RunnerNode:
    return node


permissions.set_field("readRunner", lambda _node, _info: True)  # nobody gets a runner that they may not read
permissions.set_field("updateRunner", lambda node, _info: node.may_write())
permissions.set_field("deleteRunner", lambda node, _info: node.may_delete())
permissions.set_field("assignRunner", lambda node, _info: node.may_assign())


@runner.field("groups")
def _groups(node: RunnerNode, _info: Info, **arguments: Any) -> Connection[ScopeNode] | None:
    if node.runner.group_id is None:
        return None
    found = node.page.groups.get(node.runner.group_id)
    return paging.of_list(node.context, [found] if found else [], lambda each: each.owner.id, arguments)


runner.set_field("projects", runner_projects.projects)
runner.set_field("ownerProject", runner_projects.owner)
runner.set_field("projectCount", runner_projects.count)
runner.set_field("managers", machines.of_runner)


runner.set_field("jobs", job_lists.of_runner)
runner.set_field("jobCount", job_lists.count_of_runner)
runner.set_field("jobExecutionStatus", job_lists.execution_status)


def _machine_fact(name: str) -> Field:
    def fact(node: RunnerNode, _info: Info) -> str | None:
        page = node.page
        if name == "ip_address" and not node.may_know_addresses():
            return None
        told = page.once("facts", lambda: machine_lists.told_together(node.context.session, page.things))
        return told[node.runner.id][name]

    return fact


for _field, _fact in machines.FACTS.items():
    runner.set_field(_field, _machine_fact(_fact))
