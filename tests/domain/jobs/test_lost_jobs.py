"""Lost jobs are given up in time, and not before: nobody spoke of them, or went on to, or they run too long."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.errors import JobRefused
from portal.domain.jobs import job_reports, jobs, lost_jobs
from portal.domain.jobs.lost_jobs import Attention, Look, Loss, Patience
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import Job, JobLog, JobStatus, PendingJob
from tests.api.machines import Job as MachineJob
from tests.api.machines import Machine, info_of, through
from tests.cast import Cast
from tests.domain.clock import let_pass

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
PATIENCE = Patience(unspoken=2 * MINUTE, silent=10 * MINUTE)
ACKNOWLEDGES, DOES_NOT = "18.6.6", "17.11.4"


@pytest.fixture
def session(session_beside: Session) -> Session:
    """The machines' requests close the app's own."""
    return session_beside


@pytest.fixture
def machine(client: FlaskClient, cast: Cast) -> Machine:
    return Machine(through(client), cast.runner(settings=RunnerSettings(run_untagged=True)).token)


def handed_out(cast: Cast, machine: Machine, version: str = ACKNOWLEDGES, **asked: Any) -> MachineJob:
    """A job that the machine with this version of gitlab-runner has just got."""
    cast.job(**asked)
    machine.info = info_of(version)
    return machine.ask_for_job()


def look(session: Session, *, listening: timedelta = timedelta(days=1)) -> dict[int, Loss | None]:
    """Give up what is lost, as a process does that has been listening for so long. Returns how each was lost."""
    session.commit()
    seen = Look(now(), now() - listening, PATIENCE)
    found = {job_id: lost_jobs.give_up(session, job_id, seen) for job_id in lost_jobs.find(session, seen)}
    session.commit()
    return found


def state(session: Session, job: MachineJob) -> JobStatus:
    session.expire_all()
    return session.get_one(Job, job.id).state


def waits(session: Session, job: MachineJob) -> bool:
    return session.scalar(select(PendingJob.job_id).where(PendingJob.job_id == job.id).limit(1)) is not None


@pytest.mark.parametrize(("version", "limit"), [(ACKNOWLEDGES, 30 * SECOND), (DOES_NOT, 2 * MINUTE)])
def test_a_job_of_which_its_machine_never_spoke_is_queued_again(
    cast: Cast, machine: Machine, session: Session, version: str, limit: timedelta
) -> None:
    job = handed_out(cast, machine, version)
    let_pass(session, limit - 5 * SECOND)
    assert look(session) == {}
    let_pass(session, 6 * SECOND)
    assert look(session) == {job.id: Loss.UNSPOKEN}
    assert state(session, job) is JobStatus.PENDING
    assert waits(session, job)
    assert job.report("running").status == 403
    assert machine.ask_for_job().id == job.id


def test_a_job_that_is_lost_again_and_again_fails(cast: Cast, machine: Machine, session: Session) -> None:
    job = handed_out(cast, machine)
    for _ in range(3):
        let_pass(session, MINUTE)
        assert look(session) == {job.id: Loss.UNSPOKEN}
        assert machine.ask_for_job().id == job.id
    let_pass(session, MINUTE)
    assert look(session) == {job.id: Loss.UNSPOKEN}
    assert state(session, job) is JobStatus.FAILED
    assert session.get_one(Job, job.id).failure_reason == "stuck_or_timeout_failure"
    assert machine.poll().status == 204


@pytest.mark.parametrize("version", [ACKNOWLEDGES, DOES_NOT])
def test_a_job_whose_machine_fell_silent_fails(cast: Cast, machine: Machine, session: Session, version: str) -> None:
    job = handed_out(cast, machine, version)
    job.write(b"hello\n")
    let_pass(session, 9 * MINUTE)
    job.report("running")
    let_pass(session, 9 * MINUTE)
    assert look(session) == {}
    let_pass(session, 2 * MINUTE)
    assert look(session) == {job.id: Loss.SILENT}
    assert state(session, job) is JobStatus.FAILED
    assert session.get_one(Job, job.id).failure_reason == "stuck_or_timeout_failure"
    assert job.write(b"late\n", 6).status == 403
    assert session.get_one(JobLog, job.id).size == 6


def test_a_silent_one_runs_again_while_it_has_retries(cast: Cast, machine: Machine, session: Session) -> None:
    job = handed_out(cast, machine, retry=1)
    job.report("running")
    let_pass(session, 11 * MINUTE)
    assert look(session) == {job.id: Loss.SILENT}
    again = machine.ask_for_job()
    assert session.get_one(Job, again.id).retry_of_id == job.id


def test_a_canceling_one_whose_machine_fell_silent_is_canceled(
    cast: Cast, machine: Machine, session: Session
) -> None:
    job = handed_out(cast, machine, retry=1)
    job.report("running")
    jobs.cancel(session, cast.as_(cast.dana), session.get_one(Job, job.id))
    session.commit()
    assert state(session, job) is JobStatus.CANCELING
    let_pass(session, 11 * MINUTE)
    assert look(session) == {job.id: Loss.SILENT}
    assert state(session, job) is JobStatus.CANCELED
    assert machine.poll().status == 204


def test_a_job_that_runs_on_after_its_timeout_fails(cast: Cast, machine: Machine, session: Session) -> None:
    job = handed_out(cast, machine, timeout=60)
    for _ in range(3):
        job.report("running")
        let_pass(session, 5 * MINUTE)
    job.report("running")
    assert look(session) == {}
    let_pass(session, 2 * MINUTE)
    assert look(session) == {job.id: Loss.OVERTIME}
    assert session.get_one(Job, job.id).failure_reason == "job_execution_timeout"


def test_the_timeout_is_the_one_that_the_runner_was_told(cast: Cast, client: FlaskClient, session: Session) -> None:
    settings = RunnerSettings(run_untagged=True, maximum_timeout=600)
    job = handed_out(cast, Machine(through(client), cast.runner(settings=settings).token), timeout=7200)
    assert job.payload["runner_info"]["timeout"] == 600
    for _ in range(6):
        job.report("running")
        let_pass(session, 5 * MINUTE)
    assert look(session) == {job.id: Loss.OVERTIME}


def test_silence_while_nobody_could_hear_does_not_count(cast: Cast, machine: Machine, session: Session) -> None:
    unspoken, silent = handed_out(cast, machine), handed_out(cast, machine)
    silent.report("running")
    let_pass(session, timedelta(hours=2))
    assert look(session, listening=20 * SECOND) == {}
    assert look(session, listening=5 * MINUTE) == {unspoken.id: Loss.UNSPOKEN}
    assert look(session, listening=11 * MINUTE) == {silent.id: Loss.SILENT}


def test_listening_begins_anew_after_a_gap_or_a_failure() -> None:
    attention, begin = Attention(), now()
    assert attention.since(begin) == begin
    assert attention.since(begin + 5 * SECOND) == begin
    late = begin + 2 * MINUTE
    assert attention.since(late) == late
    attention.lapse()
    assert attention.since(late + SECOND) == late + SECOND


def test_who_speaks_between_the_look_and_the_act_keeps_the_job(
    cast: Cast, machine: Machine, session: Session
) -> None:
    job = handed_out(cast, machine)
    let_pass(session, MINUTE)
    seen = Look(now(), now() - MINUTE, PATIENCE)
    assert lost_jobs.find(session, seen) == [job.id]
    assert job.report("running").status == 200
    assert lost_jobs.give_up(session, job.id, seen) is None
    assert state(session, job) is JobStatus.RUNNING


def test_a_machine_that_speaks_just_after_its_job_was_taken_back_is_refused(
    cast: Cast, machine: Machine, session: Session
) -> None:
    """Its token was looked at before, and the job changed under its hands."""
    job = session.get_one(Job, handed_out(cast, machine).id)
    mine = job.token_digest
    take_back = update(Job).where(Job.id == job.id).values(status="pending", token_digest=None)
    session.execute(take_back.execution_options(synchronize_session=False))
    assert job.token_digest == mine  # as the machine's request has read it
    with pytest.raises(JobRefused):
        job_reports.hear(session, job)
    session.expire_all()
    assert job.acknowledged_at is None
