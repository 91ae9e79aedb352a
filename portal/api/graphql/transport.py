"""How queries come in over HTTP, and how a request that is refused as a whole is answered."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from flask import Response, request
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException

from portal.api import credentials
from portal.api.credentials import READS
from portal.api.errors import status_of
from portal.api.graphql.limits import MOST_CHARACTERS, unstorable
from portal.api.graphql.problems import FAILED, RequestWrong, TookTooLong, is_timeout
from portal.domain.errors import CredentialRefused, Refusal, ScopeTooSmall, TryLater
from portal.request_logs import redacted

MOST_QUERIES = 20  # in one request
UNREADABLE = "The body must be a JSON object with `query`, `variables` and `operationName`, or a list of such."
CSRF_WANTED = "A browser's session changes nothing without its page's CSRF token: send it in the header X-CSRFToken."


@dataclass(frozen=True, slots=True)
class Asked:
    """One query as it came."""

    query: str
    variables: dict[str, Any]
    operation_name: str | None

    def __repr__(self) -> str:
        return "Asked(…)"  # it may hold tokens


@dataclass(frozen=True, slots=True)
class Request:
    """The queries of one request; `batch` says that they came as a list, and are answered as one."""

    queries: list[Asked]
    batch: bool


def read() -> Request:
    """The queries of this request. Raises RequestWrong."""
    given = _address() if request.method in READS else _body()
    batch = isinstance(given, list)
    items = given if isinstance(given, list) else [given]
    if not 1 <= len(items) <= MOST_QUERIES:
        raise RequestWrong(f"One request takes 1 to {MOST_QUERIES} queries.")
    queries = [_asked(each) for each in items]
    if sum(len(each.query) for each in queries) > MOST_CHARACTERS:
        raise RequestWrong(
            f"Query too large: the queries of one request have {MOST_CHARACTERS:,} characters at most."
        )
    return Request(queries, batch)


def _address() -> dict[str, str]:
    """The parameters of a GET; a token among them is refused as by the REST lists. Raises RequestWrong."""
    given = dict(request.args)
    if any(redacted(given.get(name, "")) != given.get(name, "") for name in ("query", "variables")):
        raise RequestWrong("A query with a token is sent with POST: addresses are kept in logs.")
    return given


def _body() -> Any:
    body = request.get_data(cache=False)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise RequestWrong(UNREADABLE) from None


def _asked(given: Any) -> Asked:
    if not isinstance(given, dict):
        raise RequestWrong(UNREADABLE)
    query, name = given.get("query"), given.get("operationName")
    if not all(each is None or isinstance(each, str) for each in (query, name)):
        raise RequestWrong(UNREADABLE)
    variables = _variables(given.get("variables"))
    if unstorable(variables):
        raise RequestWrong("A variable has a character that cannot be stored (U+0000).")
    return Asked(query or "", variables, name or None)


def _variables(given: Any) -> dict[str, Any]:
    """An object, or the text of one, as it is in an address."""
    if isinstance(given, str) and given.strip():
        try:
            given = orjson.loads(given)
        except orjson.JSONDecodeError:
            raise RequestWrong("`variables` must be a JSON object.") from None
    if given is None or given == "":
        return {}
    if not isinstance(given, dict):
        raise RequestWrong("`variables` must be a JSON object.")
    return given


def answer(body: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(body), status=status, mimetype="application/json")


def refused(problem: Exception) -> Response:
    """The answer to a request that is refused as a whole: a status, and the errors without data."""
    status, message = _worded(problem)
    response = answer({"errors": [{"message": message}]}, status)
    if isinstance(problem, TryLater):
        response.headers["Retry-After"] = str(problem.seconds)
    if status >= 500:
        response.headers.setdefault("Retry-After", "10")
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="runner portal"'
    return response


def _worded(problem: Exception) -> tuple[int, str]:
    match problem:
        case RequestWrong():
            return 422, str(problem)
        case CSRFError():
            return 422, CSRF_WANTED
        case TookTooLong():
            return 503, str(problem)
        case CredentialRefused() if credentials.given():
            return 401, "Invalid token"  # GitLab's words
        case ScopeTooSmall():
            return 403, f"{problem} It needs one of these scopes: {', '.join(problem.scopes)}."
        case Refusal():
            return status_of(problem), str(problem)
        case HTTPException():
            status = problem.code or 500
            return status, HTTPStatus(status).phrase
    if is_timeout(problem):
        return 503, str(TookTooLong())
    return 500, FAILED
