"""The REST API's description of itself, in OpenAPI: made of the declarations that also check the parameters."""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from typing import Any

import orjson
from flask import Blueprint, Flask, Response, current_app, request
from pydantic import TypeAdapter

from portal.api import rate_limits
from portal.api.for_users import openapi_answers as answers
from portal.api.for_users import openapi_words as words
from portal.api.for_users import runner_protocol
from portal.api.for_users.openapi_answers import JSON, Schema
from portal.api.for_users.operations import OPERATIONS, Operation
from portal.api.for_users.runner_protocol import PROTOCOL, Spoken
from portal.config import Settings

API = "/api/v4"
FORM = "application/x-www-form-urlencoded"
BODILESS = ("GET", "DELETE")
ROOM = "Description"
REFS = "#/components/schemas/{model}"

blueprint = Blueprint("api_description", __name__, url_prefix=API)


@blueprint.before_request
def public() -> None:
    """Public by design: it tells of nobody, and tools read it before they have a token."""
    rate_limits.count_address()


blueprint.after_request(rate_limits.tell)


class Description:
    """The document, made when it is first asked for and kept as long as the process lives."""

    def __init__(self, server: str, cookie: str) -> None:
        self.server, self.cookie = server, cookie

    @cached_property
    def document(self) -> Schema:
        """The document as a mapping."""
        return describe(self.server, self.cookie)

    @cached_property
    def text(self) -> bytes:
        """The document as JSON."""
        return orjson.dumps(self.document)

    @cached_property
    def tag(self) -> str:
        """What changes when the document does."""
        return hashlib.sha256(self.text).hexdigest()[:32]


def register(app: Flask) -> None:
    settings: Settings = app.config["PORTAL"]
    app.extensions["api_description"] = Description(settings.url + API, settings.session_cookie)
    app.register_blueprint(blueprint)


@blueprint.get("/openapi.json")
def document() -> Response:
    """The description of the whole API; the browser keeps it and asks whether it has changed."""
    found: Description = current_app.extensions["api_description"]
    answer = Response(found.text, mimetype="application/json")
    answer.set_etag(found.tag)
    answer.headers["Cache-Control"] = "no-cache"
    answer.make_conditional(request)
    return answer


def describe(server: str, cookie: str) -> Schema:
    """The document of all operations that are declared, for a portal at this address with this session cookie."""
    schemas, shapes = _answer_schemas()
    paths: dict[str, dict[str, Schema]] = {}
    for each in OPERATIONS.values():
        taken = _plain(each.takes.model_json_schema(ref_template=REFS))
        schemas |= taken.pop("$defs", {})
        described = _operation(each, taken, shapes.get(each.name), schemas)
        paths.setdefault(_path(each.path), {})[each.method.lower()] = described
    for spoken in PROTOCOL:
        _add_protocol(paths.setdefault(spoken.path, {}), spoken)
    paths["/openapi.json"] = {"get": _own()}
    used = {each["tags"][0] for path in paths.values() for each in path.values()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Runner Portal", "version": "4", "description": words.BEGINNING},
        "servers": [{"url": server}],
        "security": [{"token": []}, {"bearer": []}],
        "tags": [{"name": name, "description": said} for name, said in words.ROOMS.items() if name in used],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted((schemas | answers.SHAPES).items())),
            "responses": answers.responses(),
            "headers": answers.HEADERS,
            "securitySchemes": {**_TOKENS, "session": {**_SESSION, "name": cookie}},
        },
    }


_TOKENS = {
    "token": {
        "type": "apiKey",
        "in": "header",
        "name": "PRIVATE-TOKEN",
        "description": "An access token, `glpat-…`; for creating runners an enrolment key does too.",
    },
    "bearer": {"type": "http", "scheme": "bearer", "description": "The same, as other tools send it."},
}
_SESSION = {
    "type": "apiKey",
    "in": "cookie",
    "description": "The session of whoever is signed in to the pages: for reading only.",
}


def _answer_schemas() -> tuple[dict[str, Schema], dict[str, Schema]]:
    """The shapes of all answers: those with a name, and of each operation what its answer is of them."""
    adapters = [
        (each.name, "serialization", TypeAdapter(each.answers))
        for each in OPERATIONS.values()
        if each.answers is not type(None)
    ]
    found, named = TypeAdapter.json_schemas(adapters, ref_template=REFS)  # type: ignore[arg-type]
    schemas: dict[str, Schema] = {name: _plain(schema) for name, schema in named.get("$defs", {}).items()}
    return schemas, {name: _plain(schema) for (name, _), schema in found.items()}


def _plain(schema: Any) -> Any:
    """The schema without the titles that pydantic makes up of names."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    named = ("properties", "$defs")  # whose keys are names of somebody's, and may be "title"
    return {
        name: {inner: _plain(each) for inner, each in value.items()} if name in named else _plain(value)
        for name, value in schema.items()
        if name != "title"
    }


def _path(path: str) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path)


def _operation(operation: Operation, taken: Schema, shape: Schema | None, schemas: dict[str, Schema]) -> Schema:
    """One operation. What it takes in a body becomes a schema of its own."""
    properties: dict[str, Schema] = taken.get("properties", {})
    required = set(taken.get("required", ()))
    places = operation.places
    sent = {} if operation.method in BODILESS else {k: v for k, v in properties.items() if k not in places}
    queried = {} if sent else {k: v for k, v in properties.items() if k not in places}
    described: Schema = {
        "operationId": operation.name,
        "tags": [operation.room],
        "summary": operation.summary,
        "description": _description(operation),
        "parameters": [
            *(_parameter(operation, "path", name, _place(properties.get(name)), True) for name in places),
            *(_parameter(operation, "query", name, _wire(each), name in required) for name, each in queried.items()),
            *(_parameter(operation, "header", name, {"type": "string"}, False) for name in operation.reads),
        ],
        "responses": _responses(operation, shape, body=bool(sent)),
        "security": _security(operation),
        "x-scopes": [str(scope) for scope in operation.opens],
    }
    if sent:
        name = "".join(part.capitalize() for part in operation.name.split("_")) + "Body"
        schemas[name] = _body(operation, sent, [each for each in sent if each in required])
        described["requestBody"] = _request_body(name, required=bool(required & set(sent)))
        described["requestBody"]["content"][JSON]["example"] = _sent_example(operation, sent, required)
    return described


def _description(operation: Operation) -> str:
    scopes = " or ".join(f"`{scope}`" for scope in operation.opens)
    key = " An enrolment key opens it too." if operation.enrolment else ""
    return f"{operation.description}\n\nOpened by a token with the scope {scopes}.{key}"


def _security(operation: Operation) -> list[Schema]:
    ways = ("token", "bearer", "session") if operation.method == "GET" else ("token", "bearer")
    return [{way: []} for way in ways]


def _responses(operation: Operation, shape: Schema | None, *, body: bool) -> dict[str, Schema]:
    headers = answers.headers_of(operation)
    found: dict[str, Schema] = {}
    for status in (operation.status if shape else 204, *operation.also):
        content = {"content": {operation.media or JSON: {"schema": shape}}} if shape and status != 204 else {}
        found[str(status)] = {"description": _DONE.get(status, "Done."), "headers": headers, **content}
    found |= {str(status): answers.refused(status) for status in answers.refusals(operation, body=body)}
    return found | ({"400": answers.refused_parameters(operation)} if "400" in found else {})


_DONE = {
    200: "Done.",
    201: "Made.",
    202: "Begun.",
    204: "Done; there is nothing to say.",
    206: "The part that was asked for.",
    304: "Nothing was to do.",
}


def _parameter(operation: Operation, where: str, name: str, schema: Schema, required: bool) -> Schema:
    said = schema.pop("description", "") or words.of(operation.name, name)
    value = (
        words.example(operation.name, name) if required else None
    )  # what need not be sent, nobody fills in unasked
    example = {"example": value} if value is not None else {}
    return {"name": name, "in": where, "required": required, "description": said, "schema": schema, **example}


def _place(schema: Schema | None) -> Schema:
    return _wire(schema or {"type": "string"})


def _wire(schema: Schema) -> Schema:
    """What stands in an address is text anyway, so only what it means is told: a number, not the text of one."""
    ways = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if any(each.get("type") == "integer" for each in ways):
        ways = [each for each in ways if each.get("type") != "string"]
    kept = {name: value for name, value in schema.items() if name != "anyOf" and (name, value) != ("default", None)}
    return kept | (ways[0] if len(ways) == 1 else {"anyOf": ways} if ways else {})


def _body(operation: Operation, sent: dict[str, Schema], required: list[str]) -> Schema:
    for name, schema in sent.items():
        schema.setdefault("description", words.of(operation.name, name))
        if (value := words.example(operation.name, name)) is not None:
            schema.setdefault("examples", [value])
    return {"type": "object", "properties": sent, **({"required": required} if required else {})}


def _sent_example(operation: Operation, sent: Schema, required: set[str]) -> Schema:
    """A body that the operation takes: what it must have, and what makes sense of it."""
    shown = [*(name for name in sent if name in required), *words.SENT.get(operation.name, ())]
    return {name: words.example(operation.name, name) for name in shown}


def _request_body(name: str, *, required: bool) -> Schema:
    schema = {"$ref": REFS.format(model=name)}
    return {"required": required, "content": {JSON: {"schema": schema}, FORM: {"schema": schema}}}


def _add_protocol(path: dict[str, Schema], spoken: Spoken) -> None:
    """Add an operation of the runner protocol; where scripts have the same path, what differs of it."""
    described = _spoken(spoken)
    known = path.setdefault(spoken.method.lower(), described)
    if known is not described:
        known["description"] += f"\n\n{spoken.says}"
        known["responses"] = {**described["responses"], **known["responses"]}
        known["security"] = [*known["security"], {}]


def _spoken(spoken: Spoken) -> Schema:
    heard = answers.headers("X-Request-Id", *spoken.hears)
    success: Schema = {"description": _DONE[spoken.status], "headers": heard}
    if spoken.answer is not None:
        success["content"] = {spoken.media: {"schema": spoken.answer}}
    required = [name for name, schema in spoken.takes.items() if "minLength" in schema]
    schema = {"type": "object", "properties": spoken.takes, "required": required}
    sent = (spoken.sends,) if spoken.sends else (JSON, FORM)
    body = {"required": bool(required), "content": {kind: {"schema": schema} for kind in sent}}
    shown = "header JOB-TOKEN" if spoken.by_job else "body"
    return {
        "operationId": spoken.name,
        "tags": [runner_protocol.ROOM],
        "summary": spoken.says,
        "description": f"{spoken.says}\n\nThe token in the {shown} says who asks.",
        **({"x-job-token": True} if "{job_id}" in spoken.path else {}),
        "parameters": [_spoken_parameter(*each) for each in spoken.parameters],
        **({"requestBody": body} if spoken.takes else {}),
        "responses": {
            str(spoken.status): success,
            **{str(status): {"description": said, "headers": heard} for status, said in spoken.besides.items()},
            **{str(status): answers.refused(status) for status in spoken.refusals},
            **({"401": answers.refused_in_words("No job's token came.")} if 401 in spoken.refuses else {}),
        },
        "security": [],
    }


def _spoken_parameter(where: str, name: str, schema: Schema) -> Schema:
    said, kind = schema.get("description", ""), {k: v for k, v in schema.items() if k != "description"}
    return {"name": name, "in": where, "required": where != "query", "description": said, "schema": kind}


def _own() -> Schema:
    body = {"type": "object", "required": ["openapi", "info", "paths"]}
    return {
        "operationId": "openapi_document",
        "tags": [ROOM],
        "summary": "This document.",
        "description": "This document. It needs no token, and changes only with the portal: send `If-None-Match`.",
        "responses": {
            "200": {
                "description": _DONE[200],
                "headers": answers.headers(*answers.TOLD, "ETag"),
                "content": {JSON: {"schema": body}},
            },
            "304": {"description": "It is as you have it."},
            "429": answers.refused(429),
        },
        "security": [],
    }
