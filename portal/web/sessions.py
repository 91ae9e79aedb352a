"""Signing in and out."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Blueprint, g, redirect, render_template, request, session, url_for
from flask_login import current_user, login_user, logout_user
from werkzeug.wrappers import Response

from portal.database import db
from portal.domain import accounts, actors, user_sessions
from portal.domain.errors import TryLater
from portal.models import User
from portal.requests import client_address
from portal.web import guards
from portal.web.forms import SignInForm

blueprint = Blueprint("sessions", __name__, url_prefix="/-")
blueprint.before_request(guards.public)


@blueprint.route("/sign-in", methods=["GET", "POST"])
def sign_in() -> Response | str | tuple[str, int]:
    if current_user.is_authenticated:
        return redirect(url_for("start.show"))
    form = SignInForm()
    if request.method == "GET":
        return render_template("sessions/sign_in.html", form=form)
    try:
        user = accounts.signed_in(db.session(), form.login.data or "", form.password.data or "")
    except TryLater as busy:
        form.password.errors = [str(busy)]
        return render_template("sessions/sign_in.html", form=form), 429
    if user is None:
        form.password.errors = ["The user name or the password is wrong."]
        return render_template("sessions/sign_in.html", form=form), 422
    return proceed(user, method="password")


def proceed(user: User, *, method: str) -> Response:
    """Go on after the first proof of who it is: sign the person in, and lead them to where they wanted to go."""
    begin(user, method=method)
    db.session.commit()
    return redirect(_wanted() or url_for("start.show"))


def begin(user: User, *, method: str, second_factor: bool = False) -> None:
    """Sign the person in: a new session with a key of its own. The caller commits."""
    actor = actors.person(user, address=client_address(), request_id=g.request_id)
    begun, key = user_sessions.begin(
        db.session(),
        actor,
        method=method,
        second_factor=second_factor,
        user_agent=request.headers.get("User-Agent", ""),
    )
    session.clear()  # nothing from before the sign-in lives on in the session after it
    user.session_key = key
    login_user(user)
    g.user_session = begun


@blueprint.post("/sign-out")
def sign_out() -> Response:
    if current_user.is_authenticated:
        user_sessions.sign_out(db.session(), guards.actor(), guards.user_session())
        db.session.commit()
    logout_user()
    session.clear()
    return redirect(url_for("sessions.sign_in"))


def _wanted() -> str | None:
    """The page somebody was on the way to, if it is one of ours."""
    target = request.args.get("next", "")
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or not target.startswith("/") or target.startswith(("//", "/\\")):
        return None
    return request.script_root + target
