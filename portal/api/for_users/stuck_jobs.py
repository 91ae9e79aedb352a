"""Why is it stuck: which runners take a job, or would take one, and which jobs that wait a runner could take.

GitLab has nothing of the kind.
"""

from __future__ import annotations

from collections.abc import Sequence

from portal.api import credentials
from portal.api.for_users import job_shapes, jobs, places, runner_shapes, runners
from portal.api.for_users.door import operation
from portal.api.for_users.job_parameters import NAMES
from portal.api.for_users.job_shapes import JobShape
from portal.api.for_users.jobs import OneJob
from portal.api.for_users.operations import Shape
from portal.api.for_users.paging import Paged
from portal.api.for_users.parameters import OptionalFlag, OptionalText, Words
from portal.api.for_users.runner_shapes import RunnerBasic
from portal.api.for_users.runners import MANAGE, OneRunner
from portal.api.for_users.scope_parameters import OneProject, called
from portal.database import db, now
from portal.domain.jobs import stuck_jobs, takeable_jobs
from portal.domain.jobs.obstacle_words import Reason
from portal.domain.jobs.remedies import Remedy
from portal.domain.jobs.stuck_jobs import Explanation, Verdict
from portal.domain.jobs.stuck_words import Readiness

ROOM = "Jobs"


class Matching(OneProject):
    """What a job would ask of a runner. Without `protected` the project's patterns say whether the ref is."""

    tag_list: Words = ()
    ref: OptionalText = None
    protected: OptionalFlag = None


class PendingAsked(Paged, OneRunner):
    """Which part of the jobs that a runner could take."""


class NearestTag(Shape):
    """A tag that the runner lacks, and the one of its own that looks most like it, if any does."""

    tag: str
    nearest: str | None


class ReasonShape(Shape):
    """The first rule that forbids it: as a code and in words, and what would change it."""

    code: str
    message: str
    change: str
    nearest_tags: list[NearestTag]


class RunnerVerdict(Shape):
    """A runner, whether it can take the job, and why not. `readiness` says how soon it would.

    `ready` asked for jobs in the last five minutes, `busy` runs a job, `silent` does neither though it is online.
    """

    runner: RunnerBasic
    can_take: bool
    readiness: str
    tag_list: list[str]
    reason: ReasonShape | None


class RemedyShape(Shape):
    """The one change that costs least and lets runners take the job, and which these are."""

    change: str
    message: str
    runner_ids: list[int]
    changed_runner_id: int | None
    tag_list: list[str]


class ExplanationShape(Shape):
    """Who takes the job and who does not. Those that can come first.

    `hidden_…` count runners that one may not see; `beyond` those in reach that were not looked at, `elsewhere` those
    out of reach that one looks after (1001 of either means more than 1000). `jobs_before` is how many that ask the
    same have their turn first.
    """

    headline: str
    can_take: int
    tag_list: list[str]
    ref: str
    protected: bool
    jobs_before: int | None
    remedy: RemedyShape | None
    runners: list[RunnerVerdict]
    hidden_can_take: int
    hidden_others: int
    beyond: int
    elsewhere: int


class LeftOutShape(Shape):
    """Jobs in the runner's reach that ask the same and that it does not take."""

    count: int
    tag_list: list[str]
    protected: bool
    reason: ReasonShape


class PendingJobs(Shape):
    """The jobs that the runner could take now, roughly in the order of their turns, or could if it were not paused.

    `hidden` counts jobs that one may not see. Where there are none, `left_out` says what the ones in reach ask for.
    """

    headline: str
    paused: bool
    jobs: list[JobShape]
    total: int | None
    next_page: int | None
    hidden: int
    left_out: list[LeftOutShape]


@operation("GET", "/projects/<path:project>/jobs/<int:job_id>/runners", room=ROOM, refuses=(404,))
def of_job(given: OneJob) -> ExplanationShape:
    """Which runners can take the job now, and what is in the way of each other one; of a job that is over, as if it
    were run again.
    """
    job = jobs.found(given)
    return _explained(stuck_jobs.of_job(db.session(), credentials.actor(), job))


@operation("GET", "/projects/<path:project>/matching_runners", room=ROOM, refuses=(400, 404))
def matching(given: Matching) -> ExplanationShape:
    """The same for a job that nobody has submitted: which runners would take one with these tags on this ref."""
    scope = places.project(given.project)
    with called(NAMES):
        found = stuck_jobs.explain(
            db.session(),
            credentials.actor(),
            scope,
            tags=given.tag_list,
            ref=given.ref or "main",
            protected=given.protected,
        )
    return _explained(found)


@operation("GET", "/runners/<int:runner_id>/pending_jobs", room=ROOM, opens=MANAGE, refuses=(400, 404))
def pending(given: PendingAsked) -> PendingJobs:
    """The jobs that wait and that the runner could take now, as far as one may see them; and why it takes none.

    The first 200 are listed; of what it leaves out 301 means more than 300.
    """
    session, runner = db.session(), runners.readable(given.runner_id)
    actor = credentials.actor()
    found = takeable_jobs.takeable(session, actor, runner, offset=given.offset, limit=given.per_page)
    return PendingJobs(
        headline=found.headline,
        paused=found.paused,
        jobs=job_shapes.some(session, actor, found.page.rows),
        total=found.page.total,
        next_page=given.page + 1 if found.page.more else None,
        hidden=found.hidden,
        left_out=[
            LeftOutShape(
                count=each.count, tag_list=list(each.tags), protected=each.ref_protected, reason=_reason(each.reason)
            )
            for each in found.left_out
        ],
    )


def _explained(found: Explanation) -> ExplanationShape:
    return ExplanationShape(
        headline=found.headline,
        can_take=sum(found.takers.values()),
        tag_list=sorted(found.demand.tags),
        ref=found.ref,
        protected=found.demand.ref_protected,
        jobs_before=found.before,
        remedy=_remedy(found.remedy) if found.remedy is not None else None,
        runners=_verdicts([*found.can, *found.others]),
        hidden_can_take=found.hidden_takers,
        hidden_others=found.hidden_others,
        beyond=found.beyond,
        elsewhere=found.elsewhere,
    )


def _verdicts(verdicts: Sequence[Verdict]) -> list[RunnerVerdict]:
    at = now()
    return [
        RunnerVerdict(
            runner=RunnerBasic(**runner_shapes.basic(each.runner, at, busy=each.readiness is Readiness.BUSY)),
            can_take=each.reason is None,
            readiness=each.readiness.value,
            tag_list=list(each.runner.tag_list),
            reason=_reason(each.reason) if each.reason is not None else None,
        )
        for each in verdicts
    ]


def _reason(reason: Reason) -> ReasonShape:
    nearest = [NearestTag(tag=tag, nearest=found) for tag, found in reason.nearest_tags.items()]
    return ReasonShape(code=reason.code.value, message=reason.message, change=reason.change, nearest_tags=nearest)


def _remedy(remedy: Remedy) -> RemedyShape:
    return RemedyShape(
        change=remedy.change.value,
        message=remedy.sentence,
        runner_ids=list(remedy.runner_ids),
        changed_runner_id=remedy.runner_id,
        tag_list=sorted(remedy.demand.tags),
    )
