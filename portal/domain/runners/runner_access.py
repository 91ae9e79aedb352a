"""Who may do what with one runner: by its owner, and by the further projects that it is assigned to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import exists, or_, select
from sqlalchemy.orm import Session

from portal.domain import permissions
from portal.domain.actors import Actor
from portal.domain.errors import NOTHING_HERE, NotAllowed, NotFound, Worded
from portal.domain.permissions import Action
from portal.domain.scopes import Scope, of_project, of_runner
from portal.models import Group, Membership, Project, Role, Runner, RunnerProject, RunnerType, User

# What a maintainer of any project that the runner is assigned to may do with it (reference/rest.md section 3).
_SHARED = (Action.READ_RUNNERS, Action.WRITE_RUNNERS, Action.CHECK_RUNNERS)
SHARED = "Runner associated with more than one project"  # in GitLab's words


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


def among(session: Session, actor: Actor, action: Action, runners: Sequence[Runner]) -> set[int]:
    """The ids of those runners with which the actor may do this; two queries, however many they are."""
    further = {} if actor.is_admin else further_projects_of(session, runners)
    places = [of_runner(runner) for runner in runners]
    places += [of_project(project) for projects in further.values() for project in projects]
    permissions.remember_roles(session, actor, places)
    return {each.id for each in runners if may(session, actor, action, each, further=further.get(each.id, ()))}


def may_read(session: Session, actor: Actor, runner: Runner, *, further: Sequence[Project] | None = None) -> bool:
    """Whether the actor may read the runner's details (reference/rest.md section 3).

    Instance runners everybody may; a group's, also maintainers of anything below that can use it.
    """
    if actor.user is None:
        return actor.kind == "system"
    if runner.runner_type == RunnerType.INSTANCE:
        return True
    if may(session, actor, Action.READ_RUNNERS, runner, further=further):
        return True
    return runner.group is not None and _maintains_below(session, actor.user, runner.group)


def _maintains_below(session: Session, user: User, group: Group) -> bool:
    """Whether somebody is a maintainer of the group, or of a group or project below it."""
    below = select(Group.id).where(Group.traversal_ids.contains([group.id]))
    projects = select(Project.id).where(Project.group_id.in_(below))
    places = or_(Membership.group_id.in_(below), Membership.project_id.in_(projects))
    theirs = exists().where(Membership.user_id == user.id, Membership.access_level >= Role.MAINTAINER, places)
    return bool(session.scalar(select(theirs)))


def readable_among(session: Session, actor: Actor, runners: Sequence[Runner]) -> set[int]:
    """The ids of those runners that the actor may read, the same as `may_read`; three queries at most."""
    if actor.user is None:
        return {each.id for each in runners} if actor.kind == "system" else set()
    found = {each.id for each in runners if each.runner_type == RunnerType.INSTANCE}
    found |= among(session, actor, Action.READ_RUNNERS, [each for each in runners if each.id not in found])
    others = [each for each in runners if each.id not in found and each.group_id is not None]
    if others:
        above = _above_what_is_maintained(session, actor.user)
        found |= {each.id for each in others if each.group_id in above}
    return found


def _above_what_is_maintained(session: Session, user: User) -> set[int]:
    """The ids of the groups in which, or somewhere below which, somebody is a maintainer."""
    mine = (Membership.user_id == user.id) & (Membership.access_level >= Role.MAINTAINER)
    groups = select(Membership.group_id).where(mine, Membership.group_id.is_not(None))
    projects = select(Membership.project_id).where(mine, Membership.project_id.is_not(None))
    of_projects = select(Project.group_id).where(Project.id.in_(projects))
    query = select(Group.traversal_ids).where(or_(Group.id.in_(groups), Group.id.in_(of_projects)))
    return {group_id for path in session.scalars(query) for group_id in path}


def place_of(session: Session, actor: Actor, runner: Runner) -> Scope:
    """Where the actor finds the runner's page: the scope that owns it, or a project it serves. Raises NotFound."""
    for place in [of_runner(runner), *map(of_project, further_projects(session, runner))]:
        if permissions.may(session, actor, Action.READ_RUNNERS, place):
            return place
    raise NotFound(NOTHING_HERE)


def readable(session: Session, actor: Actor, runner_id: int) -> Runner:
    """The runner with this number, if the actor may read it. Raises NotFound."""
    found = session.scalar(select(Runner).where(Runner.id == runner_id))
    if found is None or not may_read(session, actor, found):
        raise NotFound(NOTHING_HERE)
    return found


def writable(session: Session, actor: Actor, runner_id: int) -> Runner:
    """The runner with this number, if the actor may change it. Raises NotFound, or NotAllowed for who may read it."""
    return allowing(session, actor, Action.WRITE_RUNNERS, runner_id)


def allowing(session: Session, actor: Actor, action: Action, runner_id: int) -> Runner:
    """The runner with this number, if the actor may do this with it.

    Raises NotFound, or NotAllowed for who may read it.
    """
    found = readable(session, actor, runner_id)
    if not may(session, actor, action, found):
        raise NotAllowed(
            f"This runner belongs to {_owner(session, actor, found)}: those who look after its runners may do that.",
            action=action.value,
            where=of_runner(found),
        )
    return found


def _owner(session: Session, actor: Actor, runner: Runner) -> str:
    """What to call the owner to somebody who may not see it."""
    owner = of_runner(runner)
    return owner.title if permissions.may(session, actor, Action.SEE, owner) else "somebody else"


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
                Worded(
                    "This runner belongs to another project: only those who look after its runners may delete it. "
                    "Unassign it from your project instead.",
                    gitlab=SHARED,
                )
            ) from None
        raise
    if actor.is_admin or actor.user is None:
        return
    if others := further_projects(session, runner) if further is None else further:
        raise NotAllowed(
            Worded(
                f"This runner also serves {_listed(session, actor, others)}. Unassign it from there first, or ask an "
                "administrator to delete it.",
                gitlab=SHARED,
            )
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


def _listed(session: Session, actor: Actor, projects: Sequence[Project], shown: int = 3) -> str:
    """The first of these projects by name, as far as the actor may see them, and how many more there are."""
    places = [of_project(project) for project in projects]
    permissions.remember_roles(session, actor, places)
    seen = [each.full_path for each in places if permissions.may(session, actor, Action.SEE, each)][:shown]
    if not seen:
        return "projects that you may not see"
    more = f" and {len(places) - len(seen)} more" if len(places) > len(seen) else ""
    return ", ".join(seen) + more
