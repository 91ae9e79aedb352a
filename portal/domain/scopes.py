"""Instance, group and project as one idea: where a runner belongs and a page stands."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.domain.errors import NOTHING_HERE, NotFound
from portal.models import Group, Project, Route, Runner, RunnerType


class ScopeKind(enum.StrEnum):
    INSTANCE = "instance"
    GROUP = "group"
    PROJECT = "project"


@dataclass(frozen=True, slots=True)
class Scope:
    """One scope. A group scope has `group`, a project scope has `project`, the instance has neither."""

    kind: ScopeKind
    group: Group | None = None
    project: Project | None = None

    @property
    def id(self) -> int | None:
        owner = self.project or self.group
        return owner.id if owner else None

    @property
    def runner_type(self) -> RunnerType:
        return RunnerType[self.kind.name]

    @property
    def title(self) -> str:
        """How a sentence names it: "the instance", "acme/platform"."""
        return self.full_path or "the instance"

    @property
    def name(self) -> str:
        owner = self.project or self.group
        return owner.name if owner else "Instance"

    @property
    def full_path(self) -> str:
        owner = self.project or self.group
        return owner.full_path if owner else ""

    @property
    def nearest_group(self) -> Group | None:
        """The group itself, or the group a project lives in."""
        return self.project.group if self.project else self.group

    @property
    def group_ids(self) -> list[int]:
        """Ids of the groups from the top down to here, this one included; empty for the instance."""
        nearest = self.nearest_group
        return list(nearest.traversal_ids) if nearest else []


INSTANCE = Scope(ScopeKind.INSTANCE)


def of_group(group: Group) -> Scope:
    return Scope(ScopeKind.GROUP, group=group)


def of_project(project: Project) -> Scope:
    return Scope(ScopeKind.PROJECT, project=project)


def of_runner(runner: Runner) -> Scope:
    """The scope that owns the runner."""
    if runner.project is not None:
        return of_project(runner.project)
    return of_group(runner.group) if runner.group is not None else INSTANCE


def is_there(session: Session, scope: Scope) -> bool:
    """Whether the scope is neither deleted nor gone, and then stays so until the transaction ends.

    Whoever makes something in a scope asks first; whoever deletes the scope waits for them.
    """
    owner = Project if scope.project is not None else Group
    held = select(owner.id).where(owner.id == scope.id).with_for_update(read=True, key_share=True, of=owner)
    return scope.kind is ScopeKind.INSTANCE or session.scalar(held) is not None


def find_group(session: Session, path: str) -> Scope:
    """The group with this full path, whatever the case. Raises NotFound."""
    group = session.scalar(select(Group).join(Group.route).where(func.lower(Route.path) == path.lower()))
    if group is None:
        raise NotFound(NOTHING_HERE)
    return of_group(group)


def find_project(session: Session, path: str) -> Scope:
    """The project with this full path, whatever the case. Raises NotFound."""
    project = session.scalar(select(Project).join(Project.route).where(func.lower(Route.path) == path.lower()))
    if project is None:
        raise NotFound(NOTHING_HERE)
    return of_project(project)


def ancestors(session: Session, scope: Scope) -> list[Group]:
    """The groups above this scope, the top one first; without the scope itself."""
    ids = [each for each in scope.group_ids if scope.group is None or each != scope.group.id]
    found = {g.id: g for g in session.scalars(select(Group).where(Group.id.in_(ids)))} if ids else {}
    return [found[each] for each in ids if each in found]
