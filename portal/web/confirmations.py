"""Asked again who one is, before something sensitive."""

from __future__ import annotations

from flask import Blueprint, current_app, redirect, render_template, request, url_for
from werkzeug.wrappers import Response
from wtforms import PasswordField, StringField

from portal.addresses import local
from portal.database import db
from portal.domain.errors import Invalid, TryLater
from portal.domain.people import confirmations
from portal.requests import second_factor_configured, settings
from portal.web import guards, sessions, sign_in_attempts
from portal.web.forms import PortalForm

blueprint = Blueprint("confirmations", __name__, url_prefix="/-/confirm")
blueprint.before_request(guards.signed_in)


class ConfirmationForm(PortalForm):
    password = PasswordField("Password")
    code = StringField("Code")


@blueprint.route("", methods=["GET", "POST"])
def show() -> Response | str | tuple[str, int]:
    """Password, and a code of who has a second factor; then on to where they were going."""
    form = ConfirmationForm()
    if request.method == "GET":
        return _page(form)
    try:
        problems = _problems(form)
    except TryLater as later:
        form.password.errors = [str(later)]
        sign_in_attempts.say_when(later)
        return _page(form), 429
    if problems:
        form.code.data = ""
        form.refuse(Invalid(problems))
        page = _page(form)
        db.session.commit()
        return page, 422
    sign_in_attempts.forget_failures(guards.user_session().user)
    sessions.renew()
    db.session.commit()
    return redirect(_wanted(), 303)


def _problems(form: ConfirmationForm) -> confirmations.Problems:
    """What is wrong with what was given, counted as an attempt to sign in. Raises TryLater."""
    here = guards.user_session()
    with sign_in_attempts.counted(here.user.username):
        return confirmations.confirm(
            db.session(),
            guards.actor(),
            here,
            second_factor_configured(),
            password=form.password.data or "",
            code=form.code.data or "",
            passwords=settings().password_sign_in,
        )


def _page(form: ConfirmationForm) -> str:
    user = guards.user_session().user
    asked = confirmations.asked_of(db.session(), user, passwords=settings().password_sign_in)
    provider = asked.elsewhere and current_app.extensions["openid"] is not None
    return render_template("confirmations/show.html", form=form, asked=asked, provider=provider, wanted=_path())


def _path() -> str | None:
    return local(request.args.get("next"))


def _wanted() -> str:
    path = _path()
    return request.script_root + path if path else url_for("start.show")
