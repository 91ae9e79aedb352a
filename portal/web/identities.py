"""A person's accounts at the OpenID Connect provider: which are connected, connecting, disconnecting."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, url_for
from werkzeug.wrappers import Response

from portal.database import db
from portal.domain.errors import Invalid
from portal.domain.people import openid_accounts
from portal.web import guards, openid

blueprint = Blueprint("identities", __name__, url_prefix="/-/account/identities")
blueprint.before_request(guards.signed_in)


@blueprint.get("")
def index() -> str:
    return _page()


@blueprint.post("/connect")
@guards.recently
def connect() -> Response | str | tuple[str, int]:
    """To the provider; whoever signs in there is connected to the person who is signed in here."""
    return openid.leave(openid.CONNECT)


@blueprint.post("/<int:identity_id>/disconnect")
@guards.recently
def disconnect(identity_id: int) -> Response | tuple[str, int]:
    try:
        openid_accounts.disconnect(db.session(), guards.actor(), identity_id, openid.rules())
    except Invalid as invalid:
        db.session.rollback()
        return _page(str(invalid)), 422
    db.session.commit()
    flash("Disconnected. Nobody signs in here with that account any more.")
    return redirect(url_for("identities.index"))


def _page(refusal: str = "") -> str:
    mine = openid_accounts.of_person(db.session(), guards.user_session().user)
    return render_template("identities/index.html", identities=mine, refusal=refusal)
