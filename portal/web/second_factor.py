"""The second factor: setting it up, recovery codes, turning it off; and its page at the sign-in."""

from __future__ import annotations

from collections.abc import Sequence

import segno
from flask import Blueprint, Response, flash, redirect, render_template, request, url_for
from flask_login import current_user
from werkzeug.wrappers import Response as BaseResponse
from wtforms import HiddenField, StringField

from portal.database import db
from portal.domain.errors import Invalid, NotFound
from portal.domain.people import second_factor
from portal.domain.people.second_factor import Draft
from portal.requests import portal_url, second_factor_configured
from portal.web import guards, pending_sign_ins, sessions, sign_in_attempts
from portal.web.forms import EmptyForm, PortalForm
from portal.web.pending_sign_ins import Pending
from portal.web.secret_pages import unstored

Page = str | BaseResponse | tuple[str, int]

blueprint = Blueprint("second_factor", __name__, url_prefix="/-/account/second-factor")
blueprint.before_request(guards.signed_in)
blueprint.before_request(guards.confirmed)

at_sign_in = Blueprint("second_proof", __name__, url_prefix="/-/sign-in/code")
at_sign_in.before_request(guards.public)


class CodeForm(PortalForm):
    code = StringField("Code")

    def typed(self) -> str:
        """What was typed. Raises Invalid for nothing."""
        if not (self.code.data or "").strip():
            raise Invalid({"code": ["Type the code."]})
        return str(self.code.data)


class SetUpForm(CodeForm):
    sealed = HiddenField()


@blueprint.get("")
def show() -> str:
    """Whether there is one, and what can be done."""
    session, user = db.session(), current_user
    factor = second_factor.find(session, user)
    return render_template(
        "second_factor/show.html",
        factor=factor,
        left=second_factor.codes_left(session, user),
        wrong=second_factor.wrong_lately(factor) if factor else 0,
        demanded=second_factor_configured().demands_of(user),
        proven=guards.user_session().second_factor,
        form=EmptyForm(),
    )


@blueprint.post("/set-up")
def set_up() -> Response:
    """A new key and its QR code. Nothing is stored until the app has shown that it knows the key."""
    drafted = second_factor.draft(current_user, second_factor_configured(), portal=portal_url())
    return _set_up_page(drafted, SetUpForm(formdata=None))


@blueprint.post("/turn-on")
def turn_on() -> Response:
    """A right code of the app: the second factor counts from now on, and the recovery codes are shown."""
    form = SetUpForm()
    try:
        codes = second_factor.set_up(
            db.session(),
            guards.actor(),
            second_factor_configured(),
            sealed=form.sealed.data or "",
            code=form.typed(),
            here=guards.user_session(),
        )
    except Invalid as invalid:
        drafted = second_factor.reopened(
            current_user, second_factor_configured(), form.sealed.data or "", portal=portal_url()
        )
        form.code.data = ""
        form.refuse(invalid)
        return _set_up_page(drafted, form, 422)
    page = _codes_page(codes, "Your second factor is set up")
    sessions.renew()
    db.session.commit()
    return page


def _set_up_page(drafted: Draft, form: SetUpForm, status: int = 200) -> Response:
    form.sealed.data = drafted.sealed
    # Black on white with the quiet zone drawn in: it can be read in dark mode too.
    picture = segno.make_qr(drafted.address, error="m").svg_data_uri(scale=4, border=4, dark="#000", light="#fff")
    return unstored(render_template("second_factor/set_up.html", form=form, draft=drafted, picture=picture), status)


def _codes_page(codes: Sequence[str], title: str) -> Response:
    return unstored(render_template("second_factor/codes.html", codes=codes, title=title, form=EmptyForm()))


@blueprint.route("/recovery-codes", methods=["GET", "POST"])
def recovery_codes() -> Page:
    """New recovery codes: what becomes of the old ones, and the button."""
    if request.method == "GET":
        if _has_none():
            return show()
        left = second_factor.codes_left(db.session(), current_user)
        return render_template("second_factor/new_codes.html", left=left, form=EmptyForm())
    codes = second_factor.new_codes(db.session(), guards.actor())
    page = _codes_page(codes, "Your new recovery codes")
    db.session.commit()
    return page


@blueprint.post("/recovery-codes/download")
def download() -> Response:
    """The codes that the page before has shown, as a file: they come from there, as nothing here knows them."""
    codes = request.form.get("codes", "").split()
    if not second_factor.are_codes_of(db.session(), current_user, codes):
        raise NotFound("These are not your recovery codes any more. Make new ones.")
    lines = [f"Recovery codes of {current_user.username} at {portal_url()}. Each works once.", "", *codes, ""]
    answer = unstored("\n".join(lines))
    answer.mimetype = "text/plain"
    answer.headers["Content-Disposition"] = 'attachment; filename="recovery-codes.txt"'
    return answer


@blueprint.route("/turn-off", methods=["GET", "POST"])
def turn_off() -> Page:
    """What is lost without it, and a code to prove that it is its owner who asks."""
    form = CodeForm()
    if request.method == "GET":
        if _has_none():
            return show()
        return render_template("second_factor/turn_off.html", form=form)
    try:
        tried = second_factor.turn_off(
            db.session(), guards.actor(), form.typed(), second_factor_configured(), here=guards.user_session()
        )
        if not tried.passed:
            raise Invalid({"code": [tried.sentence]})
    except Invalid as invalid:
        form.code.data = ""
        form.refuse(invalid)
        page = render_template("second_factor/turn_off.html", form=form)
        db.session.commit()
        return page, 422
    sessions.renew()
    db.session.commit()
    flash("Your second factor is turned off. All your other sessions have ended.")
    return redirect(url_for("second_factor.show"))


def _has_none() -> bool:
    return second_factor.find(db.session(), current_user) is None


@at_sign_in.route("", endpoint="show", methods=["GET", "POST"])
def show_at_sign_in() -> Page:
    """The second proof of a sign-in; only with it a session begins."""
    pending = pending_sign_ins.find(held=request.method == "POST")
    if pending is None or current_user.is_authenticated:
        return redirect(url_for("sessions.sign_in"))
    form = CodeForm()
    if request.method == "GET":
        return _code_page(pending, form)
    try:
        code = form.typed()
    except Invalid as invalid:
        form.refuse(invalid)
        return _code_page(pending, form), 422
    return _second_proof(pending, form, code)


def _second_proof(pending: Pending, form: CodeForm, code: str) -> Page:
    session = db.session()
    tried = second_factor.check(session, sign_in_attempts.visitor(), pending.user, code, second_factor_configured())
    if tried.passed:
        return sessions.enter(
            pending.user,
            method=pending.method,
            second_factor=True,
            wanted=pending.wanted,
            proven_at=pending.proven_at,
        )
    if tried.ends:
        pending_sign_ins.end()
        session.commit()
        flash(f"{tried.sentence} Sign in again.", "warning")
        wanted = (pending.wanted or "").removeprefix(request.script_root)
        return redirect(url_for("sessions.sign_in", next=wanted or None))
    form.code.data = ""
    form.refuse(Invalid({"code": [tried.sentence]}))
    page = _code_page(pending, form)
    session.commit()
    return page, 422


def _code_page(pending: Pending, form: CodeForm) -> str:
    factor = second_factor.find(db.session(), pending.user)
    return render_template(
        "second_factor/sign_in.html",
        form=form,
        recovery="recovery" in request.args,
        paused_until=second_factor.paused_until(factor) if factor else None,
    )


@at_sign_in.post("/cancel")
def cancel() -> BaseResponse:
    """Begin again, as somebody else perhaps."""
    pending_sign_ins.end()
    return redirect(url_for("sessions.sign_in"), 303)
