"""Who may pass: `before_request` functions that hang on blueprints, and the actor of a request."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

from flask import flash, g, redirect, request, url_for
from flask_login import current_user
from werkzeug.wrappers import Response

from portal.addresses import local
from portal.database import db, now
from portal.domain import actors, permissions, scopes
from portal.domain.actors import Actor
from portal.domain.errors import BadRequest, NotAllowed, NotFound, SignedOut
from portal.domain.people import second_factor
from portal.domain.permissions import Action
from portal.domain.runners import runner_access, runner_lists
from portal.domain.scopes import Scope, ScopeKind
from portal.models import Runner, UserSession
from portal.requests import client_address, portal_url, second_factor_configured, settings
from portal.web import errors as refusal_pages

Guard = Callable[[], Response | None]
Given = ParamSpec("Given")
Answer = TypeVar("Answer")
TO_FILL_IN = timedelta(minutes=10)  # how much later than its page a sensitive form may come


def storable() -> None:
    """Refuse the one character that PostgreSQL cannot take, wherever it stands; no keyboard writes it."""
    if request.path.startswith("/api/"):
        return
    given = [request.path, *(value for _, value in request.values.items(multi=True))]
    if any("\0" in text for text in given):
        raise BadRequest("It has a character that cannot be stored (U+0000). Remove it and try again.")


def public() -> None:
    """Anybody may pass. Named, so that no door is open by forgetting."""


def signed_in() -> Response | None:
    """Ask for a sign-in first, and for a password of one's own from who came in with one that somebody else chose."""
    if not current_user.is_authenticated:
        if request.method == "POST" and refusal_pages.typed():
            raise SignedOut
        wanted = request.full_path.rstrip("?") if request.method == "GET" else None
        return redirect(url_for("sessions.sign_in", next=wanted))
    chosen_by_another = current_user.must_change_password and user_session().method == "password"
    if chosen_by_another and request.endpoint not in ("account.password", "sessions.sign_out"):
        return redirect(url_for("account.password"))
    return _second_factor_first()


def _second_factor_first() -> Response | None:
    """Lead who may not go without a second factor to where they set one up; every other page waits until then."""
    if user_session().second_factor or not second_factor_configured().demands_of(current_user):
        return None
    if request.blueprint in ("second_factor", "confirmations") or request.endpoint in (
        "account.password",
        "sessions.sign_out",
    ):
        return None
    if second_factor.find(db.session(), current_user) is not None:  # set up in another browser at this moment
        return _asked_again(request.full_path if request.method == "GET" else "/")
    return redirect(url_for("second_factor.show"))


def confirmed() -> Response | None:
    """Ask who they are once more before anything sensitive: every page with a form, of a whole blueprint."""
    takes_a_form = request.url_rule is not None and "POST" in (request.url_rule.methods or ())
    return _confirmed() if takes_a_form else None


def _confirmed() -> Response | None:
    """Ask who they are once more, unless that is known since a moment ago.

    A form that was opened in time may be sent for a while longer, so that nothing typed is lost.
    """
    good_for = settings().recent_sign_in + (TO_FILL_IN if request.method == "POST" else timedelta(0))
    if user_session().confirmed_at + good_for > now():
        return None
    if request.method == "GET":
        return _asked_again(request.full_path.rstrip("?"))
    flash("Nothing was changed yet: your sign-in was long ago. Confirm that it is you and send it again.", "warning")
    return _asked_again(_page_of_the_form())


def recently(view: Callable[Given, Answer]) -> Callable[Given, Answer | Response]:
    """The view, for who has proved a moment ago who they are: for single pages of a blueprint."""

    @wraps(view)
    def guarded(*args: Given.args, **kwargs: Given.kwargs) -> Answer | Response:
        return _confirmed() or view(*args, **kwargs)

    return guarded


def _asked_again(wanted: str) -> Response:
    return redirect(url_for("confirmations.show", next=wanted), 303)


def _page_of_the_form() -> str:
    """Where the form that was sent can be filled in again."""
    if request.url_rule is not None and "GET" in (request.url_rule.methods or ()):
        return request.full_path.rstrip("?")
    came_from = urlsplit(request.referrer or "")
    if came_from.netloc not in (request.host, urlsplit(portal_url()).netloc):
        return "/"
    path = came_from.path.removeprefix(request.script_root)
    return local(f"{path}?{came_from.query}" if came_from.query else path) or "/"


def actor() -> Actor:
    """The signed-in person, with the address and id of the request; one object for the whole request."""
    if "actor" not in g:
        user = current_user._get_current_object()
        g.actor = actors.person(user, address=client_address(), request_id=g.request_id)
    found: Actor = g.actor
    return found


def user_session() -> UserSession:
    """The session that the signed-in person is in."""
    found: UserSession = g.user_session
    return found


def scope() -> Scope:
    """The scope of the page, found by `in_scope`."""
    found: Scope = g.scope
    return found


def in_scope() -> None:
    """Find the page's scope by its path; 404 for one that does not exist or may not be seen."""
    kind, path = g.scope_place
    if kind is ScopeKind.INSTANCE:
        g.scope = scopes.INSTANCE
    else:
        find = scopes.find_group if kind is ScopeKind.GROUP else scopes.find_project
        g.scope = find(db.session(), path)
    permissions.require(db.session(), actor(), Action.SEE, g.scope)


def may(action: Action) -> Guard:
    """A guard that lets pass who may do this in the page's scope."""

    def guard() -> None:
        permissions.require(db.session(), actor(), action, scope())

    guard.__name__ = f"may_{action.name.lower()}"
    return guard


def allowed(action: Action, where: Scope | None = None) -> bool:
    """Whether the signed-in person may do this; for what a page offers."""
    return permissions.may(db.session(), actor(), action, where or scope())


def hidden_above(where: Scope) -> int:
    """How many groups above this scope the signed-in person may not see; links leave them out."""
    return permissions.first_visible(db.session(), actor(), where)


def require(action: Action, where: Scope | None = None) -> None:
    """Refuse a form to a person who may not send it."""
    permissions.require(db.session(), actor(), action, where or scope())


def runner(runner_id: int) -> Runner:
    """The runner of the page, if the page's scope may show it. Raises NotFound."""
    found = runner_lists.find(db.session(), scope(), runner_id)
    if found is None:
        raise NotFound("There is no such runner here. It may have been deleted, or it belongs somewhere else.")
    return found


def own_runner(runner_id: int, action: Action = Action.WRITE_RUNNERS) -> Runner:
    """The same for a page that does this with it. Raises NotFound, or NotAllowed for one that is inherited."""
    found = runner(runner_id)
    owner = scopes.of_runner(found)
    try:
        runner_access.require(db.session(), actor(), action, found)
    except NotFound:  # it is inherited: the person sees the runner, though not the scope that owns it
        raise NotAllowed(
            f"This runner belongs to {owner.title}: those who look after its runners may do that."
        ) from None
    return found
