"""Refusals as pages: what is wrong, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from flask import Response, g, make_response, render_template, request
from flask_login import current_user
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException

from portal.domain import errors
from portal.requests import portal_url

STATUS: dict[type[errors.Refusal], int] = {
    errors.BadRequest: 400,
    errors.Invalid: 422,
    errors.NotAllowed: 403,
    errors.TokenUnknown: 403,
    errors.NotFound: 404,
    errors.ManagerUnknown: 404,
    errors.RegistrationOff: 410,
    errors.RegistrationTokenUnknown: 403,
    errors.ClientTooOld: 410,
    errors.LimitReached: 400,
    errors.Stale: 409,
    errors.AlreadyIssued: 409,
    errors.AlreadyMade: 409,
    errors.KeyReused: 409,
    errors.Collided: 503,
    errors.StoreUnreachable: 503,
    errors.TryLater: 429,
}
KEPT = ("name", "description", "tags", "maintenance_note")  # what people type at length; no field here is a secret
TITLES = {
    400: "This request cannot be read",
    403: "You may not do this",
    404: "There is nothing here",
    405: "This address does not take that",
    409: "Something changed meanwhile",
    410: "Registration tokens are turned off",
    413: "This is too large",
    422: "Some values cannot be taken",
    429: "Too many requests",
    503: "Try that once more",
}


def answer(problem: Exception) -> Response:
    """The page for a refusal, an HTTP error or a failure of ours."""
    if isinstance(problem, errors.Refusal):
        status = next(STATUS[kind] for kind in type(problem).__mro__ if kind in STATUS)
        response = _page(status, str(problem), typed=typed() if isinstance(problem, errors.SignedOut) else ())
        if isinstance(problem, errors.TryLater):
            response.headers["Retry-After"] = str(problem.seconds)
        return response
    if isinstance(problem, CSRFError):
        if not current_user.is_authenticated and request.endpoint != "sessions.sign_in":
            return _page(400, str(errors.SignedOut()), typed=typed())
        return _page(
            400,
            "The form was open for too long, or cookies are off. Go back, reload the page and send it again.",
            typed=typed(),
        )
    if isinstance(problem, HTTPException):
        status = problem.code or 500
        sentence = "The address is wrong, or you may not see what is there." if status == 404 else problem.description
        response = _page(status, sentence or "")
        for name, value in problem.get_headers():
            if name == "Allow":
                response.headers[name] = value
        return response
    return _page(500, "The portal failed to answer. It is not your fault, and nothing was changed. Try again.")


def typed() -> list[tuple[str, str]]:
    """The longer texts of the refused form, to be copied: browsers store no page, so going back finds an empty one.

    Only for a form that one of our own pages has sent, so that nobody else's words are shown as ours.
    """
    if urlsplit(request.headers.get("Origin", "")).netloc not in (request.host, urlsplit(portal_url()).netloc):
        return []
    given = ((name, request.form.get(name, "").strip()) for name in KEPT)
    return [(name.replace("_", " ").capitalize(), text) for name, text in given if text]


def _page(status: int, sentence: str, *, typed: Sequence[tuple[str, str]] = ()) -> Response:
    title = TITLES.get(status, "Something went wrong")
    signed_in = bool(current_user and current_user.is_authenticated)
    request_id = g.get("request_id", "")
    html = render_template(
        "errors/refusal.html",
        status=status,
        title=title,
        sentence=sentence,
        typed=typed,
        signed_in=signed_in,
        request_id=request_id,
    )
    return make_response(html, status)
