"""Personal access tokens, for who has them: the list, a new one that is shown once, and revoking."""

from __future__ import annotations

from datetime import date
from typing import Any

from flask import Blueprint, Response, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from portal.database import db, now
from portal.domain.errors import NOTHING_HERE, AlreadyMade, BadRequest, Invalid, NotFound
from portal.domain.people import access_token_examples, access_token_lists, access_tokens
from portal.domain.people.access_token_lists import State, TokenQuery
from portal.domain.people.access_tokens import IssuedAccessToken
from portal.domain.runners import instructions
from portal.domain.scopes import INSTANCE
from portal.domain.trail import trail, trail_pages
from portal.domain.trail.trail_filters import TrailFilter
from portal.models import AccessToken, TokenScope
from portal.requests import portal_url, settings
from portal.web import guards
from portal.web.forms import AccessTokenForm, EmptyForm, RotationForm
from portal.web.secret_pages import unstored

blueprint = Blueprint("access_tokens", __name__, url_prefix="/-/account/access-tokens")
blueprint.before_request(guards.signed_in)

SHOWN = 100  # of the good ones, and of those that have ended
SHOWN_EVENTS = 50
# What each opens, one sentence each, in the order of the form (reference/rest.md section 2.1).
OPENS = {
    TokenScope.API: "Everything that you may do yourself, by REST and GraphQL, reading and writing.",
    TokenScope.READ_API: "Reads everything that you may see, and changes nothing.",
    TokenScope.CREATE_RUNNER: "Creates runners where you may (POST /user/runners), and nothing else.",
    TokenScope.MANAGE_RUNNER: (
        "Reads, changes, pauses, resets and deletes single runners that you may manage (/runners/:id and below); "
        "lists none and creates none."
    ),
}


@blueprint.get("")
def index() -> str:
    """Those that are good, then those that have ended."""
    session, moment, user = db.session(), now(), guards.user_session().user
    good, ended = TokenQuery(user_id=user.id, live=True), TokenQuery(user_id=user.id, live=False)
    return render_template(
        "access_tokens/index.html",
        good=_shown(access_token_lists.page(session, good, moment, limit=SHOWN)),
        good_total=access_token_lists.count(session, good, moment),
        ended=_shown(access_token_lists.page(session, ended, moment, limit=SHOWN)),
        ended_total=access_token_lists.count(session, ended, moment),
        longest=settings().access_token_longest.days,
    )


def _shown(found: Any) -> list[tuple[AccessToken, State]]:
    moment = now()
    return [(each, State.of(each, moment)) for each in found]


@blueprint.route("/new", methods=["GET", "POST"])
@guards.recently
def new() -> str | tuple[str, int] | BaseResponse:
    """The form for a new token; sending it answers with the only page that ever shows it."""
    form = AccessTokenForm()
    longest = settings().access_token_longest
    if request.method == "GET":
        form.expires_at.data = (now().date() + min(access_tokens.USUAL, longest)).isoformat()
        return _new_page(form)
    try:
        issued = access_tokens.create(
            db.session(),
            guards.actor(),
            guards.user_session().user,
            form.wanted(),
            longest=longest,
            request_key=form.key(),
        )
    except Invalid as invalid:
        form.refuse(invalid)
        return _new_page(form), 422
    except AlreadyMade as repeated:
        db.session.rollback()
        flash(str(repeated), "warning")
        return redirect(url_for("access_tokens.index"), 303)
    db.session.commit()
    return _shown_once(issued, title=f"{issued.record.name} is ready")


def _new_page(form: AccessTokenForm) -> str:
    today = now().date()
    last = today + settings().access_token_longest
    return render_template("access_tokens/new.html", form=form, opens=OPENS, tomorrow=_next(today), last=last)


def _next(day: date) -> date:
    return date.fromordinal(day.toordinal() + 1)


def _shown_once(issued: IssuedAccessToken, *, title: str) -> Response:
    url = portal_url()
    page = render_template(
        "access_tokens/created.html",
        title=title,
        record=issued.record,
        token=issued.token,
        blocks=access_token_examples.blocks(url=url, token=issued.token),
        reachable=instructions.reachable_from_elsewhere(url),
        url=url,
    )
    return unstored(page)


@blueprint.route("/<int:access_token_id>/rotate", methods=["GET", "POST"])
@guards.recently
def rotate(access_token_id: int) -> str | tuple[str, int] | BaseResponse:
    """A new token in place of one of one's own, shown once; the old one ends at once."""
    session, form, token = db.session(), RotationForm(), _own(access_token_id)
    longest = settings().access_token_longest
    if request.method == "GET":
        form.expires_at.data = (now().date() + min(access_tokens.USUAL, longest)).isoformat()
        return _rotate_page(form, token)
    try:
        issued = access_tokens.rotate(
            session, guards.actor(), token, longest=longest, expires_at=form.last(), request_key=form.key()
        )
    except Invalid as invalid:
        form.refuse(invalid)
        return _rotate_page(form, token), 422
    except AlreadyMade as repeated:
        session.rollback()
        flash(str(repeated), "warning")
        return redirect(url_for("access_tokens.index"), 303)
    except BadRequest:  # somebody revoked or rotated it meanwhile
        session.rollback()
        return _rotate_page(form, token), 409
    db.session.commit()
    return _shown_once(issued, title=f"{issued.record.name} has a new token")


def _rotate_page(form: RotationForm, token: AccessToken) -> str:
    today = now().date()
    last = today + settings().access_token_longest
    return render_template(
        "access_tokens/rotate.html",
        form=form,
        token=token,
        state=State.of(token, now()),
        tomorrow=_next(today),
        last=last,
    )


def _own(access_token_id: int) -> AccessToken:
    """One's own token; an administrator's page makes none for somebody else. Raises NotFound."""
    token = access_tokens.get(db.session(), guards.actor(), access_token_id)
    if token.user_id != guards.user_session().user_id:
        raise NotFound(NOTHING_HERE)
    return token


@blueprint.get("/<int:access_token_id>/trail")
def trail_of(access_token_id: int) -> str:
    """What was done with the token; of anybody's for administrators."""
    session = db.session()
    token = access_tokens.get(session, guards.actor(), access_token_id)
    mine = token.user_id == guards.user_session().user_id
    before = request.args.get("before", "")
    older_than = int(before) if before.isascii() and before.isdecimal() and len(before) < 19 else None
    page = trail_pages.page(
        session,
        trail.of_access_token(token),
        TrailFilter(),
        before=older_than,
        limit=SHOWN_EVENTS,
        either=trail.around(token),
    )
    return render_template(
        "access_tokens/trail.html",
        token=token,
        state=State.of(token, now()),
        mine=mine,
        back=url_for("access_tokens.index") if mine else url_for("people.show", user_id=token.user_id),
        scope=INSTANCE,
        events=page.events,
        standing=trail.standing(session, page.events),
        page=page,
        older_than=older_than,
    )


@blueprint.route("/<int:access_token_id>/revoke", methods=["GET", "POST"])
@guards.recently
def revoke(access_token_id: int) -> str | BaseResponse:
    """When it was last used, and the button that ends it; of anybody's for administrators."""
    session = db.session()
    token = access_tokens.get(session, guards.actor(), access_token_id)
    mine = token.user_id == guards.user_session().user_id
    back = url_for("access_tokens.index") if mine else url_for("people.show", user_id=token.user_id)
    if request.method == "GET":
        return render_template(
            "access_tokens/revoke.html",
            form=EmptyForm(),
            token=token,
            state=State.of(token, now()),
            mine=mine,
            back=back,
            scope=INSTANCE,
        )
    name = token.name
    changed = access_tokens.revoke(session, guards.actor(), token)
    db.session.commit()
    when = "is revoked" if changed else "was revoked before"
    flash(f"The access token “{name}” {when}. It opens nothing any more.")
    return redirect(back)
