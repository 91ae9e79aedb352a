"""The blueprint of the REST API for people and their scripts: its guard, and how an operation is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from flask import Blueprint, Response, g, request

from portal.api import credentials, rate_limits
from portal.api.credentials import READING, WRITING
from portal.api.for_users import parameters
from portal.api.for_users.operations import OPERATIONS, Answer, Operation, declare
from portal.domain.errors import CredentialMissing, CredentialRefused, NotFound
from portal.models import TokenScope

blueprint = Blueprint("user_api", __name__, url_prefix="/api/v4")
V = TypeVar("V", bound=Callable[..., Any])


@blueprint.before_request
def authenticated() -> None:
    """Let pass who shows a good credential that opens the operation asked for, and not too often."""
    admit(OPERATIONS[(request.endpoint or "").rpartition(".")[2]])


def admit(operation: Operation) -> None:
    """The guard of one operation. Raises TooMany, CredentialMissing, CredentialRefused or ScopeTooSmall."""
    g.for_users = True  # refusals are answered in the shapes of this door
    rate_limits.count_address()
    try:
        found = credentials.of_request()
    except (CredentialMissing, CredentialRefused):
        rate_limits.count_refused()
        raise
    rate_limits.count_credential(found.limited_by)
    found.require(operation.opens, enrolment=operation.enrolment)


blueprint.after_request(rate_limits.tell)
blueprint.after_request(parameters.tell_unknown)


def operation(
    method: str,
    path: str,
    *,
    room: str,
    status: int = 200,
    also: tuple[int, ...] = (),
    refuses: tuple[int, ...] = (),
    opens: tuple[TokenScope, ...] = (),
    enrolment: bool = False,
    reads: tuple[str, ...] = (),
    routed: bool = True,
    media: str = "",
) -> Callable[[V], V]:
    """Make a view an operation: it takes its parameters, checked, and returns what is answered, or None for 204.

    `opens` are the scopes of a token any of which suffices, besides `api` (and `read_api` for reading). `also` are
    further statuses of success; `refuses` what it refuses with, besides what openapi_answers.py says of all.
    `reads` are headers that it looks at. Without `routed` another door has the path and calls `run`. With `media` it
    answers something of that type, which is no JSON, and returns the response.
    """

    def made(view: V) -> V:
        usual = READING if method == "GET" else WRITING
        declared = declare(
            view,
            method,
            path,
            room=room,
            status=status,
            also=also,
            refuses=refuses,
            opens=tuple(dict.fromkeys((*usual, *opens))),
            enrolment=enrolment,
            reads=reads,
            routed=routed,
            media=media,
        )
        if routed:

            def answer(**places: Any) -> Response:
                return run(declared, places)

            blueprint.add_url_rule(path, declared.name, answer, methods=[method])
        return view

    return made


def run(asked: Operation, places: Mapping[str, Any]) -> Response:
    """Read the parameters, carry the operation out, write the answer."""
    answer = asked.view(parameters.read(asked.takes, places))
    if asked.media:
        whole: Response = answer
        return whole
    status, headers = asked.status, {}
    if isinstance(answer, Answer):
        status, headers = answer.status or status, dict(answer.headers)
        answer = answer.body
    if getattr(answer, "is_page", False):
        headers, answer = {**answer.headers(), **headers}, answer.items
    if answer is None and asked.answers is type(None):
        return Response(status=204, headers=headers)
    body = asked.adapter.dump_json(answer, by_alias=True)
    return Response(body, status=status, headers=headers, mimetype="application/json")


@contextmanager
def looking_for(what: str) -> Iterator[None]:
    """Say in a 404 what it was that was not found, as GitLab does: "404 Runner Not Found"."""
    try:
        yield
    except NotFound as missing:
        missing.what = what
        raise
