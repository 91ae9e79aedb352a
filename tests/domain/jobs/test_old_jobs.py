"""Old jobs go with their logs and their machines' links; what somebody still needs stays."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.jobs import job_claims, job_logs, job_reports, jobs, old_jobs
from portal.domain.jobs.job_claims import Claim
from portal.domain.jobs.job_matching import Offer
from portal.models import Job, JobDefinition, JobLog, JobLogPiece, JobMachine, JobTemplate, RunnerType
from tests.cast import JOB_VAULT, SYSTEM, Cast
from tests.domain.clock import let_pass

DAY = timedelta(days=1)


def ended(cast: Cast, session: Session, **asked: Any) -> Job:
    """A job that ran to its end."""
    job = cast.job(**asked)
    runner = cast.runner().runner
    offer = Offer(runner.id, RunnerType.PROJECT, project_ids=frozenset({job.project_id or 0}))
    given = job_claims.claim(session, Claim(offer, 0, "r_one"), [1], JOB_VAULT)
    assert given is not None
    assert given.job.id == job.id
    job_logs.append(session, job.id, 0, b"hello\n", limit=100)
    job_reports.finish(session, given.job, success=True)
    session.commit()
    return given.job


def count(session: Session, *kinds: type) -> list[int]:
    return [session.scalar(select(func.count()).select_from(kind)) or 0 for kind in kinds]


def test_a_job_goes_with_everything_that_is_its(cast: Cast, session: Session) -> None:
    ended(cast, session)
    let_pass(session, 3 * DAY)
    young, waiting = ended(cast, session), cast.job()
    let_pass(session, DAY)
    assert old_jobs.prune(session, now() - 2 * DAY) == 1
    session.expire_all()
    assert list(session.scalars(select(Job.id).order_by(Job.id))) == [young.id, waiting.id]
    assert count(session, JobLog, JobLogPiece, JobMachine) == [1, 1, 1]
    assert old_jobs.prune(session, now() - 2 * DAY) == 0


def test_jobs_that_wait_or_run_stay_however_old_they_are(cast: Cast, session: Session) -> None:
    cast.job()
    let_pass(session, 1000 * DAY)
    assert old_jobs.prune(session, now()) == 0


def test_what_a_waiting_job_needs_stays(cast: Cast, session: Session) -> None:
    first = ended(cast, session)
    later = cast.job(needs=(first.id,))
    let_pass(session, 9 * DAY)
    assert old_jobs.prune(session, now() - DAY) == 0
    jobs.cancel(session, SYSTEM, later)
    session.flush()
    assert old_jobs.prune(session, now() - DAY) == 1


def test_definitions_that_nobody_refers_to_go_after_an_hour(cast: Cast, session: Session) -> None:
    ended(cast, session)
    kept, template = ended(cast, session), ended(cast, session)
    made = JobTemplate(project_id=cast.web.id, definition_id=template.definition_id, name="nightly")
    session.add(made)
    session.commit()
    for job_id in session.scalars(select(Job.id).where(Job.id != kept.id)).all():
        session.delete(session.get_one(Job, job_id))
    session.commit()
    assert old_jobs.prune_definitions(session, now()) == 0
    let_pass(session, timedelta(hours=2))
    assert old_jobs.prune_definitions(session, now()) == 1
    assert old_jobs.prune_definitions(session, now()) == 0
    left = set(session.scalars(select(JobDefinition.id)))
    assert left == {kept.definition_id, made.definition_id}
