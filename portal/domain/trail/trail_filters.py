"""What of the trail somebody asks for: by whom, what, where and when, and by which index that is found."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from sqlalchemy import ColumnElement, Select, and_, func, literal_column, or_, select, text
from sqlalchemy.orm import Session

from portal.domain import audit
from portal.domain.actors import PEOPLE
from portal.domain.errors import NotFound
from portal.domain.scopes import find_group, find_project
from portal.models import AuditEvent, User

PEOPLE_FOUND = 50  # whose events a search for a name finds although they are called otherwise by now
MOST_PARTS = 3  # of a name, whose numbers are asked for
BELIEVED = 50_000  # events that a name has, from which on they are not counted
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


def fitting(session: Session, query: Select[AuditEvent], wanted: TrailFilter) -> Select[AuditEvent]:
    """The events of the query that fit the filter."""
    return query.where(*(each.condition for each in facets(session, wanted)), *days(wanted))


@dataclass(frozen=True, slots=True)
class Facet:
    """One condition of a search; `branches` are its parts, where each of them has an index in the order of time."""

    condition: ColumnElement[bool]
    branches: tuple[ColumnElement[bool], ...] = ()
    many: bool = False  # as far as PostgreSQL believes; to count them would take long
    wide: bool = False  # the branches lead to others too, so that the condition is asked of each event


def facets(session: Session, wanted: TrailFilter) -> list[Facet]:
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


def days(wanted: TrailFilter) -> list[ColumnElement[bool]]:
    """Conditions for the days that the filter asks for, both included."""
    days = [AuditEvent.created_at >= _midnight(wanted.since)] if wanted.since else []
    if wanted.until and wanted.until < date.max:
        days.append(AuditEvent.created_at < _midnight(wanted.until, 1))
    return days


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
