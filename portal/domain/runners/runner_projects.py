"""Project runners in further projects: assign, unassign, and which projects to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Select, exists, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, contains_eager

from portal.domain import audit, permissions
from portal.domain.actors import Actor
from portal.domain.errors import Invalid, NotAllowed, NotFound, Worded
from portal.domain.groups.groups import named_like
from portal.domain.permissions import Action
from portal.domain.runners import runner_access, runner_changes, runner_creation, runner_handover
from portal.domain.scopes import Scope, of_project, of_runner
from portal.models import Project, Route, Runner, RunnerProject, RunnerType

PAGE_SIZE = 20
LOCKED = "Runner is locked"  # in GitLab's words


@dataclass(frozen=True, slots=True)
class Assigned:
    """One further project of a runner, and whether the actor may take the runner away from it."""

    assignment: RunnerProject
    scope: Scope
    removable: bool


@dataclass(frozen=True, slots=True)
class Candidates:
    """Projects that a runner can be assigned to; `after` is the path to go on behind, None on the last page."""

    projects: Sequence[Project]
    after: str | None


def assigned(session: Session, actor: Actor, runner: Runner) -> list[Assigned]:
    """The further projects of the runner that the actor may see, in the order in which they were assigned."""
    query = select(RunnerProject).join(RunnerProject.project).where(RunnerProject.runner_id == runner.id)
    rows = session.scalars(query.options(contains_eager(RunnerProject.project)).order_by(RunnerProject.id))
    shown = [(row, of_project(row.project)) for row in rows]
    permissions.remember_roles(session, actor, [of_runner(runner), *(scope for _, scope in shown)])
    return [
        Assigned(row, scope, _may_unassign(session, actor, runner, scope))
        for row, scope in shown
        if permissions.may(session, actor, Action.SEE, scope)
    ]


def serving(actor: Actor, runner: Runner) -> Select[Project]:
    """The projects that the runner serves and the actor may see: its owner, then in the order of assignment."""
    query = select(Project).outerjoin(
        RunnerProject, (RunnerProject.project_id == Project.id) & (RunnerProject.runner_id == runner.id)
    )
    theirs = or_(Project.id == runner.project_id, RunnerProject.id.is_not(None))
    seen = permissions.where_allowed(actor, Action.SEE)[1]
    return query.where(theirs, seen).order_by(RunnerProject.id.nulls_first())


def candidates(session: Session, actor: Actor, runner: Runner, words: str = "", after: str = "") -> Candidates:
    """The projects that the actor may assign the runner to, by path, a page at a time.

    Those that have the runner already are left out. `words` narrows them to paths that contain them.
    """
    query = _writable_projects(actor).where(
        Project.id != runner.project_id,
        ~exists().where(RunnerProject.project_id == Project.id, RunnerProject.runner_id == runner.id),
    )
    if words.strip():
        query = query.where(named_like(words.strip()))
    if after:
        query = query.where(func.lower(Route.path) > after.lower())
    found = list(session.scalars(query.limit(PAGE_SIZE + 1)))
    shown = found[:PAGE_SIZE]
    return Candidates(shown, shown[-1].full_path if len(found) > PAGE_SIZE else None)


def assign(session: Session, actor: Actor, runner: Runner, project: Scope) -> RunnerProject:
    """Let the runner take jobs of one more project (reference/rest.md section 2.5).

    Raises NotFound, NotAllowed, LimitReached, or Invalid for a runner or project that it makes no sense for.
    """
    _require_shareable(session, actor, runner)
    runner_creation.require_may_create(session, actor, project)
    if project.project is None:
        raise Invalid({"project": ["A runner is assigned to projects only."]})
    runner_handover.keep_out(session)
    runner_creation.require_room(session, project)
    _hold(session, runner, project.project)
    _require_unlocked(actor, runner)  # somebody may have locked it while this waited
    if project.project.id == runner.project_id:
        raise Invalid({"project": [f"{project.full_path} owns this runner already."]})
    made = RunnerProject(runner_id=runner.id, project=project.project)
    try:
        with session.begin_nested():
            session.add(made)
            session.flush()
    except IntegrityError:
        raise Invalid({"project": [f"{project.full_path} has this runner already."]}) from None
    told = {"project": (None, project.full_path), "owner": (None, of_runner(runner).full_path)}
    audit.record(session, actor, "runner_assigned", runner, project, told)
    runner_changes.announce(session, runner.id)
    return made


def unassign(session: Session, actor: Actor, runner: Runner, project: Scope) -> None:
    """Take the runner away from a project that it was assigned to. Raises NotFound, NotAllowed or Invalid."""
    if project.project is not None and project.project.id == runner.project_id:
        raise NotAllowed(
            Worded(
                "You cannot unassign a runner from the project that owns it. Delete the runner instead.",
                gitlab="You cannot unassign a runner from the owner project. Delete the runner instead",
                whole=True,
            )
        )
    found = session.scalar(
        select(RunnerProject)
        .where(RunnerProject.runner_id == runner.id, RunnerProject.project_id == project.id)
        .with_for_update()
    )
    if found is None:
        permissions.require(session, actor, Action.SEE, project)
        raise NotFound("This runner is not assigned to that project.")
    _require_unlocked(actor, runner)
    if not _may_unassign(session, actor, runner, project):
        permissions.require(session, actor, Action.WRITE_RUNNERS, project)
    session.delete(found)
    session.flush()
    told = {"project": (project.full_path, None), "owner": (of_runner(runner).full_path, None)}
    audit.record(session, actor, "runner_unassigned", runner, project, told)
    runner_changes.announce(session, runner.id)


def set_projects(session: Session, actor: Actor, runner: Runner, projects: Sequence[Scope]) -> bool:
    """Let the runner serve exactly these projects, besides the one that owns it. Returns whether that changed it.

    What it is assigned to and not named is unassigned. The caller undoes all of it when one is refused. Raises
    NotFound, NotAllowed, LimitReached or Invalid.
    """
    runner_handover.keep_out(session)  # also before what is unassigned, for which who hands over waits
    present = {each.id: each for each in runner_access.further_projects(session, runner)}
    wanted = {scope.id: scope for scope in projects if scope.id not in (None, runner.project_id)}
    for gone in [each for number, each in present.items() if number not in wanted]:
        unassign(session, actor, runner, of_project(gone))
    for new in [scope for number, scope in wanted.items() if number not in present]:
        assign(session, actor, runner, new)
    return set(wanted) != set(present)


def may_share(session: Session, actor: Actor, runner: Runner, *, further: Sequence[Project] | None = None) -> bool:
    """Whether the actor may assign the runner to further projects at all.

    Who asks about many runners gives each one's `further` projects; they are looked up otherwise.
    """
    try:
        _require_shareable(session, actor, runner, further=further)
    except (NotFound, NotAllowed, Invalid):
        return False
    return True


def _require_shareable(
    session: Session, actor: Actor, runner: Runner, *, further: Sequence[Project] | None = None
) -> None:
    runner_access.require(session, actor, Action.WRITE_RUNNERS, runner, further=further)
    if runner.runner_type != RunnerType.PROJECT:
        whose = "the instance's" if runner.runner_type == RunnerType.INSTANCE else "a group's"
        sentence = f"This is {whose} runner: only a project's is assigned to further projects."
        raise Invalid({"project": [sentence]})
    _require_unlocked(actor, runner)


def _require_unlocked(actor: Actor, runner: Runner) -> None:
    if runner.locked and not _above_rules(actor):
        raise NotAllowed(
            Worded(
                "This runner is locked to its project. Unlock it on its edit page first, or ask an administrator.",
                gitlab=LOCKED,
            )
        )


def _may_unassign(session: Session, actor: Actor, runner: Runner, project: Scope) -> bool:
    """Those who look after the project's runners, and those who look after the runner for its owner."""
    if runner.locked and not _above_rules(actor):
        return False
    places = (project, of_runner(runner))
    return any(permissions.may(session, actor, Action.WRITE_RUNNERS, place) for place in places)


def _above_rules(actor: Actor) -> bool:
    return actor.is_admin or actor.kind == "system"


def _writable_projects(actor: Actor) -> Select[Project]:
    """The projects whose runners the actor looks after, by path."""
    query = (
        select(Project).join(Project.route).options(contains_eager(Project.route)).order_by(func.lower(Route.path))
    )
    return query.where(permissions.where_allowed(actor, Action.WRITE_RUNNERS)[1])


def _hold(session: Session, runner: Runner, project: Project) -> None:
    """Keep project and runner as they are until the end: neither is deleted, nor locked, meanwhile.

    Owners before runners, as everybody locks. Raises NotFound for one that is gone.
    """
    held = session.scalar(select(Project.id).where(Project.id == project.id).with_for_update(read=True, of=Project))
    its = select(Runner).where(Runner.id == runner.id).with_for_update(read=True, of=Runner)
    found = session.scalar(its.execution_options(populate_existing=True))
    if held is None or found is None:
        raise NotFound("The runner or the project was deleted meanwhile.")
