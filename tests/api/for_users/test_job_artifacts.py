"""`/projects/:id/jobs/:job_id/artifacts`: people download, delete and keep what a job left."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.jobs import job_artifacts
from portal.domain.jobs.artifact_store import ArtifactStore
from portal.models import AuditEvent, Job, JobArtifact, Role
from tests.api.for_users.conftest import ScriptOf
from tests.artifacts import files_in, keep, running_job, settings
from tests.cast import Cast

CONTENT = b"PK the bytes of an archive"


@pytest.fixture
def store(app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    own = ArtifactStore(settings(tmp_path))
    monkeypatch.setitem(app.extensions, "artifact_store", own)
    return own


@pytest.fixture
def job(session: Session, cast: Cast, store: ArtifactStore) -> Job:
    """A job of acme/web that left an archive and a report."""
    job, _ = running_job(session, cast)
    keep(session, store, job, CONTENT)
    keep(session, store, job, b"<testsuite/>", artifact_type="junit", artifact_format="gzip")
    return job


def place(job: Job, more: str = "") -> str:
    return f"/projects/acme%2Fweb/jobs/{job.id}/artifacts{more}"


def test_the_archive_is_downloaded_as_a_file(script_of: ScriptOf, cast: Cast, job: Job) -> None:
    answer = script_of(cast.erin, "read_api").ask("GET", place(job))
    assert (answer.status_code, answer.data, answer.mimetype) == (200, CONTENT, "application/zip")
    assert answer.headers["Content-Disposition"] == "attachment; filename=artifacts.zip"
    part = script_of(cast.erin).ask("GET", place(job), headers={"Range": "bytes=3-5"})
    assert (part.status_code, part.data) == (206, b"the")


def test_a_reporter_reads_and_changes_nothing(script_of: ScriptOf, cast: Cast, job: Job) -> None:
    frank = cast.person("frank")
    cast.member(frank, cast.web, Role.REPORTER)
    cast.session.commit()
    franks = script_of(frank)
    assert franks.ask("GET", place(job)).status_code == 200
    franks.delete(place(job), expect=403)
    franks.post(place(job, "/keep"), expect=403)


def test_a_guest_sees_no_jobs_and_a_stranger_no_project(script_of: ScriptOf, cast: Cast, job: Job) -> None:
    gina = cast.person("gina")
    cast.member(gina, cast.web, Role.GUEST)
    cast.session.commit()
    for who, status in ((gina, 403), (cast.charlie, 404)):
        script = script_of(who)
        script.get(place(job), expect=status)
        script.delete(place(job), expect=status)
        script.post(place(job, "/keep"), expect=status)


def test_a_job_of_another_project_is_none_of_this_one(script_of: ScriptOf, cast: Cast, job: Job) -> None:
    cast.project("api", cast.acme)
    cast.session.commit()
    answer = script_of(cast.dana).get(f"/projects/acme%2Fapi/jobs/{job.id}/artifacts", expect=404)
    assert answer == {"message": "404 Job Not Found"}


def test_deleting_takes_rows_and_files_at_once(
    script_of: ScriptOf, cast: Cast, job: Job, session: Session, tmp_path: Path
) -> None:
    script_of(cast.erin).delete(place(job))
    assert files_in(tmp_path) == []
    assert session.scalars(select(JobArtifact)).all() == []
    assert script_of(cast.erin).get(place(job), expect=404) == {"message": "404 Artifacts Not Found"}
    event = session.scalars(select(AuditEvent).where(AuditEvent.action == "artifacts_deleted")).one()
    assert event.actor_name.startswith("Erin Day (access token")
    script_of(cast.erin).delete(place(job))  # again: there is nothing to delete, which is what was wanted


def test_what_is_kept_expires_no_more(script_of: ScriptOf, cast: Cast, job: Job, session: Session) -> None:
    kept = script_of(cast.erin).post(place(job, "/keep"), expect=200)
    assert kept["artifacts_expire_at"] is None
    assert [each["file_type"] for each in kept["artifacts"]] == ["archive", "junit"]
    assert kept["artifacts"][0] == {
        "file_type": "archive",
        "size": len(CONTENT),
        "filename": "artifacts.zip",
        "file_format": "zip",
    }
    session.expire_all()
    assert [each.expires_at for each in job_artifacts.of_job(session, job, now())] == [None, None]


def test_what_has_expired_can_neither_be_read_nor_kept(
    script_of: ScriptOf, cast: Cast, job: Job, session: Session
) -> None:
    for artifact in session.scalars(select(JobArtifact)):
        artifact.expires_at = now()
    session.commit()
    script_of(cast.erin).get(place(job), expect=404)
    script_of(cast.erin).post(place(job, "/keep"), expect=404)
