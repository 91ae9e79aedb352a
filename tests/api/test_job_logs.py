"""Logs as machines send them: `PATCH /jobs/:id/trace`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.jobs import job_logs, jobs, log_watches
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import Job, JobLog
from tests.api.machines import Answer, Machine, through
from tests.api.machines import Job as MachineJob
from tests.cast import Cast

EVERYTHING = RunnerSettings(description="Takes all", tags=("docker", "linux"), run_untagged=True)


@pytest.fixture
def machine(client: FlaskClient, cast: Cast) -> Machine:
    return Machine(through(client), cast.runner(settings=EVERYTHING).token)


@pytest.fixture
def job(cast: Cast, machine: Machine) -> MachineJob:
    """A job that the machine has."""
    cast.job()
    return machine.ask_for_job()


def stored(session: Session, job: MachineJob) -> bytes:
    return b"".join(job_logs.pieces(session, job_logs.extent(session, job.id)))


def patch(job: MachineJob, data: bytes, **headers: str) -> Answer:
    sent = {"Content-Type": "text/plain", "JOB-TOKEN": job.token}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return job.machine.way("PATCH", f"/api/v4/jobs/{job.id}/trace", data, sent)


def test_pieces_are_taken_one_after_the_other(job: MachineJob, session: Session) -> None:
    first = job.write(b"hello\n")
    assert (first.status, first.headers["Range"], first.headers["Job-Status"]) == (202, "0-6", "running")
    assert job.write(b"world\n", 6).headers["Range"] == "0-12"
    assert stored(session, job) == b"hello\nworld\n"


@pytest.mark.parametrize("said", ["0-5", "0-6", "0-", "0-999", "bytes 0-5/6", "bytes=0-5"])
def test_where_a_piece_says_it_ends_counts_for_nothing(said: str, job: MachineJob, session: Session) -> None:
    assert patch(job, b"hello\n", Content_Range=said).status == 202
    assert stored(session, job) == b"hello\n"


@pytest.mark.parametrize("start", [0, 3, 9])
def test_a_piece_that_belongs_elsewhere_hears_where_the_log_goes_on(
    start: int, job: MachineJob, session: Session
) -> None:
    job.write(b"hello\n")
    told = job.write(b"world\n", start)
    assert told.status == 416
    assert told.headers["Range"] == "0-6"
    assert told.headers["Job-Status"] == "running"
    assert told.json == {"message": "416 Range Not Satisfiable"}
    assert stored(session, job) == b"hello\n"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (None, "400 Bad Request - Missing header Content-Range"),
        ("", "400 Bad Request - Missing header Content-Range"),
        ("all", "400 Bad Request - Content-Range must be"),
        ("-5", "400 Bad Request - Content-Range must be"),
        ("5", "400 Bad Request - Content-Range must be"),
        ("9999999999999999999-1", "400 Bad Request - Content-Range must be"),
    ],
)
def test_a_piece_must_say_where_it_begins(said: str | None, message: str, job: MachineJob, session: Session) -> None:
    told = patch(job, b"hello\n", **({} if said is None else {"Content_Range": said}))
    assert told.status == 400
    assert told.json["message"].startswith(message)
    assert stored(session, job) == b""


def test_what_is_no_text_is_kept_as_it_is(job: MachineJob, session: Session) -> None:
    data = bytes(range(256)) * 10
    assert job.write(data).status == 202
    assert stored(session, job) == data


def test_nobody_else_writes_into_a_log(job: MachineJob, machine: Machine, cast: Cast, session: Session) -> None:
    cast.job()
    other = machine.ask_for_job()
    for token in (other.token, machine.token, "", "glcbt-nobody", cast.access_token(cast.dana)):
        told = patch(job, b"hello\n", Content_Range="0-5", JOB_TOKEN=token)
        assert told.status == 403, token
        assert "Job-Status" not in told.headers
    assert stored(session, job) == b""
    assert other.write(b"mine\n").status == 202


def test_a_job_that_is_over_takes_no_more(job: MachineJob, session: Session) -> None:
    job.write(b"hello\n")
    job.finish(b"hello\n")
    told = job.write(b"more\n", 6)
    assert (told.status, told.headers["Job-Status"]) == (403, "success")
    assert stored(session, job) == b"hello\n"


def test_a_canceled_job_takes_no_more_and_its_machine_hears_so(job: MachineJob, cast: Cast, session: Session) -> None:
    jobs.cancel(session, cast.as_(cast.dana), session.get_one(Job, job.id), force=True)
    session.commit()
    told = job.write(b"more\n")
    assert (told.status, told.headers["Job-Status"]) == (403, "canceled")
    assert stored(session, job) == b""


def test_a_log_that_is_too_long_ends_the_job(job: MachineJob, app: Flask, session: Session) -> None:
    settings = app.config["PORTAL"]
    app.config["PORTAL"] = replace(settings, job_log_limit=10)
    try:
        assert job.write(b"1234567890").status == 202
        told = job.write(b"1", 10)
    finally:
        app.config["PORTAL"] = settings
    assert (told.status, told.headers["Job-Status"]) == (403, "failed")
    assert "longer than the 10 bytes" in told.json["message"]
    found = session.get_one(Job, job.id)
    assert (found.status, found.failure_reason) == ("failed", "trace_size_exceeded")
    assert stored(session, job) == b"1234567890"


def test_a_log_that_arrived_otherwise_is_sent_once_more(job: MachineJob, session: Session) -> None:
    job.write(b"hellO\n")
    assert job.finish(b"hello\n").status == 412
    told = job.write(b"o\n", 4)
    assert (told.status, told.headers["Range"]) == (416, "0-0")
    assert job.write(b"hello\n").status == 202
    assert job.finish(b"hello\n").status == 200
    assert stored(session, job) == b"hello\n"


def test_a_machine_sends_sooner_while_somebody_watches(job: MachineJob, session: Session) -> None:
    assert job.write(b"a").headers["X-GitLab-Trace-Update-Interval"] == "30"
    log_watches.write(session, {job.id: now()})
    session.commit()
    assert job.write(b"b", 1).headers["X-GitLab-Trace-Update-Interval"] == "3"
    assert job.write(b"b", 1).headers["X-GitLab-Trace-Update-Interval"] == "3"  # 416


def test_each_piece_is_a_sign_of_life(job: MachineJob, session: Session) -> None:
    for start, expected in ((0, 202), (0, 416)):
        before = now()
        assert job.write(b"a", start).status == expected
        session.expire_all()
        heard = session.get_one(JobLog, job.id).heard_at
        assert heard is not None
        assert heard >= before
    assert session.get_one(Job, job.id).acknowledged_at is not None
