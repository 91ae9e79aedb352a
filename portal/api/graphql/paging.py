"""Connections: pages by cursor, with a count, loaded only when something of them is asked for."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NoBase64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from portal.api.graphql.context import Context
from portal.api.graphql.problems import ArgumentWrong

MOST = 100  # nodes of one page, and how many there are by default
MOST_COUNTED = 1000  # of a list that is counted up to a limit
LARGEST = 2**63 - 1
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a list: the first or the last so many, between two cursors."""

    size: int
    backwards: bool = False
    after: str | None = None
    before: str | None = None


def window(arguments: Mapping[str, Any]) -> Window:
    """What first, last, after and before ask for. Raises ArgumentWrong."""
    first, last = arguments.get("first"), arguments.get("last")
    if first is not None and last is not None:
        raise ArgumentWrong("Give `first` or `last`, not both.")
    size = first if first is not None else last
    if size is not None and size < 0:
        raise ArgumentWrong("`first` and `last` must not be negative.")
    size = MOST if size is None else min(size, MOST)
    return Window(size, last is not None, arguments.get("after") or None, arguments.get("before") or None)


@dataclass(frozen=True, slots=True)
class PageInfo:
    """Where a page begins and ends, and what follows."""

    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


@dataclass(frozen=True, slots=True)
class Edge(Generic[T]):
    """A node with its cursor, and what makes the addresses of its pages where the query knows them."""

    cursor: str
    node: T
    web_url: Callable[..., str | None] | None = None
    edit_url: Callable[..., str | None] | None = None


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """One page as it was loaded."""

    edges: Sequence[Edge[T]]
    has_next: bool
    has_previous: bool
    upto: str | None = None  # the cursor to go on from, where that is not the last edge's (with `last`: the first's)
    backwards: bool = False


@dataclass
class Connection(Generic[T]):
    """A list of which one page is answered: `load` gets the page, `total` counts them all."""

    context: Context
    load: Callable[[], Part[T]]
    total: Callable[[], int]

    @cached_property
    def part(self) -> Part[T]:
        self.context.budget.look_at_the_clock()
        return self.load()

    @property
    def count(self) -> int:
        self.context.budget.look_at_the_clock()
        return self.total()

    @property
    def edges(self) -> Sequence[Edge[T]]:
        self.context.hand_out(len(self.part.edges))
        return self.part.edges

    @property
    def nodes(self) -> list[T]:
        return [edge.node for edge in self.edges]

    @property
    def page_info(self) -> PageInfo:
        part = self.part
        start, end = (part.edges[0].cursor, part.edges[-1].cursor) if part.edges else (None, None)
        if part.backwards:
            return PageInfo(part.has_next, part.has_previous, part.upto or start, end)
        return PageInfo(part.has_next, part.has_previous, start, part.upto or end)


def counted(connection: Connection[Any], limit: int) -> int:
    """How many there are, up to one more than `limit`. Raises ArgumentWrong."""
    if not 1 <= limit <= MOST_COUNTED:
        raise ArgumentWrong(f"`limit` is a number from 1 to {MOST_COUNTED}.")
    return min(connection.count, limit + 1)


def write_cursor(number: int) -> str:
    """The cursor of what is known by its number."""
    return urlsafe_b64encode(f"id~{number}".encode()).decode().rstrip("=")


def read_cursor(cursor: str | None) -> int | None:
    """The number in a cursor, None for none. Raises ArgumentWrong."""
    if cursor is None:
        return None
    try:
        words = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (NoBase64, ValueError):
        words = ""
    kind, _, number = words.partition("~")
    if kind != "id" or not (number.isascii() and number.isdecimal()) or len(number) > 19 or int(number) > LARGEST:
        raise ArgumentWrong("This is no cursor of this list. Take one from its answer, or begin without.")
    return int(number)


def of_list(
    context: Context, found: Sequence[T], number_of: Callable[[T], int], arguments: Mapping[str, Any]
) -> Connection[T]:
    """The connection of a list that is all there. Raises ArgumentWrong."""
    asked = window(arguments)
    after, before = read_cursor(asked.after), read_cursor(asked.before)
    numbers = [number_of(each) for each in found]
    start = numbers.index(after) + 1 if after in numbers else 0
    end = numbers.index(before) if before in numbers else len(found)
    if asked.backwards:
        start = max(start, end - asked.size)
    end = max(start, min(end, len(found) if asked.backwards else start + asked.size))
    edges = [
        Edge(write_cursor(number), node) for number, node in zip(numbers[start:end], found[start:end], strict=True)
    ]
    part = Part(edges, end < len(found), start > 0)
    return Connection(context, lambda: part, lambda: len(found))
