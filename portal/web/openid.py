"""Signing in, connecting and confirming at an OpenID Connect provider: the way there and the way back."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, current_app, flash, redirect, render_template, request, session, url_for
from flask_login import current_user
from werkzeug.wrappers import Response

from portal.addresses import local
from portal.database import db, now
from portal.domain.errors import IdentityRefused, NotFound
from portal.domain.people import openid_accounts, second_factor, user_sessions
from portal.domain.people.openid_accounts import Rules
from portal.requests import settings
from portal.web import guards, refused_sign_ins, sessions, sign_in_attempts
from portal.web.openid_provider import LEEWAY, CodeRefused, Proof, Provider, ProviderSilent, ProviderWrong
from portal.web.secret_pages import unstored

blueprint = Blueprint("openid", __name__, url_prefix="/-/sign-in/openid")
blueprint.before_request(guards.public)

STARTED = "openid"  # in the browser's signed cookie: the sign-ins that were started and are not finished
MOST_STARTED = 3  # tabs at once; the cookie has no room for many
GOOD_FOR = timedelta(minutes=10)
LONGEST_WAY_BACK = 512  # characters
SIGN_IN, CONNECT, CONFIRM = "sign in", "connect", "confirm"

NOT_STARTED = (
    "This sign-in was not started in this browser, it took more than ten minutes, or it was finished before. "
    "Start again."
)
NOT_TAKEN = "The provider did not finish this sign-in: it took too long, or it was finished before. Start again."
SILENT = "{name} does not answer at the moment. Try again in a minute."
WRONG = (
    "The answer of {name} could not be checked, so nobody was signed in. Start again; if that does not help, tell an "
    "administrator, who finds the reason in the log of the portal."
)
# What a provider says in the address (RFC 6749 4.1.2.1, OpenID Connect Core 3.1.2.6) in words of ours: anybody can
# write an address.
SAID = {
    "access_denied": "The provider did not let you in, or you chose not to go on.",
    "temporarily_unavailable": SILENT,
    "server_error": SILENT,
}
# What the trail says of a way back that led nowhere: words of ours again.
CODE_REFUSED, NOT_BY_PROVIDER = "the provider did not take the code", "the answer was of another issuer"
NO_ANSWER, NOT_TRUSTED = "the provider did not answer", "the answer of the provider could not be trusted"
BY_PROVIDER, OTHER_SESSION = "the provider refused", "started in another session"
NOT_FRESH = "no fresh proof from the provider"
REFUSED_THERE = "The provider refused this sign-in. Start again; if that does not help, tell an administrator."


@blueprint.post("/start")
def start() -> Response | str | tuple[str, int]:
    """To the provider, for who is not signed in yet."""
    if current_user.is_authenticated:
        return redirect(url_for("start.show"))
    return leave(SIGN_IN, local(request.values.get("next")))


@blueprint.post("/confirm")
def confirm() -> Response | str | tuple[str, int]:
    """To the provider, to prove once more who one is, also when one is signed in there."""
    if not current_user.is_authenticated:
        return redirect(url_for("sessions.sign_in"))
    return leave(CONFIRM, local(request.values.get("next")))


@blueprint.get("/callback")
def callback() -> Response | str | tuple[str, int]:
    """Back from the provider. The protocol makes it a GET; only a browser that has started a sign-in finishes one."""
    provider = configured()
    state = request.args.get("state", "")
    started = _take(state)
    if started is None:
        return refuse(NOT_STARTED, 400)
    try:
        if not provider.is_answer_of(request.args.get("iss")):
            return _refused(started, NOT_BY_PROVIDER, WRONG, 400)
        if "error" in request.args or not request.args.get("code"):
            return _refused(started, BY_PROVIDER, SAID.get(request.args.get("error", ""), REFUSED_THERE), 403)
        proof = provider.proof(request.args["code"], state)
    except CodeRefused:
        return _refused(started, CODE_REFUSED, NOT_TAKEN, 400)
    except (ProviderSilent, ProviderWrong) as problem:
        _note(started, NO_ANSWER if isinstance(problem, ProviderSilent) else NOT_TRUSTED)
        return not_answered(problem)
    finish = {SIGN_IN: _sign_in, CONNECT: _connect, CONFIRM: _confirm}[started["for"]]
    try:
        return finish(proof, started)
    except IdentityRefused as refusal:
        db.session.rollback()
        openid_accounts.record_refusal(db.session(), refused_sign_ins.asker(), proof.identity, refusal)
        db.session.commit()
        return refuse(str(refusal), 403)


def leave(purpose: str, wanted: str | None = None) -> Response | str | tuple[str, int]:
    """A page that leads on to the provider by itself.

    No redirect: the browser would hold it against the form's page, whose policy lets forms lead nowhere else.
    """
    provider, state = configured(), secrets.token_urlsafe(32)
    try:
        address = provider.address(state, again=purpose == CONFIRM)
    except (ProviderSilent, ProviderWrong) as problem:
        return not_answered(problem)
    here = guards.user_session().id if current_user.is_authenticated else None
    if wanted is not None and len(wanted) > LONGEST_WAY_BACK:
        wanted = None
    started = dict(list(session.get(STARTED, {}).items())[1 - MOST_STARTED :])
    started[state] = {"for": purpose, "next": wanted, "at": int(now().timestamp()), "session": here}
    session[STARTED] = started
    return unstored(render_template("openid/leave.html", address=address, provider=provider))


def refuse(sentence: str, status: int) -> tuple[str, int]:
    """The page that says why nobody was signed in, with the other ways to go on."""
    page = render_template("openid/refused.html", sentence=sentence.replace("{name}", configured().name))
    return page, status


def not_answered(problem: ProviderSilent | ProviderWrong) -> tuple[str, int]:
    """The page for a provider that is down or cannot be trusted; the reason stands in the log."""
    silent = isinstance(problem, ProviderSilent)
    said = "does not answer" if silent else "gave an answer that cannot be trusted"
    current_app.logger.warning("the OpenID Connect provider %s: %s", said, problem)
    return refuse(SILENT, 503) if silent else refuse(WRONG, 502)


def configured() -> Provider:
    """The provider. Raises NotFound when there is none."""
    found = offered()
    if found is None:
        raise NotFound("Single sign-on is not set up on this portal.")
    return found


def offered() -> Provider | None:
    """The provider, if there is one; for what pages offer."""
    found: Provider | None = current_app.extensions["openid"]
    return found


def rules() -> Rules:
    """What this process's configuration says of accounts and roles."""
    return Rules(settings().openid_create, settings().openid_roles, settings().password_sign_in)


def _take(state: str) -> dict[str, Any] | None:
    """The sign-in that this browser has started with this state: once, and in time."""
    started = dict(session.get(STARTED, {}))
    found: dict[str, Any] | None = started.pop(state, None)
    if found is None:
        return None
    session[STARTED] = started
    begun = datetime.fromtimestamp(found["at"], UTC)
    return found if begun + GOOD_FOR > now() else None


def _sign_in(proof: Proof, started: Mapping[str, Any]) -> Response:
    if current_user.is_authenticated:  # meanwhile, in another tab: that session is not left behind unseen
        return redirect(_way_back(started, url_for("start.show")))
    user = openid_accounts.signed_in(db.session(), sign_in_attempts.visitor(), proof.identity, rules())
    return sessions.proceed(
        user,
        method="openid",
        second_factor=proof.two_factors,
        wanted=_way_back(started, ""),
        proven_at=min(proof.proven_at, now()) if proof.proven_at else None,
    )


def _connect(proof: Proof, started: Mapping[str, Any]) -> Response | tuple[str, int]:
    if not _same_session(started):
        return _refused(started, OTHER_SESSION, NOT_STARTED, 400)
    openid_accounts.connect(db.session(), guards.actor(), proof.identity)
    db.session.commit()
    flash(f"Connected. From now on you can sign in with {configured().name}.")
    return redirect(url_for("identities.index"))


def _confirm(proof: Proof, started: Mapping[str, Any]) -> Response | tuple[str, int]:
    if not _same_session(started):
        return _refused(started, OTHER_SESSION, NOT_STARTED, 400)
    openid_accounts.confirmed(db.session(), guards.actor(), proof.identity)
    begun = datetime.fromtimestamp(started["at"] - LEEWAY, UTC)
    if proof.proven_at is None or proof.proven_at < begun:
        return _refused(
            started,
            NOT_FRESH,
            "{name} does not say that you have signed in there just now, so this does not count as a confirmation. "
            "Sign out of this portal and in again instead.",
            403,
        )
    wanted, here = _way_back(started, url_for("start.show")), guards.user_session()
    if not proof.two_factors and second_factor.find(db.session(), here.user) is not None:
        # Their code is asked for too, as at the sign-in: so this is one, in place of the session that they are in.
        user_sessions.sign_out(db.session(), guards.actor(), here)
        return sessions.proceed(here.user, method="openid", wanted=wanted, proven_at=proof.proven_at)
    user_sessions.confirm(db.session(), guards.actor(), here)
    sessions.renew()
    db.session.commit()
    return redirect(wanted)


def _refused(started: Mapping[str, Any], reason: str, sentence: str, status: int) -> tuple[str, int]:
    """The page of `refuse`, with an event: only a sign-in that this browser has started leaves one."""
    _note(started, reason)
    return refuse(sentence, status)


def _note(started: Mapping[str, Any], reason: str) -> None:
    confirming = started["for"] == CONFIRM and _same_session(started)
    note = refused_sign_ins.note_confirmation if confirming else refused_sign_ins.note
    note(reason, method="openid")


def _same_session(started: Mapping[str, Any]) -> bool:
    """Whether the person who started is still the one who is signed in here."""
    return bool(current_user.is_authenticated) and guards.user_session().id == started["session"]


def _way_back(started: Mapping[str, Any], otherwise: str) -> str:
    return request.script_root + started["next"] if started["next"] else otherwise
