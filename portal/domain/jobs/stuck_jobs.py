"""Why is it stuck: which runners can take a job now, and for every other one the first rule that forbids it."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, not_, or_, select, tuple_
from sqlalchemy.orm import Session, aliased, joinedload

from portal.database import now
from portal.domain import permissions
from portal.domain.actors import Actor
from portal.domain.errors import NOTHING_HERE, NotFound
from portal.domain.jobs import job_lists, jobs, obstacle_words, pending_jobs, remedies, runner_offers
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.jobs.job_matching import Demand, Offer, obstacle
from portal.domain.jobs.obstacle_words import Likeness, Reason, counted
from portal.domain.jobs.remedies import Remedy
from portal.domain.permissions import Action
from portal.domain.runners import runner_access, runner_lists, runner_queries, runner_status
from portal.domain.runners.runner_status import LAST_CONTACT, Status
from portal.domain.scopes import Scope, of_project
from portal.models import AccessLevel, Job, JobStatus, PendingJob, Runner

LOOKED_AT = 200  # runners that are judged one by one
COUNTED = 1000  # counts stop there
ASKS_WITHIN = timedelta(minutes=5)  # a machine with room for a job asks more often than that


class Readiness(enum.StrEnum):
    """How soon a runner that may take the job will, the soonest first."""

    READY = "ready"  # it asked for jobs in the last minutes
    BUSY = "busy"  # it runs a job at this moment; it may have room for more
    SILENT = "silent"  # it runs nothing and has not asked in the last minutes
    OFFLINE = "offline"
    NEVER_CONTACTED = "never_contacted"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One runner that the actor may read. `reason` is None when it may take the job; only then `readiness` matters."""

    runner: Runner
    status: Status
    readiness: Readiness
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Who takes the job, who does not and why.

    `takers` counts all runners that may take it by readiness, those that the actor may not see (`hidden_takers`)
    included. Of the `others` some are hidden too (`hidden_others`). `beyond` is how many more there are in reach that
    were not looked at, and `elsewhere` how many the actor looks after that are out of reach, both 0 where nobody had
    to ask. `before` is how many jobs that ask the same have their turn first; None for what is not in the queue.
    """

    demand: Demand
    ref: str
    can: Sequence[Verdict]
    others: Sequence[Verdict]
    takers: Mapping[Readiness, int]
    hidden_takers: int = 0
    hidden_others: int = 0
    beyond: int = 0
    elsewhere: int = 0
    before: int | None = None
    remedy: Remedy | None = None

    @property
    def readiness(self) -> Readiness | None:
        """How soon the readiest runner takes it; None when none may."""
        return next((each for each in Readiness if self.takers.get(each)), None)

    @property
    def headline(self) -> str:
        """The answer in a sentence or two."""
        if self.readiness is None:
            return self._nobody()
        ready = self.takers.get(self.readiness, 0)
        total = sum(self.takers.values())
        return _TAKEN[self.readiness](ready, total, self.before)

    def _nobody(self) -> str:
        looked = len(self.others) + self.hidden_others
        if self.remedy is not None:
            return f"No runner can take it. {self.remedy.sentence}"
        if not looked:
            return (
                "No runner can take it: there is none in the project, in the groups above it or for the whole "
                "instance. Create one."
            )
        if not self.others:
            return (
                f"No runner can take it: you may see none of the {counted(looked)} in reach of the project. "
                "Ask a maintainer of the project."
            )
        return "No runner can take it, and no single change helps: create one that fits, or see below what each needs."


def _ready(number: int, total: int, before: int | None) -> str:
    queue = ""
    if before:
        more = f"more than {COUNTED:,}" if before > COUNTED else f"{before:,}"
        queue = f" {more} job{' that asks' if before == 1 else 's that ask'} the same {_has(before)} its turn first."
        queue = queue.replace("have its turn", "have their turn")
    return f"{counted(number)} can take it now.{queue}"


def _has(number: int) -> str:
    return "has" if number == 1 else "have"


def _busy(number: int, total: int, before: int | None) -> str:
    if total == number == 1:
        return "The one runner that can take it is busy. It begins when that has room."
    if number == total:
        return f"All {counted(total)} that can take it are busy. It begins when one has room."
    return f"{counted(total)} can take it: {number:,} {_is(number)} busy, the others do not ask for jobs."


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _silent(number: int, total: int, before: int | None) -> str:
    minutes = int(ASKS_WITHIN.total_seconds() // 60)
    return f"{counted(total)} can take it, but none has asked for jobs in the last {minutes} minutes."


def _offline(number: int, total: int, before: int | None) -> str:
    hours = int(runner_status.ONLINE_WINDOW.total_seconds() // 3600)
    one = "it is offline: it has not" if total == 1 else "none is online: none has"
    return f"{counted(total)} can take it, but {one} asked for jobs in the last {hours} hours."


def _never(number: int, total: int, before: int | None) -> str:
    return f"{counted(total)} can take it, but no machine has ever asked for jobs with {'its' if total == 1 else 'their'} token."


_TAKEN = {
    Readiness.READY: _ready,
    Readiness.BUSY: _busy,
    Readiness.SILENT: _silent,
    Readiness.OFFLINE: _offline,
    Readiness.NEVER_CONTACTED: _never,
}


def of_job(session: Session, actor: Actor, job: Job) -> Explanation:
    """Why the job waits, as far as the actor may know; the caller has asked who may see the job.

    For one that does not wait any more: who could take it if it were run again.
    """
    demand = pending_jobs.demand_of(session, job)
    before = _before(session, job) if job.state is JobStatus.PENDING else None
    if job.checks_runner is not None:
        return _judge(session, actor, demand, job.ref, [job.checks_runner], before=before)
    assert job.project is not None  # noqa: S101
    return _in_project(session, actor, of_project(job.project), demand, job.ref, before=before)


def explain(
    session: Session,
    actor: Actor,
    scope: Scope,
    *,
    tags: Sequence[str] = (),
    ref: str = "main",
    protected: bool | None = None,
) -> Explanation:
    """The same for a job of the project that nobody has submitted. `protected` None: as the project's patterns say.

    Raises NotFound, NotAllowed, or Invalid for tags or a ref that no job can have.
    """
    permissions.require(session, actor, Action.READ_JOBS, scope)
    if scope.project is None:
        raise NotFound(NOTHING_HERE)
    NewJob(name="a question", script=("true",), tags=tuple(tags), ref=ref).check()
    settings = jobs.settings_of(session, scope.project)
    demand = Demand(
        tags=frozenset(tags),
        ref_protected=jobs.counts_as_protected(session, scope.project, ref, protected),
        project_id=scope.project.id,
        group_ids=tuple(scope.group_ids),
        instance_runners=settings.shared_runners_enabled,
        group_runners=settings.group_runners_enabled,
    )
    return _in_project(session, actor, scope, demand, ref)


def _in_project(
    session: Session, actor: Actor, scope: Scope, demand: Demand, ref: str, *, before: int | None = None
) -> Explanation:
    """Everything in reach of the project is judged, up to LOOKED_AT; those first that probably may take the job."""
    reach = runner_lists.shown_in(scope, inherited=True)
    shown = (joinedload(Runner.group), joinedload(Runner.project))
    order = (_probably(demand).desc(), LAST_CONTACT.desc(), Runner.id.desc())
    found = session.scalars(select(Runner).options(*shown).where(reach).order_by(*order).limit(LOOKED_AT + 1)).all()
    beyond = 0
    if len(found) > LOOKED_AT:
        beyond = (session.scalar(select(func.count()).select_from(Runner).where(reach)) or 0) - LOOKED_AT
    judged = _judge(session, actor, demand, ref, found[:LOOKED_AT], before=before, beyond=beyond)
    if judged.readiness is not None:
        return judged
    elsewhere = and_(runner_queries.available_to(session, actor), not_(reach))
    limited = select(Runner.id).where(elsewhere).limit(COUNTED + 1).subquery()
    return replace(judged, elsewhere=session.scalar(select(func.count()).select_from(limited)) or 0)


def _probably(demand: Demand) -> ColumnElement[bool]:
    """Only for the order in which runners are looked at: the rules themselves are asked of each."""
    parts = [Runner.active]
    if not demand.ref_protected:
        parts.append(Runner.access_level == AccessLevel.NOT_PROTECTED)
    parts.append(Runner.tag_list.contains(sorted(demand.tags)) if demand.tags else Runner.run_untagged)
    return and_(*parts)


def _judge(
    session: Session,
    actor: Actor,
    demand: Demand,
    ref: str,
    found: Sequence[Runner],
    *,
    before: int | None = None,
    beyond: int = 0,
) -> Explanation:
    """Ask the rules of every one of these runners; a handful of queries, however many they are."""
    offers = runner_offers.offers_of(session, found)
    readable = runner_access.readable_among(session, actor, found)
    busy, at, likeness = job_lists.busy(session, found), now(), Likeness()
    can, others, takers = [], [], Counter[Readiness]()
    for runner in found:
        offer = offers[runner.id]
        code = obstacle(demand, offer)
        ready = readiness(runner, runner.id in busy, at)
        takers[ready] += code is None
        if runner.id in readable:
            reason = obstacle_words.reason(demand, offer, code, likeness, ref) if code is not None else None
            status = runner_status.of_runner(runner, at)
            (can if reason is None else others).append(Verdict(runner, status, ready, reason))
    total, order = sum(takers.values()), list(Readiness)
    can.sort(key=lambda each: order.index(each.readiness))
    visible = [offers[each.runner.id] for each in others]
    titles = {each.runner.id: each.runner.title for each in others}
    return Explanation(
        demand,
        ref,
        can,
        others,
        {each: takers[each] for each in Readiness},
        hidden_takers=total - len(can),
        hidden_others=len(found) - total - len(others),
        beyond=beyond,
        before=before,
        remedy=None if total else remedies.cheapest(demand, visible, likeness, titles, ref=ref),
    )


def readiness(runner: Runner, busy: bool, at: datetime) -> Readiness:
    """How soon the runner would take a job that it may take."""
    status = runner_status.of_runner(runner, at)
    if busy:
        return Readiness.BUSY
    if runner.contacted_at is None:
        return Readiness.NEVER_CONTACTED
    if runner.contacted_at > at - ASKS_WITHIN:
        return Readiness.READY
    return Readiness.SILENT if status is Status.ONLINE else Readiness.OFFLINE


def _before(session: Session, job: Job) -> int | None:
    """How many jobs of its class have their turn before it, in the widest scope through which it is found."""
    mine = select(PendingJob).where(PendingJob.job_id == job.id, PendingJob.scope_kind != pending_jobs.PARKED)
    own = session.scalar(mine.order_by(PendingJob.scope_kind, PendingJob.scope_id).limit(1))
    if own is None:
        return None
    other = aliased(PendingJob)
    same = (other.scope_kind == own.scope_kind, other.scope_id == own.scope_id, other.class_id == own.class_id)
    first = tuple_(other.turn, other.job_id) < tuple_(own.turn, own.job_id)
    limited = select(other.job_id).where(*same, first).limit(COUNTED + 1).subquery()
    return session.scalar(select(func.count()).select_from(limited)) or 0
