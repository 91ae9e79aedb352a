"""Jobs that run and leave files, for tests: a job with its token, a folder to keep them, an S3-compatible server."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from portal.config import Settings
from portal.database import now
from portal.domain import tokens
from portal.domain.jobs import job_artifacts, jobs
from portal.domain.jobs.artifact_store import ArtifactStore, StoredFile
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.vault import JOB_SECRETS, Vault
from portal.models import Job, JobArtifact, JobStatus, job_dependencies
from tests import databases
from tests.cast import Cast
from tests.portals import free_port

VAULT = Vault((databases.ENCRYPTION_KEY,), JOB_SECRETS)


def running_job(session: Session, cast: Cast, *needs: Job, name: str = "build") -> tuple[Job, str]:
    """A committed job of acme/web that runs, and its token in clear."""
    job = jobs.submit(session, cast.as_(cast.dana), cast.web, NewJob(name=name, script=("true",)), VAULT)
    token = tokens.make_for_job()
    job.status, job.token_digest = JobStatus.RUNNING, tokens.digest(token)
    session.flush()
    if needs:
        session.execute(insert(job_dependencies), [{"job_id": job.id, "needs_id": each.id} for each in needs])
    session.commit()
    return job, token


def settings(data: Path, **changes: str) -> Settings:
    return databases.settings("postgresql://nobody@localhost/nothing", PORTAL_DATA_DIR=str(data), **changes)


def stored(session: Session, store: ArtifactStore, content: bytes) -> StoredFile:
    """These bytes in the store, with no row yet."""
    with store.receive(len(content)) as incoming:
        incoming.write(content)
        return store.put(incoming, job_artifacts.mark_of(session))


def keep(session: Session, store: ArtifactStore, job: Job, content: bytes = b"words", **label: str) -> bool:
    """Have the job leave these bytes, and commit."""
    file, wanted = stored(session, store, content), job_artifacts.labelled(**label)
    kept = job_artifacts.keep(session, job, wanted, file, at=now(), usual=timedelta(days=30))
    session.commit()
    return kept


def left_by(session: Session, job: Job, content: bytes = b"words") -> JobArtifact:
    """An archive that the job, however it stands, has left in the store of the app under test."""
    file = stored(session, ArtifactStore(settings(databases.DATA_DIR)), content)
    artifact = JobArtifact(
        job_id=job.id,
        file_type="archive",
        file_format="zip",
        filename="artifacts.zip",
        size=file.size,
        sha256=file.sha256,
        key=file.key,
    )
    session.add(artifact)
    session.flush()
    return artifact


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


class S3Server:
    """An S3-compatible server in a process of its own, with one bucket. Start with `with`."""

    BUCKET = "artifacts"

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a portal that keeps its artifacts there."""
        return {
            "PORTAL_ARTIFACTS": f"s3://{self.BUCKET}/of/the-portal",
            "PORTAL_ARTIFACTS_S3_ENDPOINT": self.url,
            "PORTAL_ARTIFACTS_S3_KEY": "a-key",
            "PORTAL_ARTIFACTS_S3_SECRET": "a-secret-of-tests",
        }

    def __enter__(self) -> S3Server:
        with tempfile.TemporaryFile() as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)], stdout=log, stderr=log
            )
        self._wait()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{self.BUCKET}", method="PUT"), timeout=10).close()
        return self

    def _wait(self) -> None:
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(self.url, timeout=5):
                return
            time.sleep(0.1)
        raise AssertionError("the S3-compatible server did not start")

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(timeout=30)
