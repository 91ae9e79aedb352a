"""Pages of the trail, the newest first: looked for along an index, so far and no further."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, func, select, true, tuple_, union_all
from sqlalchemy.orm import Session

from portal.domain.audit import NEWEST_FIRST
from portal.domain.trail.trail_filters import Facet, TrailFilter, days, facets
from portal.models import AuditEvent

LOOKED_THROUGH = 5_000  # events, the newest, among which a page is looked for before the indexes are asked
RARE = 10_000  # events that are all looked at, where a filter leaves no more of them


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
        self.facets = facets(session, wanted)
        self.bounds = [*days(wanted), *_before(session, before)]

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


def _before(session: Session, number: int | None) -> list[ColumnElement[bool]]:
    """Condition for events older than this one; where it is gone, for those with lower numbers."""
    if number is None:
        return []
    moment = session.scalar(select(AuditEvent.created_at).where(AuditEvent.id == number))
    return [AuditEvent.id < number] if moment is None else [_older_than(moment, number)]


def _older_than(moment: datetime, number: int) -> ColumnElement[bool]:
    # Twice about the time, as PostgreSQL begins in the middle of an index for the first of the two alone.
    return and_(AuditEvent.created_at <= moment, tuple_(AuditEvent.created_at, AuditEvent.id) < (moment, number))
