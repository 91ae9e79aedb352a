"""Checking the trail's chain: every hash is worked out again from the rows, without the function that made it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Text, cast, select
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


def link_hash(previous: bytes, event: Mapping[str, Any]) -> bytes:
    """The hash of the link that holds this event, after the one with the hash `previous`."""
    return hashlib.sha256(previous + event_text(event).encode()).digest()


def verify(session: Session, *, noted: Head | None = None, say: Callable[[int], object] | None = None) -> Checked:
    """Check the whole chain, oldest event first, and stop at the first event that is not as it was written.

    `noted` is a head of an earlier check: it must still be part of the chain, so that a cut-off end is found. `say`
    hears how many events were checked so far. Wants a transaction that sees one moment (REPEATABLE READ). Changes
    nothing.
    """
    before = _where_it_begins(session)
    place = before or Head(0, NOTHING_BEFORE)
    first, count, seen_noted = None, 0, noted is None or noted == before
    with closing(_links(session)) as links:
        for row in links:
            if wrong := _wrong(row, place):
                return Checked(count, first, place if count else None, wrong)
            place = Head(row["position"], row["link_hash"])
            first, count = first or place.position, count + 1
            seen_noted = seen_noted or place == noted
            if say is not None and count % BATCH == 0:
                say(count)
    head = place if count else None
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


def _links(session: Session) -> Generator[dict[str, Any]]:
    """The links with their events, piece by piece; the event's columns are None where it is gone."""
    columns = [getattr(AuditEvent, name) for name in COLUMNS[:-1]]
    query = (
        select(
            AuditLink.position,
            AuditLink.event_id,
            AuditLink.previous_hash,
            AuditLink.hash.label("link_hash"),
            *columns,
            # As text: a number that is no whole one keeps its digits.
            cast(AuditEvent.changes, Text).label("changes"),
        )
        .outerjoin(AuditEvent, AuditEvent.id == AuditLink.event_id)
        .order_by(AuditLink.position)
        .execution_options(yield_per=BATCH)
    )
    with session.execute(query) as rows:
        for row in rows.mappings():
            changes = None if row["id"] is None else json.loads(row["changes"], parse_float=Decimal)
            yield {**row, "changes": changes}


def _wrong(row: Mapping[str, Any], place: Head) -> Broken | None:
    """What is wrong with this link, which must follow `place`."""
    expected = place.position + 1
    if row["position"] != expected:
        lost = row["position"] - expected
        if lost < 0:
            problem = f"it is still there, though retention says that it deleted all up to position {place.position}."
            return Broken(row["position"], _named(row), problem)
        last = f" to {row['position'] - 1}" if lost > 1 else ""
        return Broken(expected, "", f"position {expected}{last} is missing; the next event is {_named(row)}.")
    if row["id"] is None:
        return Broken(expected, f"event {row['event_id']}", "the event is gone; only its hash is left.")
    if row["previous_hash"] != place.hash:
        return Broken(
            expected, _named(row), "it does not follow the event before it; something was swapped or put in."
        )
    if row["link_hash"] != link_hash(place.hash, row):
        return Broken(expected, _named(row), "its values are not those that were written.")
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
