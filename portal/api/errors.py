"""Refusals as API answers, in GitLab's shapes; gitlab-runner prints the `message` in its user's terminal."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response, jsonify
from werkzeug.exceptions import HTTPException

from portal.domain import errors
from portal.requests import portal_url

STATUS: dict[type[errors.Refusal], int] = {
    errors.BadRequest: 400,
    errors.Invalid: 400,
    errors.NotAllowed: 403,
    errors.TokenUnknown: 403,  # the only status by which a client knows that its token is no good
    errors.NotFound: 404,
    errors.ManagerUnknown: 404,
    errors.Stale: 409,
    errors.AlreadyIssued: 409,
    errors.TryLater: 429,
}
OURS = 500  # what is our own fault is never a 403, which would silence a runner for an hour


def answer(problem: Exception) -> Response:
    """The answer to a refusal, an HTTP error or a failure of ours."""
    if isinstance(problem, errors.Refusal):
        return _refused(problem)
    if isinstance(problem, HTTPException):
        response = _json(problem.code or OURS, _reason(problem))
        for name, value in problem.get_headers():
            if name == "Allow":
                response.headers[name] = value
        return response
    response = _json(OURS, "The portal failed to answer. It is not your fault; try again.")
    response.headers["Retry-After"] = "10"
    return response


def _refused(refusal: errors.Refusal) -> Response:
    status = next(STATUS[kind] for kind in type(refusal).__mro__ if kind in STATUS)
    sentence = str(refusal)
    if isinstance(refusal, errors.TokenUnknown):
        sentence = f"{sentence.rstrip('.')}: {portal_url('/')}"
    response = _json(status, sentence)
    if isinstance(refusal, errors.TryLater):
        response.headers["Retry-After"] = str(refusal.seconds)
    return response


def _reason(problem: HTTPException) -> str:
    reasons = {
        404: "There is no such API path here.",
        405: "This path does not take this method.",
        413: "The body is too large.",
    }
    return reasons.get(problem.code or OURS, problem.description or "")


def _json(status: int, reason: str) -> Response:
    phrase = f"{status} {HTTPStatus(status).phrase}"
    response = jsonify(message=f"{phrase} - {reason}" if reason else phrase)
    response.status_code = status
    return response
