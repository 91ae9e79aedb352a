"""Paste a token and see whose it is, for administrators; and end it from there."""

from __future__ import annotations

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse
from wtforms import StringField

from portal.addresses import url_in
from portal.database import db
from portal.domain.errors import Stale
from portal.domain.lookup import token_lookup
from portal.domain.lookup.token_lookup import (
    BeginningOfToken,
    KeyFound,
    NobodysToken,
    PersonsToken,
    RunnersToken,
    ScopesToken,
)
from portal.domain.permissions import Action
from portal.domain.runners import runner_tokens
from portal.domain.scopes import ScopeKind
from portal.requests import registration_configured
from portal.web import guards, scoped
from portal.web.forms import EmptyForm, PortalForm
from portal.web.secret_pages import unstored

blueprint = Blueprint("token_lookup", __name__, url_prefix="/admin/token-lookup")
scoped.guard(blueprint, ScopeKind.INSTANCE, Action.LOOK_UP_TOKENS)

KINDS = {
    RunnersToken: "runner",
    ScopesToken: "registration",
    PersonsToken: "person",
    KeyFound: "key",
    BeginningOfToken: "beginning",
    NobodysToken: "nobody",
}


class PastedForm(PortalForm):
    pasted = StringField("Token")


@blueprint.route("", methods=["GET", "POST"])
def show() -> str | Response:
    """The form; sending it answers with what is known of the token, in a page that is kept nowhere."""
    form = PastedForm()
    if request.method == "GET":
        return _page(form)
    pasted, form.pasted.data = form.pasted.data or "", ""  # the answer shall not hold it
    found = token_lookup.look_up(db.session(), guards.actor(), pasted, registration_configured())
    if isinstance(found, NobodysToken) and found.empty:
        form.pasted.errors = ["Paste a token."]
        return make_response(_page(form), 422)
    return unstored(_page(form, found=found, kind=KINDS[type(found)]))


def _page(form: PastedForm, **what: object) -> str:
    return render_template("token_lookup/show.html", scope=guards.scope(), form=form, **what)


@blueprint.route("/<int:token_id>/end", methods=["GET", "POST"])
@guards.recently
def end(token_id: int) -> str | tuple[str, int] | BaseResponse:
    """What stops working when just this token ends, and the button."""
    found = token_lookup.token_by_id(db.session(), token_id)
    if request.method == "GET":
        return _end_page(found)
    try:
        token = runner_tokens.end_token(db.session(), guards.actor(), found.runner, token_id)
    except Stale as stale:
        db.session.rollback()
        return _end_page(token_lookup.token_by_id(db.session(), token_id), refusal=str(stale)), 409
    short, address = token.short, url_in(found.scope, "runners.show", runner_id=found.runner.id)
    db.session.commit()
    flash(f"The token {short} has ended. Machines that use it are refused from their next poll on.")
    return redirect(address, 303)


def _end_page(found: RunnersToken, refusal: str = "") -> str:
    return render_template(
        "token_lookup/end.html", scope=guards.scope(), found=found, form=EmptyForm(), refusal=refusal
    )
