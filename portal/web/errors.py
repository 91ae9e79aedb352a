"""Refusals as pages: what is wrong, and what to do next."""

from __future__ import annotations

from flask import Response, g, make_response, render_template, request
from flask_login import current_user
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException

from portal.domain import errors

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
    errors.TryLater: 429,
}
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
}


def answer(problem: Exception) -> Response:
    """The page for a refusal, an HTTP error or a failure of ours."""
    if isinstance(problem, errors.Refusal):
        status = next(STATUS[kind] for kind in type(problem).__mro__ if kind in STATUS)
        return _page(status, str(problem))
    if isinstance(problem, CSRFError):
        if not current_user.is_authenticated and request.endpoint != "sessions.sign_in":
            signed_out = "You are signed out, so nothing was changed. Go back to copy what you typed, then sign in."
            return _page(400, signed_out)
        return _page(
            400,
            "The form was open for too long, or cookies are off. Go back, reload the page and send it again.",
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


def _page(status: int, sentence: str) -> Response:
    title = TITLES.get(status, "Something went wrong")
    signed_in = bool(current_user and current_user.is_authenticated)
    request_id = g.get("request_id", "")
    html = render_template(
        "errors/refusal.html",
        status=status,
        title=title,
        sentence=sentence,
        signed_in=signed_in,
        request_id=request_id,
    )
    return make_response(html, status)
