"""Parameters of the REST API: declared once as models, which read requests and describe themselves for OpenAPI.

What a schema here allows is what the reader takes. In JSON too, numbers and flags may come as text, as in forms:
Ansible's templates send such.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Annotated, Any
from urllib.parse import quote

import orjson
from flask import Response, g, request
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError

from portal.api import params as bodies
from portal.domain.errors import NOTHING_HERE, BadRequest, NotFound, ParametersWrong
from portal.domain.runners.runner_settings import split_tags

LARGEST = 2**63 - 1  # what the database can hold
NOT_READ = ("private_token", "access_token")  # a secret in an address is not taken
MOST_NAMED, LONGEST_NAMED = 20, 100  # unknown parameters that an answer names, and characters of each
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


class Parameters(BaseModel):
    """The base of every declaration.

    Unknown parameters are passed over, as clients send more with each release; a header of the answer names them.
    """

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


_NUMBER = "^-?[0-9]{1,18}$"  # as text; one digit more may be too large, and is looked at
_COUNTED = "^[1-9][0-9]{0,17}$"


def whole(value: Any, pattern: str = "-?[0-9]{1,19}") -> int:
    """A whole number, as JSON has them or in digits. Raises PydanticCustomError for anything else."""
    if isinstance(value, str) and re.fullmatch(pattern, value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise PydanticCustomError("number", "is invalid")
    return value


def _number(value: Any) -> int:
    found = whole(value)
    if not -LARGEST <= found <= LARGEST:
        raise PydanticCustomError("range", "does not have a valid value")
    return found


def _id(value: Any) -> int:
    found = whole(value, "[1-9][0-9]{0,18}")
    if not 1 <= found <= LARGEST:
        raise PydanticCustomError("range", "does not have a valid value", {"would_do": "a whole number from 1 up"})
    return found


_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_WORDS |= {"True": True, "False": False}  # as Python and Ansible write them


def _flag(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value not in _WORDS:
        raise PydanticCustomError("flag", "is invalid")
    return _WORDS[value]


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
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        raise PydanticCustomError("day", "is invalid")
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise PydanticCustomError("day", "is invalid") from None


def _either(*schemas: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": list(schemas)} if len(schemas) > 1 else schemas[0])


_NULL = {"type": "null"}
_EMPTY = {"type": "string", "maxLength": 0}
_NUMBERS = ({"type": "integer", "minimum": -LARGEST, "maximum": LARGEST}, {"type": "string", "pattern": _NUMBER})
_IDS = ({"type": "integer", "minimum": 1, "maximum": LARGEST}, {"type": "string", "pattern": _COUNTED})
_FLAGS = ({"type": "boolean"}, {"type": "string", "enum": list(_WORDS)})
_LISTS = ({"type": "array", "items": {"type": "string"}}, {"type": "string"}, _NULL)

Text = Annotated[str, BeforeValidator(_text)]
OptionalText = Annotated[str | None, BeforeValidator(_text)]
Number = Annotated[int, BeforeValidator(_number), _either(*_NUMBERS)]
Id = Annotated[int, BeforeValidator(_id), _either(*_IDS)]
OptionalId = Annotated[Id | None, BeforeValidator(_empty_is_none), _either(*_IDS, _NULL, _EMPTY)]
OptionalNumber = Annotated[Number | None, BeforeValidator(_empty_is_none), _either(*_NUMBERS, _NULL, _EMPTY)]
Flag = Annotated[bool, BeforeValidator(_flag), _either(*_FLAGS)]
OptionalFlag = Annotated[bool | None, BeforeValidator(_optional_flag), _either(*_FLAGS, _NULL, _EMPTY)]
Words = Annotated[tuple[str, ...], BeforeValidator(_list), _either(*_LISTS)]
Day = Annotated[date, BeforeValidator(_day), _either({"type": "string", "format": "date"})]


def read(declared: type[Parameters], places: Mapping[str, Any]) -> Parameters:
    """The request's parameters as this declaration has them: of the path, then of the body, then of the query.

    Raises ParametersWrong, in the words that GitLab's clients know, BadRequest for a body that cannot be read, and
    NotFound for a place in the path at which nothing can be.
    """
    given = {**_from_query(), **_from_body()}
    g.unknown_parameters = _unknown(declared, [*given, *(name for name in NOT_READ if name in request.args)])
    found = {**given, **places}
    try:
        return declared.model_validate(found)
    except ValidationError as wrong:
        errors = wrong.errors(include_url=False, include_context=True, include_input=False)
        if any(each["loc"][:1] == (place,) for each in errors for place in places):
            raise NotFound(NOTHING_HERE) from None
        raise ParametersWrong([_said(each) for each in errors]) from None


def _from_query() -> dict[str, Any]:
    found = dict(bodies.from_form(request.args.lists()))
    return {name: value for name, value in found.items() if name not in NOT_READ}


def _from_body() -> dict[str, Any]:
    if request.method in ("GET", "HEAD"):
        return {}
    if request.mimetype in FORMS:
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


def _unknown(declared: type[Parameters], names: Iterable[str]) -> list[str]:
    known = set(declared.model_fields) | {field.alias for field in declared.model_fields.values()}
    return [name for name in names if name not in known]


def tell_unknown(response: Response) -> Response:
    """Name in a header what was sent and the operation does not know: a misspelt name is not to pass unseen."""
    if unknown := g.get("unknown_parameters"):
        named = [quote(name[:LONGEST_NAMED], safe="[]", errors="replace") for name in unknown[:MOST_NAMED]]
        response.headers["X-Unknown-Parameters"] = ", ".join(named)
    return response


def _said(wrong: ErrorDetails) -> str:
    """One fault in GitLab's words, with the values that would do where they are few."""
    kind, context = wrong["type"], wrong.get("ctx", {})
    if not wrong["loc"]:  # a declaration's check of itself says a whole sentence
        return wrong["msg"].removeprefix("Value error, ")
    name = str(wrong["loc"][0])
    if kind == "unkept":
        return f"{name} cannot be kept: leave it out"
    if kind == "missing":
        return f"{name} is missing"
    if kind in ("literal_error", "enum"):
        return f"{name} does not have a valid value: {context.get('expected', '').replace(chr(39), '')}"
    gitlab = "does not have a valid value" if kind in _OUTSIDE else "is invalid"
    would_do = context.get("would_do") or _WOULD_DO.get(kind, "").format(**context)
    if kind == "number" and name.endswith(_IN_SECONDS):
        would_do += " of seconds"
    return f"{name} {gitlab}: {would_do}" if would_do else f"{name} {gitlab}"


_OUTSIDE = ("range", "greater_than_equal", "less_than_equal")
_IN_SECONDS = ("_timeout", "_interval")
_WOULD_DO = {
    "number": "a whole number",
    "range": "a whole number of 18 digits at most",
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "{le} or less",
    "flag": "true or false",
    "day": "a day, such as 2030-12-31",
    "moment": "a moment, such as 2030-12-31T12:00:00Z",
    "list": "a list of texts, or one text with commas",
    "string_type": "a text",
    "character": "a text without the character 0",
    "version": "digits and dots, such as 17.5",
}


def refusal_of(declared: type[Parameters], places: Sequence[str]) -> str:
    """An example of how this declaration refuses: what is missing, or else its first parameter of a wrong kind."""
    names = [name for name in declared.model_fields if name not in places]
    wrongs: list[dict[str, Any]] = [{}, *({name: {}} for name in names)]
    for wrong in wrongs:
        try:
            declared.model_validate(wrong)
        except ValidationError as refused:
            errors = refused.errors(include_url=False, include_input=False)
            if said := [_said(each) for each in errors if not set(each["loc"][:1]) & set(places)]:
                return said[0]
    return ""


def only_one_of(given: Parameters, *names: str) -> None:
    """For a declaration's check of itself: at most one of these is there."""
    if sum(given.given(name) for name in names) > 1:
        raise PydanticCustomError("exclusive", f"{', '.join(names)} are mutually exclusive")


def at_least_one_of(given: Parameters, *names: str) -> None:
    """For a declaration's check of itself: one of these is there, or more."""
    if not any(given.given(name) for name in names):
        said = f"{', '.join(names)} are missing, at least one parameter must be provided"
        raise PydanticCustomError("at_least_one", said)
