"""What the REST API can do: one declaration for each operation, for the door, for OpenAPI and for the tests."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter

from portal.api.for_users.parameters import Parameters
from portal.models import TokenScope

View = Callable[[Any], Any]
T = TypeVar("T")


class Nothing(Parameters):
    """No parameters."""


class Shape(BaseModel):
    """The base of what is answered, with GitLab's attribute names."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """An answer that differs from what its operation declares: in status, or with headers of its own."""

    body: T
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. `path` is as Flask writes it, below /api/v4; `refuses` are the less usual statuses.

    `pages` says how its list is paged: by "number", by "cursor", or not at all. `reads` are request headers that it
    looks at, besides those that say who asks. `media` is the type of an answer that is no JSON; its view returns the
    whole response.
    """

    name: str
    method: str
    path: str
    room: str
    view: View
    takes: type[Parameters]
    answers: Any
    status: int
    also: tuple[int, ...]
    refuses: tuple[int, ...]
    opens: tuple[TokenScope, ...]
    enrolment: bool
    pages: str = ""
    reads: tuple[str, ...] = ()
    routed: bool = True
    media: str = ""

    @property
    def places(self) -> list[str]:
        """The names of the places in its path."""
        return re.findall(r"<(?:\w+:)?(\w+)>", self.path)

    @property
    def adapter(self) -> TypeAdapter[Any]:
        """What writes the answer."""
        return _adapters.setdefault(self.name, TypeAdapter(self.answers))

    @property
    def summary(self) -> str:
        """The first paragraph of what the view says of itself."""
        return self.description.split("\n\n")[0].replace("\n", " ")

    @property
    def description(self) -> str:
        """All of what the view says of itself."""
        return inspect.cleandoc(self.view.__doc__ or "")


_adapters: dict[str, TypeAdapter[Any]] = {}
OPERATIONS: dict[str, Operation] = {}


def declare(
    view: View,
    method: str,
    path: str,
    *,
    room: str,
    status: int,
    also: tuple[int, ...],
    refuses: tuple[int, ...],
    opens: tuple[TokenScope, ...],
    enrolment: bool,
    reads: tuple[str, ...] = (),
    routed: bool = True,
    media: str = "",
) -> Operation:
    """Note the operation that this view carries out; what it takes and answers stands in its annotations."""
    hints = get_type_hints(view)
    answers = hints.pop("return", None)
    takes = next(iter(hints.values()), Nothing)
    name = f"{view.__module__.rpartition('.')[2]}_{view.__name__}"
    if name in OPERATIONS:
        raise ValueError(f"two operations are called {name}")
    OPERATIONS[name] = Operation(
        name=name,
        method=method,
        path=path,
        room=room,
        view=view,
        takes=takes,
        answers=str if media else _body_of(answers),
        status=status,
        also=also,
        refuses=refuses,
        opens=opens,
        enrolment=enrolment,
        pages=_paging_of(answers),
        reads=reads,
        routed=routed,
        media=media,
    )
    return OPERATIONS[name]


def _body_of(answers: Any) -> Any:
    """What stands in the body: `Answer[X]` is X, and `Page[X]` a list of X."""
    origin = get_origin(answers)
    if origin is Answer:
        return _body_of(get_args(answers)[0])
    if getattr(origin, "is_page", False):
        return list[get_args(answers)[0]]  # type: ignore[misc]
    return answers


def _paging_of(answers: Any) -> str:
    """How a list is paged: `Page[X]` by number, `Stretch[X]` by cursor."""
    origin = get_origin(answers)
    return _paging_of(get_args(answers)[0]) if origin is Answer else getattr(origin, "pages", "")
