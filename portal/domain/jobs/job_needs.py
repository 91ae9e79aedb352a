"""What jobs need of others: a job waits until those have succeeded, and has what they left when it begins."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

from sqlalchemy import delete, exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.errors import Invalid, Stale
from portal.models import Job, JobArtifact, JobDefinition, JobStatus, Project, job_dependencies

_links = job_dependencies.c


class Standing(enum.Enum):
    """How it stands with what a job needs."""

    MET = "all have succeeded"
    AWAITED = "some are not over yet"
    BROKEN = "one has not succeeded"


def require(session: Session, project: Project, needs: Iterable[int]) -> None:
    """Refuse what no job of the project can need. Those that are needed stay as they are until the transaction ends.

    So one that ends at this moment sees who waits for it, or is seen to be over. Raises Invalid.
    """
    wanted = sorted(set(needs))
    found = _held(session, wanted, project.id)
    problems = [f"There is no job #{number} in this project." for number in wanted if number not in found]
    for number, status in found.items():
        if status in (JobStatus.FAILED, JobStatus.CANCELED, JobStatus.CANCELING):
            problems.append(f"Job #{number} has not succeeded ({status}). Run it again first, and need that run.")
    if problems:
        raise Invalid({"needs": problems[:5]})


def _held(session: Session, needs: Sequence[int], project_id: int | None) -> dict[int, JobStatus]:
    """How these jobs of the project stand, and stand until the transaction ends, the lower number first."""
    if not needs:
        return {}
    query = select(Job.id, Job.status).where(Job.id.in_(needs), Job.project_id == project_id).order_by(Job.id)
    return {row.id: JobStatus(row.status) for row in session.execute(query.with_for_update(read=True))}


def link(session: Session, job: Job, needs: Iterable[int]) -> None:
    """Note that the job needs these."""
    rows = [{"job_id": job.id, "needs_id": each} for each in sorted(set(needs))]
    if rows:
        session.execute(insert(job_dependencies).on_conflict_do_nothing(), rows)


def of(session: Session, job: Job) -> Sequence[int]:
    """The numbers of the jobs that this one needs."""
    return session.scalars(select(_links.needs_id).where(_links.job_id == job.id).order_by(_links.needs_id)).all()


def for_another_run(session: Session, job: Job) -> list[int]:
    """What the job needs when somebody runs it again; those jobs stay as they are until the transaction ends.

    One that did not succeed and was run again since is needed by its newest run. Raises Stale when one has not
    succeeded still.
    """
    needs = set(of(session, job))
    succeeded = _those(session, needs, JobStatus.SUCCESS)
    wanted = sorted(succeeded | _newest(session, needs - succeeded))
    if _standing_of(_held(session, wanted, job.project_id).values()) is Standing.BROKEN:
        raise Stale("A job that this one needs has not succeeded. Run that one again first.")
    return wanted


def _those(session: Session, needs: set[int], status: JobStatus) -> set[int]:
    return set(session.scalars(select(Job.id).where(Job.id.in_(needs), Job.status == status))) if needs else set()


def _newest(session: Session, needs: set[int]) -> set[int]:
    """The same jobs, each by the run that came after it, where it was run again."""
    found, ahead = set(needs), set(needs)
    while ahead:
        query = select(Job.retry_of_id, Job.id).where(Job.retry_of_id.in_(ahead))
        later = {row.retry_of_id: row.id for row in session.execute(query)}
        found = (found - set(later)) | set(later.values())
        ahead = set(later.values())
    return found


def standing(session: Session, job: Job) -> Standing:
    """Whether the job can run yet, or ever."""
    needed = select(Job.status).where(Job.id.in_(select(_links.needs_id).where(_links.job_id == job.id)))
    return _standing_of(JobStatus(status) for status in session.scalars(needed))


def _standing_of(statuses: Iterable[JobStatus]) -> Standing:
    found = set(statuses)
    if found <= {JobStatus.SUCCESS}:
        return Standing.MET
    return Standing.BROKEN if found & {JobStatus.FAILED, JobStatus.CANCELED} else Standing.AWAITED


MOST_TOLD = 50  # of the jobs that need one


def needed(session: Session, job: Job) -> Sequence[Job]:
    """The jobs that this one needs."""
    theirs = Job.id.in_(select(_links.needs_id).where(_links.job_id == job.id))
    return session.scalars(select(Job).where(theirs).order_by(Job.id)).all()


def needing(session: Session, job: Job) -> Sequence[Job]:
    """The jobs that need this one, the oldest first; at most MOST_TOLD."""
    theirs = Job.id.in_(select(_links.job_id).where(_links.needs_id == job.id))
    return session.scalars(select(Job).where(theirs).order_by(Job.id).limit(MOST_TOLD)).all()


def awaited(session: Session, job: Job) -> Sequence[Job]:
    """The jobs that this one waits for."""
    theirs = Job.id.in_(select(_links.needs_id).where(_links.job_id == job.id))
    query = select(Job).where(theirs, Job.status != JobStatus.SUCCESS).order_by(Job.id)
    return session.scalars(query).all()


def dependents(session: Session, job: Job) -> Sequence[Job]:
    """The pending jobs that need this one, held until the transaction ends, the lower number first."""
    needing = Job.id.in_(select(_links.job_id).where(_links.needs_id == job.id))
    query = select(Job).where(needing, Job.status == JobStatus.PENDING).order_by(Job.id).with_for_update(of=Job)
    return session.scalars(query.execution_options(populate_existing=True)).all()


def replace(session: Session, dependent: Job, old: Job, again: Job) -> None:
    """The job needs the run that came after the one it needed."""
    session.execute(delete(job_dependencies).where(_links.job_id == dependent.id, _links.needs_id == old.id))
    link(session, dependent, [again.id])


def are_kept(session: Session, job: Job) -> bool:
    """Whether everything that the job needs is still there: nothing was erased, and no artifacts have expired."""
    there = exists().where(
        JobArtifact.job_id == Job.id,
        JobArtifact.file_type == "archive",
        (JobArtifact.expires_at.is_(None)) | (JobArtifact.expires_at > now()),
    )
    leaves = JobDefinition.config["artifacts"]["when"].astext.in_(("on_success", "always"))
    gone = (Job.status != JobStatus.SUCCESS) | Job.erased_at.is_not(None) | (leaves.is_(True) & ~there)
    needed = (
        select(Job.id).join(Job.definition).where(Job.id.in_(select(_links.needs_id).where(_links.job_id == job.id)))
    )
    return session.scalar(needed.where(gone).limit(1)) is None
