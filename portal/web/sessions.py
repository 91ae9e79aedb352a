"""Signing in and out."""

from __future__ import annotations

from datetime import datetime

from flask import Blueprint, g, redirect, render_template, request, session, url_for
from flask_login import current_user, login_user, logout_user
from werkzeug.wrappers import Response

from portal.addresses import local
from portal.database import db
from portal.domain import actors
from portal.domain.errors import NotAllowed, TryLater
from portal.domain.people import accounts, user_sessions
from portal.domain.people import second_factor as factors
from portal.domain.people.sign_in_throttle import refused
from portal.models import User
from portal.requests import client_address, settings
from portal.web import guards, pending_sign_ins, refused_sign_ins, sign_in_attempts
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
    if not settings().password_sign_in:
        refused_sign_ins.note("passwords are off", method="password")
        raise NotAllowed("Nobody signs in with a password on this portal. Use single sign-on.")
    try:
        user = _checked(form.login.data or "", form.password.data or "")
    except TryLater as later:
        form.password.errors = [str(later)]
        sign_in_attempts.say_when(later)
        return render_template("sessions/sign_in.html", form=form), 429
    if user is None:
        form.password.errors = ["The user name or the password is wrong."]
        return render_template("sessions/sign_in.html", form=form), 422
    return proceed(user, method="password")


def _checked(login: str, password: str) -> User | None:
    """The person, when the password is theirs. Raises TryLater.

    For a name that nobody has, the database and the hash are asked the same as for every other.
    """
    with sign_in_attempts.counted(login):
        user = accounts.signed_in(db.session(), login, password)
    if user is None:
        someone = accounts.find(db.session(), login)
        refused(db.session(), sign_in_attempts.visitor(), someone, "wrong password" if someone else "unknown name")
        db.session.commit()
    return user


def proceed(
    user: User,
    *,
    method: str,
    second_factor: bool = False,
    wanted: str | None = None,
    proven_at: datetime | None = None,
) -> Response:
    """Go on after the first proof of who it is, and lead them to where they wanted to go.

    Who has a second factor gives it next; until then there is no session. `second_factor` says that the first
    proof held two already. Raises NotAllowed for who is blocked: they have just proved that they may know it.
    `proven_at` is when the proof was given, if not now; `wanted` is where to go, if the address does not say.
    """
    wanted = _wanted() if wanted is None else wanted
    if user.blocked_at is not None:
        refused(db.session(), sign_in_attempts.visitor(), user, "blocked")
        db.session.commit()
        raise NotAllowed("Your account is blocked. An administrator of this portal can unblock it.")
    if not second_factor and factors.find(db.session(), user) is not None:
        pending_sign_ins.begin(user, method=method, wanted=wanted, proven_at=proven_at)
        db.session.commit()
        return redirect(url_for("second_proof.show"))
    return enter(user, method=method, second_factor=second_factor, wanted=wanted, proven_at=proven_at)


def enter(
    user: User, *, method: str, second_factor: bool, wanted: str | None, proven_at: datetime | None
) -> Response:
    """Sign the person in, as every proof was given, and lead them to where they wanted to go."""
    _begin(user, method=method, second_factor=second_factor)
    if proven_at is not None:
        guards.user_session().confirmed_at = proven_at
    db.session.commit()
    return redirect(wanted or url_for("start.show"))


def renew() -> None:
    """Give the session a new key, as its person has just proved again who they are. The caller commits."""
    user = guards.user_session().user
    user.session_key = user_sessions.renew(guards.user_session())
    login_user(user)


def _begin(user: User, *, method: str, second_factor: bool) -> None:
    """A new session with a key of its own."""
    actor = actors.person(user, address=client_address(), request_id=g.request_id)
    begun, key = user_sessions.begin(
        db.session(),
        actor,
        method=method,
        second_factor=second_factor,
        user_agent=request.headers.get("User-Agent", ""),
    )
    sign_in_attempts.forget_failures(user)
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
    target = local(request.args.get("next"))
    return request.script_root + target if target else None
