"""Uploads as runners send them, chunked and without a length, to a portal that really runs."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from portal.models import JobArtifact
from tests.api.machines import until
from tests.artifacts import S3Server, files_in, running_job
from tests.cast import Cast
from tests.portals import RunningPortal

MIB = 1024 * 1024
HEAD = (
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="artifacts.zip"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n"
)
TAIL = b"\r\n--B--\r\n"


class Stage:
    """A portal that runs, its database, and a job in it that runs as well."""

    def __init__(self, portal: RunningPortal, database_url: str) -> None:
        self.portal = portal
        self.engine = create_engine(database_url)
        with self.session() as session:
            job, self.token = running_job(session, Cast(session))
            self.job_id = job.id

    @contextmanager
    def session(self) -> Iterator[Session]:
        with Session(self.engine) as session:
            yield session

    def kept(self) -> list[int]:
        """The sizes of what is noted."""
        with self.session() as session:
            return list(session.scalars(select(JobArtifact.size).order_by(JobArtifact.id)))

    @property
    def files(self) -> list[Path]:
        return files_in(self.portal.data)

    @property
    def memory(self) -> int:
        """What all processes of the portal hold, in bytes."""
        assert self.portal.process is not None
        parent = psutil.Process(self.portal.process.pid)
        workers = [each for each in parent.children(recursive=True) if "python" in each.name()]
        return sum(each.memory_info().rss for each in [parent, *workers])


@pytest.fixture
def stage(own_database: str) -> Iterator[Stage]:
    with RunningPortal(own_database) as portal:
        stage = Stage(portal, own_database)
        yield stage
        stage.engine.dispose()


class Upload:
    """One upload in chunks, as far as the test lets it come."""

    def __init__(self, stage: Stage, kind: str = "archive") -> None:
        self.socket = socket.create_connection(("127.0.0.1", stage.portal.port), timeout=60)
        self.socket.sendall(
            f"POST /api/v4/jobs/{stage.job_id}/artifacts?artifact_type={kind}&expire_in=1+week HTTP/1.1\r\n"
            f"Host: portal\r\nJOB-TOKEN: {stage.token}\r\nTransfer-Encoding: chunked\r\n"
            "Content-Type: multipart/form-data; boundary=B\r\n\r\n".encode()
        )
        self.send(HEAD)

    def send(self, data: bytes) -> None:
        self.socket.sendall(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self) -> int:
        """End as it should be. Returns the status."""
        self.send(TAIL)
        self.socket.sendall(b"0\r\n\r\n")
        return self.status()

    def status(self) -> int:
        answer = http.client.HTTPResponse(self.socket)
        answer.begin()
        answer.read()
        self.socket.close()
        return answer.status


def test_a_chunked_upload_without_a_length_is_taken(stage: Stage) -> None:
    upload = Upload(stage)
    for _ in range(8):
        upload.send(b"x" * MIB)
    assert upload.end() == 201
    assert stage.kept() == [8 * MIB]
    [file] = stage.files
    assert file.stat().st_size == 8 * MIB


def test_a_slow_upload_is_waited_for_and_others_are_answered_meanwhile(stage: Stage) -> None:
    uploads = [Upload(stage, kind) for kind in ("archive", "junit", "metadata")]
    for _ in range(4):
        for upload in uploads:
            upload.send(b"slow")
        time.sleep(0.3)
        with urllib.request.urlopen(f"{stage.portal.url}/readyz", timeout=5) as answer:
            assert answer.status == 200
    one_too_many = Upload(stage, "sast")
    assert one_too_many.status() == 503  # a runner sends it again
    assert [upload.end() for upload in uploads] == [201, 201, 201]
    assert stage.kept() == [16, 16, 16]


def test_one_that_is_cut_in_the_middle_leaves_nothing_and_can_be_sent_again(stage: Stage) -> None:
    upload = Upload(stage)
    upload.send(b"x" * MIB)
    upload.socket.close()
    until(lambda: f"/jobs/{stage.job_id}/artifacts" in stage.portal.output)  # it was noticed
    assert stage.kept() == []
    assert stage.files == []
    assert Upload(stage).end() == 201


def test_one_that_ends_without_its_end_is_not_taken_for_whole(stage: Stage) -> None:
    upload = Upload(stage)
    upload.send(b"x" * MIB)
    upload.socket.sendall(b"0\r\n\r\n")
    assert upload.status() == 400
    assert stage.kept() == []


def test_200_mib_are_refused_and_fill_no_memory(stage: Stage) -> None:
    Upload(stage, "junit").end()
    before = stage.memory
    upload, most = Upload(stage), [0]
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            most[0] = max(most[0], stage.memory)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(200):
            upload.send(b"x" * MIB)
    finally:
        over.set()
        looking.join()
    assert upload.status() == 413
    assert most[0] - before < 32 * MIB
    assert stage.kept() == [0]


def test_a_portal_that_is_killed_in_the_middle_leaves_no_half_file(own_database: str) -> None:
    with RunningPortal(own_database) as portal:
        stage = Stage(portal, own_database)
        upload = Upload(stage)
        upload.send(b"x" * MIB)
        time.sleep(0.3)
        portal.kill()
        upload.socket.close()
        assert stage.files == []
        portal.start()
        again = Upload(stage)
        again.send(b"x" * MIB)
        assert again.end() == 201
        assert stage.kept() == [MIB]
        stage.engine.dispose()


def test_artifacts_lie_in_an_s3_compatible_store_where_the_settings_say_so(own_database: str) -> None:
    with S3Server() as s3, RunningPortal(own_database, **s3.environment) as portal:
        stage = Stage(portal, own_database)
        upload = Upload(stage)
        for _ in range(20):
            upload.send(b"x" * MIB)
        assert upload.end() == 201
        assert stage.files == []
        wanted = urllib.request.Request(
            f"{portal.url}/api/v4/jobs/{stage.job_id}/artifacts", headers={"JOB-TOKEN": stage.token}
        )
        with urllib.request.urlopen(wanted, timeout=60) as answer:
            assert answer.read() == b"x" * 20 * MIB
        s3.stop()
        assert Upload(stage, "junit").end() == 503
        assert stage.kept() == [20 * MIB]
        stage.engine.dispose()


@pytest.mark.parametrize("why", ["too large", "no token of the job"])
def test_who_is_refused_in_the_middle_of_talking_reads_why(stage: Stage, why: str) -> None:
    if why != "too large":
        stage.token = "glcbt-nobody"
    upload = Upload(stage)
    for _ in range(120):
        upload.send(b"x" * MIB)  # a connection that was closed would raise here
    assert upload.status() == (413 if why == "too large" else 403)
