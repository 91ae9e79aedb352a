"""Mutations of one runner: create, update, delete."""

from __future__ import annotations

from typing import Any

from ariadne import MutationType
from sqlalchemy import select

from portal.api import idempotency
from portal.api.graphql import scope_ids
from portal.api.graphql.context import Context
from portal.api.graphql.global_ids import write
from portal.api.graphql.mutations import Payload, changes
from portal.api.graphql.problems import ArgumentWrong
from portal.api.graphql.siblings import RunnerNode, Runners
from portal.domain import permissions
from portal.domain.errors import AlreadyIssued, Invalid
from portal.domain.permissions import Action
from portal.domain.runners import runner_access, runner_creation, runner_handover, runner_projects, runners
from portal.domain.runners.runner_settings import RunnerSettings, split_tags
from portal.domain.scopes import INSTANCE, Scope, of_project
from portal.models import AccessLevel, Project, Runner, RunnerType

MOST_PROJECTS = 100  # in one update
KEPT_WHEN_NULL = ("description", "maintenance_note", "run_untagged", "paused", "locked")
mutation = MutationType()


@changes(mutation, "runnerCreate")
def create(asked: Context, given: dict[str, Any]) -> Payload:
    """A new runner in the scope that its type and id say; with the header Idempotency-Key, once."""
    scope = _scope(asked, given)
    runner_creation.require_may_create(asked.session, asked.actor, scope)  # before anything else is found wrong
    settings = RunnerSettings(**{"run_untagged": True, **_settings(given)})
    once = idempotency.Once() if asked.credential is None else idempotency.of_creation(scope, settings)
    try:
        issued = runners.create_runner(
            asked.session,
            asked.actor,
            scope,
            settings,
            request_key=once.request_key,
            request_digest=once.request_digest,
        )
    except AlreadyIssued as before:
        asked.replayed = True
        found = runner_access.readable(asked.session, asked.actor, before.runner_id)
        return {"runner": _node(asked, found)}
    return {"runner": _node(asked, issued.runner, issued.token)}


@changes(mutation, "runnerUpdate")
def update(asked: Context, given: dict[str, Any]) -> Payload:
    """Other settings, and the projects that a project runner serves."""
    runner = runner_access.writable(asked.session, asked.actor, given["id"])
    projects = _projects(asked, runner, given.get("associated_projects"))
    changed = _settings(given)
    unlocks = runner.locked and changed.get("locked") is False
    if projects is not None:
        runner_handover.keep_out(asked.session)  # before the runner is locked
    if projects is not None and not unlocks:
        runner_projects.set_projects(asked.session, asked.actor, runner, projects)
    if changed:
        runners.change_settings(asked.session, asked.actor, runner, **changed)
    if projects is not None and unlocks:
        runner_projects.set_projects(asked.session, asked.actor, runner, projects)
    return {"runner": _node(asked, runner)}


@changes(mutation, "runnerDelete")
def delete(asked: Context, given: dict[str, Any]) -> Payload:
    """Delete it, so that people can restore it for a while."""
    runner = runner_access.readable(asked.session, asked.actor, given["id"])
    runners.delete_runner(asked.session, asked.actor, runner)
    return {}


def _node(asked: Context, runner: Runner, token: str | None = None) -> RunnerNode:
    return RunnerNode(runner, Runners(asked, [runner]), token)


def _scope(asked: Context, given: dict[str, Any]) -> Scope:
    """Where the new runner shall belong. Raises ArgumentWrong, or NotFound."""
    kind = given["runner_type"]
    if kind == RunnerType.INSTANCE:
        return INSTANCE
    name = "group_id" if kind == RunnerType.GROUP else "project_id"
    number = given.get(name)
    if number is None:
        raise ArgumentWrong(f"`{name}` is missing")
    return scope_ids.find(asked.session, kind, number)


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """The given settings by the names of RunnerSettings; null is "as it is", but for the timeout "no limit"."""
    found = {name: given[name] for name in KEPT_WHEN_NULL if given.get(name) is not None}
    if "paused" not in found and given.get("active") is not None:
        found["paused"] = not given["active"]
    if given.get("access_level") is not None:
        found["protected"] = given["access_level"] == AccessLevel.REF_PROTECTED
    if given.get("tag_list") is not None:
        found["tags"] = split_tags(",".join(given["tag_list"]))
    if "maximum_timeout" in given:
        found["maximum_timeout"] = given["maximum_timeout"]
    return found


def _projects(asked: Context, runner: Runner, ids: list[int] | None) -> list[Scope] | None:
    """The projects that the runner shall serve; None when nothing was said of that. Raises ArgumentWrong, Invalid."""
    if ids is None:
        return None
    if runner.runner_type != RunnerType.PROJECT:
        raise ArgumentWrong("`associatedProjects` is for project runners only.")
    if len(ids) > MOST_PROJECTS:
        raise ArgumentWrong(f"`associatedProjects` takes {MOST_PROJECTS} projects at most.")
    query = select(Project).where(Project.id.in_(ids)).order_by(Project.id)
    scopes = [of_project(each) for each in asked.session.scalars(query)]
    permissions.remember_roles(asked.session, asked.actor, scopes)
    seen = [each for each in scopes if permissions.may(asked.session, asked.actor, Action.SEE, each)]
    known = {each.id for each in seen} | {runner.project_id}
    if missing := [write("Project", each) for each in dict.fromkeys(ids) if each not in known]:
        raise Invalid({"associated_projects": [f"{missing[0]} does not exist, or you may not see it."]})
    return seen
