"""Who may pass: `before_request` functions that hang on blueprints, and the actor of a request."""

from __future__ import annotations

from collections.abc import Callable

from flask import g, redirect, request, url_for
from flask_login import current_user
from werkzeug.wrappers import Response

from portal.database import db
from portal.domain import actors, permissions, runner_lists, scopes
from portal.domain.actors import Actor
from portal.domain.errors import BadRequest, NotAllowed, NotFound
from portal.domain.permissions import Action
from portal.domain.scopes import Scope, ScopeKind
from portal.models import Runner, UserSession
from portal.requests import client_address

Guard = Callable[[], Response | None]


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
    """Ask for a sign-in first, and for a password of one's own after somebody else has chosen one."""
    if not current_user.is_authenticated:
        wanted = request.full_path.rstrip("?") if request.method == "GET" else None
        return redirect(url_for("sessions.sign_in", next=wanted))
    if current_user.must_change_password and request.endpoint not in (
        "account.password",
        "sessions.sign_out",
    ):
        return redirect(url_for("account.password"))
    return None


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


def own_runner(runner_id: int) -> Runner:
    """The same for a page that changes the runner. Raises NotFound, or NotAllowed for one that is inherited."""
    found = runner(runner_id)
    owner = scopes.of_runner(found)
    try:
        require(Action.WRITE_RUNNERS, owner)
    except NotFound:  # it is inherited: the person sees the runner, though not the scope that owns it
        raise NotAllowed(
            f"This runner belongs to {owner.title}: those who look after its runners may do that."
        ) from None
    return found
