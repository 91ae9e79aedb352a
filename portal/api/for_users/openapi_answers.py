"""What any operation may answer, whichever it is: the refusals, their shapes and the headers, for OpenAPI.

Which refusals are always possible is decided here, and nowhere else.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from portal.api.for_users.operations import Operation
from portal.api.for_users.parameters import refusal_of

Schema = dict[str, Any]
JSON = "application/json"


def refusals(operation: Operation, *, body: bool) -> list[int]:
    """The statuses with which this operation may be refused; `body` says whether it takes one."""
    always = [401, 403, 429]
    placed = [404] if operation.places else []  # there is nothing at the place, or who asks may not see it
    read = [400] if set(operation.takes.model_fields) - set(operation.places) else []
    sent = [400, 413] if body else []
    # What is no number in a path below a project could be a part of a project's path, which takes no POST.
    elsewhere = [405] if operation.method == "POST" and re.search("<path:.*<int:", operation.path) else []
    return sorted({*always, *placed, *read, *sent, *elsewhere, *operation.refuses})


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _ref(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _text(example: str = "") -> Schema:
    return {"type": "string", **({"examples": [example]} if example else {})}


SHAPES: dict[str, Schema] = {
    "Message": {
        **_object(message=_text()),
        "description": "What is wrong and what to do, in words.",
    },
    "Problems": {
        **_object(message={"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}}),
        "description": "Values that cannot be taken: for each attribute the sentences that say why.",
        "examples": [{"message": {"maximum_timeout": ["needs to be at least 10 minutes"]}}],
    },
    "ParameterError": {
        **_object(error=_text("runner_type is missing")),
        "description": "Parameters that are missing or of the wrong kind.",
    },
    "Unauthorized": {
        **_object(
            message={"const": "401 Unauthorized"}, hint=_text("Send an access token in the header PRIVATE-TOKEN.")
        ),
        "description": "Nobody says who asks; `hint` says how to.",
    },
    "InvalidToken": {
        **_object(error={"const": "invalid_token"}, error_description=_text("Token was revoked.")),
        "description": "The credential is no good.",
    },
    "InsufficientScope": {
        **_object(error={"const": "insufficient_scope"}, error_description=_text(), scope=_text("api read_api")),
        "description": "The credential is good and does not open this; `scope` names the scopes that would.",
    },
    "TooManyRequests": {
        **_object(message=_object(error=_text("This endpoint has been requested too many times. Try again later."))),
        "description": "The token or the address has asked too often.",
    },
}

_WHY: dict[int, tuple[str, tuple[str, ...]]] = {
    400: ("The parameters cannot be taken.", ("ParameterError", "Message", "Problems")),
    401: ("Nobody says who asks, or the credential is no good.", ("Unauthorized", "InvalidToken")),
    403: ("The credential opens something else, or its person may not do this.", ("InsufficientScope", "Message")),
    404: ("There is no such thing, or the person may not know that there is.", ("Message",)),
    405: ("What stands at this place takes no such method.", ("Message",)),
    409: ("It is there already, or has changed since it was looked at.", ("Message", "Problems")),
    410: ("This way is turned off.", ("Message",)),
    412: ("It was changed after the moment in `If-Unmodified-Since`.", ("Message",)),
    413: ("The body is too large.", ("Message",)),
    416: ("It does not continue what is stored; `Range` says how many bytes are.", ("Message",)),
    422: ("It is understood and cannot be done as things are.", ("Message", "Problems")),
    503: ("What it needs does not answer; `Retry-After` says how many seconds to wait.", ("Message",)),
    429: ("Too many requests; `Retry-After` says how many seconds to wait.", ("TooManyRequests", "Message")),
}
_EXAMPLES: dict[int, Schema] = {
    401: {"message": "401 Unauthorized", "hint": "Send an access token (glpat-…) in the header PRIVATE-TOKEN."},
    403: {"message": "403 Forbidden"},
    404: {"message": "404 Not Found"},
    405: {"message": "405 Method Not Allowed"},
    409: {"message": "409 Conflict"},
    410: {"message": "410 Gone - runner registration disallowed"},
    412: {"message": "412 Precondition Failed"},
    413: {"message": "413 Request Entity Too Large - The body is too large."},
    416: {"message": "416 Range Not Satisfiable"},
    422: {"message": "422 Unprocessable Entity"},
    503: {"message": "503 Service Unavailable"},
}
TOLD = (
    "X-Request-Id",
    "X-Unknown-Parameters",
    "RateLimit-Limit",
    "RateLimit-Observed",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "RateLimit-Name",
)
_PAGES = {
    "number": ("X-Page", "X-Per-Page", "X-Next-Page", "X-Prev-Page", "X-Total", "X-Total-Pages", "Link"),
    "cursor": ("Link",),
    "": (),
}
_WHOLE, _EMPTY_OR_WHOLE = {"type": "integer"}, {"type": "string", "pattern": "^[0-9]*$"}
HEADERS: dict[str, Schema] = {
    name: {"description": description, "schema": schema}
    for name, description, schema in (
        ("X-Request-Id", "The request's id; audit events and the log carry it too.", {"type": "string"}),
        (
            "X-Unknown-Parameters",
            "Names that were sent and that the operation does not know, with commas; left out where there are none.",
            {"type": "string"},
        ),
        ("RateLimit-Limit", "How many requests a minute are let through.", _WHOLE),
        ("RateLimit-Observed", "How many of them are used up.", _WHOLE),
        ("RateLimit-Remaining", "How many are left.", _WHOLE),
        ("RateLimit-Reset", "When there are more again, in seconds since 1970.", _WHOLE),
        (
            "RateLimit-Name",
            "Which limit this is: of the token, of the address, or of refused credentials.",
            {"enum": ["api_token", "api_address", "api_refused"]},
        ),
        ("Retry-After", "Seconds to wait before the next request.", _WHOLE),
        ("Job-Status", "How the job stands; `canceling` and `canceled` ask its machine to stop.", {"type": "string"}),
        ("Range", "`0-` and how many bytes of the log are stored, where the next piece begins.", {"type": "string"}),
        ("X-GitLab-Trace-Update-Interval", "Seconds between two pieces of the log.", _WHOLE),
        ("WWW-Authenticate", "How to say who asks.", {"type": "string"}),
        ("X-Page", "The number of this page.", _WHOLE),
        ("X-Per-Page", "How long a page is.", _WHOLE),
        ("X-Next-Page", "The number of the next page; empty on the last.", _EMPTY_OR_WHOLE),
        ("X-Prev-Page", "The number of the page before; empty on the first.", _EMPTY_OR_WHOLE),
        ("X-Total", "How many there are; left out above 10,000.", _WHOLE),
        ("X-Total-Pages", "How many pages there are; left out with X-Total.", _WHOLE),
        ("Link", "Links to the first, previous, next and last page, as far as there are any.", {"type": "string"}),
        ("ETag", "Changes when the document does.", {"type": "string"}),
    )
}


def headers(*names: str) -> dict[str, Schema]:
    """References to the descriptions of these headers."""
    return {name: _ref("headers", name) for name in names}


def headers_of(operation: Operation) -> dict[str, Schema]:
    """The headers of a successful answer."""
    return headers(*TOLD, *_PAGES[operation.pages])


def name_of(status: int) -> str:
    """What the answer with this status is called among the components: "NotFound"."""
    return HTTPStatus(status).phrase.title().replace(" ", "").replace("-", "")


def refused(status: int) -> Schema:
    """A reference to the description of a refusal."""
    return _ref("responses", name_of(status))


def refused_in_words(why: str) -> Schema:
    """The description of a refusal that machines read, which is a message and nothing else."""
    return {
        "description": why,
        "headers": headers("X-Request-Id"),
        "content": {JSON: {"schema": _ref("schemas", "Message")}},
    }


def refused_parameters(operation: Operation) -> Schema:
    """The description of a 400 of this operation, with an example that it does answer."""
    said = refusal_of(operation.takes, operation.places)
    if not said:
        return refused(400)
    described = _response(400, *_WHY[400])
    described["content"][JSON]["example"] = {"error": said}
    return described


def responses() -> dict[str, Schema]:
    """The descriptions of all refusals, by name."""
    return {name_of(status): _response(status, *_WHY[status]) for status in _WHY}


def _response(status: int, why: str, shapes: tuple[str, ...]) -> Schema:
    told = {401: ("WWW-Authenticate",), 416: ("Range",), 429: ("Retry-After",), 503: ("Retry-After",)}
    more = told.get(status, ())
    schemas = [_ref("schemas", shape) for shape in shapes]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    content = {"schema": schema, **({"example": _EXAMPLES[status]} if status in _EXAMPLES else {})}
    return {"description": why, "headers": headers(*TOLD, *more), "content": {JSON: content}}
