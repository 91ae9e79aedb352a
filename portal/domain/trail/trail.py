"""Reading the trail: of a scope, a person, a runner; by who, what, where and when; by pages or as a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Select, and_, func, literal_column, or_, select
from sqlalchemy.orm import Session, joinedload

from portal.domain import csv_lines
from portal.domain.actors import PEOPLE
from portal.domain.errors import NotFound
from portal.domain.scopes import Scope, ScopeKind, find_group, find_project, of_group, of_project
from portal.domain.trail.audit_chain import COLUMNS, exact_time
from portal.models import AccessToken, AuditEvent, AuditLink, BulkAct, Group, Job, Project, Runner, User

PEOPLE_FOUND = 50  # whose events a search for a name finds although they are called otherwise by now
LOOKED_THROUGH = 5_000  # events, the newest, among which a page is looked for before the indexes are asked
PIECE = 1000  # rows of an export that are in memory at once
WITHHELD = "maintenance_note"  # who may see the trail may still not see this
KINDS = {
    "user": "People",
    "access_token": "Access tokens",
    "enrolment_key": "Enrolment keys",
    "runner": "Machines",
    "registration_token": "Registration tokens",
    "system": "The portal itself",
    "visitor": "Visitors",
}


@dataclass(frozen=True, slots=True)
class TrailFilter:
    """What to show: words of a name, a kind of actor, an action, a path and what is below, days (both included).

    `request` is the id of one request, or of the one that began a bulk act.
    """

    who: str = ""
    kind: str = ""
    action: str = ""
    path: str = ""
    request: str = ""
    since: date | None = None
    until: date | None = None

    @property
    def is_active(self) -> bool:
        return self != TrailFilter()


def of_person(user: User) -> Select[AuditEvent]:
    """The events by a person or about them, newest first."""
    theirs = and_(AuditEvent.actor_kind.in_(PEOPLE), AuditEvent.actor_id == user.id)
    about = and_(AuditEvent.target_kind == "person", AuditEvent.target_id == user.id)
    return select(AuditEvent).where(or_(theirs, about)).order_by(AuditEvent.id.desc())


def of_access_token(token: AccessToken) -> Select[AuditEvent]:
    """What was done with the token, and its making, rotating and end; newest first.

    Its person's number is what the index finds; among theirs the token is told by name and short form.
    """
    named, short = f"(access token {token.name[:70]}, {token.short}…)", f"{token.short}…"
    by_it = and_(AuditEvent.actor_kind == "access_token", AuditEvent.actor_name.endswith(named, autoescape=True))
    about_it = and_(AuditEvent.target_kind == "person", AuditEvent.changes["token"].contains([short]))
    by_it = and_(by_it, AuditEvent.actor_id == token.user_id)
    about_it = and_(about_it, AuditEvent.target_id == token.user_id, AuditEvent.action.startswith("access_token_"))
    return select(AuditEvent).where(or_(by_it, about_it)).order_by(AuditEvent.id.desc())


def fitting(session: Session, query: Select[AuditEvent], wanted: TrailFilter) -> Select[AuditEvent]:
    """The events of the query that fit the filter."""
    if wanted.kind:
        query = query.where(AuditEvent.actor_kind == wanted.kind)
    if wanted.who:
        query = query.where(_called(session, wanted.who))
    if wanted.action:
        query = query.where(AuditEvent.action == wanted.action)
    if wanted.request:
        query = query.where(AuditEvent.request_id == wanted.request)
    if wanted.path:
        query = query.where(_below(session, wanted.path))
    if wanted.since:
        query = query.where(AuditEvent.created_at >= _midnight(wanted.since))
    if wanted.until and wanted.until < date.max:
        query = query.where(AuditEvent.created_at < _midnight(wanted.until, 1))
    return query


def page(
    session: Session, query: Select[AuditEvent], wanted: TrailFilter, *, before: int | None, limit: int, ordered: bool
) -> Sequence[AuditEvent]:
    """The newest `limit` events of the query that fit the filter; with `before` only those with a lower id.

    `ordered` says that an index has the query's events in their order. For all else PostgreSQL would go through the
    whole trail from its end, since it believes that a page is soon full. So only the newest events are looked
    through; where those do not fill the page, what is rare is found by what makes it rare, and then sorted.
    """
    fits = fitting(session, query, wanted)
    older = fits if before is None else fits.where(AuditEvent.id < before)
    if ordered and not wanted.is_active:
        return session.scalars(older.limit(limit)).all()
    top = _last_id(session, wanted.until)
    newest = older.where(AuditEvent.id.between(min(top, before or top) - LOOKED_THROUGH, top)).limit(limit)
    if len(found := session.scalars(newest).all()) == limit:
        return found
    return session.scalars(older.order_by(None).order_by((AuditEvent.id + 0).desc()).limit(limit)).all()


def _last_id(session: Session, until: date | None) -> int:
    """The id up to which events of this day and those before may be, a day's difference of clocks allowed for."""
    if until:
        later = select(AuditEvent.id).where(AuditEvent.created_at >= _midnight(until, 2))
        first = session.scalar(later.order_by(AuditEvent.created_at).limit(1))
        if first is not None:
            return first
    return session.scalar(select(func.max(AuditEvent.id))) or 0


def _midnight(day: date, later: int = 0) -> datetime:
    """The beginning of the day, or of one so many days later, as far as the calendar goes."""
    number = min(max(day.toordinal() + later, 1), date.max.toordinal())
    return datetime.combine(date.fromordinal(number), time(), UTC)


def _called(session: Session, words: str) -> ColumnElement[bool]:
    """Condition for events by somebody with these words in their name now, or words that begin so in it then."""
    columns = (User.name, User.username, User.email)
    named = select(User.id).where(or_(*(func.strpos(func.lower(column), words.lower()) > 0 for column in columns)))
    ids = session.scalars(named.order_by(User.id).limit(PEOPLE_FOUND)).all()
    simple: ColumnElement[str] = literal_column("'simple'")  # a constant, as in the index
    then = func.to_tsvector(simple, AuditEvent.actor_name).bool_op("@@")(func.to_tsquery(simple, _beginning(words)))
    return or_(then, and_(AuditEvent.actor_kind.in_(PEOPLE), AuditEvent.actor_id.in_(ids))) if ids else then


def _beginning(words: str) -> str:
    """These words for a text search, each of which may go on."""
    quoted = (word.replace("\\", "\\\\").replace("'", "''") for word in words.split())
    return " & ".join(f"'{word}':*" for word in quoted)


def _below(session: Session, path: str) -> ColumnElement[bool]:
    """Condition for events in the group or project with this path, or below; also where it is gone by now."""
    path = path.strip("/")
    for find in (find_group, find_project):
        try:
            return _in(find(session, path))
        except NotFound:
            continue
    return or_(AuditEvent.scope_path == path, AuditEvent.scope_path.startswith(f"{path}/", autoescape=True))


def _in(scope: Scope) -> ColumnElement[bool]:
    if scope.project is not None:
        return AuditEvent.project_id == scope.project.id
    return AuditEvent.group_ids.contains([scope.id])


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
