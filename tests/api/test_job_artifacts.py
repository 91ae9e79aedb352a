"""A runner brings the files that its job left, and fetches those of the jobs that it needs."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

from portal.database import now
from portal.domain.errors import StoreUnreachable
from portal.domain.jobs import job_artifacts
from portal.domain.jobs.artifact_store import ArtifactStore
from portal.models import Job, JobArtifact, JobStatus
from tests.artifacts import files_in, running_job, settings
from tests.cast import Cast

LIMIT = 1_000_000
CONTENT = b"PK the bytes of an archive"


@pytest.fixture
def store(app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArtifactStore]:
    """A store in a folder of the test's, and a portal that takes LIMIT bytes."""
    own = settings(tmp_path, PORTAL_ARTIFACT_LIMIT=str(LIMIT))
    monkeypatch.setitem(app.config, "PORTAL", own)
    monkeypatch.setitem(app.extensions, "artifact_store", made := ArtifactStore(own))
    yield made
    assert files_in(tmp_path / "incoming") == []


@pytest.fixture
def at_work(session: Session, cast: Cast, store: ArtifactStore) -> tuple[Job, str]:
    """A job that runs, and its token."""
    return running_job(session, cast)


def upload(
    client: FlaskClient,
    job_id: int,
    token: str | None,
    content: bytes = CONTENT,
    name: str = "artifacts.zip",
    fields: dict[str, str] | None = None,
    **query: str,
) -> Any:
    boundary, body = encode_multipart({**(fields or {}), "file": FileStorage(io.BytesIO(content), name)})
    return client.post(
        f"/api/v4/jobs/{job_id}/artifacts",
        query_string=query,
        data=body,
        content_type=f"multipart/form-data; boundary={boundary}",
        headers={"JOB-TOKEN": token} if token else {},
    )


def download(client: FlaskClient, job_id: int, token: str | None, **headers: str) -> Any:
    given = {"JOB-TOKEN": token, **headers} if token else headers
    return client.get(f"/api/v4/jobs/{job_id}/artifacts?direct_download=true", headers=given)


class TestUploads:
    def test_a_file_is_taken_and_given_back(self, client: FlaskClient, at_work: tuple[Job, str]) -> None:
        job, token = at_work
        content = os.urandom(LIMIT)
        query = {"artifact_format": "zip", "artifact_type": "archive", "expire_in": "1 week"}
        assert upload(client, job.id, token, content, **query).status_code == 201
        answer = download(client, job.id, token)
        assert (answer.status_code, answer.data, answer.mimetype) == (200, content, "application/zip")
        assert answer.headers["ETag"] == f'"{hashlib.sha256(content).hexdigest()}"'
        assert answer.headers["Content-Disposition"] == "attachment; filename=artifacts.zip"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"

    def test_options_may_stand_in_fields_of_the_form(
        self, client: FlaskClient, at_work: tuple[Job, str], session: Session
    ) -> None:
        job, token = at_work
        fields = {"artifact_type": "junit", "artifact_format": "gzip", "expire_in": "2 days"}
        assert upload(client, job.id, token, name="junit.xml.gz", fields=fields).status_code == 201
        [kept] = session.scalars(select(JobArtifact))
        assert (kept.file_type, kept.file_format, kept.filename) == ("junit", "gzip", "junit.xml.gz")
        assert kept.expires_at == kept.created_at + timedelta(days=2)

    def test_the_same_again_is_taken_again_and_stored_once(
        self, client: FlaskClient, at_work: tuple[Job, str], tmp_path: Path
    ) -> None:
        job, token = at_work
        assert [upload(client, job.id, token).status_code for _ in range(3)] == [201] * 3
        assert len(files_in(tmp_path)) == 1

    def test_another_file_in_its_place_is_refused(
        self, client: FlaskClient, at_work: tuple[Job, str], tmp_path: Path
    ) -> None:
        job, token = at_work
        upload(client, job.id, token)
        answer = upload(client, job.id, token, b"others")
        assert answer.status_code == 400
        assert "another file of the type archive" in answer.json["message"]
        assert len(files_in(tmp_path)) == 1

    def test_a_token_of_another_job_or_of_none_is_refused(
        self, client: FlaskClient, at_work: tuple[Job, str], session: Session, cast: Cast, tmp_path: Path
    ) -> None:
        job, _ = at_work
        _, other = running_job(session, cast)
        for token in (None, "glcbt-nobody", other):
            assert upload(client, job.id, token).status_code == 403
        assert upload(client, 2**70, other).status_code == 403
        assert files_in(tmp_path) == []

    def test_a_job_that_is_over_leaves_nothing_more(
        self, client: FlaskClient, at_work: tuple[Job, str], session: Session, tmp_path: Path
    ) -> None:
        job, token = at_work
        job.status = JobStatus.CANCELED
        session.commit()
        assert upload(client, job.id, token).status_code == 403
        assert files_in(tmp_path) == []

    def test_one_that_ends_while_its_file_comes_in_leaves_no_file_behind(
        self,
        client: FlaskClient,
        at_work: tuple[Job, str],
        session: Session,
        store: ArtifactStore,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        job, token = at_work
        put = store.put

        def ended_meanwhile(*given: Any) -> Any:
            file = put(*given)
            session.get_one(Job, job.id).status = JobStatus.CANCELED
            session.commit()
            return file

        monkeypatch.setattr(store, "put", ended_meanwhile)
        assert upload(client, job.id, token).status_code == 403
        assert files_in(tmp_path) == []

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ({"artifact_format": "rar"}, "artifact_format"),
            ({"artifact_type": "A B"}, "artifact_type"),
            ({"expire_in": "soon"}, "1 week"),
        ],
    )
    def test_what_cannot_be_kept_is_refused_in_words(
        self, client: FlaskClient, at_work: tuple[Job, str], query: dict[str, str], said: str, tmp_path: Path
    ) -> None:
        job, token = at_work
        for answer in (upload(client, job.id, token, **query), upload(client, job.id, token, fields=query)):
            assert answer.status_code == 400
            assert said in answer.json["message"]
        assert files_in(tmp_path) == []

    def test_a_file_over_the_limit_is_refused(
        self, client: FlaskClient, at_work: tuple[Job, str], tmp_path: Path
    ) -> None:
        job, token = at_work
        assert upload(client, job.id, token, b"x" * LIMIT).status_code == 201
        for size in (LIMIT + 1, LIMIT * 2):
            answer = upload(client, job.id, token, b"x" * size, artifact_type="junit")
            assert answer.status_code == 413
            assert answer.json["message"].startswith("413 ")
        assert len(files_in(tmp_path)) == 1

    def test_a_store_that_does_not_answer_is_a_503_and_no_row(
        self,
        client: FlaskClient,
        at_work: tuple[Job, str],
        store: ArtifactStore,
        session: Session,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        job, token = at_work

        def down(*_: Any) -> Any:
            raise StoreUnreachable

        with monkeypatch.context() as patch:
            patch.setattr(store, "put", down)
            answer = upload(client, job.id, token)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "5"
        assert session.scalars(select(JobArtifact)).all() == []
        assert upload(client, job.id, token).status_code == 201

    def test_only_this_address_takes_large_bodies(self, client: FlaskClient, at_work: tuple[Job, str]) -> None:
        _, token = at_work
        answer = client.post("/api/v4/jobs/request", data=b"x" * (2 << 20), headers={"JOB-TOKEN": token})
        assert answer.status_code == 413


def form(*parts: bytes, end: bytes = b"--B--\r\n") -> bytes:
    return b"".join(b"--B\r\n" + part + b"\r\n" for part in parts) + end


FILE = b'Content-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\nwords'
FIELD = b'Content-Disposition: form-data; name="expire_in"\r\n\r\n1 day'


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "multipart/form-data; boundary=B"),
        (form(), "multipart/form-data; boundary=B"),
        (form(FIELD), "multipart/form-data; boundary=B"),
        (form(FILE, end=b""), "multipart/form-data; boundary=B"),
        (form(FILE)[:-40], "multipart/form-data; boundary=B"),
        (form(FILE, FILE), "multipart/form-data; boundary=B"),
        (form(FILE), "multipart/form-data; boundary=C"),
        (form(FILE), "multipart/form-data"),
        (form(FILE), "multipart/form-data; boundary=" + "B" * 201),
        (form(FILE), "application/octet-stream"),
        (b'{"file": "words"}', "application/json"),
        (form(b"no headers here\r\n\r\nwords"), "multipart/form-data; boundary=B"),
        (form(b'Content-Disposition: form-data; name="\xff"\r\n\r\nwords'), "multipart/form-data; boundary=B"),
        (form(FIELD.replace(b"1 day", b"x" * 100_000), FILE), "multipart/form-data; boundary=B"),
    ],
)
def test_what_is_no_whole_form_with_one_file_is_refused_and_leaves_nothing(
    client: FlaskClient, at_work: tuple[Job, str], body: bytes, kind: str, tmp_path: Path
) -> None:
    job, token = at_work
    answer = client.post(
        f"/api/v4/jobs/{job.id}/artifacts", data=body, content_type=kind, headers={"JOB-TOKEN": token}
    )
    assert answer.status_code == 400, answer.data
    assert files_in(tmp_path) == []


def test_other_files_in_the_form_are_passed_over(client: FlaskClient, at_work: tuple[Job, str]) -> None:
    job, token = at_work
    other = FILE.replace(b'"file"', b'"metadata"').replace(b"words", b"others")
    body = form(other, FILE, FIELD)
    kind = "multipart/form-data; boundary=B"
    sent = client.post(f"/api/v4/jobs/{job.id}/artifacts", data=body, content_type=kind, headers={"JOB-TOKEN": token})
    assert sent.status_code == 201
    assert download(client, job.id, token).data == b"words"


class TestDownloads:
    def test_a_job_reads_what_it_needs_with_its_own_token(
        self, client: FlaskClient, at_work: tuple[Job, str], session: Session, cast: Cast
    ) -> None:
        job, token = at_work
        upload(client, job.id, token)
        job.status = JobStatus.SUCCESS
        session.commit()
        _, dependents = running_job(session, cast, job)
        assert download(client, job.id, dependents).data == CONTENT
        assert download(client, job.id, token).status_code == 403  # its own job is over

    def test_nobody_nobodys_and_nothing_are_told_apart(
        self, client: FlaskClient, at_work: tuple[Job, str], session: Session, cast: Cast
    ) -> None:
        job, token = at_work
        upload(client, job.id, token)
        empty, own = running_job(session, cast)
        assert download(client, job.id, None).status_code == 401
        assert download(client, job.id, "glcbt-nobody").status_code == 403
        assert download(client, job.id, own).status_code == 403
        assert download(client, 2**70, own).status_code == 403
        assert download(client, empty.id, own).status_code == 404

    def test_what_has_expired_is_not_there(
        self, client: FlaskClient, at_work: tuple[Job, str], session: Session
    ) -> None:
        job, token = at_work
        upload(client, job.id, token)
        session.scalars(select(JobArtifact)).one().expires_at = now()
        session.commit()
        answer = download(client, job.id, token)
        assert answer.status_code == 404
        assert "expired" in answer.json["message"]

    def test_a_file_that_the_store_lost_is_told(
        self, client: FlaskClient, at_work: tuple[Job, str], tmp_path: Path
    ) -> None:
        job, token = at_work
        upload(client, job.id, token)
        [file] = files_in(tmp_path)
        file.unlink()
        answer = download(client, job.id, token)
        assert answer.status_code == 404
        assert "lost" in answer.json["message"]

    def test_a_part_can_be_asked_for(self, client: FlaskClient, at_work: tuple[Job, str]) -> None:
        job, token = at_work
        content = os.urandom(LIMIT)
        upload(client, job.id, token, content)
        part = download(client, job.id, token, Range="bytes=900000-")
        assert (part.status_code, part.data) == (206, content[900_000:])
        assert part.headers["Content-Range"] == f"bytes 900000-{LIMIT - 1}/{LIMIT}"
        assert download(client, job.id, token, Range=f"bytes={LIMIT}-").status_code == 416

    def test_the_payload_of_a_job_opens_what_it_names(
        self, client: FlaskClient, at_work: tuple[Job, str], session: Session, cast: Cast
    ) -> None:
        job, token = at_work
        upload(client, job.id, token, name="out.zip")
        dependent, own = running_job(session, cast, job)
        [named] = job_artifacts.dependencies_of(session, dependent)
        assert named["artifacts_file"] == {"filename": "out.zip", "size": len(CONTENT)}
        assert download(client, named["id"], own).status_code == 200


class TestAuthorizing:
    def test_it_tells_whether_an_upload_would_be_taken(self, client: FlaskClient, at_work: tuple[Job, str]) -> None:
        job, token = at_work
        address, headers = f"/api/v4/jobs/{job.id}/artifacts/authorize", {"JOB-TOKEN": token}
        assert client.post(address).status_code == 403
        assert client.post(address, headers=headers).json == {"MaximumSize": LIMIT}
        assert client.post(address, json={"filesize": LIMIT}, headers=headers).status_code == 200
        assert client.post(f"{address}?filesize={LIMIT + 1}", headers=headers).status_code == 413
        assert client.post(address, data={"filesize": str(LIMIT + 1)}, headers=headers).status_code == 413
        assert client.post(f"{address}?artifact_format=rar", headers=headers).status_code == 400
