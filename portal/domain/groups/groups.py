"""Groups and projects: create, rename, delete, and who sees which."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Select, func, or_, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Session

from portal.domain import audit
from portal.domain.actors import Actor
from portal.domain.deletions import deletions
from portal.domain.errors import NOTHING_HERE, Invalid, NotFound
from portal.domain.jobs import pending_jobs
from portal.domain.names import name_problems, path_problems
from portal.domain.permissions import Action, require
from portal.domain.runners import runner_changes, runner_handover
from portal.domain.scopes import Scope, is_there, of_group, of_project
from portal.models import Deletion, Group, Membership, Project, Role, Route, Runner, RunnerManager

DEEPEST = 20  # levels, as in GitLab
MADE_ROOM = "~deleted-"  # stands, with a number, in the path of what was deleted; nobody can choose such a path
LONGEST_PATH = 1024  # characters of a full path; indexes and the trail hold no more


@dataclass(frozen=True, slots=True)
class Naming:
    """What a person chooses when creating or renaming a group or project."""

    name: str
    path: str
    description: str = ""

    def problems(self, *, at_the_top: bool) -> dict[str, list[str]]:
        """What is wrong, by field; empty when nothing is."""
        found = {
            "name": name_problems(self.name),
            "path": path_problems(self.path, at_the_top=at_the_top),
            "description": [] if len(self.description) <= 1024 else ["It is too long: at most 1024 characters."],
        }
        return {field: sentences for field, sentences in found.items() if sentences}


def create_group(session: Session, actor: Actor, parent: Scope, naming: Naming) -> Group:
    """A new group in `parent` (the instance or a group). Who creates a top-level group owns it.

    Raises NotFound, NotAllowed or Invalid.
    """
    require(session, actor, Action.CREATE_GROUP, parent)
    problems = naming.problems(at_the_top=parent.group is None)
    if len(parent.group_ids) >= DEEPEST:
        problems.setdefault("path", []).append(f"Groups nest to {DEEPEST} levels at most.")
    if problems := problems or too_long(joined(parent, naming.path)):
        raise Invalid(problems)
    hold_still(session, parent)
    group = Group(
        parent_id=parent.id,
        name=naming.name,
        path=naming.path,
        description=naming.description,
        traversal_ids=[],
    )
    group.route = Route(path=joined(parent, naming.path))
    _add(session, group)
    group.traversal_ids = [*parent.group_ids, group.id]
    if parent.group is None and actor.user is not None:
        session.add(Membership(user=actor.user, group_id=group.id, access_level=Role.OWNER))
    audit.record(session, actor, "group_created", group, of_group(group), {"path": (None, group.full_path)})
    return group


def create_project(session: Session, actor: Actor, parent: Scope, naming: Naming) -> Project:
    """A new project in a group. Raises NotFound, NotAllowed or Invalid."""
    require(session, actor, Action.CREATE_PROJECT, parent)
    problems = naming.problems(at_the_top=False) or too_long(joined(parent, naming.path))
    if problems or parent.group is None:
        raise Invalid(problems or {"path": ["Projects live in groups: choose a group first."]})
    hold_still(session, parent)
    project = Project(group=parent.group, name=naming.name, path=naming.path, description=naming.description)
    project.route = Route(path=joined(parent, naming.path))
    _add(session, project)
    audit.record(session, actor, "project_created", project, of_project(project), {"path": (None, project.full_path)})
    return project


def rename(session: Session, actor: Actor, scope: Scope, naming: Naming) -> None:
    """Change name, path and description; the paths of everything below move along.

    Raises NotFound, NotAllowed or Invalid.
    """
    _rename(session, actor, scope, naming, _held_to_rename(session, actor, scope))


def amend(session: Session, actor: Actor, scope: Scope, said: Mapping[str, str]) -> None:
    """The same for some of the fields of Naming; the others stay as they are at this moment."""
    owner = _held_to_rename(session, actor, scope)
    naming = Naming(owner.name, owner.path, owner.description)
    _rename(session, actor, scope, replace(naming, **said), owner)


def _held_to_rename(session: Session, actor: Actor, scope: Scope) -> Group | Project:
    """The group or project, read afresh, which nobody else renames until the transaction ends."""
    require(session, actor, Action.RENAME, scope)
    owner = scope.project or scope.group
    if owner is None:
        raise Invalid({"name": ["The instance has no name to change."]})
    hold_still(session, scope, exclusive=True)
    session.refresh(owner, ["name", "path", "description"])
    return owner


def _rename(session: Session, actor: Actor, scope: Scope, naming: Naming, owner: Group | Project) -> None:
    parent, _, _ = owner.full_path.rpartition("/")
    if problems := naming.problems(at_the_top=not parent):
        raise Invalid(problems)
    old = {"name": owner.name, "path": owner.full_path, "description": owner.description}
    new_path = f"{parent}/{naming.path}" if parent else naming.path
    if problems := too_long(new_path, deepest_below(session, owner.full_path)):
        raise Invalid(problems)
    try:
        with session.begin_nested():
            move_paths(session, owner.full_path, new_path)
    except IntegrityError:
        raise taken(new_path) from None
    owner.name, owner.path, owner.description = naming.name, naming.path, naming.description
    session.flush()
    session.refresh(owner.route)
    new = {"name": owner.name, "path": owner.full_path, "description": owner.description}
    if changed := audit.differences(old, new):
        audit.record(session, actor, f"{scope.kind}_renamed", owner, scope, changed)


@dataclass(frozen=True, slots=True)
class Contents:
    """How much lies below a group or project, itself not counted."""

    groups: int
    projects: int
    runners: int
    managers: int


def contents(session: Session, scope: Scope) -> Contents:
    """What would go with the scope if it was deleted."""
    groups, projects = below(scope)
    runners = owned_below(scope)
    return Contents(
        groups=_count(session, select(Group.id).where(groups)) - (1 if scope.group else 0),
        projects=_count(session, select(Project.id).where(projects)) - (1 if scope.project else 0),
        runners=_count(session, select(Runner.id).where(runners)),
        managers=_count(session, select(RunnerManager.id).join(Runner).where(runners)),
    )


def delete(session: Session, actor: Actor, scope: Scope) -> Deletion:
    """Delete a group or project with everything below, its runners included, so that it can be restored as it was.

    Its path is free at once. What was deleted before it stays by the act that deleted it. Jobs that wait are found by
    nobody until then; those that run are stopped, since their machines are refused. Raises NotFound or NotAllowed.
    """
    require(session, actor, Action.DELETE, scope)
    owner = scope.project or scope.group
    runner_handover.begin(session)
    if owner is None or not hold_all(session, scope):
        raise NotFound(NOTHING_HERE)
    runner_handover.hand_over(session, actor, session.scalars(select(Project).where(below(scope)[1])))
    went, path = contents(session, scope), owner.full_path
    lost = {name: (getattr(went, name), 0) for name in ("groups", "projects", "runners", "managers")}
    audit.record(session, actor, f"{scope.kind}_deleted", owner, scope, lost)
    runner_changes.announce_everything(session)
    deletion = deletions.begin(session, actor, scope.kind.value, owner.name, path)
    groups, projects = below(scope)
    pending_jobs.park(session, session.scalars(select(Project.id).where(projects)).all())
    for kind, condition in ((Runner, owned_below(scope)), (Project, projects), (Group, groups)):
        mark = update(kind).where(condition).values(deletion_id=deletion.id)
        session.execute(mark.execution_options(synchronize_session=False))
    move_paths(session, path, f"{path}{MADE_ROOM}{deletion.id}")
    session.expire_all()
    return deletion


def hold_all(session: Session, scope: Scope) -> bool:
    """Lock what is going to be deleted, as everybody else does: owners before runners, the lower id first.

    Returns whether the scope itself is there still.
    """
    groups, projects = below(scope)
    held = session.scalars(select(Group.id).where(groups).order_by(Group.id).with_for_update()).all()
    held_too = session.scalars(select(Project.id).where(projects).order_by(Project.id).with_for_update()).all()
    session.execute(select(Runner.id).where(owned_below(scope)).order_by(Runner.id).with_for_update())
    return scope.id in (held if scope.project is None else held_too)


def below(scope: Scope) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Conditions for the groups and the projects of a scope, itself and everything below included."""
    if scope.project is not None:
        return Group.id.is_(None), Project.id == scope.project.id
    if scope.group is None:
        return Group.id.is_not(None), Project.id.is_not(None)
    groups = Group.traversal_ids.contains([scope.group.id])
    return groups, Project.group_id.in_(select(Group.id).where(groups))


def owned_below(scope: Scope) -> ColumnElement[bool]:
    """Condition for the runners that belong to the scope or to anything below it."""
    if scope.project is not None:
        return Runner.project_id == scope.project.id
    if scope.group is None:
        return Runner.id.is_not(None)
    return Runner.group_ids.contains([scope.group.id])


def visible_groups(actor: Actor) -> Select[Group]:
    """The groups a person may see, by path."""
    query = select(Group).join(Group.route).order_by(func.lower(Route.path))
    if actor.is_admin:
        return query
    mine = _memberships(actor, Membership.group_id)
    return query.where(Group.traversal_ids.overlap(func.array(mine.scalar_subquery())))


def visible_projects(actor: Actor) -> Select[Project]:
    """The projects a person may see, by path."""
    query = select(Project).join(Project.route).order_by(func.lower(Route.path))
    if actor.is_admin:
        return query
    mine = _memberships(actor, Membership.group_id)
    theirs = select(Group.id).where(Group.traversal_ids.overlap(func.array(mine.scalar_subquery())))
    direct = _memberships(actor, Membership.project_id)
    return query.where(or_(Project.group_id.in_(theirs), Project.id.in_(direct)))


def before_deletion(path: str) -> str:
    """The path as it was before something on it was deleted."""
    return re.sub(f"{MADE_ROOM}[0-9]+", "", path)


def named_like(words: str) -> ColumnElement[bool]:
    """Condition on the route: its path contains these words, whatever the case."""
    return func.strpos(func.lower(Route.path), words.lower()) > 0


def hold_still(session: Session, scope: Scope, *, exclusive: bool = False) -> None:
    """Keep the paths above as they are until the transaction ends; exclusively also this one, and what it is called.

    Without it a child could be created with the old path while its group is being renamed, or in one that is being
    deleted. Raises NotFound when it is.
    """
    if not scope.group_ids:
        return
    mine = scope.group.id if scope.group is not None and exclusive else 0
    above = select(Group.id).where(Group.id.in_(scope.group_ids), Group.id != mine).order_by(Group.id)
    held = set(session.scalars(above.with_for_update(read=True, of=Group)))
    held |= set(session.scalars(select(Group.id).where(Group.id == mine).with_for_update(of=Group)))
    owner = scope.project or scope.group
    if exclusive and scope.project is not None:
        session.execute(select(Project.id).where(Project.id == scope.project.id).with_for_update(of=Project))
    if held != set(scope.group_ids) or (scope.project is not None and not is_there(session, scope)):
        raise NotFound(NOTHING_HERE)
    session.refresh(owner.route)  # type: ignore[union-attr]  # one of them, above


def _memberships(actor: Actor, column: InstrumentedAttribute[int | None]) -> Select[int | None]:
    return select(column).where(Membership.user_id == (actor.user.id if actor.user else 0), column.is_not(None))


def _count(session: Session, query: Select[int]) -> int:
    return session.scalar(select(func.count()).select_from(query.subquery())) or 0


def joined(parent: Scope, path: str) -> str:
    """The full path of what is called so in `parent`."""
    return f"{parent.full_path}/{path}" if parent.full_path else path


def too_long(path: str, below: int = 0) -> dict[str, list[str]]:
    """The problem of a full path that, with the longest one `below` it, cannot be stored."""
    if len(path) + below <= LONGEST_PATH:
        return {}
    return {
        "path": [f"The full path would be too long: at most {LONGEST_PATH} characters, what lies below included."]
    }


def deepest_below(session: Session, path: str) -> int:
    """How many characters the longest path below this one adds to it; the marks of deleted ones are not counted."""
    under = func.lower(Route.path).startswith(path.lower() + "/", autoescape=True)
    bare = func.regexp_replace(Route.path, f"{MADE_ROOM}[0-9]+", "", "g")
    longest = session.scalar(select(func.max(func.length(bare))).where(under))
    own = len(before_deletion(path))
    return (longest or own) - own


def taken(path: str) -> Invalid:
    """The refusal of a path that somebody has."""
    return Invalid({"path": [f"There is a group or project at {path} already. Choose another path."]})


def _add(session: Session, owner: Group | Project) -> None:
    """Insert the owner with its route. A path that somebody has (or took this very moment) is Invalid."""
    path = owner.route.path
    try:
        with session.begin_nested():
            session.add(owner)
            session.flush()
    except IntegrityError:
        raise taken(path) from None


def move_paths(session: Session, old: str, new: str) -> None:
    """Move a path and all below it, deleted ones too.

    One statement for the whole subtree, so that no reader ever sees half of it moved.
    """
    if old == new:
        return
    session.execute(
        text(
            "UPDATE routes SET path = :new || substr(path, length(:old) + 1) "
            "WHERE lower(path) = lower(:old) OR lower(path) LIKE lower(:pattern)"
        ),
        {"old": old, "new": new, "pattern": _escaped(old) + "/%"},
    )


def _escaped(path: str) -> str:
    return path.replace("\\", r"\\").replace("_", r"\_").replace("%", r"\%")
