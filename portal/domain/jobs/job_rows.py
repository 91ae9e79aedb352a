"""Rows of jobs: making one, holding it, ending it, and who hears of its end."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.actors import Actor
from portal.domain.errors import NOTHING_HERE, KeyReused, NotFound, Stale
from portal.domain.jobs import failure_reasons, job_logs, job_needs, job_partitions, job_rules, pending_jobs
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.jobs.job_needs import Standing
from portal.models import Job, JobDefinition, JobMachine, JobStatus, Project, Runner

CHECK_TIMEOUT = 600  # seconds


def person(actor: Actor) -> int | None:
    """The number of the person who asks; None where it is none."""
    return actor.user.id if actor.user is not None else None


def is_submitted(session: Session, request_key: UUID) -> bool:
    """Whether a request with this key has made a job or a check."""
    return session.scalar(select(Job.id).where(Job.request_key == request_key)) is not None


def made_before(session: Session, of: Project | Runner, key: UUID, digest: bytes | None) -> Job | None:
    """The job that came of the same request before; None when it is new. Raises KeyReused for another one's key."""
    made = session.scalar(select(Job).where(Job.request_key == key))
    if made is None:
        return None
    its = made.project_id if isinstance(of, Project) else made.checks_runner_id
    if its != of.id or made.request_digest != digest:
        raise KeyReused
    return made


def make(session: Session, new: NewJob, definition: JobDefinition, project: Project | None, protected: bool) -> Job:
    """A new job of the project, or a check of no project; nobody waits for it yet."""
    default = job_rules.settings_of(session, project).build_timeout if project is not None else CHECK_TIMEOUT
    return Job(
        partition_id=job_partitions.current(session, now()),
        project=project,
        definition=definition,
        name=new.name.strip(),
        ref=new.ref,
        ref_protected=protected,
        tag_list=sorted(set(new.tags)),
        timeout=new.timeout or default,
        retries_left=new.retry,
    )


def save(session: Session, job: Job, needs: Sequence[int]) -> None:
    """Write the job. Raises Stale when the same request is just being answered elsewhere."""
    try:
        with session.begin_nested():
            session.add(job)
            session.flush()
    except IntegrityError:
        raise Stale("This was sent twice at the same moment. Send it again to hear the first answer.") from None
    job_needs.link(session, job, needs)


def again(session: Session, job: Job, *, needs: Sequence[int], retries: int) -> Job:
    """A new job that runs what this one ran; this one counts as retried. It is not in the queue yet."""
    made = Job(
        partition_id=job_partitions.current(session, now()),
        project_id=job.project_id,
        checks_runner_id=job.checks_runner_id,
        system_xid=job.system_xid,
        definition_id=job.definition_id,
        user_id=job.user_id,
        name=job.name,
        ref=job.ref,
        ref_protected=job.ref_protected,
        tag_list=list(job.tag_list),
        timeout=job.timeout,
        retries_left=retries,
        retry_of_id=job.id,
    )
    job.retried = True
    save(session, made, needs)
    return made


def hold(session: Session, job_id: int) -> Job:
    """The job as it stands now, held until the transaction ends: whoever changes its status asks here first."""
    query = select(Job).where(Job.id == job_id).with_for_update(of=Job)
    found = session.scalar(query.execution_options(populate_existing=True))
    if found is None:
        raise NotFound(NOTHING_HERE)
    return found


def is_free(session: Session, job_id: int) -> bool:
    """Whether nobody else holds the job at this moment; then it is held until the transaction ends.

    Somebody who does may be writing a piece of its log: a machine that sends one again does not wait for the first.
    """
    held = select(Job.id).where(Job.id == job_id).with_for_update(of=Job, skip_locked=True)
    return session.scalar(held) is not None


def machine_of(session: Session, job: Job) -> JobMachine | None:
    """Which machine has, or had, the job; None while nobody has."""
    return session.get(JobMachine, (job.partition_id, job.id))


def end(session: Session, job: Job, status: JobStatus, again: Job | None = None) -> None:
    """Give a job that is held its new status; over, it waits no more, and those that wait for it hear so.

    `again` is the run that comes after it by itself.
    """
    job.status = status
    if status.is_over:
        _close(session, job)
        ready = _tell_dependents(session, job, again)
        for each in ([again] if again is not None else []) + ready:  # last, as everybody waits for who announces
            pending_jobs.put(session, each)


def _close(session: Session, job: Job) -> None:
    job.finished_at, job.claim_digest = now(), None
    if job.started_at is not None:
        job_logs.settle(session, job.id)
    pending_jobs.take_out(session, job.id)


def _tell_dependents(session: Session, job: Job, again: Job | None) -> list[Job]:
    """The jobs that waited for this one and can run now. Those that cannot any more fail, and so on down the line.

    Those that need a job which runs again by itself wait for that run.
    """
    ready: list[Job] = []
    session.flush()
    ended = [job]
    while ended:
        over = ended.pop()
        for dependent in job_needs.dependents(session, over):
            if again is not None and over is job:
                job_needs.replace(session, dependent, job, again)
            elif over.state is not JobStatus.SUCCESS:
                dependent.status, dependent.failure_reason = JobStatus.FAILED, failure_reasons.MISSING_DEPENDENCY
                _close(session, dependent)
                ended.append(dependent)
            elif job_needs.standing(session, dependent) is Standing.MET:
                dependent.queued_at = now()
                ready.append(dependent)
        session.flush()
    return ready
