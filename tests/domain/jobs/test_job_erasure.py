"""An erased job keeps its row and loses what it wrote and left; only one that is over, and once."""

from __future__ import annotations

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.errors import NotAllowed, NotFound, Stale
from portal.domain.jobs import job_erasure, job_logs, job_rows
from portal.models import AuditEvent, Job, JobArtifact, JobLogPiece, JobStatus, Role
from tests.cast import Cast


def ended(session: Session, cast: Cast) -> Job:
    """A job that has written and left something, and is over."""
    job = cast.job()
    job_logs.append(session, job.id, 0, b"words", limit=100)
    file = JobArtifact(
        job_id=job.id, file_type="archive", file_format="zip", filename="a.zip", size=1, sha256=b"x", key=f"k{job.id}"
    )
    session.add(file)
    job.status, job.finished_at = JobStatus.SUCCESS, now()
    session.flush()
    return job


def test_log_and_artifacts_go_and_the_trail_says_who_did_it(session: Session, cast: Cast) -> None:
    job, other = ended(session, cast), ended(session, cast)
    gone = job_erasure.erase(session, cast.as_(cast.erin), job)
    assert job.erased_at is not None
    left = session.scalars(select(JobArtifact)).all()
    assert [each.id for each in left if each.job_id is None] == gone
    assert session.scalars(select(JobLogPiece.job_id)).all() == [other.id]
    assert job_logs.extent(session, job.id).size == 0
    event = session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc())).first()
    assert event is not None
    assert (event.action, event.target_id, event.changes["artifacts"]) == ("job_erased", job.id, [1, 0])


def test_a_job_that_is_not_over_or_was_erased_before_is_refused(session: Session, cast: Cast) -> None:
    with pytest.raises(Stale, match="not over yet"):
        job_erasure.erase(session, cast.as_(cast.erin), cast.job())
    job = ended(session, cast)
    job_erasure.erase(session, cast.as_(cast.erin), job)
    with pytest.raises(Stale, match="erased already"):
        job_erasure.erase(session, cast.as_(cast.erin), job)


def test_who_may_not_run_jobs_erases_none(session: Session, cast: Cast) -> None:
    job, rita = ended(session, cast), cast.person("rita")
    cast.member(rita, cast.acme, Role.REPORTER)
    with pytest.raises(NotAllowed):
        job_erasure.erase(session, cast.as_(rita), job)
    with pytest.raises(NotFound):
        job_erasure.erase(session, cast.as_(cast.charlie), job)
    assert job_rows.hold(session, job.id).erased_at is None
