"""The trail of a person or a token, what its events name that still exists, and the trail as a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Select, and_, func, not_, or_, select
from sqlalchemy.orm import Session, joinedload

from portal.domain import csv_lines
from portal.domain.actors import PEOPLE
from portal.domain.audit import NEWEST_FIRST
from portal.domain.scopes import Scope, ScopeKind, of_group, of_project
from portal.domain.trail.audit_chain import COLUMNS, exact_time
from portal.models import AccessToken, AuditEvent, AuditLink, BulkAct, Group, Job, Project, Runner, User

PIECE = 1000  # rows of an export that are in memory at once
WITHHELD = "maintenance_note"  # who may see the trail may still not see this


def of_person(user: User) -> Select[AuditEvent]:
    """The events by a person or about them, newest first."""
    return select(AuditEvent).where(or_(*by_or_about(user))).order_by(*NEWEST_FIRST)


def by_or_about(user: User) -> tuple[ColumnElement[bool], ...]:
    """Conditions for the events by a person, for each kind of actor that a person is, and for those about them."""
    theirs = [and_(AuditEvent.actor_kind == kind, AuditEvent.actor_id == user.id) for kind in PEOPLE]
    about = and_(AuditEvent.target_kind == "person", AuditEvent.target_id == user.id)
    return *theirs, and_(about, func.coalesce(not_(or_(*theirs)), True))


def of_access_token(token: AccessToken) -> Select[AuditEvent]:
    """What was done with the token, and its making, rotating and end; newest first."""
    named, short = f"(access token {token.name[:70]}, {token.short}…)", f"{token.short}…"
    by_them, about_them = _with_any_of(token)
    by_it = and_(by_them, AuditEvent.actor_name.endswith(named, autoescape=True))
    ends = AuditEvent.action.startswith("access_token_")
    about_it = and_(about_them, ends, AuditEvent.changes["token"].contains([short]))
    return select(AuditEvent).where(or_(by_it, about_it)).order_by(*NEWEST_FIRST)


def around(token: AccessToken) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Conditions for events among which are those of the token: by or about its person, each of them fits one.

    The person's number is what the index finds; name and short form of the token are asked of each event.
    """
    by_them, about_them = _with_any_of(token)
    return by_them, and_(about_them, func.coalesce(not_(by_them), True))


def _with_any_of(token: AccessToken) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Conditions for what was done with any token of its person, and for what became of the person."""
    by_them = and_(AuditEvent.actor_kind == "access_token", AuditEvent.actor_id == token.user_id)
    return by_them, and_(AuditEvent.target_kind == "person", AuditEvent.target_id == token.user_id)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the events of a page name that still exists, to link to; and their links in the chain, by event id."""

    links: dict[int, AuditLink]
    people: frozenset[int]
    runners: dict[int, Runner]
    groups: dict[int, Group]
    projects: dict[int, Project]
    bulk_acts: dict[int, int]  # by whom, by number
    jobs: frozenset[int]

    def runner(self, event: AuditEvent) -> Runner | None:
        """The runner that the event is about."""
        return self.runners.get(event.target_id or 0) if event.target_kind == "runner" else None

    def scope(self, event: AuditEvent) -> Scope | None:
        """The group or project that it happened in, wherever that is now; None for the instance."""
        if event.scope_kind == ScopeKind.PROJECT:
            project = self.projects.get(event.project_id or 0)
            return of_project(project) if project else None
        group = self.groups.get(event.group_ids[-1]) if event.group_ids else None
        return of_group(group) if group else None

    def bulk_act(self, event: AuditEvent, reader: User) -> int | None:
        """The number of the bulk act that the event tells of, if its report is there and the reader's to see."""
        number = act_number(event)
        if number is None or number not in self.bulk_acts:
            return None
        return number if reader.admin or self.bulk_acts[number] == reader.id else None


def standing(session: Session, events: Sequence[AuditEvent]) -> Standing:
    """Look up together what a page of events names: seven queries at most, however many events there are."""
    people = {event.target_id for event in events if event.target_kind == "person"}
    people |= {event.actor_id for event in events if event.actor_kind in PEOPLE}
    runners = {event.target_id for event in events if event.target_kind == "runner"}
    jobs = {event.target_id for event in events if event.target_kind == "job" and event.target_id}
    groups = {event.group_ids[-1] for event in events if event.group_ids}
    projects = {event.project_id for event in events if event.project_id}
    acts = {number for event in events if (number := act_number(event))}
    owned = select(Runner).options(joinedload(Runner.group), joinedload(Runner.project))
    links = select(AuditLink).where(AuditLink.event_id.in_([event.id for event in events]))
    return Standing(
        links={link.event_id: link for link in session.scalars(links)},
        people=frozenset(session.scalars(select(User.id).where(User.id.in_(people)))),
        runners={each.id: each for each in session.scalars(owned.where(Runner.id.in_(runners)))},
        groups={each.id: each for each in session.scalars(select(Group).where(Group.id.in_(groups)))},
        projects={each.id: each for each in session.scalars(select(Project).where(Project.id.in_(projects)))},
        bulk_acts=_bulk_acts(session, acts) if acts else {},
        jobs=frozenset(session.scalars(select(Job.id).where(Job.id.in_(jobs)))) if jobs else frozenset(),
    )


def act_number(event: AuditEvent) -> int | None:
    """The number of the bulk act that the event tells of; None for other events, and for older ones."""
    number = event.changes.get("number", (None, None))[1] if event.action.startswith("bulk_act_") else None
    return number if isinstance(number, int) else None


def _bulk_acts(session: Session, numbers: set[int]) -> dict[int, int]:
    rows = session.execute(select(BulkAct.id, BulkAct.user_id).where(BulkAct.id.in_(numbers)))
    return {row.id: row.user_id for row in rows}


def json_lines(session: Session, query: Select[AuditEvent], *, notes: bool) -> Iterator[str]:
    """The events as JSON objects, one a line, in the order of the chain, read piece by piece.

    With `notes` nothing is left out.

    Each line has all that its hash is made of: `previous_hash` and the columns, named and written as in the chain's
    text (audit_chain.event_text takes the line as it is). What is withheld is named, since the hash then cannot be
    worked out.
    """
    for event in _pieces(session, query, notes=notes):
        yield orjson.dumps(event).decode() + "\n"


def csv(session: Session, query: Select[AuditEvent], *, notes: bool) -> Iterator[str]:
    """The same as a CSV file with a heading; what a spreadsheet would take for a formula is a text there."""
    yield csv_lines.line(FIELDS)
    for event in _pieces(session, query, notes=notes):
        made = {**event, "group_ids": " ".join(map(str, event["group_ids"]))}
        made["changes"] = orjson.dumps(event["changes"]).decode()
        yield csv_lines.line(made.get(name, "") for name in FIELDS)


FIELDS = ("position", "hash", "previous_hash", *COLUMNS, "withheld")


def _pieces(session: Session, query: Select[AuditEvent], *, notes: bool) -> Iterator[dict[str, Any]]:
    linked = query.outerjoin(AuditLink, AuditLink.event_id == AuditEvent.id).with_only_columns(
        AuditLink.position, AuditLink.hash, AuditLink.previous_hash, *(getattr(AuditEvent, name) for name in COLUMNS)
    )
    in_place = linked.order_by(None).order_by(AuditLink.position, AuditEvent.id)
    with session.execute(in_place.execution_options(yield_per=PIECE)) as rows:
        for row in rows.mappings():
            yield _as_told(row, notes=notes)


def _as_told(row: Mapping[Any, Any], *, notes: bool) -> dict[str, Any]:
    event = dict(row)
    event["hash"], event["previous_hash"] = _hex(row["hash"]), _hex(row["previous_hash"])
    event["created_at"] = exact_time(row["created_at"])
    if not notes and WITHHELD in event["changes"]:
        event["changes"] = {name: told for name, told in event["changes"].items() if name != WITHHELD}
        event["withheld"] = WITHHELD
    return event


def _hex(digest: bytes | None) -> str | None:
    return digest.hex() if digest is not None else None
