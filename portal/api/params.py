"""Reading API bodies, JSON and form alike: lenient about unknown keys, strict about types and limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from flask import request

from portal.domain.errors import BadRequest

Params = Mapping[str, Any]


def read() -> Params:
    """The request's parameters, from a JSON object or a form. `null` and nothing are no parameters.

    Raises BadRequest for a body that is neither; a body over the limit is refused by Flask with 413.
    """
    if request.mimetype in ("application/x-www-form-urlencoded", "multipart/form-data"):
        form = request.form
        return {name: values[0] if len(values) == 1 else values for name, values in form.lists()}
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


def runner_token(params: Params) -> str:
    """The runner's token: from the body, which every client fills, before any header.

    16.10 to 17.10 send it as PRIVATE-TOKEN too, which is no user's token here; 17.11 and newer as RUNNER-TOKEN.
    Raises BadRequest when there is none.
    """
    token = params.get("token") or request.headers.get("Runner-Token", "")
    if not isinstance(token, str) or not token:
        raise BadRequest("token is missing" if not token else "token must be a text")
    return token
