"""Reading API bodies, JSON and form alike: lenient about unknown keys, strict about types and limits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from flask import request

from portal.domain.errors import BadRequest
from portal.domain.runners.runner_settings import split_tags

Params = Mapping[str, Any]


def read() -> Params:
    """The request's parameters, from a JSON object or a form. `null` and nothing are no parameters.

    Raises BadRequest for a body that is neither; a body over the limit is refused by Flask with 413.
    """
    if request.mimetype in ("application/x-www-form-urlencoded", "multipart/form-data"):
        return from_form(request.form.lists())
    body = request.get_data(cache=False)
    if not body:
        return request.args.to_dict() if request.method in ("GET", "HEAD") else {}
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as wrong:
        raise BadRequest(f"The body is no JSON: {wrong}.") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.")
    return value


_NESTED = re.compile(r"([^\[\]]+)\[([^\[\]]*)\]")


def from_form(lists: Iterable[tuple[str, list[str]]]) -> Params:
    """Form fields as parameters: a repeated one is a list, `tag_list[]` too, and `info[version]` lies in `info`."""
    found: dict[str, Any] = {}
    for name, values in lists:
        nested = _NESTED.fullmatch(name)
        if nested is None:
            found[name] = values[0] if len(values) == 1 else values
        elif not nested[2]:
            found[nested[1]] = values
        else:
            inner = found.setdefault(nested[1], {})
            if isinstance(inner, dict):
                inner[nested[2]] = values[-1]
    return found


def text(params: Params, name: str, default: str = "") -> str:
    """A text; how long it may be is the domain's business. Raises BadRequest for anything else."""
    value = params.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or "\0" in value:
        raise BadRequest(f"{name} must be a text")
    return value


def flag(params: Params, name: str) -> bool | None:
    """True, false, or None when it is not there; as JSON or in words. Raises BadRequest."""
    value = params.get(name)
    if value is None or value == "" or isinstance(value, bool):
        return value if isinstance(value, bool) else None
    known = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    word = str(value).lower() if isinstance(value, str | int) else ""
    if word not in known:
        raise BadRequest(f"{name} must be true or false")
    return known[word]


def number(params: Params, name: str) -> int | None:
    """A whole number, or None when it is not there. Raises BadRequest."""
    value = params.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 10**18:
        raise BadRequest(f"{name} must be a whole number")
    return value


def tags(params: Params, name: str = "tag_list") -> tuple[str, ...]:
    """Tags from a list, a repeated field or a comma separated text, each once. Raises BadRequest."""
    value = params.get(name)
    if value is None:
        return ()
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, str) for part in parts):
        raise BadRequest(f"{name} must be a list of texts, or one text with commas")
    return split_tags(",".join(parts))


def only_one(params: Params, *names: str) -> str:
    """The one of these names that the request uses; the last when it uses none. Raises BadRequest for more."""
    used = [name for name in names if params.get(name) is not None]
    if len(used) > 1:
        raise BadRequest(f"{', '.join(used)} are mutually exclusive")
    return used[0] if used else names[-1]


def runner_token(params: Params) -> str:
    """The runner's token: from the body, which every client fills, before any header.

    16.10 to 17.10 send it as PRIVATE-TOKEN too, which is no user's token here; 17.11 and newer as RUNNER-TOKEN.
    Raises BadRequest when there is none.
    """
    token = params.get("token") or request.headers.get("Runner-Token", "")
    if not token:
        elsewhere = ": send it in the body. One in the address is not read, since addresses are logged"
        raise BadRequest("token is missing" + (elsewhere if request.args.get("token") else ""))
    if not isinstance(token, str):
        raise BadRequest("token must be a text")
    return token
