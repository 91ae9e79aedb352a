"""Who may do what with one runner: by its owner, and by the further projects that it is assigned to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain import permissions
from portal.domain.actors import Actor
from portal.domain.errors import NotAllowed, NotFound
from portal.domain.permissions import Action
from portal.domain.scopes import of_project, of_runner
from portal.models import Project, Runner, RunnerProject, RunnerType

# What a maintainer of any project that the runner is assigned to may do with it (reference/rest.md section 3).
_SHARED = (Action.READ_RUNNERS, Action.WRITE_RUNNERS)


def may(
    session: Session, actor: Actor, action: Action, runner: Runner, *, further: Sequence[Project] | None = None
) -> bool:
    """Whether the actor may do this with the runner: in the scope that owns it, or in a project it is assigned to.

    Who asks about many runners gives each one's `further` projects; here and below they are looked up otherwise.
    """
    if permissions.may(session, actor, action, of_runner(runner)):
        return True
    if action not in _SHARED:
        return False
    others = further_projects(session, runner) if further is None else further
    return any(permissions.may(session, actor, action, of_project(project)) for project in others)


def require(
    session: Session, actor: Actor, action: Action, runner: Runner, *, further: Sequence[Project] | None = None
) -> None:
    """Refuse what the actor may not do with the runner, in the words of the scope that owns it.

    Raises NotFound or NotAllowed.
    """
    if not may(session, actor, action, runner, further=further):
        permissions.require(session, actor, action, of_runner(runner))


def require_delete(
    session: Session, actor: Actor, runner: Runner, *, further: Sequence[Project] | None = None
) -> None:
    """Refuse to delete a runner that is not the actor's, or that serves further projects too.

    A runner of several projects is deleted by administrators only (reference/rest.md section 2.5). Raises NotFound or
    NotAllowed.
    """
    try:
        permissions.require(session, actor, Action.WRITE_RUNNERS, of_runner(runner))
    except (NotFound, NotAllowed):
        if may(session, actor, Action.WRITE_RUNNERS, runner, further=further):
            raise NotAllowed(
                "This runner belongs to another project: only those who look after its runners may delete it. "
                "Unassign it from your project instead."
            ) from None
        raise
    if actor.is_admin or actor.kind != "user":
        return
    if others := further_projects(session, runner) if further is None else further:
        raise NotAllowed(
            f"This runner also serves {_listed(others)}. Unassign it from there first, or ask an administrator to "
            "delete it."
        )


def further_projects(session: Session, runner: Runner) -> list[Project]:
    """The projects that the runner is assigned to, in the order in which that was done; without its owner."""
    if runner.runner_type != RunnerType.PROJECT:
        return []
    query = select(Project).join(RunnerProject, RunnerProject.project_id == Project.id)
    return list(session.scalars(query.where(RunnerProject.runner_id == runner.id).order_by(RunnerProject.id)))


def further_projects_of(session: Session, runners: Iterable[Runner]) -> dict[int, list[Project]]:
    """The same for many runners with one query, by the id of the runner; those without are left out."""
    ids = [runner.id for runner in runners if runner.runner_type == RunnerType.PROJECT]
    if not ids:
        return {}
    query = select(RunnerProject.runner_id, Project).join(Project, RunnerProject.project_id == Project.id)
    query = query.where(RunnerProject.runner_id.in_(ids)).order_by(RunnerProject.id)
    found: dict[int, list[Project]] = {}
    for runner_id, project in session.execute(query):
        found.setdefault(runner_id, []).append(project)
    return found


def _listed(projects: Iterable[Project], shown: int = 3) -> str:
    paths = [project.full_path for project in projects]
    more = f" and {len(paths) - shown} more" if len(paths) > shown else ""
    return ", ".join(paths[:shown]) + more
