"""Jobs that ended long ago are forgotten, and definitions that nothing refers to any more."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, exists, select, tuple_
from sqlalchemy.orm import Session, aliased

from portal.models import Job, JobDefinition, JobMachine, JobTemplate, job_dependencies

JOBS_AT_ONCE = 100  # with their logs
DEFINITIONS_AT_ONCE = 1000
UNUSED_FOR = timedelta(hours=1)  # one that was just written may still get its job


def prune(session: Session, before: datetime) -> int:
    """Delete jobs that ended before this moment, with their logs. Returns how many; a batch at a time.

    A job stays while another that has not ended needs what it left. Artifacts lose their job; who sweeps them
    deletes their files.
    """
    later = aliased(Job)
    needed = (
        exists()
        .where(job_dependencies.c.needs_id == Job.id, later.id == job_dependencies.c.job_id)
        .where(later.finished_at.is_(None))
    )
    old = select(Job.id, Job.partition_id).where(Job.finished_at < before, ~needed).order_by(Job.finished_at)
    found = session.execute(old.limit(JOBS_AT_ONCE).with_for_update(of=Job, skip_locked=True)).all()
    if found:
        keys = [(row.partition_id, row.id) for row in found]
        machines = tuple_(JobMachine.partition_id, JobMachine.job_id).in_(keys)
        quietly = {"synchronize_session": False}
        session.execute(delete(JobMachine).where(machines).execution_options(**quietly))
        session.execute(delete(Job).where(Job.id.in_([row.id for row in found])).execution_options(**quietly))
    return len(found)


def prune_definitions(session: Session, at: datetime) -> int:
    """Delete definitions that no job and no template refers to. Returns how many; a batch at a time."""
    unused = (
        (JobDefinition.created_at < at - UNUSED_FOR)
        & ~exists().where(Job.definition_id == JobDefinition.id)
        & ~exists().where(JobTemplate.definition_id == JobDefinition.id)
    )
    ids = session.scalars(
        select(JobDefinition.id).where(unused).limit(DEFINITIONS_AT_ONCE).with_for_update(skip_locked=True)
    ).all()
    if ids:
        gone = delete(JobDefinition).where(JobDefinition.id.in_(ids), unused)
        session.execute(gone.execution_options(synchronize_session=False))
    return len(ids)
