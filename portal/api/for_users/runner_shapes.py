"""What the REST API answers about runners and their machines (reference/rest.md section 2.4)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field
from sqlalchemy.orm import Session

from portal.api.for_users.operations import Shape
from portal.api.for_users.shapes import (
    GroupBasic,
    Moment,
    ProjectBasic,
    UserBasic,
    group_basic,
    projects_in_short,
    user_basic,
)
from portal.database import now
from portal.domain import permissions
from portal.domain.actors import Actor
from portal.domain.jobs import job_lists
from portal.domain.machines import runner_managers
from portal.domain.permissions import Action
from portal.domain.runners import runner_access, runner_status
from portal.domain.runners.runner_status import Status
from portal.domain.scopes import of_group, of_project
from portal.models import AccessLevel, Runner, RunnerManager, RunnerType


class RunnerManagerShape(Shape):
    """One machine that uses a runner's token."""

    id: int
    system_id: str
    version: str | None
    revision: str | None
    platform: str | None
    architecture: str | None
    created_at: Moment
    contacted_at: Moment | None
    ip_address: str | None
    status: str
    job_execution_status: str


class RunnerBasic(Shape):
    """A runner in the fewest words, as everybody may know it who sees what it did."""

    id: int
    description: str
    ip_address: str | None
    active: bool
    paused: bool
    is_shared: bool
    runner_type: str
    name: str | None
    online: bool | None
    created_at: Moment
    status: str
    job_execution_status: str


class RunnerShape(RunnerBasic):
    """A runner in a few words."""

    created_by: UserBasic | None


class RunnerWithManagers(RunnerShape):
    """A runner in a list. `managers` is ours: its machines, if they were asked for with `include=managers`."""

    managers: list[RunnerManagerShape] | None = Field(None, exclude_if=lambda machines: machines is None)


class RunnerDetails(RunnerShape):
    """Everything about one runner. `projects` is there unless the request does without them."""

    tag_list: list[str]
    run_untagged: bool
    locked: bool
    maximum_timeout: int | None
    access_level: str
    version: str | None
    revision: str | None
    platform: str | None
    architecture: str | None
    contacted_at: Moment | None
    maintenance_note: str | None
    projects: list[ProjectBasic] | None = Field(None, exclude_if=lambda projects: projects is None)
    groups: list[GroupBasic]


class NewRunner(Shape):
    """A new runner with its token: the only time that it is shown."""

    id: int
    token: str | None
    token_expires_at: Moment | None


class NewToken(Shape):
    """A token that was reset: the only time that it is shown."""

    token: str
    token_expires_at: Moment | None


ACCESS_LEVELS = {AccessLevel.NOT_PROTECTED: "not_protected", AccessLevel.REF_PROTECTED: "ref_protected"}
TYPES = {each: f"{each.name.lower()}_type" for each in RunnerType}


def status_of(runner: Runner, at: datetime) -> str:
    """GitLab's older computation, which REST keeps: a paused runner that is not stale is "paused"."""
    status = runner_status.of_runner(runner, at)
    told = status in (Status.STALE, Status.NEVER_CONTACTED) or not runner.paused
    return status.value if told else "paused"


def execution(busy: bool) -> str:
    """GitLab's word for whether a runner, or one of its machines, runs a job at this moment."""
    return "active" if busy else "idle"


def basic(runner: Runner, at: datetime, *, busy: bool) -> dict[str, Any]:
    """The attributes of a RunnerBasic; `busy` says whether it runs a job."""
    online = None if runner.contacted_at is None else runner_status.of_runner(runner, at) is Status.ONLINE
    return {
        "id": runner.id,
        "description": runner.description,
        "ip_address": None,
        "active": runner.active,
        "paused": runner.paused,
        "is_shared": runner.runner_type == RunnerType.INSTANCE,
        "runner_type": TYPES[runner.type],
        "name": None,
        "online": online,
        "created_at": runner.created_at,
        "status": status_of(runner, at),
        "job_execution_status": execution(busy),
    }


def in_list(runner: Runner, at: datetime, *, busy: bool) -> dict[str, Any]:
    """The attributes of a RunnerShape."""
    creator = UserBasic(**user_basic(runner.creator)) if runner.creator else None
    return {**basic(runner, at, busy=busy), "created_by": creator}


def manager(found: RunnerManager, at: datetime, *, busy: bool, trusted: bool = True) -> RunnerManagerShape:
    """One machine. As on the pages, its address is for who is `trusted`: may see the runners of the owner."""
    return RunnerManagerShape(
        id=found.id,
        system_id=found.system_xid,
        version=found.version,
        revision=found.revision,
        platform=found.platform,
        architecture=found.architecture,
        created_at=found.created_at,
        contacted_at=found.contacted_at,
        ip_address=found.ip_address if trusted else None,
        status=runner_status.of_manager(found, at).value,
        job_execution_status=execution(busy),
    )


def details(session: Session, actor: Actor, runner: Runner, *, projects: bool = True) -> RunnerDetails:
    """Everything about the runner that the actor may know; `projects` says whether its projects are asked for."""
    newest = next(iter(runner_managers.of_runner_newest_first(session, runner, 1)), None)
    machine = newest or runner
    writable = runner_access.may(session, actor, Action.WRITE_RUNNERS, runner)
    return RunnerDetails(
        **in_list(runner, now(), busy=runner.id in job_lists.busy(session, [runner])),
        tag_list=list(runner.tag_list),
        run_untagged=runner.run_untagged,
        locked=runner.locked,
        maximum_timeout=runner.maximum_timeout,
        access_level=ACCESS_LEVELS[AccessLevel(runner.access_level)],
        version=machine.version,
        revision=machine.revision,
        platform=machine.platform,
        architecture=machine.architecture,
        contacted_at=runner.contacted_at,
        maintenance_note=runner.maintenance_note if writable else None,
        projects=_projects(session, actor, runner) if projects else None,
        groups=_groups(session, actor, runner),
    )


def _projects(session: Session, actor: Actor, runner: Runner) -> list[ProjectBasic]:
    """The runner's projects that the actor may see, its owner first."""
    if runner.project is None:
        return []
    scopes = [of_project(each) for each in (runner.project, *runner_access.further_projects(session, runner))]
    permissions.remember_roles(session, actor, scopes)
    seen = [each.project for each in scopes if permissions.may(session, actor, Action.SEE, each)]
    return projects_in_short(each for each in seen if each is not None)


def _groups(session: Session, actor: Actor, runner: Runner) -> list[GroupBasic]:
    if runner.group is None or not permissions.may(session, actor, Action.SEE, of_group(runner.group)):
        return []
    return [GroupBasic(**group_basic(runner.group))]
