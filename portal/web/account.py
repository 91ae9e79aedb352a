"""A person's own account."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from portal.database import db
from portal.domain import accounts
from portal.domain.errors import Invalid
from portal.web import guards
from portal.web.forms import PasswordForm

blueprint = Blueprint("account", __name__, url_prefix="/-/account")
blueprint.before_request(guards.signed_in)


@blueprint.route("/password", methods=["GET", "POST"])
def password() -> Response | str | tuple[str, int]:
    form = PasswordForm()
    if request.method == "GET":
        return render_template("account/password.html", form=form)
    try:
        accounts.change_password(
            db.session(),
            guards.actor(),
            old=form.old.data or "",
            new=form.new.data or "",
            again=form.again.data or "",
            here=guards.user_session(),
        )
    except Invalid as invalid:
        form.refuse(invalid)
        return render_template("account/password.html", form=form), 422
    db.session.commit()
    flash("Your password is changed. All your other sessions have ended.")
    return redirect(url_for("start.show"))
