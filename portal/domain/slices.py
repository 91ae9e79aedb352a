"""A part of a list by number, and how long the list is, unless that would take long to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

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
    counted = query.order_by(None).with_only_columns(key, maintain_column_froms=True).limit(MOST_COUNTED + 1)
    total = session.scalar(select(func.count()).select_from(counted.subquery())) or 0
    rows = session.scalars(query.offset(offset).limit(limit + 1)).all()
    return Slice(rows[:limit], total if total <= MOST_COUNTED else None, len(rows) > limit)
