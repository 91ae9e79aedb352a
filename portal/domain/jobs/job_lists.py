"""Lists of jobs: of a project, of a runner, of one of its machines; filters, pages, counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, true
from sqlalchemy.orm import Session

from portal.database import as_array
from portal.domain import permissions
from portal.domain.actors import Actor
from portal.domain.jobs import job_walks
from portal.domain.jobs.job_walks import COUNTED, Count, JobList
from portal.domain.permissions import Action
from portal.domain.runners import runner_access
from portal.domain.scopes import Scope
from portal.models import Job, JobMachine, JobStatus, Project, Runner, RunnerManager

PAGE_SIZE = 20


@dataclass(frozen=True, slots=True)
class JobFilter:
    """What a list shows. `words` are looked for at the start of the job's name, or as its number; #7 is a number."""

    statuses: tuple[JobStatus, ...] = ()
    words: str = ""
    ref: str = ""
    tag: str = ""
    with_retried: bool = True


@dataclass(frozen=True, slots=True)
class JobPage:
    """A page of jobs, newest first. `before` and `after` are numbers to go on from, None at the ends.

    `upto` is the last job that was looked at, where the page ends before it is full and before the list does.
    """

    jobs: Sequence[Job]
    before: int | None
    after: int | None
    upto: int | None = None


def of_project(scope: Scope) -> JobList:
    """The jobs of a project; the caller has asked who may see them."""
    return JobList((Job.project_id == scope.id,))


def of_runner(session: Session, actor: Actor, runner: Runner) -> JobList:
    """The jobs that the runner has or had, as far as the actor may see them."""
    return JobList((Job.runner_id == runner.id,), conditions=_seen(session, actor, runner))


def of_manager(session: Session, actor: Actor, manager: RunnerManager) -> JobList:
    """The jobs that one machine has or had, as far as the actor may see them."""
    return _of_machine(session, actor, manager.runner, JobMachine.runner_machine_id == manager.id)


def of_system(session: Session, actor: Actor, runner: Runner, system_xid: str) -> JobList:
    """The same of a machine of the runner with this system ID, whether or not its row is there still.

    Machines of other runners may have the same: of a forgotten one, the runner's jobs are looked through.
    """
    row = select(RunnerManager.id).where(RunnerManager.runner_id == runner.id, RunnerManager.system_xid == system_xid)
    manager_id = session.scalar(row)
    if manager_id is not None:
        return _of_machine(session, actor, runner, JobMachine.runner_machine_id == manager_id)
    its = (JobMachine.partition_id == Job.partition_id) & (JobMachine.job_id == Job.id)
    by_it = select(JobMachine.job_id).where(its, JobMachine.system_xid == system_xid).exists()
    return of_runner(session, actor, runner).where(by_it)


def _of_machine(session: Session, actor: Actor, runner: Runner, way: ColumnElement[bool]) -> JobList:
    conditions = (Job.runner_id == runner.id, *_seen(session, actor, runner))
    return JobList((way,), JobMachine.job_id, conditions, by_status=False)


def leaves_out(session: Session, actor: Actor, runner: Runner) -> bool:
    """Whether the actor may not see some of the jobs that the runner has or had, of its newest COUNTED."""
    if actor.is_admin:
        return False
    newest = select(Job.id).where(Job.runner_id == runner.id).order_by(Job.id.desc()).limit(COUNTED)
    seen = select(Job.id).where(Job.id.in_(newest), seen_by(session, actor, runner))
    total = session.scalar(select(func.count()).select_from(newest.subquery())) or 0
    return total > (session.scalar(select(func.count()).select_from(seen.subquery())) or 0)


def running_on(session: Session, runner: Runner) -> int:
    """How many jobs the runner runs at this moment, whosever they are; up to one more than COUNTED."""
    running = Job.status.in_((JobStatus.RUNNING, JobStatus.CANCELING))
    return count_rows(session, select(Job).where(Job.runner_id == runner.id, running))


def unfinished_in(session: Session, projects: ColumnElement[bool]) -> tuple[int, int]:
    """How many jobs of these projects run at this moment, and how many wait; each up to one more than COUNTED."""
    theirs = select(Job).where(Job.project_id.in_(select(Project.id).where(projects)))
    running = theirs.where(Job.status.in_((JobStatus.RUNNING, JobStatus.CANCELING)))
    return count_rows(session, running), count_rows(session, theirs.where(Job.status == JobStatus.PENDING))


def checks_of(runner: Runner) -> JobList:
    """The checks of the runner, also those that wait; the caller has asked who may read the runner."""
    return JobList((Job.checks_runner_id == runner.id,), by_status=False)


def seen_by(session: Session, actor: Actor, runner: Runner) -> ColumnElement[bool]:
    """Jobs of projects whose jobs the actor may see, and the runner's checks for who looks after it."""
    projects = permissions.where_allowed(actor, Action.READ_JOBS)[1]
    theirs = Job.project_id.in_(select(Project.id).where(projects))
    if runner_access.may(session, actor, Action.READ_RUNNERS, runner):
        return or_(theirs, Job.checks_runner_id.is_not(None))
    return theirs


def _seen(session: Session, actor: Actor, runner: Runner) -> tuple[ColumnElement[bool], ...]:
    """The same as a condition; none for administrators, who see all."""
    return () if actor.is_admin else (seen_by(session, actor, runner),)


def narrowed(jobs: JobList, wanted: JobFilter) -> JobList:
    """Those of the jobs that fit the filter."""
    if wanted.statuses:
        jobs = jobs.with_status(wanted.statuses)
    if not wanted.with_retried:
        jobs = jobs.where(Job.retried.is_(False))
    if wanted.ref:
        jobs = jobs.where(Job.ref == wanted.ref)
    if wanted.tag:
        jobs = jobs.where(Job.tag_list.contains([wanted.tag]))
    words = wanted.words.strip()
    return _called(jobs, words) if words.removeprefix("#") else jobs


def _called(jobs: JobList, words: str) -> JobList:
    """Those whose name begins so, or which have this number; behind a # that alone is meant."""
    digits = words.removeprefix("#")
    number = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 18 else None
    if number is not None and words != digits:
        return jobs.numbered(number)
    return jobs.called(Job.name.istartswith(digits, autoescape=True), or_number=number)


def page(
    session: Session,
    jobs: JobList,
    *,
    after: int | None = None,
    before: int | None = None,
    size: int = PAGE_SIZE,
) -> JobPage:
    """The page behind the job numbered `after`, or in front of `before`, newest first; the first page for neither."""
    if before is not None:
        found = job_walks.walk(session, jobs, size=size, above=before, oldest=True)
        rows = list(found.jobs)[::-1]
        newer = found.upto or rows[0].id if found.more else None
        older = rows[-1].id if rows else before + 1 if found.more else None
        return JobPage(rows, newer, older, found.upto)
    found = job_walks.walk(session, jobs, size=size, below=after)
    rows = list(found.jobs)
    newer = None
    if after is not None and (rows or found.more):
        newer = rows[0].id if rows else after - 1
    return JobPage(rows, newer, found.upto or rows[-1].id if found.more else None, found.upto)


def count(session: Session, jobs: JobList) -> Count:
    """How many, up to COUNTED."""
    return job_walks.count(session, jobs, most=COUNTED)


def count_or_more(session: Session, jobs: JobList) -> int:
    """How many, up to one more than COUNTED: that too where there may be more, since not all was looked at."""
    counted = count(session, jobs)
    return counted.number if counted.whole else COUNTED + 1


def counts(session: Session, jobs: JobList) -> dict[JobStatus, Count]:
    """How many of each status, each up to COUNTED."""
    return {status: job_walks.count(session, jobs.with_status([status]), most=COUNTED) for status in JobStatus}


def count_rows(session: Session, query: Select[Job]) -> int:
    """How many jobs a query finds, up to one more than COUNTED."""
    limited = query.with_only_columns(Job.id).order_by(None).limit(COUNTED + 1).subquery()
    return session.scalar(select(func.count()).select_from(limited)) or 0


def count_of_each(session: Session, runner_ids: Sequence[int], statuses: Sequence[JobStatus] = ()) -> dict[int, int]:
    """How many jobs each of these runners has or had, whoever may see them, each up to one more than COUNTED.

    By the runner's number, with one query; those without are left out.
    """
    asked = func.unnest(as_array(runner_ids)).table_valued("id").render_derived()
    its = select(Job.id).where(Job.runner_id == asked.c.id)
    if statuses:
        its = its.where(Job.status.in_(statuses))
    some = its.limit(COUNTED + 1).lateral()
    query = select(asked.c.id, func.count()).select_from(asked.join(some, true())).group_by(asked.c.id)
    return {row[0]: row[1] for row in session.execute(query)}


def machines_of(session: Session, jobs: Sequence[Job]) -> dict[int, JobMachine]:
    """Which machine has or had each of these jobs, by the job's number, with one query."""
    pairs = {(job.partition_id, job.id) for job in jobs if job.runner_id is not None or job.started_at is not None}
    if not pairs:
        return {}
    partitions = {partition for partition, _ in pairs}
    query = select(JobMachine).where(
        and_(JobMachine.partition_id.in_(partitions), JobMachine.job_id.in_({number for _, number in pairs}))
    )
    return {row.job_id: row for row in session.scalars(query)}


def busy(session: Session, runners: Sequence[Runner]) -> set[int]:
    """The numbers of those runners that run a job at this moment, with one query."""
    running = Job.status.in_((JobStatus.RUNNING, JobStatus.CANCELING))
    ids = [runner.id for runner in runners]
    return (
        set(session.scalars(select(Job.runner_id).where(Job.runner_id.in_(ids), running).distinct()))
        if ids
        else set()
    )


def busy_managers(session: Session, managers: Sequence[RunnerManager]) -> set[int]:
    """The numbers of those machines that run a job at this moment, with one query."""
    running = Job.status.in_((JobStatus.RUNNING, JobStatus.CANCELING))
    ids = [manager.id for manager in managers]
    if not ids:
        return set()
    query = select(JobMachine.runner_machine_id).join(
        Job, and_(Job.id == JobMachine.job_id, Job.partition_id == JobMachine.partition_id)
    )
    return set(session.scalars(query.where(running, JobMachine.runner_machine_id.in_(ids)).distinct()))
