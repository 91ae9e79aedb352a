"""The trail of a scope: who did what, in words."""

from __future__ import annotations

from flask import Blueprint, render_template, request

from portal.database import db
from portal.domain import audit
from portal.domain.permissions import Action
from portal.domain.scopes import ScopeKind
from portal.models import AuditEvent
from portal.web import guards, scoped

PAGE_SIZE = 50


def show() -> str:
    """A scope's events, newest first, by pages."""
    older_than = request.args.get("before", "")
    query = audit.of_scope(guards.scope())
    if older_than.isdecimal() and len(older_than) < 19:
        query = query.where(AuditEvent.id < int(older_than))
    events = list(db.session.scalars(query.limit(PAGE_SIZE + 1)))
    more = len(events) > PAGE_SIZE
    return render_template("trail/show.html", scope=guards.scope(), events=events[:PAGE_SIZE], more=more)


def _room(kind: ScopeKind) -> Blueprint:
    blueprint = scoped.room(kind, "trail", Action.READ_TRAIL)
    blueprint.add_url_rule("", "show", show)
    return blueprint


blueprints = [_room(kind) for kind in ScopeKind]
