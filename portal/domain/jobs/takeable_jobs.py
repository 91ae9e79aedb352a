"""The inverse of why a job is stuck: which jobs that wait a runner could take now, and why it takes no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Select, and_, false, func, or_, select, tuple_
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import slices
from portal.domain.actors import Actor
from portal.domain.jobs import job_lists, obstacle_words, runner_offers
from portal.domain.jobs.job_matching import Demand, Offer, obstacle
from portal.domain.jobs.obstacle_words import Likeness, Reason, counted
from portal.domain.jobs.stuck_jobs import readiness
from portal.domain.jobs.stuck_words import Readiness
from portal.domain.runners import runner_status
from portal.domain.slices import Slice
from portal.models import Job, JobClass, PendingJob, QueueScope, Runner, RunnerType

PAGE_SIZE = 20
MOST_LEFT_OUT = 10  # kinds of jobs that wait in reach and that the runner does not take


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Jobs in the runner's reach that ask the same and that it does not take: how many, and why."""

    tags: tuple[str, ...]
    ref_protected: bool
    count: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Takeable:
    """The jobs that the runner could take now, those first whose turn is first; if it is paused: once it is resumed.

    `hidden` is how many more of them the actor may not see. `left_out` is told where it takes none.
    """

    page: Slice[Job]
    hidden: int
    paused: bool
    readiness: Readiness
    left_out: Sequence[LeftOut]

    @property
    def headline(self) -> str:
        """The answer in a sentence or two."""
        shown = len(self.page.rows) if self.page.total is None else self.page.total
        number = shown + self.hidden
        some = f"{counted(number, 'job')} that {'waits' if number == 1 else 'wait'}"
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
    """The jobs that wait and that the runner could take now; the caller has asked who may read the runner."""
    offer = runner_offers.offer_of(session, runner)
    could = _found_by(offer, _classes(session, offer))
    seen = job_lists.seen_by(session, actor, runner)
    query = select(Job).join(PendingJob, PendingJob.job_id == Job.id).where(could)
    checks_first = PendingJob.scope_kind.desc(), PendingJob.turn, PendingJob.job_id
    shown = query.where(seen).options(*job_lists.shown()).order_by(*checks_first)
    page = slices.cut(session, shown, Job.id, offset=offset, limit=limit)
    at = now()
    busy = runner.id in job_lists.busy(session, [runner])
    return Takeable(
        page,
        hidden=0 if actor.is_admin else job_lists.count(session, query.where(~seen)),
        paused=runner.paused,
        readiness=readiness(runner.contacted_at, runner_status.of_runner(runner, at), busy, at),
        left_out=() if page.rows else _left_out(session, offer, seen),
    )


def _classes(session: Session, offer: Offer) -> list[int]:
    """The classes of jobs that the runner takes, judged by the rules themselves."""
    rows = session.execute(select(JobClass.id, JobClass.tag_list, JobClass.ref_protected))
    return [row.id for row in rows if offer.takes(frozenset(row.tag_list), row.ref_protected)]


def _found_by(offer: Offer, classes: Sequence[int]) -> ColumnElement[bool]:
    """Condition for the queue's rows through which the runner finds jobs that it takes: one row of each job."""
    checks = and_(PendingJob.scope_kind == QueueScope.RUNNER, PendingJob.scope_id == offer.runner_id)
    return or_(checks, and_(_in_reach(offer), PendingJob.class_id.in_(classes)))


def _in_reach(offer: Offer) -> ColumnElement[bool]:
    scopes = [(int(kind), number) for kind, number in offer.scopes()]
    return tuple_(PendingJob.scope_kind, PendingJob.scope_id).in_(scopes) if scopes else false()


def _left_out(session: Session, offer: Offer, seen: ColumnElement[bool]) -> list[LeftOut]:
    """What most of the jobs ask that the runner finds and does not take, as far as they may be seen."""
    query: Select[list[str], bool, int] = (
        select(JobClass.tag_list, JobClass.ref_protected, func.count())
        .join(PendingJob, PendingJob.class_id == JobClass.id)
        .join(Job, Job.id == PendingJob.job_id)
        .where(_in_reach(offer), seen)
        .group_by(JobClass.id)
        .order_by(func.count().desc(), JobClass.id)
        .limit(MOST_LEFT_OUT)
    )
    likeness, found = Likeness(), []
    for tags, protected, count in session.execute(query).all():
        demand = _within(offer, frozenset(tags), protected)
        if code := obstacle(demand, replace(offer, paused=False)):
            reason = obstacle_words.reason(demand, offer, code, likeness)
            found.append(LeftOut(tuple(tags), protected, count, reason))
    return found


def _within(offer: Offer, tags: frozenset[str], protected: bool) -> Demand:
    """A job in the runner's reach that asks for these tags."""
    project_id = min(offer.project_ids, default=None) if offer.type is RunnerType.PROJECT else None
    groups = (offer.group_id,) if offer.group_id is not None else ()
    return Demand(tags=tags, ref_protected=protected, project_id=project_id, group_ids=groups)
