"""gitlab-runner's own uploader and downloader, as its jobs start them, bring files to the portal and fetch them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.models import Job, JobArtifact, JobStatus
from tests import databases
from tests.artifacts import S3Server, running_job
from tests.cast import Cast
from tests.portals import RunningPortal
from tests.real import clients
from tests.real.clients import Home

every_client = clients.each()
LIMIT = 2_000_000


@dataclass
class Work:
    """A portal, and a job in it that runs, with one that needs its artifacts."""

    portal: RunningPortal
    session: Session
    job: Job
    token: str
    dependents_token: str

    def uploader(self, home: Home, *words: str, token: str = "") -> str:
        """Upload what the words name. Returns what the client said."""
        return self._run(home, "artifacts-uploader", *words, token=token or self.token)

    def downloader(self, home: Home, token: str) -> str:
        return self._run(home, "artifacts-downloader", token=token)

    def _run(self, home: Home, command: str, *words: str, token: str) -> str:
        place = ("--url", self.portal.url, "--token", token, "--id", str(self.job.id))
        ran = home.run(command, *place, *words)
        return f"exit {ran.returncode}\n{ran.stdout}"

    def kept(self) -> list[JobArtifact]:
        self.session.rollback()
        its = JobArtifact.job_id == self.job.id
        return list(self.session.scalars(select(JobArtifact).where(its).order_by(JobArtifact.id)))


@pytest.fixture(scope="module", params=["folder", "s3"])
def stage(request: pytest.FixtureRequest, postgres: databases.Server) -> Iterator[tuple[RunningPortal, str]]:
    """One portal for all tests of each kind of store, and its database."""
    with ExitStack() as opened:
        url = opened.enter_context(postgres.copy())
        environment = opened.enter_context(S3Server()).environment if request.param == "s3" else {}
        portal = RunningPortal(url, PORTAL_ARTIFACT_LIMIT=str(LIMIT), **environment)
        yield opened.enter_context(portal), url


@pytest.fixture(scope="module")
def cast(stage: tuple[RunningPortal, str]) -> Iterator[Cast]:
    engine = create_engine(stage[1])
    with Session(engine) as session:
        yield Cast(session)
    engine.dispose()


@pytest.fixture
def work(stage: tuple[RunningPortal, str], cast: Cast) -> Work:
    job, token = running_job(cast.session, cast)
    _, dependents = running_job(cast.session, cast, job, name="deploy")
    return Work(stage[0], cast.session, job, token, dependents)


def some_files(folder: Path, size: int = 1_000_000) -> dict[str, bytes]:
    """Write a few files below `out`. Returns what is in them by name."""
    files = {"out/hello.txt": b"hello\n", "out/deep/er/random.bin": os.urandom(size)}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return files


@every_client
def test_what_one_job_uploads_the_next_one_finds_byte_for_byte(work: Work, home: Home, second_home: Home) -> None:
    files = some_files(home.folder)
    words = ("--path", "out", "--name", "things", "--expire-in", "1 week", "--artifact-type", "archive")
    said = work.uploader(home, *words, "--artifact-format", "zip")
    assert said.startswith("exit 0"), said
    [archive] = work.kept()
    assert (archive.file_type, archive.file_format, archive.filename) == ("archive", "zip", "things.zip")
    assert archive.expires_at is not None
    assert 6.9 < (archive.expires_at - now()).total_seconds() / 86_400 <= 7

    said = work.downloader(second_home, work.dependents_token)
    assert said.startswith("exit 0"), said
    for name, content in files.items():
        assert (second_home.folder / name).read_bytes() == content


@every_client
def test_a_report_is_uploaded_beside_the_archive(work: Work, home: Home) -> None:
    some_files(home.folder)
    for kind, form in (("archive", "zip"), ("junit", "gzip")):
        said = work.uploader(home, "--path", "out/hello.txt", "--artifact-type", kind, "--artifact-format", form)
        assert said.startswith("exit 0"), said
    assert [(each.file_type, each.file_format) for each in work.kept()] == [("archive", "zip"), ("junit", "gzip")]


@every_client
def test_one_that_is_too_large_is_refused_at_once(work: Work, home: Home) -> None:
    some_files(home.folder, size=LIMIT * 2)
    said = work.uploader(home, "--path", "out", "--artifact-type", "archive", "--artifact-format", "zip")
    assert not said.startswith("exit 0"), said
    assert "too large" in said
    assert "Retrying" not in said
    if home.client.number >= (15, 0):
        assert f"larger than the {LIMIT} bytes" in said
    assert work.kept() == []


@every_client
def test_a_job_that_was_canceled_brings_nothing_and_fetches_nothing(work: Work, home: Home) -> None:
    some_files(home.folder)
    work.session.get_one(Job, work.job.id).status = JobStatus.CANCELED
    work.session.commit()
    said = work.uploader(home, "--path", "out", "--artifact-type", "archive", "--artifact-format", "zip")
    assert "403" in said
    assert not said.startswith("exit 0"), said
    assert not work.downloader(home, work.token).startswith("exit 0")
    assert work.kept() == []


@every_client
def test_a_job_that_left_nothing_is_told_so(work: Work, home: Home) -> None:
    said = work.downloader(home, work.dependents_token)
    assert not said.startswith("exit 0"), said
    assert "404" in said or "not found" in said
