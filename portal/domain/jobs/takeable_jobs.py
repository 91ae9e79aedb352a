"""The inverse of why a job is stuck: which jobs that wait a runner could take now, and why it takes no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, select, text
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.actors import Actor
from portal.domain.jobs import job_lists, job_walks, obstacle_words, runner_offers
from portal.domain.jobs.job_matching import Demand, Offer, obstacle
from portal.domain.jobs.job_walks import COUNTED
from portal.domain.jobs.obstacle_words import Likeness, Reason, counted
from portal.domain.jobs.stuck_jobs import readiness
from portal.domain.jobs.stuck_words import Readiness
from portal.domain.runners import runner_status
from portal.domain.slices import Slice
from portal.models import Job, JobClass, QueueScope, Runner, RunnerType

PAGE_SIZE = 20
LISTED = 200  # jobs that are named, on however many pages
MOST_PLACES = 5000  # classes of jobs in scopes that are looked at
MOST_LEFT_OUT = 10  # kinds of jobs that wait in reach and that the runner does not take
COUNTED_LEFT_OUT = 300  # jobs of each such kind

# The first job of each class that waits in each scope: one step of the index for each, however many jobs wait there.
_PLACES = text("""
SELECT span.kind, span.scope_id, found.class_id, found.turn, found.job_id
FROM unnest(CAST(:kinds AS smallint[]), CAST(:scope_ids AS bigint[])) AS span(kind, scope_id)
CROSS JOIN LATERAL (
  WITH RECURSIVE steps(class_id, turn, job_id) AS (
    (SELECT p.class_id, p.turn, p.job_id FROM ci_pending_builds p
     WHERE p.scope_kind = span.kind AND p.scope_id = span.scope_id ORDER BY p.class_id, p.turn, p.job_id LIMIT 1)
    UNION ALL
    SELECT higher.class_id, higher.turn, higher.job_id FROM steps CROSS JOIN LATERAL (
      SELECT p.class_id, p.turn, p.job_id FROM ci_pending_builds p
      WHERE p.scope_kind = span.kind AND p.scope_id = span.scope_id AND p.class_id > steps.class_id
      ORDER BY p.class_id, p.turn, p.job_id LIMIT 1) AS higher
  )
  SELECT class_id, turn, job_id FROM steps
) AS found LIMIT :most
""")
_WAITING = """
FROM unnest(CAST(:kinds AS smallint[]), CAST(:scope_ids AS bigint[]), CAST(:class_ids AS bigint[]))
  AS place(kind, scope_id, class_id)
CROSS JOIN LATERAL (
  SELECT p.turn, p.job_id FROM ci_pending_builds p
  WHERE p.scope_kind = place.kind AND p.scope_id = place.scope_id AND p.class_id = place.class_id
  ORDER BY p.turn, p.job_id LIMIT :most
) AS waiting
"""
_FIRST = text(f"SELECT waiting.job_id {_WAITING} ORDER BY place.kind DESC, waiting.turn, waiting.job_id LIMIT :most")
_NUMBER = text(f"SELECT count(*) FROM (SELECT 1 {_WAITING} LIMIT :most) AS found")  # noqa: S608 nothing from outside
_OF_EACH = text(f"SELECT place.class_id, waiting.job_id {_WAITING}")


_PARTLY = " Jobs wait in so many places that not all were looked at, so there may be more that it could take."


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Jobs in the runner's reach that ask the same and that it does not take: how many, and why.

    `count` is up to one more than COUNTED_LEFT_OUT.
    """

    tags: tuple[str, ...]
    ref_protected: bool
    count: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Takeable:
    """The jobs that the runner could take now, those first whose turn is first; if it is paused: once it is resumed.

    `number` is how many there are, up to one more than COUNTED. The first LISTED are on pages; `hidden` is how many
    of these the actor may not see. `left_out` is told where it takes none. `partly` says that jobs wait in so many
    places that only MOST_PLACES were looked at: then there may be more.
    """

    page: Slice[Job]
    number: int
    hidden: int
    paused: bool
    readiness: Readiness
    left_out: Sequence[LeftOut]
    partly: bool = False

    @property
    def headline(self) -> str:
        """The answer in a sentence or two."""
        return f"{self._found()}{_PARTLY if self.partly else ''}"

    def _found(self) -> str:
        number = self.number
        jobs = f"more than {COUNTED:,} jobs" if number > COUNTED else counted(number, "job")
        some = f"{jobs} that {'waits' if number == 1 else 'wait'}"
        if self.paused:
            would = f"could take {some}" if number else "could take nothing that waits"
            return f"It is paused, so it takes nothing. If it were resumed, it {would}."
        if number:
            silent = self.readiness not in (Readiness.READY, Readiness.BUSY)
            return f"It could take {some}{', but none of its machines asks for jobs' if silent else ''}."
        if self.left_out:
            return "It could take none of the jobs that wait: they ask for something else."
        return "No job in its reach waits."


def takeable(session: Session, actor: Actor, runner: Runner, *, offset: int = 0, limit: int = PAGE_SIZE) -> Takeable:
    """The jobs that wait and that the runner could take now; the caller has asked who may read the runner.

    Costs the same however many jobs wait: no more than LISTED are named and COUNTED counted.
    """
    offer = runner_offers.offer_of(session, runner)
    seen = job_lists.seen_by(session, actor, runner)
    taken, others, partly = _places(session, offer)
    number = _asked(session, _NUMBER, taken, most=COUNTED + 1).scalar() or 0
    # The first jobs of all are among the first ones of those places whose own first job comes first.
    first = sorted(taken, key=lambda place: (-place.kind, place.turn, place.job_id))[:LISTED]
    ids = list(_asked(session, _FIRST, first, most=LISTED).scalars())
    theirs = set(ids) if actor.is_admin else set(session.scalars(select(Job.id).where(Job.id.in_(ids), seen)))
    shown = [each for each in ids if each in theirs]
    busy, at = runner.id in job_lists.busy(session, [runner]), now()
    return Takeable(
        _page(session, shown, offset, limit, total=len(shown) if number <= LISTED else None),
        number=number,
        hidden=len(ids) - len(shown),
        paused=runner.paused,
        readiness=readiness(runner.contacted_at, runner_status.of_runner(runner, at), busy, at),
        left_out=() if shown else _left_out(session, actor, offer, others, seen),
        partly=partly,
    )


def _page(session: Session, ids: Sequence[int], offset: int, limit: int, *, total: int | None) -> Slice[Job]:
    here = ids[offset : offset + limit]
    found = session.scalars(select(Job).where(Job.id.in_(here)).options(*job_walks.shown()))
    jobs = {job.id: job for job in found}
    return Slice([jobs[each] for each in here if each in jobs], total, len(ids) > offset + limit)


def _places(session: Session, offer: Offer) -> tuple[list[Any], list[Any], bool]:
    """Where jobs wait that the runner finds: those that it takes by the rules themselves, and the others.

    And whether there are more than MOST_PLACES, which are all that are looked at.
    """
    scopes = [(int(QueueScope.RUNNER), offer.runner_id), *((int(kind), number) for kind, number in offer.scopes())]
    kinds, scope_ids = zip(*scopes, strict=True)
    asked = {"kinds": list(kinds), "scope_ids": list(scope_ids), "most": MOST_PLACES + 1}
    found = list(session.execute(_PLACES, asked))
    partly, found = len(found) > MOST_PLACES, found[:MOST_PLACES]
    numbers = {each.class_id for each in found}
    classes = select(JobClass.id, JobClass.tag_list, JobClass.ref_protected).where(JobClass.id.in_(numbers))
    takes = {row.id for row in session.execute(classes) if offer.takes(frozenset(row.tag_list), row.ref_protected)}
    taken = [each for each in found if each.kind == QueueScope.RUNNER or each.class_id in takes]
    others = [each for each in found if each.kind != QueueScope.RUNNER and each.class_id not in takes]
    return taken, others, partly


def _asked(session: Session, query: Any, places: Sequence[Any], *, most: int) -> Any:
    columns = {
        "kinds": [each.kind for each in places],
        "scope_ids": [each.scope_id for each in places],
        "class_ids": [each.class_id for each in places],
    }
    return session.execute(query, {**columns, "most": most})


def _left_out(
    session: Session, actor: Actor, offer: Offer, places: Sequence[Any], seen: ColumnElement[bool]
) -> list[LeftOut]:
    """What most of the jobs ask that the runner finds and does not take, as far as they may be seen.

    Which kinds these are is told from a few jobs of each where there are many kinds.
    """
    if not places:
        return []
    few = max(2, 10 * COUNTED_LEFT_OUT // len(places))
    most = _numbers(session, actor, places, seen, most=min(few, COUNTED_LEFT_OUT + 1))
    kinds = sorted(most, key=lambda each: (-most[each], each))[:MOST_LEFT_OUT]
    chosen = [each for each in places if each.class_id in kinds]
    numbers = _numbers(session, actor, chosen, seen, most=COUNTED_LEFT_OUT + 1) if few <= COUNTED_LEFT_OUT else most
    likeness, found = Likeness(), []
    for each in session.scalars(select(JobClass).where(JobClass.id.in_(kinds))):
        demand = _within(offer, frozenset(each.tag_list), each.ref_protected)
        if code := obstacle(demand, replace(offer, paused=False)):
            reason = obstacle_words.reason(demand, offer, code, likeness)
            number = min(numbers[each.id], COUNTED_LEFT_OUT + 1)
            found.append((-number, each.id, LeftOut(tuple(each.tag_list), each.ref_protected, number, reason)))
    return [each for _, _, each in sorted(found, key=lambda one: one[:2])]


def _numbers(
    session: Session, actor: Actor, places: Sequence[Any], seen: ColumnElement[bool], *, most: int
) -> dict[int, int]:
    """How many of the first `most` jobs at each place may be seen, by the class; those without are left out."""
    rows = list(_asked(session, _OF_EACH, places, most=most))
    ids = {row.job_id for row in rows}
    if not actor.is_admin:
        ids = set(session.scalars(select(Job.id).where(Job.id.in_(ids), seen)))
    found: dict[int, int] = {}
    for row in rows:
        if row.job_id in ids:
            found[row.class_id] = found.get(row.class_id, 0) + 1
    return found


def _within(offer: Offer, tags: frozenset[str], protected: bool) -> Demand:
    """A job in the runner's reach that asks for these tags."""
    project_id = min(offer.project_ids, default=None) if offer.type is RunnerType.PROJECT else None
    groups = (offer.group_id,) if offer.group_id is not None else ()
    return Demand(tags=tags, ref_protected=protected, project_id=project_id, group_ids=groups)
