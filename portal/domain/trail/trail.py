"""Reading the trail: of a scope, a person, a runner; by who, what, where and when; by pages or as a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    func,
    literal_column,
    not_,
    or_,
    select,
    text,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.orm import Session, joinedload

from portal.domain import audit, csv_lines
from portal.domain.actors import PEOPLE
from portal.domain.audit import NEWEST_FIRST
from portal.domain.errors import NotFound
from portal.domain.scopes import Scope, ScopeKind, find_group, find_project, of_group, of_project
from portal.domain.trail.audit_chain import COLUMNS, exact_time
from portal.models import AccessToken, AuditEvent, AuditLink, BulkAct, Group, Job, Project, Runner, User

PEOPLE_FOUND = 50  # whose events a search for a name finds although they are called otherwise by now
LOOKED_THROUGH = 5_000  # events, the newest, among which a page is looked for before the indexes are asked
RARE = 10_000  # events that are all looked at, where a filter leaves no more of them
MOST_PARTS = 3  # of a name, whose numbers are asked for
BELIEVED = 5 * RARE  # events that a name has, from which on they are not counted
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


def fitting(session: Session, query: Select[AuditEvent], wanted: TrailFilter) -> Select[AuditEvent]:
    """The events of the query that fit the filter."""
    return query.where(*(each.condition for each in _facets(session, wanted)), *_days(wanted))


@dataclass(frozen=True, slots=True)
class Page:
    """Events, the newest first. `older` is the number of the event to go on before; None at the end.

    `looked_to` is set where the page is not full although there may be more that fits: so far back was looked.
    """

    events: Sequence[AuditEvent]
    older: int | None = None
    looked_to: datetime | None = None


def page(
    session: Session,
    query: Select[AuditEvent],
    wanted: TrailFilter,
    *,
    before: int | None,
    limit: int,
    either: Sequence[ColumnElement[bool]] = (),
) -> Page:
    """The newest `limit` events of the query that fit the filter; with `before` only those older than that event.

    `either` are conditions of which each event of the query fits exactly one, each with an index in the order of
    time, although other events may fit them too; without them the query's own condition has one. What is asked of the
    database does not grow with the trail: rows are looked through one by one along an index, the newest first, and
    where a filter leaves few events all of those are looked at. Where neither fills the page, the page says how far
    it looked.
    """
    search = _Search(session, query, wanted, before, limit + 1, tuple(either))
    looked = search.along(search.first(), LOOKED_THROUGH)
    if not looked.is_enough(limit + 1):
        rare = search.rarest()
        if rare is not None:
            looked = search.along(rare, RARE)
        else:
            further = search.along(search.first(), RARE, after=looked.last)
            looked = Looked((*looked.ids, *further.ids)[: limit + 1], further.last)
    events = _in_order(session, looked.ids[:limit])
    if len(looked.ids) > limit:
        return Page(events, older=looked.ids[limit - 1])
    moment, number = looked.last or (None, None)
    return Page(events, number, moment)


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found along an index; `last` are time and number of the last row looked at, None at the end."""

    ids: tuple[int, ...]
    last: tuple[datetime, int] | None

    def is_enough(self, limit: int) -> bool:
        return self.last is None or len(self.ids) >= limit


@dataclass(frozen=True, slots=True)
class Facet:
    """One condition of a search; `branches` are its parts, where each of them has an index in the order of time."""

    condition: ColumnElement[bool]
    branches: tuple[ColumnElement[bool], ...] = ()
    many: bool = False  # as far as PostgreSQL believes; to count them would take long
    wide: bool = False  # the branches lead to others too, so that the condition is asked of each event


class _Search:
    """One search for a page: what it asks for, and from where on."""

    def __init__(
        self,
        session: Session,
        query: Select[AuditEvent],
        wanted: TrailFilter,
        before: int | None,
        limit: int,
        either: tuple[ColumnElement[bool], ...],
    ) -> None:
        self.session, self.limit = session, limit
        whole = query.whereclause
        own = true() if whole is None else whole
        self.base = Facet(own, either or (own,), wide=bool(either))
        self.everything = whole is None
        self.facets = _facets(session, wanted)
        self.bounds = [*_days(wanted), *_before(session, before)]

    def first(self) -> Facet:
        """Along which rows are looked through first: those of the page, or of a filter where that is all there is."""
        ordered = [each for each in self.facets if each.branches]
        return ordered[0] if self.everything and ordered else self.base

    def rarest(self) -> Facet | None:
        """The filter that the fewest events fit, if those are few enough to look at all of them."""
        counts = [(self._count(each), number) for number, each in enumerate(self.facets) if not each.many]
        fewest, number = min(counts, default=(RARE + 1, 0))
        return self.facets[number] if fewest <= RARE else None

    def _count(self, facet: Facet) -> int:
        """How many events fit it, as far as that is at most one more than RARE."""
        some = select(AuditEvent.id).where(facet.condition, *self.bounds).limit(RARE + 1).subquery()
        return self.session.scalar(select(func.count()).select_from(some)) or 0

    def along(self, facet: Facet, most: int, after: tuple[datetime, int] | None = None) -> Looked:
        """Look through the newest `most` events of the facet, for those that fit all the others as well."""
        others = [each.condition for each in (self.base, *self.facets) if each is not facet or each.wide]
        bounds = [*self.bounds, *([_older_than(*after)] if after else [])]
        each = [
            select(AuditEvent.id, AuditEvent.created_at, and_(true(), *others).label("fits"))
            .where(branch, *bounds)
            .order_by(*NEWEST_FIRST)
            .limit(most)
            for branch in facet.branches or (facet.condition,)
        ]
        rows = (
            each[0].subquery()
            if len(each) == 1
            else union_all(*(part.subquery().select() for part in each)).subquery()
        )
        newest = select(rows).order_by(rows.c.created_at.desc(), rows.c.id.desc()).limit(most).cte("looked")
        fits = select(newest.c.id).where(newest.c.fits).order_by(newest.c.created_at.desc(), newest.c.id.desc())
        last = select(newest.c.created_at, newest.c.id).order_by(newest.c.created_at, newest.c.id).limit(1).subquery()
        total = select(func.count()).select_from(newest).scalar_subquery()
        found = select(func.array(fits.limit(self.limit).scalar_subquery()), total, last.c.created_at, last.c.id)
        row = self.session.execute(found.select_from(last)).first()
        if row is None:
            return Looked((), None)
        ids, looked, moment, number = row
        return Looked(tuple(ids), (moment, number) if looked >= most else None)


def _in_order(session: Session, ids: Sequence[int]) -> list[AuditEvent]:
    found = (
        {each.id: each for each in session.scalars(select(AuditEvent).where(AuditEvent.id.in_(ids)))} if ids else {}
    )
    return [found[number] for number in ids if number in found]


def _facets(session: Session, wanted: TrailFilter) -> list[Facet]:
    """What the filter asks for beside the days; those that are likely to be the rarest first."""
    facets = []
    if wanted.request:
        facets.append(Facet(AuditEvent.request_id == wanted.request))
    if wanted.path:
        facets.append(_below(session, wanted.path))
    if wanted.who:
        facets.append(Facet(_called(session, wanted.who), many=_believed(session, wanted.who) > BELIEVED))
    for column, value in ((AuditEvent.action, wanted.action), (AuditEvent.actor_kind, wanted.kind)):
        if value:
            facets.append(Facet(column == value, (column == value,)))
    return facets


def _days(wanted: TrailFilter) -> list[ColumnElement[bool]]:
    days = [AuditEvent.created_at >= _midnight(wanted.since)] if wanted.since else []
    if wanted.until and wanted.until < date.max:
        days.append(AuditEvent.created_at < _midnight(wanted.until, 1))
    return days


def _before(session: Session, number: int | None) -> list[ColumnElement[bool]]:
    """Condition for events older than this one; where it is gone, for those with lower numbers."""
    if number is None:
        return []
    moment = session.scalar(select(AuditEvent.created_at).where(AuditEvent.id == number))
    return [AuditEvent.id < number] if moment is None else [_older_than(moment, number)]


def _older_than(moment: datetime, number: int) -> ColumnElement[bool]:
    # Twice about the time, as PostgreSQL begins in the middle of an index for the first of the two alone.
    return and_(AuditEvent.created_at <= moment, tuple_(AuditEvent.created_at, AuditEvent.id) < (moment, number))


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
    then: ColumnElement[bool] = func.to_tsvector(simple, AuditEvent.actor_name).bool_op("@@")(
        func.to_tsquery(simple, _beginning(words))
    )
    # Looked at first where rows are looked through one by one: to split a name into words takes ten times as long.
    part = max(re.findall(r"\w+", words), key=len, default="")
    then = and_(func.strpos(func.lower(AuditEvent.actor_name), func.lower(part)) > 0, then)
    return or_(then, and_(AuditEvent.actor_kind.in_(PEOPLE), AuditEvent.actor_id.in_(ids))) if ids else then


def _believed(session: Session, words: str) -> int:
    """How many events by somebody with these words in their name there are, as PostgreSQL's statistics have it.

    Of words that belong together, such as clean-up, they know nothing: there the rarest of the parts counts.
    """
    parts = re.findall(r"\w+", words)
    asked = [words] if parts == words.split() else parts
    plans = [session.scalar(_EXPLAINED, {"words": _beginning(part)}) for part in asked[:MOST_PARTS]]
    return min((int(plan[0]["Plan"]["Plan Rows"]) for plan in plans if plan), default=0)


_EXPLAINED = text(
    "EXPLAIN (FORMAT JSON) SELECT 1 FROM audit_events"
    " WHERE to_tsvector('simple', actor_name) @@ to_tsquery('simple', :words)"
)


def _beginning(words: str) -> str:
    """These words for a text search, each of which may go on."""
    quoted = (word.replace("\\", "\\\\").replace("'", "''") for word in words.split())
    return " & ".join(f"'{word}':*" for word in quoted)


def _below(session: Session, path: str) -> Facet:
    """The events in the group or project with this path, or below; also where it is gone by now."""
    path = path.strip("/")
    for find in (find_group, find_project):
        try:
            inside = audit.inside(find(session, path))
        except NotFound:
            continue
        return Facet(inside, (inside,))
    return Facet(or_(AuditEvent.scope_path == path, AuditEvent.scope_path.startswith(f"{path}/", autoescape=True)))


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
