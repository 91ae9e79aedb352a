"""Parameters of the REST API: declared once as models, which read requests and describe themselves for OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any

import orjson
from flask import request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError

from portal.api import params as bodies
from portal.domain.errors import BadRequest, ParametersWrong
from portal.domain.runner_settings import split_tags

LARGEST = 2**63 - 1  # what the database can hold
NOT_READ = ("private_token", "access_token")  # a secret in an address is not taken


class Parameters(BaseModel):
    """The base of every declaration. Unknown parameters are passed over, as clients send more with each release."""

    model_config = ConfigDict(extra="ignore", frozen=True, str_strip_whitespace=False, populate_by_name=True)

    def given(self, name: str) -> bool:
        """Whether the request has this parameter, be it null."""
        return name in self.model_fields_set


def _text(value: Any) -> Any:
    if isinstance(value, str) and "\0" in value:
        raise PydanticCustomError("character", "is invalid")
    return value


def _empty_is_none(value: Any) -> Any:
    return None if value == "" else value


def _whole(value: Any) -> Any:
    """Whole numbers as JSON or in digits; true is none, nor is 1.0 in a text."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise PydanticCustomError("number", "is invalid")
    return value


_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def _flag(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    word = str(value).lower() if isinstance(value, str | int) else ""
    if word not in _WORDS:
        raise PydanticCustomError("flag", "is invalid")
    return _WORDS[word]


def _optional_flag(value: Any) -> Any:
    return None if value is None or value == "" else _flag(value)


def _list(value: Any) -> Any:
    """A list, a repeated field or one text with commas."""
    if value is None:
        return ()
    parts = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(part, str) and "\0" not in part for part in parts):
        raise PydanticCustomError("list", "is invalid")
    return split_tags(",".join(parts))


def _day(value: Any) -> Any:
    if value is None or isinstance(value, date):
        return value
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise PydanticCustomError("day", "is invalid") from None


_FLAG_SCHEMA = {"anyOf": [{"type": "boolean"}, {"type": "string", "enum": list(_WORDS)}]}
_LIST_SCHEMA = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}

Text = Annotated[str, BeforeValidator(_text)]
OptionalText = Annotated[str | None, BeforeValidator(_text)]
Number = Annotated[int, BeforeValidator(_whole), Field(ge=-LARGEST, le=LARGEST)]
Id = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=LARGEST)]
OptionalId = Annotated[Id | None, BeforeValidator(_empty_is_none)]
OptionalNumber = Annotated[Number | None, BeforeValidator(_empty_is_none)]
Flag = Annotated[bool, BeforeValidator(_flag), WithJsonSchema(_FLAG_SCHEMA)]
OptionalFlag = Annotated[bool | None, BeforeValidator(_optional_flag), WithJsonSchema(_FLAG_SCHEMA)]
Words = Annotated[tuple[str, ...], BeforeValidator(_list), WithJsonSchema(_LIST_SCHEMA)]
Day = Annotated[date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]


def read(declared: type[Parameters], places: Mapping[str, Any]) -> Parameters:
    """The request's parameters as this declaration has them: of the path, then of the body, then of the query.

    Raises ParametersWrong, in the words that GitLab's clients know, or BadRequest for a body that cannot be read.
    """
    found = {**_from_query(), **_from_body(), **places}
    try:
        return declared.model_validate(found)
    except ValidationError as wrong:
        raise ParametersWrong([_said(each, declared) for each in wrong.errors(include_url=False)]) from None


def _from_query() -> dict[str, Any]:
    found = dict(bodies.from_form(request.args.lists()))
    return {name: value for name, value in found.items() if name not in NOT_READ}


def _from_body() -> dict[str, Any]:
    if request.method in ("GET", "HEAD"):
        return {}
    if request.mimetype in ("application/x-www-form-urlencoded", "multipart/form-data"):
        return dict(bodies.from_form(request.form.lists()))
    body = request.get_data(cache=False)
    if not body.strip():
        return {}
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as wrong:
        raise BadRequest(f"The body is no JSON: {wrong}.") from None
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.")
    return value


def _said(wrong: ErrorDetails, declared: type[Parameters]) -> str:
    """One fault in GitLab's words, with the values that would do where they are few."""
    name = ".".join(str(part) for part in wrong["loc"][:1]) or declared.__name__
    kind, context = wrong["type"], wrong.get("ctx", {})
    if kind == "missing":
        return f"{name} is missing"
    if kind in ("literal_error", "enum"):
        return f"{name} does not have a valid value: {context.get('expected', '').replace(chr(39), '')}"
    if kind in ("exclusive", "at_least_one"):  # raised by a declaration as a whole
        return wrong["msg"]
    if kind in ("greater_than_equal", "less_than_equal"):
        return f"{name} does not have a valid value"
    return f"{name} is invalid"


def only_one_of(given: Parameters, *names: str) -> None:
    """For a declaration's check of itself: at most one of these is there."""
    if sum(given.given(name) for name in names) > 1:
        raise PydanticCustomError("exclusive", f"{', '.join(names)} are mutually exclusive")


def at_least_one_of(given: Parameters, *names: str) -> None:
    """For a declaration's check of itself: one of these is there, or more."""
    if not any(given.given(name) for name in names):
        said = f"{', '.join(names)} are missing, at least one parameter must be provided"
        raise PydanticCustomError("at_least_one", said)
