"""Addresses of pages in scopes: the one place that knows how scopes look in URLs, for pages and for messages."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from flask import url_for

from portal.domain.scopes import Scope, ScopeKind
from portal.requests import portal_url, settings


def url_in(scope: Scope, place: str, /, **values: Any) -> str:
    """The address of a page in a scope: `url_in(scope, "runners.show", runner_id=7)`."""
    return url_at(scope.kind, scope.full_path, place, **values)


def url_at(kind: ScopeKind, path: str, place: str, /, **values: Any) -> str:
    """The same for a scope that is known by its kind and full path only."""
    if kind is not ScopeKind.INSTANCE:
        values[f"{kind}_path"] = path
    return url_for(f"{kind}_{place}", **values)


def scope_url(scope: Scope) -> str:
    """The front page of a scope."""
    if scope.kind is ScopeKind.INSTANCE:
        return url_for("instance_runners.index")
    return url_in(scope, "front.show")


def absolute(address: str) -> str:
    """A page's address as people and machines elsewhere reach it, below PORTAL_URL."""
    return portal_url(address.removeprefix(settings().path_prefix))


def local(target: str | None) -> str | None:
    """The address, if it is a path of this portal (without its prefix); None for one that leads elsewhere."""
    if not target or not target.startswith("/") or target.startswith("//"):
        return None
    if "\\" in target or any(ord(each) < 32 for each in target):  # browsers read these as a slash, or skip them
        return None
    parts = urlsplit(target)
    return None if parts.scheme or parts.netloc else target
