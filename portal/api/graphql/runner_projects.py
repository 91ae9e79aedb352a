"""The projects that a runner serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from portal.api.graphql import paging
from portal.api.graphql.context import Info
from portal.api.graphql.paging import Connection
from portal.api.graphql.problems import ArgumentWrong
from portal.api.graphql.siblings import RunnerNode, ScopeNode
from portal.domain import permissions
from portal.models import Project, Role, RunnerType

SORTS = {
    "id": lambda node: node.owner.id,
    "name": lambda node: (node.owner.name.lower(), node.owner.id),
    "path": lambda node: (node.owner.path.lower(), node.owner.id),
    "created": lambda node: (node.owner.created_at, node.owner.id),
}


def projects(
    node: RunnerNode,
    _info: Info,
    search: str | None = None,
    search_namespaces: bool | None = None,
    sort: str | None = None,
    topics: Sequence[str] | None = None,
    membership: bool | None = None,
    **arguments: Any,
) -> Connection[ScopeNode] | None:
    """Those that the asker may see, the owner among them; None for what is no project runner."""
    if node.runner.runner_type != RunnerType.PROJECT:
        return None
    found = [] if topics else [page for number in _ids(node) if (page := node.page.projects.get(number))]
    if membership:
        mine = _member_of(node)
        found = [each for each in found if each.owner.id in mine]
    if search:
        found = [each for each in found if search.lower() in _words(each, whole_path=bool(search_namespaces))]
    return paging.of_list(node.context, _sorted(found, sort or "id_asc"), lambda each: each.owner.id, arguments)


def owner(node: RunnerNode, _info: Info) -> ScopeNode | None:
    """The project that owns the runner, if the asker may see it."""
    return node.page.projects.get(node.runner.project_id) if node.runner.project_id is not None else None


def count(node: RunnerNode, _info: Info) -> int | None:
    """How many projects the runner serves, seen or not."""
    return len(_ids(node)) if node.runner.runner_type == RunnerType.PROJECT else None


def _ids(node: RunnerNode) -> list[int]:
    further = node.page.further.get(node.runner.id, [])
    return [number for number in (node.runner.project_id, *(each.id for each in further)) if number is not None]


def _member_of(node: RunnerNode) -> set[int]:
    """The page's projects that the asker is a member of, by themselves or by a group above."""
    session, actor = node.context.session, node.context.actor
    mine = permissions.where_member(actor, Role.GUEST)[1]
    query = select(Project.id).where(Project.id.in_(node.page.projects), mine)
    return node.page.once("member of", lambda: set(session.scalars(query)))


def _words(node: ScopeNode, *, whole_path: bool) -> str:
    path = node.scope.full_path if whole_path else node.owner.path
    return f"{node.owner.name}\n{path}".lower()


def _sorted(found: list[ScopeNode], sort: str) -> list[ScopeNode]:
    by, _, way = sort.lower().rpartition("_")
    if by not in SORTS or way not in ("asc", "desc"):
        known = ", ".join(f"{each}_asc" for each in SORTS)
        raise ArgumentWrong(f"`sort` must be one of {known}, or the same with _desc.")
    return sorted(found, key=SORTS[by], reverse=way == "desc")
