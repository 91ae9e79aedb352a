"""The things of one page load what they have in common together: with one query, when the first of them is asked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from portal.api.graphql.context import Context
from portal.domain import permissions
from portal.domain.errors import NotAllowed, NotFound
from portal.domain.permissions import Action
from portal.domain.runners import runner_access, runner_projects
from portal.domain.scopes import Scope, of_group, of_project, of_runner
from portal.models import Project, Runner, RunnerType

T = TypeVar("T")
V = TypeVar("V")


class Siblings(Generic[T]):
    """The things that were loaded together."""

    def __init__(self, context: Context, things: Sequence[T]) -> None:
        self.context, self.things = context, list(things)
        self._found: dict[Hashable, Any] = {}

    def once(self, key: Hashable, load: Callable[[], V]) -> V:
        """What `load` gives for all of them; asked again, the same."""
        if key not in self._found:
            self._found[key] = load()
        found: V = self._found[key]
        return found


class Runners(Siblings[Runner]):
    """The runners of one page."""

    @cached_property
    def ids(self) -> list[int]:
        return [runner.id for runner in self.things]

    @cached_property
    def further(self) -> dict[int, list[Project]]:
        """The projects that each serves besides its owner, by its id; the asker's roles in all are known then too."""
        session, actor = self.context.session, self.context.actor
        found = runner_access.further_projects_of(session, self.things)
        places = [of_runner(runner) for runner in self.things]
        places += [of_project(each) for projects in found.values() for each in projects]
        permissions.remember_roles(session, actor, places)
        return found

    @cached_property
    def groups(self) -> dict[int, ScopeNode]:
        """The groups that own some of them, as far as they may be seen, by the id of the group."""
        return shown(self.context, [of_group(each.group) for each in self.things if each.group is not None])

    @cached_property
    def projects(self) -> dict[int, ScopeNode]:
        """The projects that they serve, as far as they may be seen, by the id of the project."""
        owners = [each.project for each in self.things if each.project is not None]
        others = [each for projects in self.further.values() for each in projects]
        return shown(self.context, [of_project(each) for each in (*owners, *others)])


@dataclass(frozen=True, slots=True)
class RunnerNode:
    """One runner of a page. `token` is its token in clear, in the answer to the mutation that made it."""

    runner: Runner
    page: Runners
    token: str | None = None

    def __repr__(self) -> str:
        return f"RunnerNode({self.runner.id})"

    @property
    def context(self) -> Context:
        return self.page.context

    def may_write(self) -> bool:
        """Whether the asker may change it."""
        session, actor = self.context.session, self.context.actor
        return runner_access.may(session, actor, Action.WRITE_RUNNERS, self.runner, further=self._further())

    def may_know_addresses(self) -> bool:
        """Whether the asker may know where its machines are: may see the runners of its owner, as on the pages."""
        session, actor = self.context.session, self.context.actor
        return runner_access.may(session, actor, Action.READ_RUNNERS, self.runner, further=self._further())

    def may_delete(self) -> bool:
        """Whether the asker may delete it."""
        try:
            runner_access.require_delete(
                self.context.session, self.context.actor, self.runner, further=self._further()
            )
        except (NotAllowed, NotFound):
            return False
        return True

    def may_assign(self) -> bool:
        """Whether the asker may assign it to further projects."""
        if self.runner.runner_type != RunnerType.PROJECT:
            return False
        return runner_projects.may_share(
            self.context.session, self.context.actor, self.runner, further=self._further()
        )

    def _further(self) -> list[Project]:
        return self.page.further.get(self.runner.id, [])


@dataclass(frozen=True, slots=True)
class ScopeNode:
    """One group or project of a page."""

    scope: Scope
    page: Siblings[Scope]

    @property
    def owner(self) -> Any:
        """The row itself."""
        return self.scope.project or self.scope.group


def runner_nodes(context: Context, runners: Sequence[Runner]) -> list[RunnerNode]:
    """The runners as nodes of one page."""
    page = Runners(context, runners)
    return [RunnerNode(runner, page) for runner in runners]


def shown(context: Context, scopes: Sequence[Scope]) -> dict[int, ScopeNode]:
    """Those of these groups, or projects, that the asker may see, as nodes of one page, by id."""
    by_id = {scope.id: scope for scope in scopes if scope.id is not None}
    permissions.remember_roles(context.session, context.actor, by_id.values())
    seen = {
        number: scope
        for number, scope in by_id.items()
        if permissions.may(context.session, context.actor, Action.SEE, scope)
    }
    page = Siblings(context, list(seen.values()))
    return {number: ScopeNode(scope, page) for number, scope in seen.items()}
