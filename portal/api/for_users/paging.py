"""Pages of lists: by number, with totals, as GitLab does it; or by cursor, where a list may be long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Generic, TypeVar
from urllib.parse import quote, urlencode

from flask import request
from pydantic import BeforeValidator, Field, WithJsonSchema

from portal.api.for_users.parameters import LARGEST, NOT_READ, Parameters, whole
from portal.requests import portal_url

PER_PAGE = 20
MOST_PER_PAGE = 100
MOST_COUNTED = 10_000  # above it totals are left out, as GitLab does
T = TypeVar("T")
_FURTHEST = LARGEST // MOST_PER_PAGE


def _page(value: object) -> object:
    return 1 if value in ("", None) else whole(value)


def _per_page(value: object) -> object:
    """More than the most is the most, as in GitLab; what no database could count to is refused."""
    found = PER_PAGE if value in ("", None) else whole(value)
    return min(found, MOST_PER_PAGE) if found <= LARGEST else found


def _schema(highest: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "integer", "minimum": 1, "maximum": highest})


class Paged(Parameters):
    """Which page, and how long it is; 20 by default, 100 at most."""

    page: Annotated[int, BeforeValidator(_page), Field(ge=1, le=_FURTHEST), _schema(_FURTHEST)] = 1
    per_page: Annotated[int, BeforeValidator(_per_page), Field(ge=1, le=MOST_PER_PAGE), _schema(LARGEST)] = PER_PAGE

    @property
    def offset(self) -> int:
        """How many there are before this page."""
        return (self.page - 1) * self.per_page


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list. `total` is how many there are in all; None where that is too many to say quickly.

    `more` says whether another page follows, where the total does not say it. Where none follows by number although
    the list goes on, `after` is the cursor that leads on.
    """

    is_page: ClassVar[bool] = True
    pages: ClassVar[str] = "number"
    items: Sequence[T]
    asked: Paged
    total: int | None
    more: bool = False
    after: str | None = None

    def headers(self) -> dict[str, str]:
        """GitLab's headers of a page."""
        number, size = self.asked.page, self.asked.per_page
        last = max(1, -(-self.total // size)) if self.total is not None else None
        following = number < last if last is not None else self.more
        links = [_link("prev", page=number - 1)] if number > 1 else []
        if following:
            links += [_link("next", page=number + 1)]
        elif self.after is not None:
            links += [_link("next", page=None, pagination="keyset", cursor=self.after)]
        links += [_link("first", page=1)]
        links += [_link("last", page=last)] if last is not None else []
        found = {
            "X-Page": str(number),
            "X-Per-Page": str(size),
            "X-Next-Page": str(number + 1) if following else "",
            "X-Prev-Page": str(number - 1) if number > 1 else "",
            "Link": ", ".join(links),
        }
        if last is not None:
            found |= {"X-Total": str(self.total), "X-Total-Pages": str(last)}
        return found


@dataclass(frozen=True, slots=True)
class Stretch(Generic[T]):
    """A part of a list from a cursor on; `after` is where the next part begins, None at the end."""

    is_page: ClassVar[bool] = True
    pages: ClassVar[str] = "cursor"
    items: Sequence[T]
    after: str | None

    def headers(self) -> dict[str, str]:
        """The link to the next part, as GitLab's keyset pagination has it."""
        return {"Link": _link("next", cursor=self.after)} if self.after is not None else {}


def _link(relation: str, **changed: int | str | None) -> str:
    values = [(name, value) for name, value in request.args.items(multi=True) if name not in (*changed, *NOT_READ)]
    values += [(name, str(value)) for name, value in changed.items() if value is not None]
    return f'<{portal_url(quote(request.path))}?{urlencode(values)}>; rel="{relation}"'
