"""A part of a list by number, and how long the list is, unless that would take long to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from portal.database import as_array

T = TypeVar("T")
MOST_COUNTED = 10_000  # GitLab's bound as well


@dataclass(frozen=True, slots=True)
class Slice(Generic[T]):
    """Some rows. `total` is None for a list of more than MOST_COUNTED; `more` says whether another slice follows."""

    rows: Sequence[T]
    total: int | None
    more: bool


def cut(session: Session, query: Select[T], key: InstrumentedAttribute[Any], *, offset: int, limit: int) -> Slice[T]:
    """The rows of the query from `offset` on, `limit` at most, in two statements. `key` identifies a row of it."""
    total = count(session, query, key)
    rows = session.scalars(query.offset(offset).limit(limit + 1)).all()
    return Slice(rows[:limit], total if total <= MOST_COUNTED else None, len(rows) > limit)


def count(
    session: Session, query: Select[Any], key: InstrumentedAttribute[Any], *, most: int | None = MOST_COUNTED
) -> int:
    """How many rows the query has, up to one more than `most`: that many stands for more than `most`."""
    counted = query.order_by(None).with_only_columns(key, maintain_column_froms=True)
    counted = counted.limit(most + 1) if most is not None else counted
    return session.scalar(select(func.count()).select_from(counted.subquery())) or 0


def first(session: Session, query: Select[T], key: InstrumentedAttribute[Any], *, limit: int) -> Sequence[T]:
    """The first rows of the query, in two statements: what a row is loaded with is joined to these alone."""
    chosen = query.with_only_columns(key, maintain_column_froms=True).limit(limit)
    ids = session.scalars(chosen).all()
    if not ids:
        return []
    place = func.array_position(as_array(ids), key)
    whole = select(key.class_).where(key.in_(ids)).order_by(place)
    return session.scalars(whole).all()
