"""Parameters that the rooms about people, groups and projects share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from portal.api.for_users.paging import Paged
from portal.api.for_users.parameters import Flag, OptionalText, Parameters, Text, whole
from portal.domain.errors import Invalid
from portal.models import Role

MOST_IDS = 1000
LARGEST_ID = 10**18 - 1  # as many digits as a text may have
LEVELS = {role.value: role for role in Role if role}
_ONE = "[1-9][0-9]{0,17}"
_SOME = f"^({_ONE}(,{_ONE})*)?$"


def _ids(value: Any) -> tuple[int, ...]:
    """Numbers as a list, a repeated field or one text with commas."""
    if isinstance(value, str) and re.fullmatch(_SOME, value):
        value = [part for part in value.split(",") if part]
    parts = value if isinstance(value, list | tuple) else [] if value is None else [value]
    found = tuple(whole(part, f"^{_ONE}$") for part in parts)
    if len(found) > MOST_IDS or not all(0 < each <= LARGEST_ID for each in found):
        would_do = f"at most {MOST_IDS:,} numbers from 1 up"
        raise PydanticCustomError("list", "is invalid", {"would_do": would_do})
    return found


def _role(value: Any) -> Role:
    try:
        level = whole(value)
    except PydanticCustomError:
        levels = ", ".join(f"{number} ({role.name.lower()})" for number, role in LEVELS.items())
        raise PydanticCustomError("number", "is invalid", {"would_do": f"one of {levels}"}) from None
    if level not in LEVELS:
        raise PydanticCustomError("enum", "is none", {"expected": ", ".join(map(str, LEVELS))})
    return LEVELS[level]


def _optional_role(value: Any) -> Role | None:
    return None if value is None or value == "" else _role(value)


_ID = {
    "anyOf": [{"type": "integer", "minimum": 1, "maximum": LARGEST_ID}, {"type": "string", "pattern": f"^{_ONE}$"}]
}
_LIST = {"type": "array", "items": _ID, "maxItems": MOST_IDS}
_AS_TEXT = {"type": "string", "pattern": _SOME, "maxLength": MOST_IDS}
_NULL = {"type": "null"}
_EMPTY = {"type": "string", "maxLength": 0}
_LEVEL = [{"type": "integer", "enum": [*LEVELS]}, {"type": "string", "enum": [str(level) for level in LEVELS]}]

Ids = Annotated[tuple[int, ...], BeforeValidator(_ids), WithJsonSchema({"anyOf": [_LIST, _AS_TEXT, _NULL]})]
AccessLevel = Annotated[Role, BeforeValidator(_role), WithJsonSchema({"anyOf": _LEVEL})]
OptionalAccessLevel = Annotated[
    Role | None, BeforeValidator(_optional_role), WithJsonSchema({"anyOf": [*_LEVEL, _NULL, _EMPTY]})
]


class OneGroup(Parameters):
    """One group, by id or URL-encoded full path."""

    group: Text


class OneProject(Parameters):
    """One project, by id or URL-encoded full path."""

    project: Text


class Named(Parameters):
    """What a group or project is called; what is not given stays. All are private, so nothing else may be asked."""

    name: OptionalText = None
    path: OptionalText = None
    description: OptionalText = None
    visibility: Literal["private"] | None = None


class Listed(Paged):
    """What all lists of groups and projects take."""

    search: Text = ""
    sort: Literal["asc", "desc"] | None = None
    owned: Flag = False
    min_access_level: OptionalAccessLevel = None

    @property
    def role(self) -> Role | None:
        """The lowest role, as a member, that is asked for."""
        return Role.OWNER if self.owned else self.min_access_level


@contextmanager
def called(names: Mapping[str, str]) -> Iterator[None]:
    """Tell of refused values under the names that the API has for them, given by those of the domain."""
    try:
        yield
    except Invalid as invalid:
        problems = {names.get(field, field): said for field, said in invalid.problems.items()}
        raise type(invalid)(problems) from None
