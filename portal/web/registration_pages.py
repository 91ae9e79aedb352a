"""The registration pages, the same for every scope: the token, its reset, the legacy instructions, the switch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flask import Blueprint, Response, flash, redirect, render_template, stream_with_context
from werkzeug.wrappers import Response as BaseResponse

from portal.addresses import url_in
from portal.database import db
from portal.domain import csv_lines
from portal.domain.errors import Stale
from portal.domain.permissions import Action
from portal.domain.registration import (
    registration_effects,
    registration_readers,
    registration_switch,
    registration_tokens,
)
from portal.domain.registration.registration import Decision
from portal.domain.runners import instructions, runner_creation, token_life
from portal.domain.scopes import Scope
from portal.models import RegistrationToken
from portal.requests import portal_url, registration_configured
from portal.web import guards
from portal.web.forms import EmptyForm, SeenTokenForm
from portal.web.secret_pages import unstored

Page = str | BaseResponse | tuple[str, int]


@dataclass(frozen=True, slots=True)
class Card:
    """What a page shows of a registration token. `text` is None when there is none, or no key opens it."""

    decision: Decision
    may_register: bool
    token: RegistrationToken | None = None
    text: str | None = None


def card(scope: Scope) -> Card:
    """The scope's registration token for the signed-in person: only for those who may register with it now."""
    session, configured = db.session(), registration_configured()
    decided = registration_readers.decision_for(session, guards.actor(), scope, configured)
    if not decided.allowed or not registration_tokens.may_register(session, guards.actor(), scope, configured):
        return Card(decided, may_register=False)
    token = registration_tokens.live_token(session, scope)
    text = configured.vault.open(token.ciphertext) if token is not None and token.ciphertext else None
    return Card(decided, may_register=True, token=token, text=text)


def may_create(scope: Scope) -> bool:
    """Whether a page offers the signed-in person to create a runner here."""
    return runner_creation.may_create(db.session(), guards.actor(), scope)


def show() -> Response:
    """Whether registration tokens work here, who decided it, and for those who may: the token and how to use it."""
    scope = guards.scope()
    shown, url, session = card(scope), portal_url(), db.session()
    page = render_template(
        "registration/show.html",
        scope=scope,
        card=shown,
        sections=instructions.legacy_sections(url=url, token=shown.text) if shown.text else (),
        options=instructions.LEGACY_OPTIONS,
        closed=runner_creation.closed_because(session, scope),
        off_below=registration_effects.turned_off_below(session, scope) if shown.decision.allowed else None,
        life=token_life.of_new_runners(session, scope),
        reachable=instructions.reachable_from_elsewhere(url),
        url=url,
        form=EmptyForm(),
    )
    return unstored(page)


def make_token() -> BaseResponse:
    """Make the scope's registration token: nothing is made by looking at a page."""
    scope = guards.scope()
    registration_tokens.make_token(db.session(), guards.actor(), scope, registration_configured())
    db.session.commit()
    return redirect(url_in(scope, "registration.show"), 303)


def reset_token() -> Page:
    """What a reset ends, and the button."""
    scope, form, configured = guards.scope(), SeenTokenForm(), registration_configured()
    guards.require(Action.REGISTER_RUNNERS)
    runner_creation.require_open(db.session(), scope)
    registration_readers.require_allowed(db.session(), guards.actor(), scope, configured)
    if not form.is_submitted():
        return _reset_page(form)
    try:
        registration_tokens.reset_token(db.session(), guards.actor(), scope, configured, seen_id=form.seen())
    except Stale as stale:
        db.session.rollback()
        return _reset_page(SeenTokenForm(formdata=None), refusal=str(stale)), 409
    db.session.commit()
    flash("The old registration token has ended. The new one stands below.")
    return redirect(url_in(scope, "registration.show"), 303)


def _reset_page(form: SeenTokenForm, refusal: str = "") -> str:
    scope = guards.scope()
    token = registration_tokens.live_token(db.session(), scope)
    form.seen_token_id.data = str(token.id) if token else ""
    return render_template("registration/reset.html", scope=scope, token=token, form=form, refusal=refusal)


def turn_off() -> Page:
    """What turning registration tokens off would do, in numbers and names, and the button."""
    scope, form = guards.scope(), EmptyForm()
    guards.require(Action.SWITCH_REGISTRATION)
    if form.is_submitted():
        return _switch(allow=False)
    return render_template(
        "registration/turn_off.html",
        scope=scope,
        decision=registration_readers.decision_for(db.session(), guards.actor(), scope, registration_configured()),
        effects=registration_effects.effects(db.session(), scope),
        form=form,
    )


def turn_on() -> BaseResponse:
    """Allow registration tokens again."""
    return _switch(allow=True)


def _switch(*, allow: bool) -> BaseResponse:
    scope = guards.scope()
    changed = registration_switch.switch(
        db.session(), guards.actor(), scope, allow=allow, configured=registration_configured()
    )
    db.session.commit()
    state = "allowed" if allow else "turned off"
    place = scope.full_path or "the whole portal"
    flash(f"Registration tokens are {state} in {place}." if changed else f"They were {state} already.")
    return redirect(url_in(scope, "registration.show"), 303)


def affected() -> Response:
    """Everything that turning off would touch, as a CSV file."""
    scope = guards.scope()
    guards.require(Action.SWITCH_REGISTRATION)
    name = (scope.full_path or "instance").replace("/", "-")
    response = Response(stream_with_context(_csv(scope)), mimetype="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="registration-tokens-{name}.csv"'
    return response


def _csv(scope: Scope) -> Iterator[str]:
    yield csv_lines.line(registration_effects.COLUMNS)
    for row in registration_effects.listed(db.session(), scope):
        yield csv_lines.line(row)


def mount(blueprint: Blueprint) -> None:
    """Give a scope's blueprint all registration pages."""
    both = ["GET", "POST"]
    blueprint.add_url_rule("", "show", show)
    blueprint.add_url_rule("/token", "make_token", guards.recently(make_token), methods=["POST"])
    blueprint.add_url_rule("/reset", "reset_token", guards.recently(reset_token), methods=both)
    blueprint.add_url_rule("/turn-off", "turn_off", guards.recently(turn_off), methods=both)
    blueprint.add_url_rule("/turn-on", "turn_on", guards.recently(turn_on), methods=["POST"])
    blueprint.add_url_rule("/affected", "affected", affected)
