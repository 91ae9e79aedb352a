"""The enrolment keys of a scope, the same pages for all three: list, new and shown once, watched, revoked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from portal.addresses import url_in
from portal.database import db, now
from portal.domain.enrolment import enrolment_examples, enrolment_key_lists, enrolment_keys
from portal.domain.enrolment.enrolment_key_lists import Row, State
from portal.domain.enrolment.enrolment_keys import IssuedEnrolmentKey
from portal.domain.errors import AlreadyMade, Invalid
from portal.domain.permissions import Action
from portal.domain.runners import instructions, runner_creation, runner_status, token_life
from portal.domain.scopes import ScopeKind
from portal.domain.trail import trail
from portal.models import Runner
from portal.requests import portal_url, settings
from portal.web import guards, refreshing, scoped
from portal.web.enrolment_key_form import EnrolmentKeyForm
from portal.web.errors import STATUS
from portal.web.forms import EmptyForm
from portal.web.secret_pages import unstored

Page = str | BaseResponse | tuple[str, int]
USUAL = timedelta(days=30)  # how long a key lives that nobody has thought about
SHOWN_KEYS = 200
SHOWN_RUNNERS = 50
SHOWN_EVENTS = 20
OWN = "own"  # in the address: without those below


def index() -> str:
    """The keys of the scope and below, or its own: what each makes, how often it was used, and how it stands."""
    session, scope = db.session(), guards.scope()
    below, page = request.args.get("keys") != OWN and scope.kind is not ScopeKind.PROJECT, _page_number()
    return render_template(
        "enrolment_keys/index.html",
        scope=scope,
        below=below,
        rows=enrolment_key_lists.of_scope(
            session, scope, below=below, offset=(page - 1) * SHOWN_KEYS, limit=SHOWN_KEYS
        ),
        total=enrolment_key_lists.count(session, scope, below=below),
        page=page,
        shown=SHOWN_KEYS,
        open=runner_creation.may_create(session, guards.actor(), scope),
    )


def _page_number() -> int:
    """The page of the address; the first for what is none."""
    given = request.args.get("page", "")
    return max(1, int(given)) if given.isascii() and given.isdecimal() and len(given) < 7 else 1


def new() -> Page:
    """The form for a new key; sending it answers with the only page that ever shows it."""
    scope, form = guards.scope(), EnrolmentKeyForm()
    runner_creation.require_may_create(db.session(), guards.actor(), scope)
    longest = settings().access_token_longest
    if request.method == "GET":
        form.expires_at.data = (now().date() + min(USUAL, longest)).isoformat()
        return _new_page(form)
    try:
        issued = enrolment_keys.create_key(
            db.session(), guards.actor(), scope, form.wanted(longest), longest=longest, request_key=form.key()
        )
    except Invalid as invalid:
        form.refuse(invalid)
        return _new_page(form), STATUS[type(invalid)]
    except AlreadyMade as repeated:
        db.session.rollback()
        flash(str(repeated), "warning")
        return redirect(url_in(scope, "enrolment_keys.index"), 303)
    page = _created_page(issued)
    db.session.commit()
    return page


def _new_page(form: EnrolmentKeyForm) -> str:
    scope, today = guards.scope(), now().date()
    return render_template(
        "enrolment_keys/new.html",
        scope=scope,
        form=form,
        life=token_life.of_new_runners(db.session(), scope),
        tomorrow=today + timedelta(days=1),
        last=today + settings().access_token_longest,
        most=enrolment_keys.MOST_RUNNERS,
    )


def _created_page(issued: IssuedEnrolmentKey) -> Response:
    """The only page that ever holds the key: the answer to the POST that made it, stored nowhere."""
    url, scope = portal_url(), guards.scope()
    page = render_template(
        "enrolment_keys/created.html",
        scope=scope,
        key=issued.record,
        token=issued.token,
        sections=enrolment_examples.sections(url=url, key=issued.token, scope=scope),
        reachable=instructions.reachable_from_elsewhere(url),
        url=url,
    )
    return unstored(page)


def show(key_id: int) -> str:
    """One key: its template, the runners that it made, and who used it from where, with what was refused."""
    return render_template("enrolment_keys/show.html", **_standing(_row(key_id)))


def uses(key_id: int) -> Response:
    """The part of the page that refreshes itself while machines enrol. 204 while nothing has changed."""
    standing = _standing(_row(key_id))
    if request.args.get("seen") == standing["seen"]:
        return Response(status=204)
    return make_response(render_template("enrolment_keys/_live.html", **standing))


def _standing(row: Row) -> dict[str, Any]:
    """How the key stands, what it made and what happened; `seen` differs when any of it does."""
    session, key = db.session(), row.key
    events = list(enrolment_key_lists.uses(session, key, SHOWN_EVENTS))
    runners = _with_status(enrolment_key_lists.runners_of(session, key, SHOWN_RUNNERS))
    total = enrolment_key_lists.count_runners(session, key)
    newest = [(each.id, each.title, each.paused, status.value) for each, status in runners]
    state = (row.state, row.why, key.runners_created, total, events[0].id if events else 0, newest)
    return {
        "scope": guards.scope(),
        "home": enrolment_keys.scope_of(key),
        "row": row,
        "key": key,
        "runners": runners,
        "runners_total": total,
        "events": events,
        "standing": trail.standing(session, events),
        "seen": refreshing.seen(state),
    }


def _with_status(found: Any) -> list[tuple[Runner, Any]]:
    moment = now()
    return [(each, runner_status.of_runner(each, moment)) for each in found]


def _row(key_id: int) -> Row:
    """The key with its state, in the page's scope or below it."""
    key = enrolment_keys.get(db.session(), guards.actor(), guards.scope(), key_id)
    return enrolment_key_lists.with_states(db.session(), [key])[0]


def revoke(key_id: int) -> Page:
    """What stops and what stays, and the button."""
    row, scope = _row(key_id), guards.scope()
    if request.method == "GET":
        made = enrolment_key_lists.count_runners(db.session(), row.key)
        return render_template(
            "enrolment_keys/revoke.html",
            scope=scope,
            row=row,
            key=row.key,
            made=made,
            ended=row.state in (State.REVOKED, State.EXPIRED),
            form=EmptyForm(),
        )
    name = row.key.name
    changed = enrolment_keys.revoke(db.session(), guards.actor(), row.key)
    db.session.commit()
    flash(f"{name} is revoked and creates no more runners." if changed else f"{name} was revoked already.")
    return redirect(url_in(scope, "enrolment_keys.show", key_id=key_id), 303)


def _room(kind: ScopeKind) -> Blueprint:
    blueprint = scoped.room(kind, "enrolment_keys", Action.WRITE_RUNNERS)
    both, one = ["GET", "POST"], "/<int:key_id>"
    blueprint.add_url_rule("", "index", index)
    blueprint.add_url_rule("/new", "new", guards.recently(new), methods=both)
    blueprint.add_url_rule(one, "show", show)
    blueprint.add_url_rule(f"{one}/uses", "uses", uses)
    blueprint.add_url_rule(f"{one}/revoke", "revoke", guards.recently(revoke), methods=both)
    return blueprint


blueprints = [_room(kind) for kind in ScopeKind]
