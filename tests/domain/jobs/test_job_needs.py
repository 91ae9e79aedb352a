"""Jobs that need others: they wait until those have succeeded, and fail when that cannot be any more."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from portal.domain.errors import Invalid, Stale
from portal.domain.jobs import job_needs, job_reports, job_rows, jobs, stuck_jobs
from portal.domain.jobs.job_definitions import ArtifactsWanted
from portal.models import Job, JobStatus, PendingJob, job_dependencies
from tests.cast import JOB_VAULT, Cast


def waits_in_queue(session: Session, job: Job) -> bool:
    return session.scalar(select(PendingJob.job_id).where(PendingJob.job_id == job.id).limit(1)) is not None


def end(session: Session, job: Job, *, success: bool) -> None:
    job_reports.finish(session, job, success=success, failure_reason=None if success else "script_failure")
    session.commit()


def test_a_job_comes_into_the_queue_when_what_it_needs_has_succeeded(session: Session, cast: Cast) -> None:
    one, two = cast.job(), cast.job()
    needing = cast.job(needs=(one.id, two.id))
    assert not waits_in_queue(session, needing)
    end(session, one, success=True)
    assert not waits_in_queue(session, needing)
    assert [each.id for each in job_needs.awaited(session, needing)] == [two.id]
    end(session, two, success=True)
    assert waits_in_queue(session, needing)


def test_a_job_that_needs_one_that_has_succeeded_is_queued_at_once(session: Session, cast: Cast) -> None:
    done = cast.job()
    end(session, done, success=True)
    assert waits_in_queue(session, cast.job(needs=(done.id,)))


@pytest.mark.parametrize("way", ["fails", "is canceled"])
def test_all_down_the_line_fails_with_a_job_that_does_not_succeed(session: Session, cast: Cast, way: str) -> None:
    first = cast.job()
    second = cast.job(needs=(first.id,), retry=1)
    third = cast.job(needs=(second.id,))
    if way == "fails":
        end(session, first, success=False)
    else:
        jobs.cancel(session, cast.as_(cast.dana), first)
        session.commit()
    for job in (second, third):
        session.refresh(job)
        assert (job.state, job.failure_reason) == (JobStatus.FAILED, "missing_dependency_failure")
        assert job.finished_at is not None
    assert session.scalars(select(PendingJob)).all() == []


def test_who_needs_a_job_that_runs_again_by_itself_waits_for_that_run(session: Session, cast: Cast) -> None:
    first = cast.job(retry=1)
    needing = cast.job(needs=(first.id,))
    end(session, first, success=False)
    again = session.scalars(select(Job).where(Job.retry_of_id == first.id)).one()
    assert list(job_needs.of(session, needing)) == [again.id]
    assert needing.state is JobStatus.PENDING
    end(session, again, success=True)
    assert waits_in_queue(session, needing)


def test_what_has_failed_cannot_be_needed_until_it_was_run_again(session: Session, cast: Cast) -> None:
    failed = cast.job()
    end(session, failed, success=False)
    with pytest.raises(Invalid, match="has not succeeded"):
        cast.job(needs=(failed.id,))
    with pytest.raises(Invalid, match="There is no job #999999"):
        cast.job(needs=(999_999,))


def test_run_again_a_job_needs_the_newest_runs_of_what_it_needed(session: Session, cast: Cast) -> None:
    first = cast.job()
    needing = cast.job(needs=(first.id,))
    end(session, first, success=False)
    with pytest.raises(Stale, match="Run that one again first"):
        jobs.retry(session, cast.as_(cast.dana), needing, JOB_VAULT)
    session.rollback()
    second = jobs.retry(session, cast.as_(cast.dana), first, JOB_VAULT)
    again = jobs.retry(session, cast.as_(cast.dana), needing, JOB_VAULT)
    session.commit()
    assert list(job_needs.of(session, again)) == [second.id]
    assert not waits_in_queue(session, again)
    end(session, second, success=True)
    assert waits_in_queue(session, again)


def test_a_job_that_runs_again_by_itself_needs_what_it_had(session: Session, cast: Cast) -> None:
    """Whatever became of a later run of what it needs: that one has succeeded."""
    first = cast.job()
    end(session, first, success=True)
    needing = cast.job(needs=(first.id,), retry=1)
    jobs.retry(session, cast.as_(cast.dana), first, JOB_VAULT)
    end(session, needing, success=False)
    again = session.scalars(select(Job).where(Job.retry_of_id == needing.id)).one()
    assert list(job_needs.of(session, again)) == [first.id]
    assert waits_in_queue(session, again)
    assert job_needs.are_kept(session, again)


def test_a_need_that_ends_while_a_job_is_run_again_is_not_missed(own_database: str) -> None:
    """Whoever runs it again holds what it needs: the end comes before or after, and is seen in both cases."""
    engine = create_engine(own_database)
    with Session(engine) as session:
        cast = Cast(session)
        first = cast.job()
        needing = cast.job(needs=(first.id,))
        end(session, first, success=False)
        second = jobs.retry(session, cast.as_(cast.dana), first, JOB_VAULT)
        session.commit()
        jobs.retry(session, cast.as_(cast.dana), needing, JOB_VAULT)
        with Session(engine) as elsewhere:
            elsewhere.execute(text("SET lock_timeout = '100ms'"))
            with pytest.raises(OperationalError, match="lock timeout"):
                job_rows.hold(elsewhere, second.id)
    engine.dispose()


def test_a_job_may_need_one_that_leaves_no_artifacts(session: Session, cast: Cast) -> None:
    plain, leaving = cast.job(), cast.job(artifacts=ArtifactsWanted(("dist",)))
    for job in (plain, leaving):
        end(session, job, success=True)
    assert job_needs.are_kept(session, cast.job(needs=(plain.id,)))
    assert not job_needs.are_kept(session, cast.job(needs=(plain.id, leaving.id)))  # nothing of it is there


def test_the_answer_to_why_it_waits_names_what_it_waits_for(session: Session, cast: Cast) -> None:
    first = cast.job()
    needing = cast.job(needs=(first.id,))
    why = stuck_jobs.of_job(session, cast.as_(cast.dana), needing)
    assert why.headline == f"It waits until job #{first.id} has succeeded, which it needs."
    end(session, first, success=True)
    assert not stuck_jobs.of_job(session, cast.as_(cast.dana), needing).awaited


def test_each_need_is_noted_once(session: Session, cast: Cast) -> None:
    first = cast.job()
    needing = cast.job(needs=(first.id, first.id))
    rows = session.execute(select(job_dependencies).where(job_dependencies.c.job_id == needing.id)).all()
    assert [tuple(row) for row in rows] == [(needing.id, first.id)]
