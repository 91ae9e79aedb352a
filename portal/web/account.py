"""A person's own account."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask_login import current_user
from werkzeug.wrappers import Response

from portal.database import db, now
from portal.domain.errors import Invalid, NotAllowed, TryLater
from portal.domain.people import access_token_lists, accounts, confirmations, devices, second_factor, user_sessions
from portal.models import UserSession
from portal.requests import session_limits, session_uses
from portal.web import guards, sessions, sign_in_attempts
from portal.web.forms import PasswordForm

blueprint = Blueprint("account", __name__, url_prefix="/-/account")
blueprint.before_request(guards.signed_in)


@dataclass(frozen=True, slots=True)
class ShownSession:
    """One session as its row on the page shows it."""

    it: UserSession
    device: str
    last_used_at: datetime
    here: bool


@blueprint.get("")
def show() -> str:
    session, user = db.session(), guards.user_session().user
    factor = second_factor.find(session, current_user)
    return render_template(
        "account/show.html",
        sessions=len(_sessions()),
        factor=factor,
        codes_left=second_factor.codes_left(session, current_user) if factor else 0,
        access_tokens=access_token_lists.count_good(session, user, now()),
        due=access_token_lists.due(session, user, now()),
    )


@blueprint.get("/sessions")
def all_sessions() -> str:
    return render_template("account/sessions.html", sessions=_sessions())


@blueprint.post("/sessions/<int:session_id>/end")
@guards.recently
def end_session(session_id: int) -> Response:
    ended = user_sessions.own(db.session(), guards.user_session().user, session_id)
    if ended is guards.user_session():
        raise NotAllowed("This is the session you are in. Sign out to end it.")
    user_sessions.end(db.session(), guards.actor(), ended)
    db.session.commit()
    flash("The session has ended. Whoever used it is signed out.")
    return redirect(url_for("account.all_sessions"), 303)


@blueprint.post("/sessions/end-others")
@guards.recently
def end_other_sessions() -> Response:
    ended = user_sessions.end_others(db.session(), guards.actor(), guards.user_session())
    db.session.commit()
    flash("One other session has ended." if ended == 1 else f"{ended} other sessions have ended.")
    return redirect(url_for("account.all_sessions"), 303)


def _sessions() -> list[ShownSession]:
    """The signed-in person's sessions, this one first and then the one used last."""
    noted = session_uses()
    shown = [
        ShownSession(
            it=each,
            device=devices.described(each.user_agent),
            last_used_at=max(each.last_used_at, noted.last(each.id) or each.last_used_at),
            here=each is guards.user_session(),
        )
        for each in user_sessions.of_person(db.session(), guards.user_session().user, session_limits())
    ]
    return sorted(shown, key=lambda each: (each.here, each.last_used_at), reverse=True)


@blueprint.route("/password", methods=["GET", "POST"])
def password() -> Response | str | tuple[str, int]:
    form = PasswordForm()
    if request.method == "GET":
        return render_template("account/password.html", form=form)
    user = guards.user_session().user
    try:
        # Whoever finds a browser open must not be able to guess the password behind it for as long as they like.
        with sign_in_attempts.counted(user.username):
            accounts.change_password(
                db.session(),
                guards.actor(),
                old=form.old.data or "",
                new=form.new.data or "",
                again=form.again.data or "",
                here=guards.user_session(),
            )
    except Invalid as invalid:
        if "old" in invalid.problems:
            confirmations.record_refusal(db.session(), guards.actor(), user, "wrong password")
        else:  # that was right, so it was no guess
            sign_in_attempts.forget_failures(user)
        db.session.commit()
        form.refuse(invalid)
        return render_template("account/password.html", form=form), 422
    except TryLater as later:
        form.old.errors = [str(later)]
        sign_in_attempts.say_when(later)
        return render_template("account/password.html", form=form), 429
    sign_in_attempts.forget_failures(user)
    sessions.renew()
    db.session.commit()
    flash("Your password is changed. All your other sessions have ended.")
    return redirect(url_for("start.show"))
