"""Why is it stuck: which runners can take a job now, and for every other one the first rule that forbids it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session, aliased

from portal.database import now
from portal.domain import permissions
from portal.domain.actors import Actor
from portal.domain.errors import NOTHING_HERE, NotFound
from portal.domain.jobs import (
    job_lists,
    job_needs,
    job_rules,
    obstacle_words,
    pending_jobs,
    remedies,
    runner_offers,
    runners_in_reach,
    stuck_words,
)
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.jobs.job_matching import Demand, obstacle
from portal.domain.jobs.obstacle_words import Likeness, Reason
from portal.domain.jobs.remedies import Remedy
from portal.domain.jobs.runners_in_reach import LOOKED_AT
from portal.domain.jobs.stuck_words import ASKS_WITHIN, COUNTED, Readiness
from portal.domain.permissions import Action
from portal.domain.runners import runner_access, runner_status
from portal.domain.runners.runner_status import Status
from portal.domain.scopes import Scope, of_project
from portal.models import Job, JobStatus, PendingJob, Runner, RunnerManager


@dataclass(frozen=True, slots=True)
class Verdict:
    """One runner that the actor may read. `reason` is None when it may take the job; `readiness` says how soon."""

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
    `awaited` are the numbers of the jobs that it waits for, before it comes into the queue.
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
    awaited: Sequence[int] = ()

    @property
    def readiness(self) -> Readiness | None:
        """How soon the readiest runner takes it; None when none may."""
        return next((each for each in Readiness if self.takers.get(each)), None)

    @property
    def headline(self) -> str:
        """The answer in a sentence or two."""
        if self.awaited:
            return stuck_words.of_needs(self.awaited)
        if self.readiness is not None:
            total = sum(self.takers.values())
            return stuck_words.of_takers(self.readiness, self.takers[self.readiness], total, self.before)
        seen, hidden = len(self.others), self.hidden_others
        if self.remedy is not None:
            return f"{stuck_words.none_can(seen + hidden, beyond=self.beyond)}. {self.remedy.sentence}"
        return stuck_words.of_nobody(seen=seen, hidden=hidden, beyond=self.beyond)


def of_job(session: Session, actor: Actor, job: Job) -> Explanation:
    """Why the job waits, as far as the actor may know; the caller has asked who may see the job.

    For one that does not wait any more: who could take it if it were run again.
    """
    demand = pending_jobs.demand_of(session, job)
    before = _before(session, job) if job.state is JobStatus.PENDING else None
    if job.checks_runner is not None:
        judged = _judge(session, actor, demand, job.ref, [job.checks_runner], before=before)
        return _aimed(session, judged, job) if job.system_xid is not None else judged
    assert job.project is not None  # noqa: S101
    judged = _in_project(session, actor, of_project(job.project), demand, job.ref, before=before)
    awaited = job_needs.awaited(session, job) if job.state is JobStatus.PENDING else ()
    return replace(judged, awaited=[each.id for each in awaited])


def _aimed(session: Session, judged: Explanation, job: Job) -> Explanation:
    """The same for a check of one machine, whose readiness counts; the runner may be online without it."""
    mine = (RunnerManager.runner_id == job.checks_runner_id) & (RunnerManager.system_xid == job.system_xid)
    machine = session.scalar(select(RunnerManager).where(mine))
    ready = Readiness.OFFLINE  # it was forgotten, having been silent for long
    if machine is not None:
        busy, at = machine.id in job_lists.busy_managers(session, [machine]), now()
        ready = readiness(machine.contacted_at, runner_status.of_manager(machine, at), busy, at)
    return replace(
        judged,
        can=[replace(each, readiness=ready) for each in judged.can],
        takers={ready: sum(judged.takers.values())},
    )


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
    settings = job_rules.settings_of(session, scope.project)
    demand = Demand(
        tags=frozenset(tags),
        ref_protected=job_rules.counts_as_protected(session, scope.project, ref, protected),
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
    found = runners_in_reach.looked_at(session, scope, demand)
    beyond = runners_in_reach.beyond(session, scope) if len(found) > LOOKED_AT else 0
    judged = _judge(session, actor, demand, ref, found[:LOOKED_AT], before=before, beyond=beyond)
    if judged.readiness is not None:
        return judged
    return replace(judged, elsewhere=runners_in_reach.elsewhere(session, actor, scope))


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
    takers: Counter[Readiness] = Counter()
    verdicts = []
    for runner in found:
        code, status = obstacle(demand, offers[runner.id]), runner_status.of_runner(runner, at)
        ready = readiness(runner.contacted_at, status, runner.id in busy, at)
        takers += Counter({ready: int(code is None)})
        if runner.id in readable:
            reason = obstacle_words.reason(demand, offers[runner.id], code, likeness, ref) if code else None
            verdicts.append(Verdict(runner, status, ready, reason))
    can = [each for each in verdicts if each.reason is None]
    others = [each for each in verdicts if each.reason is not None]
    total, visible = takers.total(), [offers[each.runner.id] for each in others]
    titles = {each.runner.id: each.runner.title for each in others}
    remedy = None if total else remedies.cheapest(demand, visible, likeness, titles, ref=ref)
    return Explanation(
        demand,
        ref,
        sorted(can, key=lambda each: list(Readiness).index(each.readiness)),
        _nearest_first(others, remedy),
        takers,
        hidden_takers=total - len(can),
        hidden_others=len(found) - total - len(others),
        beyond=beyond,
        before=before,
        remedy=remedy,
    )


def _nearest_first(others: Sequence[Verdict], remedy: Remedy | None) -> list[Verdict]:
    """Those that the proposed change helps, then those that lack the fewest tags."""
    helped = remedy.runner_ids if remedy is not None else ()

    def distance(each: Verdict) -> tuple[bool, int]:
        return each.runner.id not in helped, len(each.reason.nearest_tags) if each.reason is not None else 0

    return sorted(others, key=distance)


def readiness(contacted_at: datetime | None, status: Status, busy: bool, at: datetime) -> Readiness:
    """How soon a runner or machine would take a job that it may take."""
    if busy:
        return Readiness.BUSY
    if contacted_at is None or status is Status.NEVER_CONTACTED:
        return Readiness.NEVER_CONTACTED
    if contacted_at > at - ASKS_WITHIN:
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
