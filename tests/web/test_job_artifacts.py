"""What a job left, on its page: people download, keep and delete it."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.jobs.artifact_store import ArtifactStore
from portal.models import AuditEvent, Job, JobArtifact, Role
from tests.artifacts import files_in, keep, running_job, settings
from tests.cast import Cast, send, sign_in

CONTENT = b"<script>alert(1)</script>"


@pytest.fixture
def session(session_beside: Session) -> Session:
    return session_beside


@pytest.fixture
def store(app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    own = ArtifactStore(settings(tmp_path))
    monkeypatch.setitem(app.extensions, "artifact_store", own)
    return own


@pytest.fixture
def job(session: Session, cast: Cast, store: ArtifactStore) -> Job:
    """A job of acme/web that left one page of HTML."""
    job, _ = running_job(session, cast)
    keep(session, store, job, CONTENT, artifact_format="raw", filename="Übersicht.html")
    return job


@pytest.fixture
def artifact(session: Session, job: Job) -> JobArtifact:
    return session.scalars(select(JobArtifact)).one()


@pytest.fixture
def erin(app: Flask, cast: Cast) -> FlaskClient:
    return sign_in(app.test_client(), "erin")


def of(job: Job) -> str:
    return f"/acme/web/-/jobs/{job.id}"


def text_of(client: FlaskClient, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, answer.get_data(as_text=True)[:2000]
    return answer.get_data(as_text=True)


def test_the_jobs_page_lists_what_it_left(erin: FlaskClient, job: Job, artifact: JobArtifact) -> None:
    page = text_of(erin, of(job))
    for shown in (
        "Übersicht.html",
        "25 bytes",
        artifact.sha256.hex(),
        "in 30 days",
        f"/artifacts/{artifact.id}/delete",
    ):
        assert shown in page


def test_a_file_is_saved_and_never_shown_whatever_it_holds(
    erin: FlaskClient, job: Job, artifact: JobArtifact
) -> None:
    answer = erin.get(f"{of(job)}/artifacts/{artifact.id}")
    assert (answer.status_code, answer.data) == (200, CONTENT)
    assert answer.mimetype == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == (
        "attachment; filename=Ubersicht.html; filename*=UTF-8''%C3%9Cbersicht.html"
    )
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_deleting_says_what_is_lost_and_takes_the_file(
    erin: FlaskClient, job: Job, artifact: JobArtifact, session: Session, tmp_path: Path
) -> None:
    address = f"{of(job)}/artifacts/{artifact.id}/delete"
    assert "Jobs that need the artifacts of this one fail" in text_of(erin, address)
    assert len(files_in(tmp_path)) == 1
    answer = send(erin, address, expect=303)
    assert answer.headers["Location"] == of(job)
    assert files_in(tmp_path) == []
    assert session.scalars(select(AuditEvent.action).where(AuditEvent.action == "artifacts_deleted")).all() != []
    assert "Übersicht.html is deleted." in text_of(erin, of(job))
    for gone in (address, f"{of(job)}/artifacts/{artifact.id}"):
        text_of(erin, gone, 404)


def test_keeping_takes_the_expiry_away(erin: FlaskClient, job: Job, artifact: JobArtifact, session: Session) -> None:
    send(erin, f"{of(job)}/artifacts/keep", form_at=of(job), expect=303)
    session.expire_all()
    assert artifact.expires_at is None
    page = text_of(erin, of(job))
    assert "stays as long as the job" in page
    assert "Keep as long as the job" not in page


def test_what_has_expired_is_not_there(erin: FlaskClient, job: Job, artifact: JobArtifact, session: Session) -> None:
    artifact.expires_at = now()
    session.commit()
    assert "Übersicht.html" not in text_of(erin, of(job))
    text_of(erin, f"{of(job)}/artifacts/{artifact.id}", 404)


def test_a_reporter_downloads_only(app: Flask, cast: Cast, job: Job, artifact: JobArtifact) -> None:
    cast.member(cast.person("frank"), cast.web, Role.REPORTER)
    cast.session.commit()
    frank = sign_in(app.test_client(), "frank")
    page = text_of(frank, of(job))
    assert "Übersicht.html" in page
    assert f"/artifacts/{artifact.id}/delete" not in page
    text_of(frank, f"{of(job)}/artifacts/{artifact.id}")
    text_of(frank, f"{of(job)}/artifacts/{artifact.id}/delete", 403)


def test_a_stranger_and_another_job_find_nothing(
    app: Flask, cast: Cast, job: Job, artifact: JobArtifact, session: Session
) -> None:
    other, _ = running_job(session, cast)
    address = f"/artifacts/{artifact.id}"
    text_of(sign_in(app.test_client(), "charlie"), of(job) + address, 404)
    text_of(sign_in(app.test_client(), "erin"), of(other) + address, 404)
