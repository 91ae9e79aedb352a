"""Where reading begins: the fields of Query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ariadne import QueryType
from sqlalchemy.orm import Session

from portal.api.for_users.metadata import GITLAB, REVISION
from portal.api.graphql import context, runner_lists
from portal.api.graphql.context import Info
from portal.api.graphql.siblings import RunnerNode, ScopeNode, runner_nodes, shown
from portal.domain import scopes
from portal.domain.errors import NotFound
from portal.domain.runners import runner_access
from portal.domain.scopes import Scope
from portal.models import User

query = QueryType()
query.set_field("runners", runner_lists.everywhere)


@query.field("runner")
def _runner(_root: None, info: Info, id: int) -> RunnerNode | None:
    asked = context.of(info)
    try:
        found = runner_access.readable(asked.session, asked.actor, id)
    except NotFound:
        return None
    return runner_nodes(asked, [found])[0]


def _by_path(find: Callable[[Session, str], Scope]) -> Callable[..., ScopeNode | None]:
    def found(_root: None, info: Info, full_path: str) -> ScopeNode | None:
        asked = context.of(info)
        try:
            scope = find(asked.session, full_path)
        except NotFound:
            return None
        return next(iter(shown(asked, [scope]).values()), None)

    return found


query.set_field("group", _by_path(scopes.find_group))
query.set_field("project", _by_path(scopes.find_project))


@query.field("currentUser")
def _current_user(_root: None, info: Info) -> User | None:
    return context.of(info).actor.user


@query.field("queryComplexity")
def _query_complexity(_root: None, info: Info) -> dict[str, int]:
    asked = context.of(info)
    return {"score": asked.score, "limit": asked.limit}


@query.field("metadata")
def _metadata(_root: None, _info: Info) -> dict[str, Any]:
    return {"version": GITLAB, "revision": REVISION, "enterprise": False}
