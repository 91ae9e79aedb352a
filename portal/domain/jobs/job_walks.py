"""How long lists of jobs are walked through: along an index, in the order of the numbers, so far and no further."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import CTE, ColumnElement, Select, any_, func, or_, select, union_all
from sqlalchemy.orm import Session, joinedload

from portal.models import Job, JobStatus

LOOKED_AT_FIRST, LOOKED_THROUGH = 300, 5_000  # jobs of a list, before a page ends that is not full
COUNTED = 1000  # counts stop there, as GitLab's do; so many of each status are looked at, where they have to be


@dataclass(frozen=True, slots=True)
class JobList:
    """Some jobs. `ways` lead to them by an index, in the order of their numbers; each job is on one way only.

    What `conditions` ask no index knows: each job on the way is looked at. `by_status` says whether there is an index
    with the status in it. `name` is a condition too, which the job numbered `or_number` need not fit.
    """

    ways: tuple[ColumnElement[bool], ...]
    key: Any = Job.id
    conditions: tuple[ColumnElement[bool], ...] = ()
    by_status: bool = True
    name: ColumnElement[bool] | None = None
    or_number: int | None = None

    def where(self, *conditions: ColumnElement[bool]) -> JobList:
        """Those that fit these conditions as well."""
        return replace(self, conditions=(*self.conditions, *conditions))

    def with_status(self, statuses: Sequence[JobStatus]) -> JobList:
        """Those in one of these statuses."""
        known = tuple(dict.fromkeys(statuses))
        if not self.by_status:
            return self.where(Job.status.in_(known))
        ways = [way & (Job.status == status) for way in self.ways for status in known]
        return replace(self, ways=tuple(ways), by_status=False)

    def numbered(self, number: int) -> JobList:
        """The one with this number, looked up by its key, whatever it is called."""
        ways = tuple(way & (self.key == number) for way in self.ways)
        return replace(self, ways=ways, by_status=False, name=None, or_number=None)

    def called(self, name: ColumnElement[bool], or_number: int | None = None) -> JobList:
        """Those that are called so, and the one with this number."""
        return replace(self, name=name, or_number=or_number)

    def looked_at(self, *, apart: bool = False) -> tuple[ColumnElement[bool], ...]:
        """All that each job is asked; `apart` leaves out the one with the number, which is looked up by its key."""
        if self.name is None:
            return self.conditions
        if self.or_number is None:
            return (*self.conditions, self.name)
        numbered = Job.id == self.or_number
        return (*self.conditions, *((self.name, ~numbered) if apart else (or_(self.name, numbered),)))


@dataclass(frozen=True, slots=True)
class Found:
    """Jobs of a list in the order that was asked for. `more` follow, or may follow behind the one with number `upto`.

    `upto` is None where the list was walked to its end, or the jobs say themselves how far.
    """

    jobs: Sequence[Job]
    more: bool
    upto: int | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """How many there are; `whole` is False where there are more, or may be."""

    number: int
    whole: bool = True

    def __str__(self) -> str:
        return f"{self.number:,}{'' if self.whole else '+'}"


def walk(
    session: Session,
    jobs: JobList,
    *,
    size: int,
    below: int | None = None,
    above: int | None = None,
    oldest: bool = False,
    skip: int = 0,
) -> Found:
    """At most `size` jobs numbered between `above` and `below`, the newest or the oldest first; three queries.

    Where conditions have to be asked of each, at most LOOKED_THROUGH jobs are looked at. The job whose number is
    asked for beside a name stands before all others, wherever it would stand by its number: two queries more.
    """
    if not jobs.ways:
        return Found((), more=False)
    if jobs.or_number is not None and size > 1:  # on a page of one there is no place for it beside the others
        others = replace(jobs, conditions=jobs.looked_at(apart=True), name=None, or_number=None)
        if below is None and above is None:
            first = walk(session, jobs.numbered(jobs.or_number), size=1).jobs
            return _behind(first, session, others, size=size, oldest=oldest, skip=skip)
        jobs = others
    conditions = jobs.looked_at()
    ids, end, whole = [], None, True
    for look in (LOOKED_AT_FIRST, LOOKED_THROUGH) if conditions else (skip + size + 1,):
        window = _window(jobs, look, below=below, above=above, oldest=oldest)
        fit = _fitting(conditions, window)
        fit = fit.order_by(_order(fit.selected_columns[0], oldest)).offset(skip).limit(size + 1)
        last = func.max(window.c.id) if oldest else func.min(window.c.id)
        asked = select(_number(window), _alone(select(last)), func.array(fit.scalar_subquery()))
        seen, end, ids = session.execute(asked).one()
        whole = seen < look
        if whole or len(ids) > size:
            break
    more = len(ids) > size
    upto = end if conditions and not more and not whole else None
    found = select(Job).where(Job.id.in_(ids[:size])).options(*shown()).order_by(_order(Job.id, oldest))
    return Found(list(session.scalars(found)) if ids else [], more or upto is not None, upto)


def _behind(first: Sequence[Job], session: Session, jobs: JobList, *, size: int, oldest: bool, skip: int) -> Found:
    """The same of the jobs, with the first before all others."""
    if not first or skip:
        return walk(session, jobs, size=size, oldest=oldest, skip=skip - len(first) if skip else 0)
    found = walk(session, jobs, size=size - 1, oldest=oldest)
    return replace(found, jobs=[*first, *found.jobs])


def count(session: Session, jobs: JobList, *, most: int = COUNTED) -> Count:
    """How many, up to `most`; where conditions have to be asked of each, among the newest COUNTED on each way."""
    if not jobs.ways:
        return Count(0)
    conditions = jobs.looked_at()
    if not conditions:
        number = session.scalar(select(_number(_window(jobs, most + 1)))) or 0
        return Count(min(number, most), number <= most)
    window = _window(jobs, COUNTED + 1)
    fit = _fitting(conditions, window).subquery()
    seen, number = session.execute(select(_number(window), _alone(select(func.count()).select_from(fit)))).one()
    return Count(min(number, most), seen <= COUNTED and number <= most)


def shown() -> tuple[joinedload, ...]:  # type: ignore[valid-type]
    """What a list needs of each job, in the same query."""
    return (joinedload(Job.project), joinedload(Job.runner), joinedload(Job.user), joinedload(Job.checks_runner))


def _window(
    jobs: JobList, look: int, *, below: int | None = None, above: int | None = None, oldest: bool = False
) -> CTE:
    """The numbers of the first `look` jobs on all ways together, read from the index alone."""
    parts = [_part(jobs, way, look, below=below, above=above, oldest=oldest) for way in jobs.ways]
    if len(parts) == 1:
        return parts[0].cte("looked_at").prefix_with("MATERIALIZED")
    together = union_all(*(select(part.subquery()) for part in parts)).subquery()
    found = select(together.c.id).order_by(_order(together.c.id, oldest)).limit(look)
    return found.cte("looked_at").prefix_with("MATERIALIZED")


def _part(
    jobs: JobList, way: ColumnElement[bool], look: int, *, below: int | None, above: int | None, oldest: bool
) -> Select[Any]:
    query: Select[Any] = select(jobs.key.label("id")).where(way)
    if below is not None:
        query = query.where(jobs.key < below)
    if above is not None:
        query = query.where(jobs.key > above)
    return query.order_by(_order(jobs.key, oldest)).limit(look)


def _fitting(conditions: tuple[ColumnElement[bool], ...], window: CTE) -> Select[Any]:
    """The numbers of those that fit. As an array, they are looked up one by one whatever the planner thinks."""
    if not conditions:
        return select(window.c.id)
    numbers = func.array(select(window.c.id).scalar_subquery())
    return select(Job.id).where(Job.id == any_(numbers), *conditions)


def _number(window: CTE) -> Any:
    return _alone(select(func.count()).select_from(window))


def _alone(query: Select[Any]) -> Any:
    return query.scalar_subquery()


def _order(column: Any, oldest: bool) -> Any:
    return column.asc() if oldest else column.desc()
