"""Who looks at a log makes its machine send sooner: a page remembers that, and the database hears of it later."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.jobs import job_logs, log_watches
from portal.domain.jobs.log_watches import LogWatches
from portal.models import Job, JobLog
from tests.api.processes import Process
from tests.cast import Cast


@pytest.fixture
def job(cast: Cast, session: Session) -> Job:
    job = cast.job()
    job_logs.append(session, job.id, 0, b"a", limit=100)
    return job


def test_what_was_noted_is_taken_once() -> None:
    watches, moment = LogWatches(), now()
    watches.note(1, moment - timedelta(seconds=2))
    watches.note(1, moment)
    watches.note(2, moment)
    assert watches.take() == {1: moment, 2: moment}
    assert watches.take() == {}


def test_a_machine_is_asked_to_send_sooner_while_somebody_watches(session: Session, job: Job) -> None:
    assert job_logs.update_interval(session, job.id) == 30
    log_watches.write(session, {job.id: now()})
    assert job_logs.update_interval(session, job.id) == 3
    assert job_logs.append(session, job.id, 1, b"b", limit=100).interval == 3
    session.get_one(JobLog, job.id).watched_at = now() - timedelta(seconds=61)
    session.flush()
    assert job_logs.update_interval(session, job.id) == 30


def test_a_log_that_is_watched_all_the_time_is_written_now_and_then(session: Session, job: Job) -> None:
    first = now()
    log_watches.write(session, {job.id: first})
    log_watches.write(session, {job.id: first + timedelta(seconds=5)})
    session.expire_all()
    assert session.get_one(JobLog, job.id).watched_at == first
    log_watches.write(session, {job.id: first + timedelta(seconds=11)})
    session.expire_all()
    assert session.get_one(JobLog, job.id).watched_at == first + timedelta(seconds=11)


def test_a_job_that_has_no_log_yet_is_no_trouble(session: Session, cast: Cast) -> None:
    log_watches.write(session, {cast.job().id: now(), 10**12: now()})
    log_watches.write(session, {})


def test_a_server_process_writes_what_its_pages_have_noted(process: Process) -> None:
    with process.session() as session:
        job_id = Cast(session).job().id
        job_logs.append(session, job_id, 0, b"a", limit=100)
        session.commit()
    process.app.extensions["log_watches"].note(job_id, now())
    process.background.write_log_watches()
    with process.session() as session:
        assert job_logs.update_interval(session, job_id) == 3


def test_a_log_that_a_machine_writes_to_at_this_moment_keeps_nobody_waiting(process: Process) -> None:
    with process.session() as session:
        job_id = Cast(session).job().id
        job_logs.append(session, job_id, 0, b"a", limit=100)
        session.commit()
    with process.session() as machine:
        job_logs.append(machine, job_id, 1, b"b", limit=100)
        process.app.extensions["log_watches"].note(job_id, now())
        process.background.write_log_watches()
        machine.commit()
