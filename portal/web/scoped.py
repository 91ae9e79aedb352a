"""Blueprints that live in a scope: the pages below its address, and the guards that go with them."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, g
from werkzeug.routing import IntegerConverter, Map, PathConverter

from portal.domain.permissions import Action
from portal.domain.scopes import ScopeKind
from portal.web import guards

_PREFIX = {
    ScopeKind.INSTANCE: "/admin/{room}",
    ScopeKind.GROUP: "/groups/<path:group_path>/-/{room}",
    ScopeKind.PROJECT: "/<project:project_path>/-/{room}",
}


class ProjectPath(PathConverter):
    """A project's path. No address below /api is one: an unknown API path is 404, not a page to sign in for."""

    regex = "(?!api(?:/|$))[^/].*?"


class StoredNumber(IntegerConverter):
    """A number that the database can hold; a larger one is nobody's."""

    def __init__(self, url_map: Map) -> None:
        super().__init__(url_map, max=2**63 - 1)


def room(kind: ScopeKind, name: str, action: Action) -> Blueprint:
    """A blueprint for one room of a scope, such as its runners; guarded by sign-in, sight and `action`."""
    blueprint = Blueprint(f"{kind}_{name}", __name__, url_prefix=address(kind, name))
    guard(blueprint, kind, action)
    return blueprint


def address(kind: ScopeKind, name: str) -> str:
    """Where the room of this name lies in a scope of this kind."""
    return _PREFIX[kind].format(room=name.replace("_", "-"))


def guard(blueprint: Blueprint, kind: ScopeKind, action: Action) -> None:
    """Give a blueprint the scope that its URLs name, and the guards that go with it."""

    @blueprint.url_value_preprocessor
    def take_path(_endpoint: str | None, values: dict[str, Any] | None) -> None:
        path = (values or {}).pop(f"{kind}_path", "") if kind is not ScopeKind.INSTANCE else ""
        g.scope_place = (kind, path)

    for each in (guards.signed_in, guards.in_scope, guards.may(action)):
        blueprint.before_request(each)
