"""The trail of a scope, a person or a runner: who did what, in words; and the same as a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import Any

from flask import Blueprint, Response, render_template, request, stream_with_context, url_for
from sqlalchemy import ColumnElement, Select

from portal.addresses import url_in
from portal.database import db
from portal.domain import audit
from portal.domain.errors import NotFound
from portal.domain.permissions import Action
from portal.domain.runners import runner_access
from portal.domain.scopes import ScopeKind
from portal.domain.trail import trail, trail_filters, trail_pages
from portal.domain.trail.trail_filters import TrailFilter
from portal.models import AuditEvent, User
from portal.request_logs import redacted
from portal.web import guards, scoped

PAGE_SIZE = 50
FILTERS = ("who", "kind", "action", "path", "request", "since", "until")
LONGEST = 255  # characters of a filter; nothing is called by more
WRITERS: dict[str, tuple[str, Callable[..., Iterator[str]]]] = {
    "jsonl": ("application/x-ndjson", trail.json_lines),
    "csv": ("text/csv; charset=utf-8", trail.csv),
}


def show() -> str:
    """A scope's events, newest first, by pages."""
    scope = guards.scope()
    return _page(
        audit.of_scope(scope), lambda place, **more: url_in(scope, f"trail.{place}", **more), kind=scope.kind
    )


def export() -> Response:
    """The same events as a file."""
    scope = guards.scope()
    return _file(audit.of_scope(scope), scope.full_path or "instance", notes=guards.allowed(Action.WRITE_RUNNERS))


def show_runner(runner_id: int) -> str:
    """The events about one runner, for those who look after its runners."""
    runner, scope = guards.runner(runner_id), guards.scope()
    runner_access.require(db.session(), guards.actor(), Action.READ_RUNNERS, runner)
    return _page(
        audit.of_runner(runner),
        lambda place, **more: url_in(scope, f"runner_trail.{place}_runner", runner_id=runner_id, **more),
        runner=runner,
    )


def export_runner(runner_id: int) -> Response:
    """The same events as a file."""
    runner, session = guards.runner(runner_id), db.session()
    runner_access.require(session, guards.actor(), Action.READ_RUNNERS, runner)
    notes = runner_access.may(session, guards.actor(), Action.WRITE_RUNNERS, runner)
    return _file(audit.of_runner(runner), f"runner-{runner_id}", notes=notes)


def show_person(user_id: int) -> str:
    """The events by a person or about them."""
    person = _person(user_id)
    return _page(
        trail.of_person(person),
        lambda place, **more: url_for(f"person_trail.{place}_person", user_id=user_id, **more),
        either=trail.by_or_about(person),
        person=person,
    )


def export_person(user_id: int) -> Response:
    """The same events as a file."""
    person = _person(user_id)
    return _file(trail.of_person(person), person.username, notes=guards.allowed(Action.WRITE_RUNNERS))


def _person(user_id: int) -> User:
    found = db.session.get(User, user_id)
    if found is None:
        raise NotFound("There is no such person. Their account may have been deleted.")
    return found


def _page(
    query: Select[AuditEvent],
    address: Callable[..., str],
    *,
    either: Sequence[ColumnElement[bool]] = (),
    **about: Any,
) -> str:
    wanted = _wanted()
    kept = {name: given for name in FILTERS if (given := _given(name))}
    older_than = _given("before")
    is_id = older_than.isascii() and older_than.isdecimal() and len(older_than) < 19
    page = trail_pages.page(
        db.session(), query, wanted, before=int(older_than) if is_id else None, limit=PAGE_SIZE, either=either
    )
    return render_template(
        "trail/show.html",
        scope=guards.scope(),
        events=page.events,
        standing=trail.standing(db.session(), page.events),
        page=page,
        older_than=older_than,
        wanted=wanted,
        kept=kept,
        kinds=trail_filters.KINDS,
        here=address("show"),
        address=address,
        **about,
    )


def _given(name: str) -> str:
    """A value of the address; a token that somebody pasted there stands in no link of the page."""
    return redacted(request.args.get(name, "").strip())[:LONGEST]


def _wanted() -> TrailFilter:
    kind = _given("kind")
    return TrailFilter(
        who=_given("who"),
        kind=kind if kind in trail_filters.KINDS else "",
        action=_given("action"),
        path=_given("path").strip("/"),
        request=_given("request")[:64],
        since=_day("since"),
        until=_day("until"),
    )


def _day(name: str) -> date | None:
    """The day of a filter; what is no day filters nothing."""
    try:
        return date.fromisoformat(_given(name)) if _given(name) else None
    except ValueError:
        return None


def _file(query: Select[AuditEvent], name: str, *, notes: bool) -> Response:
    """The events that fit the filters, streamed. Notes stay out for those who do not see them elsewhere."""
    form = _given("format") if _given("format") in WRITERS else "jsonl"
    mimetype, write = WRITERS[form]
    session = db.session()
    lines = write(session, trail_filters.fitting(session, query, _wanted()), notes=notes)
    response = Response(stream_with_context(lines), mimetype=mimetype)
    filename = f"trail-{name.replace('/', '-')}.{form}"
    response.headers.set("Content-Disposition", "attachment", filename=filename)
    return response


def _room(kind: ScopeKind) -> Blueprint:
    blueprint = scoped.room(kind, "trail", Action.READ_TRAIL)
    blueprint.add_url_rule("", "show", show)
    blueprint.add_url_rule("/export", "export", export)
    return blueprint


def _runners_room(kind: ScopeKind) -> Blueprint:
    blueprint = Blueprint(f"{kind}_runner_trail", __name__, url_prefix=scoped.address(kind, "runners"))
    scoped.guard(blueprint, kind, Action.READ_RUNNERS)
    blueprint.add_url_rule("/<int:runner_id>/trail", "show_runner", show_runner)
    blueprint.add_url_rule("/<int:runner_id>/trail/export", "export_runner", export_runner)
    return blueprint


def _peoples_room() -> Blueprint:
    blueprint = Blueprint("person_trail", __name__, url_prefix="/admin/people")
    scoped.guard(blueprint, ScopeKind.INSTANCE, Action.WRITE_PEOPLE)
    blueprint.add_url_rule("/<int:user_id>/trail", "show_person", show_person)
    blueprint.add_url_rule("/<int:user_id>/trail/export", "export_person", export_person)
    return blueprint


blueprints = [*map(_room, ScopeKind), *map(_runners_room, ScopeKind), _peoples_room()]
