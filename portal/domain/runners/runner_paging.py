"""Order, pages by number and by cursor, and counts that stop, of runners that a condition chooses."""

from __future__ import annotations

import enum
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NoBase64
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    ColumnElement,
    Select,
    any_,
    cast,
    exists,
    func,
    null,
    select,
    text,
    tuple_,
)
from sqlalchemy.orm import Session, aliased, joinedload
from sqlalchemy.sql.selectable import Subquery

from portal.database import as_array
from portal.domain.errors import BadRequest
from portal.domain.runners.runner_status import LAST_CONTACT
from portal.models import Runner, RunnerToken


class Order(enum.StrEnum):
    """The order of a list. Runners without contact count as heard of longest ago, endless tokens as ending last."""

    CREATED_DESC = "created_desc"
    CREATED_ASC = "created_asc"
    CONTACTED_DESC = "contacted_desc"
    CONTACTED_ASC = "contacted_asc"
    TOKEN_EXPIRES_AT_ASC = "token_expires_at_asc"  # noqa: S105  (an order)
    TOKEN_EXPIRES_AT_DESC = "token_expires_at_desc"  # noqa: S105
    ID_DESC = "id_desc"
    ID_ASC = "id_asc"

    @property
    def by(self) -> str:
        """What it goes by: created, contacted, token_expires_at or id."""
        return self.value.rpartition("_")[0]

    @property
    def descends(self) -> bool:
        return self.value.endswith("_desc")


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a list from a cursor on; `cursors` are those of the runners, in the same order."""

    runners: list[Runner]
    has_next: bool
    has_previous: bool
    cursors: list[str] = field(default_factory=list)


def among(ids: Sequence[int]) -> ColumnElement[bool]:
    """Condition for the runners with these ids, which go as one parameter however many they are."""
    return Runner.id == any_(as_array(ids))


def page_by_number(
    session: Session, which: ColumnElement[bool], *, offset: int, limit: int, order: Order = Order.ID_ASC
) -> list[Runner]:
    """The runners from this place on, at most `limit`, with creator, group and project; in two queries.

    The lowest id comes first, as in GitLab.
    """
    ids = _line(order).ids(which).offset(offset).limit(limit)
    return loaded(session, [row.id for row in session.execute(ids)])


def count(session: Session, which: ColumnElement[bool], *, most: int | None = None) -> int | None:
    """How many runners there are; None when there are more than `most`, which are not all counted."""
    found = select(Runner.id).where(which)
    if most is not None:
        found = found.limit(most + 1)
    total = session.scalar(select(func.count()).select_from(found.subquery())) or 0
    return total if most is None or total <= most else None


def page_by_cursor(
    session: Session,
    which: ColumnElement[bool],
    order: Order,
    *,
    first: int | None = None,
    last: int | None = None,
    after: str | None = None,
    before: str | None = None,
) -> Stretch:
    """The `first` (or the `last`) runners between two cursors, with creator, group and project; in two queries.

    Of `first` and `last` the caller gives one, and sees to it that it is not too many. Raises BadRequest for a cursor
    that is none, or is one of another order.
    """
    backwards = first is None
    size = (last if backwards else first) or 0
    line = _line(order)
    query = line.ids(which, backwards=backwards)
    if after:
        query = query.where(line.beyond(after, forwards=True))
    if before:
        query = query.where(line.beyond(before, forwards=False))
    rows = list(session.execute(query.limit(size + 1)))
    more, rows = len(rows) > size, rows[:size]
    if backwards:
        rows.reverse()
    has_next, has_previous = (bool(before), more) if backwards else (more, bool(after))
    told, runners = {row.id: row.told for row in rows}, loaded(session, [row.id for row in rows])
    cursors = [_write(order, told[runner.id], runner.id) for runner in runners]
    return Stretch(runners, has_next, has_previous, cursors)


def token_expiries(session: Session, runner_ids: Sequence[int]) -> dict[int, datetime]:
    """When each runner's newest token expires, by the runner's id; those without end are left out. One query."""
    expiry = _expiry()
    rows = session.execute(select(expiry).where(expiry.c.runner_id.in_(runner_ids))) if runner_ids else ()
    return {row.runner_id: row.expires_at for row in rows}


@dataclass(frozen=True, slots=True)
class _Line:
    """Runners in their order: by `keys`, of which `told` is what a cursor holds besides the id."""

    order: Order
    told: ColumnElement[Any]
    keys: tuple[ColumnElement[Any], ...]
    expiry: Subquery | None = None

    def ids(self, which: ColumnElement[bool], *, backwards: bool = False) -> Select[Any]:
        """The ids, from the first one or from the last, each with what its cursor holds."""
        query = select(Runner.id, self.told.label("told")).where(which)
        if self.expiry is not None:
            query = query.outerjoin(self.expiry, self.expiry.c.runner_id == Runner.id)
        down = self.order.descends != backwards
        return query.order_by(*(key.desc() if down else key.asc() for key in self.keys))

    def beyond(self, cursor: str, *, forwards: bool) -> ColumnElement[bool]:
        """Condition for what comes behind the cursor, or before it. Raises BadRequest."""
        at, runner_id = _read(self.order, cursor)
        smaller = self.order.descends == forwards
        place: list[ColumnElement[Any]] = [cast(runner_id, BigInteger)]
        if self.order.by != "id":
            place.insert(0, cast(at, TIMESTAMP(timezone=True)))
        here, there = tuple_(*self.keys), tuple_(*place)
        return here < there if smaller else here > there


def _line(order: Order) -> _Line:
    number = Runner.id.expression
    match order.by:
        case "created":
            return _Line(order, Runner.created_at.expression, (Runner.created_at.expression, number))
        case "contacted":
            return _Line(order, Runner.contacted_at.expression, (LAST_CONTACT, number))
        case "token_expires_at":
            expiry = _expiry()
            never = func.coalesce(expiry.c.expires_at, text("'infinity'::timestamptz"))
            return _Line(order, expiry.c.expires_at, (never, number), expiry)
    return _Line(order, null(), (number,))


def _expiry() -> Subquery:
    """When the newest tokens of runners expire, of those that do: few do, and an index has them."""
    newer = aliased(RunnerToken)
    replaced = exists().where(newer.runner_id == RunnerToken.runner_id, newer.id > RunnerToken.id)
    query = select(RunnerToken.runner_id, RunnerToken.expires_at).where(
        RunnerToken.expires_at.is_not(None), ~replaced
    )
    return query.subquery("expiry")


def loaded(session: Session, ids: Sequence[int]) -> list[Runner]:
    """These runners in this order, with whom and what a list says of them; only they are joined, not all of the list.

    One that was deleted since the ids were found is left out.
    """
    if not ids:
        return []
    with_owner = (joinedload(Runner.creator), joinedload(Runner.group), joinedload(Runner.project))
    query = select(Runner).where(Runner.id.in_(ids)).options(*with_owner)
    found = {runner.id: runner for runner in session.scalars(query)}
    return [found[each] for each in ids if each in found]


_NOWHERE = {"contacted": "-infinity", "token_expires_at": "infinity"}  # where those stand that have no time
_CURSOR = re.compile(r"(created|contacted|token_expires_at|id)~([^~]{0,40})~(\d{1,18})", re.ASCII)


def _write(order: Order, at: datetime | None, runner_id: int) -> str:
    moment = at.astimezone(UTC).isoformat() if at is not None else _NOWHERE.get(order.by, "")
    return urlsafe_b64encode(f"{order.by}~{moment}~{runner_id}".encode()).decode().rstrip("=")


def _read(order: Order, cursor: str) -> tuple[str, int]:
    """The time and the number in the cursor. Raises BadRequest."""
    try:
        words = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (NoBase64, ValueError):
        words = ""
    found = _CURSOR.fullmatch(words)
    if found is None or found[1] != order.by or not _is_place(order, found[2]):
        raise BadRequest("This is no cursor of this list in this order. Take one from its answer, or begin without.")
    return found[2], int(found[3])


def _is_place(order: Order, at: str) -> bool:
    if order.by == "id" or at == _NOWHERE.get(order.by):
        return order.by != "id" or not at
    try:
        return datetime.fromisoformat(at).tzinfo is not None
    except ValueError:
        return False
