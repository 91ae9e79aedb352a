"""Mutations of a runner and a project: assign and unassign."""

from __future__ import annotations

from typing import Any

from ariadne import MutationType

from portal.api.graphql.context import Context
from portal.api.graphql.mutations import Payload, changes
from portal.domain import permissions, scopes
from portal.domain.errors import NOTHING_HERE, NotFound
from portal.domain.permissions import Action
from portal.domain.runners import runner_access, runner_projects
from portal.domain.scopes import Scope
from portal.models import Runner, RunnerType

mutation = MutationType()


@changes(mutation, "runnerAssignToProject")
def assign(asked: Context, given: dict[str, Any]) -> Payload:
    """Let the runner take the project's jobs too."""
    runner_projects.assign(asked.session, asked.actor, *_both(asked, given))
    return {}


@changes(mutation, "runnerUnassignFromProject")
def unassign(asked: Context, given: dict[str, Any]) -> Payload:
    """Take the runner away from the project."""
    runner_projects.unassign(asked.session, asked.actor, *_both(asked, given))
    return {}


def _both(asked: Context, given: dict[str, Any]) -> tuple[Runner, Scope]:
    """The project runner and the project, both as the asker sees them. Raises NotFound."""
    runner = runner_access.readable(asked.session, asked.actor, given["runner_id"])
    project = scopes.find_project(asked.session, given["project_path"])
    permissions.require(asked.session, asked.actor, Action.SEE, project)
    if runner.runner_type != RunnerType.PROJECT:
        raise NotFound(NOTHING_HERE)
    return runner, project
