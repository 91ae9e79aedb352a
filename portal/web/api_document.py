"""The description of the REST API as its pages show it: rooms, operations, parameters and shapes in words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from markupsafe import Markup, escape

Schema = Mapping[str, Any]
PROTOCOL = "Runner protocol"
SCHEMAS = "#/components/schemas/"


@dataclass(frozen=True, slots=True)
class Taken:
    """One parameter of an operation, or one attribute of a shape. `where` is path, query, header or body."""

    name: str
    kind: Markup
    says: Markup
    where: str = ""
    required: bool = False
    default: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, in words; `successes` say what is answered, `refusals` the other statuses.

    `example` is a command that asks for it, with the token in the shell's $TOKEN.
    """

    name: str
    method: str
    path: str
    summary: Markup
    more: list[Markup]
    scopes: list[str]
    takes: list[Taken]
    successes: list[tuple[str, Markup]]
    refusals: list[tuple[str, str]]
    example: str


@dataclass(frozen=True, slots=True)
class Room:
    """Operations that belong together."""

    name: str
    says: Markup
    operations: list[Operation]

    @property
    def anchor(self) -> str:
        """Its page, and its place on the page of all."""
        return self.name.lower().replace(" ", "-")


@dataclass(frozen=True, slots=True)
class Shape:
    """What is answered under this name."""

    name: str
    says: Markup
    attributes: list[Taken]


class Reference:
    """Everything that the pages show of this document."""

    def __init__(self, document: Schema) -> None:
        self.document = document

    def rooms(self) -> list[Room]:
        """The rooms in the order of the document, each with its operations by path."""
        found: dict[str, list[Operation]] = {tag["name"]: [] for tag in self.document["tags"]}
        for path, methods in self.document["paths"].items():
            for method, each in methods.items():
                found[each["tags"][0]].append(self._operation(method, path, each))
        return [Room(tag["name"], marked(tag["description"]), found[tag["name"]]) for tag in self.document["tags"]]

    def statuses(self) -> list[tuple[str, str]]:
        """What each status of refusal says, wherever it is answered."""
        found: dict[str, str] = {}
        for methods in self.document["paths"].values():
            for each in methods.values():
                for status, answer in each["responses"].items():
                    if status >= "4":
                        found.setdefault(status, self._resolved(answer)["description"])
        return sorted(found.items())

    def shapes(self) -> list[Shape]:
        """What is answered; what is taken stands with its operation."""
        return [
            Shape(name, marked(schema.get("description", "")), list(_attributes(schema)))
            for name, schema in self.document["components"]["schemas"].items()
            if schema.get("type") == "object" and not name.endswith("Body")
        ]

    def _operation(self, method: str, path: str, each: Schema) -> Operation:
        first, *rest = each["description"].split("\n\n")
        summary = each["summary"]
        further = [marked(part) for part in rest if not part.startswith("Opened by")]
        key = any("enrolment key opens it" in part for part in rest)
        answers = [(status, self._resolved(answer)) for status, answer in each["responses"].items()]
        return Operation(
            name=each["operationId"],
            method=method.upper(),
            path=path,
            summary=marked(summary),
            more=[*([marked(first)] if first.replace("\n", " ") != summary else []), *further],
            scopes=[*each.get("x-scopes", ()), *(["an enrolment key"] if key else [])],
            takes=[*_parameters(each), *self._sent(each)],
            successes=[(status, _answered(answer)) for status, answer in answers if status < "4"],
            refusals=[(status, answer["description"]) for status, answer in answers if status >= "4"],
            example=self._example(method.upper(), path, each),
        )

    def _example(self, method: str, path: str, operation: Schema) -> str:
        """A command that works once the places in it are one's own."""
        parts = [*([f"--request {method}"] if method != "GET" else []), *_who_asks(operation)]
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        if "example" in content:
            parts.append(f"--json '{json.dumps(content['example'], ensure_ascii=False)}'")
        elif content:
            needed = set(self._resolved(content["schema"]).get("required", ()))
            needed -= {"token"} if operation.get("x-job-token") else set()  # the header says it
            parts += [said for name, said in _OF_MACHINES.items() if name in needed]
        address = _address(self.document["servers"][0]["url"], path, operation)
        lines = [" ".join(["curl", *parts[:2]]), *parts[2:], address]
        return " \\\n  ".join(lines) if parts else f"curl {address}"

    def _sent(self, operation: Schema) -> Iterator[Taken]:
        content = operation.get("requestBody", {}).get("content", {})
        schema = self._resolved(content.get("application/json", {}).get("schema", {}))
        yield from _attributes(schema, where="body")

    def _resolved(self, schema: Schema) -> Schema:
        found: Any = schema
        while "$ref" in found:
            place, found = found["$ref"], self.document
            for part in place.removeprefix("#/").split("/"):
                found = found[part]
        return found  # type: ignore[no-any-return]


_OF_MACHINES = {
    "token": '--data-urlencode "token=$RUNNER_TOKEN"',
    "system_id": '--data-urlencode "system_id=$SYSTEM_ID"',
    "state": "--data state=success",
}


def _address(server: str, path: str, operation: Schema) -> str:
    """Where the operation is asked, with an example at each place, and with what it needs in the query."""
    needed = [each for each in operation.get("parameters", ()) if each["required"]]
    given = {each["name"]: str(each.get("example", "1")) for each in needed}
    query = urlencode({each["name"]: given[each["name"]] for each in needed if each["in"] == "query"})
    address = server + re.sub(r"{(\w+)}", lambda place: quote(given[place[1]], safe=""), path)
    return f'"{address}?{query}"' if query else address


def _who_asks(operation: Schema) -> list[str]:
    if operation.get("x-job-token"):
        return ['--header "JOB-TOKEN: $JOB_TOKEN"']
    return ['--header "PRIVATE-TOKEN: $TOKEN"'] if operation.get("security") else []


def marked(text: str) -> Markup:
    """The text with what stands between backticks as code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


def _parameters(operation: Schema) -> Iterator[Taken]:
    for each in operation.get("parameters", ()):
        default = _said(each["schema"].get("default"))
        yield Taken(
            each["name"], kind(each["schema"]), marked(each["description"]), each["in"], each["required"], default
        )


def _attributes(schema: Schema, where: str = "") -> Iterator[Taken]:
    required = schema.get("required", ())
    for name, each in schema.get("properties", {}).items():
        says = marked(each.get("description", ""))
        yield Taken(name, kind(each), says, where, bool(where) and name in required, _said(each.get("default")))


def _said(default: object) -> str:
    if default is None or default in ("", [], ()):
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


def _answered(answer: Schema) -> Markup:
    content = answer.get("content", {})
    schema = content.get("application/json", {}).get("schema") if content else None
    return kind(schema) if schema else Markup("nothing")


_KINDS = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "object",
    "string": "text",
    "null": "null",
}
_FORMATS = {"date-time": "moment", "date": "day"}


def kind(schema: Schema) -> Markup:
    """What a value of this schema is, in a few words; shapes are links to their page, which stands beside."""
    if place := schema.get("$ref"):
        name = place.removeprefix(SCHEMAS)
        return Markup('<a href="shapes#shape-{0}">{0}</a>').format(name)
    if ways := schema.get("anyOf") or schema.get("oneOf"):
        return _either([each for each in ways if not _only_spelling(each, ways)])
    if values := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        return Markup(", ").join(Markup("<code>{}</code>").format(each) for each in values)
    kinds = schema.get("type", "anything")
    if isinstance(kinds, list):
        return _either([{**schema, "type": each} for each in kinds])
    if kinds == "array":
        return Markup("list of {}").format(kind(schema.get("items", {})))
    return escape(_FORMATS.get(schema.get("format", ""), _KINDS.get(kinds, kinds)) if kinds != "null" else "null")


def _either(ways: list[Schema]) -> Markup:
    return Markup(" or ").join(dict.fromkeys(kind(each) for each in ways))


def _only_spelling(schema: Schema, ways: list[Schema]) -> bool:
    """Whether this is only another way to write what stands beside it: a number in a text, or nothing."""
    plain = any(each.get("type") in ("integer", "boolean") for each in ways)
    return plain and schema.get("type") == "string"
