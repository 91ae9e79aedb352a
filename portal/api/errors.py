"""Refusals as API answers, in GitLab's shapes; gitlab-runner prints the `message` in its user's terminal."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response, g, jsonify, url_for
from werkzeug.exceptions import HTTPException

from portal.addresses import absolute, url_at
from portal.domain import errors
from portal.domain.scopes import ScopeKind
from portal.requests import portal_url, settings

STATUS: dict[type[errors.Refusal], int] = {
    errors.BadRequest: 400,
    errors.RegistrationTokenUnknown: 403,
    errors.RegistrationOff: 410,
    errors.ClientTooOld: 410,  # not 403, after which a client may sleep for an hour or drop the runner from its file
    errors.Invalid: 400,
    errors.OwnAccount: 403,
    errors.LastAdministrator: 403,
    errors.AlreadyMember: 409,
    errors.LeftWithoutOwner: 409,
    errors.NotAllowed: 403,
    errors.JobRefused: 403,  # on purpose never 404, which can come from anywhere in a network; 403 stops the job
    errors.LogElsewhere: 416,
    errors.LostRace: 409,
    errors.TooLarge: 413,
    errors.TokenUnknown: 403,  # the only status by which a client knows that its token is no good
    errors.NotFound: 404,
    errors.ManagerUnknown: 404,
    errors.Stale: 409,
    errors.AlreadyIssued: 409,
    errors.AlreadyMade: 409,
    errors.CredentialMissing: 401,
    errors.CredentialRefused: 401,
    errors.ScopeTooSmall: 403,
    errors.ChangedSince: 412,
    errors.KeyReused: 422,
    errors.Collided: 503,
    errors.StoreUnreachable: 503,  # after which a runner uploads again
    errors.TryLater: 429,
}
OURS = 500  # what is our own fault is never a 403, which would silence a runner for an hour


def answer(problem: Exception) -> Response:
    """The answer to a refusal, an HTTP error or a failure of ours."""
    if refused_as := g.get("refused_as"):  # a door with a shape of its own for everything
        shaped: Response = refused_as(problem)
        return shaped
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
    status = status_of(refusal)
    response = _for_user(status, refusal) if g.get("for_users") else None
    if response is None and isinstance(refusal, errors.Invalid) and status == STATUS[errors.Invalid]:
        response = _messages(status, refusal)
    response = response or _json(status, _sentence(refusal))
    if isinstance(refusal, errors.JobRefused) and refusal.status:
        response.headers["Job-Status"] = refusal.status  # by which the machine knows that it shall stop
    if isinstance(refusal, errors.LogElsewhere):
        response.headers["Range"] = f"0-{refusal.size}"  # the number of stored bytes, where the next one belongs
    if isinstance(refusal, errors.TryLater):
        response.headers["Retry-After"] = str(refusal.seconds)
    return response


def status_of(refusal: errors.Refusal) -> int:
    """The HTTP status of this refusal."""
    return next(STATUS[kind] for kind in type(refusal).__mro__ if kind in STATUS)


def _for_user(status: int, refusal: errors.Refusal) -> Response | None:
    """The shapes that only people's scripts know (reference/rest.md 2.1 and 2.6); None for the common ones."""
    match refusal:
        case errors.CredentialMissing():
            response = _body(status, message="401 Unauthorized", hint=str(refusal))
        case errors.CredentialRefused():
            response = _body(status, error="invalid_token", error_description=str(refusal))
        case errors.ScopeTooSmall():
            scopes = " ".join(refusal.scopes)
            response = _body(status, error="insufficient_scope", error_description=str(refusal), scope=scopes)
        case errors.ParametersWrong():
            response = _body(status, error=str(refusal))
        case errors.BadRequest():
            response = _body(status, message=f"400 Bad request - {refusal}")  # so GitLab writes it where people ask
        case errors.TooMany():
            response = _body(status, message={"error": str(refusal)})
        case errors.NotFound(what=what) if what:
            response = _body(status, message=f"404 {what} Not Found")
        case _:
            return None
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="runner portal"'
    return response


def _sentence(refusal: errors.Refusal) -> str:
    """What is wrong, and where to do something about it. GitLab's own words lead where clients look for them."""
    sentence = str(refusal)
    if isinstance(refusal, errors.RegistrationOff):
        create = (
            url_at(ScopeKind(refusal.kind), refusal.path, "runners.new") if refusal.path else url_for("start.show")
        )
        return (
            f"runner registration disallowed: {sentence} Create a runner in the browser and register with its glrt- "
            f"token (gitlab-runner 15.10 or newer): {absolute(create)}"
        )
    if isinstance(refusal, errors.RunnerDeleted):
        return restorable(refusal)
    if isinstance(refusal, errors.TokenOver | errors.ClientTooOld):
        return f"{sentence.rstrip('.')}: {absolute(url_for('runner_links.show', runner_id=refusal.runner_id))}"
    if isinstance(refusal, errors.RegistrationTokenUnknown):
        return f"invalid token supplied: {sentence.rstrip('.')}: {portal_url('/')}"
    if isinstance(refusal, errors.TokenUnknown):
        return f"{sentence.rstrip('.')}: {portal_url('/')}"
    if isinstance(said := next(iter(refusal.args), ""), errors.Worded):
        return said.gitlab if said.whole else f"{said.gitlab}: {sentence}"
    return sentence


def restorable(refusal: errors.RunnerDeleted) -> str:
    """Until when people can restore the runner, and where; nothing of who deleted it."""
    until = refusal.deleted_at + settings().deleted_kept
    page = absolute(url_for("runner_links.show", runner_id=refusal.runner_id))
    return f"{refusal}. Until {until:%Y-%m-%d %H:%M} UTC those who look after it can restore it: {page}"


def _said(sentence: str, invalid: errors.Invalid) -> list[str]:
    """GitLab's words where it has any. Of a limit it does not say whose, nor what to do, so ours follow."""
    gitlab = getattr(sentence, "gitlab", sentence)
    return [gitlab, sentence] if isinstance(invalid, errors.LimitReached) and gitlab != sentence else [gitlab]


FIELDS = {"tags": "tags_list"}  # GitLab's names of the fields that we call otherwise


def _messages(status: int, invalid: errors.Invalid) -> Response:
    """GitLab's hash of messages, in its words where it has any (reference/rest.md sections 2.6 and 8)."""
    message = {
        FIELDS.get(name, name): [said for sentence in sentences for said in _said(sentence, invalid)]
        for name, sentences in invalid.problems.items()
    }
    return _body(status, message=message)


def as_sentence(invalid: errors.Invalid) -> str:
    """The same messages as one sentence, with the names in front, as GitLab answers where it makes a runner."""
    parts = []
    for name, sentences in invalid.problems.items():
        title = "" if name == "base" else f"{FIELDS.get(name, name).replace('_', ' ').capitalize()} "
        for sentence in sentences:
            whole = sentence[:1].isupper() and not isinstance(sentence, errors.Worded)  # ours; GitLab's follow a name
            parts.append(("" if whole else title) + " - ".join(_said(sentence, invalid)))
    if len(parts) > 2:
        return f"{', '.join(parts[:-1])}, and {parts[-1]}"
    return " and ".join(parts)


def _reason(problem: HTTPException) -> str:
    reasons = {
        404: "There is no such API path here.",
        405: "This path does not take this method.",
        413: "The body is too large.",
    }
    return reasons.get(problem.code or OURS, problem.description or "")


def _json(status: int, reason: str) -> Response:
    phrase = f"{status} {HTTPStatus(status).phrase}"
    return _body(status, message=f"{phrase} - {reason}" if reason else phrase)


def _body(status: int, **values: object) -> Response:
    response = jsonify(**values)
    response.status_code = status
    return response
