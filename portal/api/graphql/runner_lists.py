"""The lists of runners: of the whole portal, of a group, of a project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement

from portal.addresses import absolute, url_in
from portal.api.graphql import context, paging
from portal.api.graphql.context import Context, Info
from portal.api.graphql.paging import Connection, Edge, Part
from portal.api.graphql.problems import NotAvailable
from portal.api.graphql.siblings import RunnerNode, ScopeNode, runner_nodes
from portal.domain import permissions, scopes
from portal.domain.errors import NotFound
from portal.domain.permissions import Action
from portal.domain.runners import runner_paging, runner_queries
from portal.domain.runners.runner_paging import Order
from portal.domain.runners.runner_queries import RunnerQuery
from portal.domain.scopes import Scope
from portal.domain.slices import MOST_COUNTED


def everywhere(_root: None, info: Info, **arguments: Any) -> Connection[RunnerNode]:
    """All runners, for administrators."""
    asked = context.of(info)
    if not asked.actor.is_admin:
        raise NotAvailable
    return _connection(asked, runner_queries.everywhere(), arguments)


def of_group(node: ScopeNode, info: Info, membership: str | None = None, **arguments: Any) -> Connection[RunnerNode]:
    """The group's runners, for who may see them."""
    which = runner_queries.in_group(node.scope, membership or "descendants")
    return _of_scope(node, info, which, arguments)


def of_project(node: ScopeNode, info: Info, **arguments: Any) -> Connection[RunnerNode]:
    """The runners that can take the project's jobs, for who may see them."""
    return _of_scope(node, info, runner_queries.usable_in_project(node.scope), arguments)


def _of_scope(
    node: ScopeNode, info: Info, which: ColumnElement[bool], arguments: Mapping[str, Any]
) -> Connection[RunnerNode]:
    asked = context.of(info)

    def found() -> Connection[RunnerNode]:
        if not permissions.may(asked.session, asked.actor, Action.READ_RUNNERS, node.scope):
            raise NotAvailable
        return _connection(asked, which, arguments, node.scope)

    return asked.one_at_a_time(info, (node.scope.kind, node.scope.id), found)


def _connection(
    asked: Context, which: ColumnElement[bool], arguments: Mapping[str, Any], scope: Scope | None = None
) -> Connection[RunnerNode]:
    window = paging.window(arguments)
    order = Order(arguments.get("sort") or Order.CREATED_DESC)
    query = _query(asked, arguments)
    fitting = runner_queries.narrowed(asked.session, which, query, asked.at) if query is not None else None
    sizes = {"last" if window.backwards else "first": window.size}

    def load() -> Part[RunnerNode]:
        if fitting is None or not window.size:
            return Part((), has_next=False, has_previous=False)
        part = runner_paging.page_by_cursor(
            asked.session, fitting, order, after=window.after, before=window.before, **sizes
        )
        nodes = runner_nodes(asked, part.runners)
        edges = [
            Edge(cursor, node, *_addresses(scope, node)) for cursor, node in zip(part.cursors, nodes, strict=True)
        ]
        return Part(edges, part.has_next, part.has_previous)

    def total() -> int:
        if fitting is None:
            return 0
        found = runner_paging.count(asked.session, fitting, most=MOST_COUNTED)
        return MOST_COUNTED + 1 if found is None else found

    return Connection(asked, load, total)


def _query(asked: Context, arguments: Mapping[str, Any]) -> RunnerQuery | None:
    """What the arguments ask for; None when nothing can fit."""
    paused = arguments.get("paused")
    if paused is None and arguments.get("active"):
        paused = False
    owner = None
    if path := arguments.get("owner_full_path"):
        owner = _owner(asked, path)
        if owner is None:
            return None
    return RunnerQuery(
        status=arguments.get("status"),
        type=arguments.get("type"),
        paused=paused,
        tags=tuple(arguments.get("tag_list") or ()),
        version_prefix=arguments.get("version_prefix") or "",
        search=arguments.get("search") or "",
        creator_id=arguments.get("creator_id"),
        creator_username=arguments.get("creator_username") or "",
        owner=owner,
        owned_by_administrators=arguments.get("owner_wildcard") is not None,
    )


def _owner(asked: Context, path: str) -> Scope | None:
    """The group or project at this path."""
    for find in (scopes.find_group, scopes.find_project):
        try:
            return find(asked.session, path)
        except NotFound:
            continue
    return None


def _addresses(scope: Scope | None, node: RunnerNode) -> tuple[_Address, _Address]:
    """Where the runner is shown, and edited, in the group or project that was asked."""
    return _Address(scope, node, "show"), _Address(scope, node, "edit")


class _Address:
    """An address that is made only when it is asked for."""

    def __init__(self, scope: Scope | None, node: RunnerNode, place: str) -> None:
        self.scope, self.node, self.place = scope, node, place

    def __call__(self, _info: Info) -> str | None:
        if self.scope is None or (self.place == "edit" and not self.node.may_write()):
            return None
        return absolute(url_in(self.scope, f"runners.{self.place}", runner_id=self.node.runner.id))
