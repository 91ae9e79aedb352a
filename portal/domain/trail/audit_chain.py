"""Checking the trail's chain: every hash is worked out again from the rows, without the function that made it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from json.encoder import encode_basestring as _quoted
from typing import Any

from sqlalchemy import Row, Text, cast, select
from sqlalchemy.orm import Session

from portal.models import AuditEvent, AuditLink

NOTHING_BEFORE = bytes(32)  # the previous hash of the first event there ever was
BATCH = 1000  # rows that are in memory at once
SHORTENED = "trail_shortened"
COLUMNS = (
    "id", "created_at", "actor_kind", "actor_id", "actor_name", "action", "target_kind", "target_id", "target_name",
    "scope_kind", "scope_path", "group_ids", "project_id", "address", "request_id", "changes",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Head:
    """One place in the chain, as people note it elsewhere: "position:hash"."""

    position: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.position}:{self.hash.hex()}"

    @classmethod
    def read(cls, text: str) -> Head:
        """The head that was noted as this text. Raises ValueError for any other text."""
        read = re.fullmatch(r"([0-9]{1,18}):([0-9a-f]{64})", text.strip())
        if read is None:
            raise ValueError(text)
        return cls(int(read[1]), bytes.fromhex(read[2]))


@dataclass(frozen=True, slots=True)
class Broken:
    """The first place where the chain is not what it was: where, about which event if it is known, and why."""

    position: int | None
    event: str
    problem: str

    def __str__(self) -> str:
        where = f"at position {self.position}" if self.position is not None else "beside the chain"
        return f"The trail is broken {where}{f' ({self.event})' if self.event else ''}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found: both ends of the chain as it stands; `broken` is None for a whole one."""

    count: int
    first: int | None
    head: Head | None
    broken: Broken | None = None


def event_text(event: Mapping[str, Any]) -> str:
    """The text that an event's hash is made of, from its columns: what PostgreSQL prints of it as a jsonb array.

    `created_at` is a time with its zone, or that text already; keys of objects are ordered by length, then by bytes.
    """
    values = [event[name] for name in COLUMNS]
    if isinstance(values[1], datetime):
        values[1] = exact_time(values[1])
    return _as_jsonb_prints(values)


def exact_time(moment: datetime) -> str:
    """A time as the chain's text and the exports write it: in UTC, with six digits of a second."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _as_jsonb_prints(value: Any) -> str:
    if isinstance(value, dict):
        named = sorted(value.items(), key=lambda each: (len(each[0].encode()), each[0].encode()))
        return "{" + ", ".join(f"{_as_jsonb_prints(name)}: {_as_jsonb_prints(each)}" for name, each in named) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_jsonb_prints, value)) + "]"
    if isinstance(value, Decimal):
        return format(value, "f")
    return json.dumps(value, ensure_ascii=False)


def verify(session: Session, *, noted: Head | None = None, say: Callable[[int], object] | None = None) -> Checked:
    """Check the whole chain, oldest event first, and stop at the first event that is not as it was written.

    `noted` is a head of an earlier check: it must still be part of the chain, so that a cut-off end is found. `say`
    hears how many events were checked so far. Wants a transaction that sees one moment (REPEATABLE READ). Changes
    nothing.
    """
    before = _where_it_begins(session)
    head, first, count, seen_noted = None, None, 0, noted is None or noted == before
    with closing(links(session, before)) as checked:
        for place, wrong in checked:
            if wrong is not None:
                return Checked(count, first, head, wrong)
            head, first, count = place, first or place.position, count + 1
            seen_noted = seen_noted or place == noted
            if say is not None and count % BATCH == 0:
                say(count)
    broken = _beside_the_chain(session)
    if broken is None and noted is not None and not seen_noted:
        broken = _lost(noted, first, head)
    return Checked(count, first, head, broken)


def _where_it_begins(session: Session) -> Head | None:
    """What retention says that it took last: the chain goes on from there. None for a chain that is whole."""
    stated = session.scalar(
        select(AuditEvent.changes)
        .join(AuditLink)
        .where(AuditEvent.action == SHORTENED, AuditEvent.actor_kind == "system")
        .order_by(AuditLink.position.desc())
        .limit(1)
    )
    try:
        return Head(int(stated["last_position"][1]), bytes.fromhex(stated["last_hash"][1])) if stated else None
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def links(session: Session, before: Head | None = None) -> Generator[tuple[Head, Broken | None]]:
    """Each link of the chain behind `before` with what is wrong with it, piece by piece.

    With a link that is wrong comes the place that it should have followed, and then the rest is of no use.
    """
    place = before or Head(0, NOTHING_BEFORE)
    with session.execute(_LINKED) as rows:
        for row in rows:
            wrong = _wrong(row, place)
            if wrong is None:
                place = Head(row[0], row[3])
            yield place, wrong


# The event's columns are None where it is gone. What changed comes as the text that PostgreSQL prints of it: what was
# stored is compared, and a number that is no whole one keeps its digits.
_LINKED = (
    select(
        AuditLink.position,
        AuditLink.event_id,
        AuditLink.previous_hash,
        AuditLink.hash,
        *(getattr(AuditEvent, name) for name in COLUMNS[:-1]),
        cast(AuditEvent.changes, Text).label("changes"),
    )
    .outerjoin(AuditEvent, AuditEvent.id == AuditLink.event_id)
    .order_by(AuditLink.position)
    .execution_options(yield_per=BATCH)
)


def _row_text(row: Sequence[Any]) -> str:
    """The same text as event_text makes, of a row of _LINKED: a long trail is checked in a third of the time."""
    (
        _, _, _, _, number, moment, actor_kind, actor_id, actor, action, kind, target_id, target, scope_kind, path,
        groups, project_id, address, request, changes,
    ) = row  # fmt: skip
    return (
        f'[{number}, "{exact_time(moment)}", {_quoted(actor_kind)}, {_number(actor_id)}, {_quoted(actor)}, '
        f"{_quoted(action)}, {_quoted(kind)}, {_number(target_id)}, {_quoted(target)}, {_quoted(scope_kind)}, "
        f"{_quoted(path)}, [{', '.join(map(str, groups))}], {_number(project_id)}, {_quoted(address)}, "
        f"{_quoted(request)}, {changes}]"
    )


def _number(value: int | None) -> object:
    return "null" if value is None else value


def _wrong(row: Row[*tuple[Any, ...]], place: Head) -> Broken | None:
    """What is wrong with this link, which must follow `place`."""
    position, event_id, previous_hash, link_hash, number = row[:5]
    expected = place.position + 1
    if position != expected:
        lost = position - expected
        if lost < 0:
            problem = f"it is still there, though retention says that it deleted all up to position {place.position}."
            return Broken(position, _named(dict(row._mapping)), problem)
        last = f" to {position - 1}" if lost > 1 else ""
        named = _named(dict(row._mapping))
        return Broken(expected, "", f"position {expected}{last} is missing; the next event is {named}.")
    if number is None:
        return Broken(expected, f"event {event_id}", "the event is gone; only its hash is left.")
    if previous_hash != place.hash:
        problem = "it does not follow the event before it; something was swapped or put in."
        return Broken(expected, _named(dict(row._mapping)), problem)
    if link_hash != hashlib.sha256(place.hash + _row_text(row).encode()).digest():
        return Broken(expected, _named(dict(row._mapping)), "its values are not those that were written.")
    return None


def _named(row: Mapping[str, Any]) -> str:
    if row["id"] is None:
        return f"event {row['event_id']}, which is gone"
    when = row["created_at"].astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    where = f" in {row['scope_path']}" if row["scope_path"] else ""
    what = f"{row['action']} {row['target_name']}{where}"
    return f"event {row['id']}, {when}, {row['actor_name']}: {what}"


def _beside_the_chain(session: Session) -> Broken | None:
    """An event that no link holds: it was put in past the trigger, or its link was taken away at the end."""
    columns = [getattr(AuditEvent, name) for name in COLUMNS]
    query = select(*columns).outerjoin(AuditLink, AuditLink.event_id == AuditEvent.id)
    row = (
        session.execute(query.where(AuditLink.position.is_(None)).order_by(AuditEvent.id).limit(1)).mappings().first()
    )
    if row is None:
        return None
    return Broken(None, _named(dict(row)), "no link of the chain holds this event.")


def _lost(noted: Head, first: int | None, head: Head | None) -> Broken:
    if head is None or noted.position > head.position:
        there = f"ends at position {head.position}" if head else "is empty"
        return Broken(noted.position, "", f"the chain {there}; what came after it, up to the noted head, is gone.")
    if first is not None and noted.position < first:
        older = "the noted head is older than the first event that retention has left, so it cannot be compared."
        return Broken(noted.position, "", f"{older} Note a newer one.")
    return Broken(noted.position, "", "the noted head had another hash: the events up to there were written anew.")
