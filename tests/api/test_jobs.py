"""Jobs as machines take them and report on them: `POST /jobs/request`, `PUT /jobs/:id`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import tokens
from portal.domain.jobs import job_reports, jobs
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import Job, JobLog, JobMachine, JobStatus, PendingJob, RunnerManager
from tests.api.machines import VERSIONS, Machine, info_of, through
from tests.cast import Cast

EVERYTHING = RunnerSettings(description="Takes all", tags=("docker", "linux"), run_untagged=True)


@pytest.fixture
def machine(client: FlaskClient, cast: Cast) -> Machine:
    """A machine of a runner of acme that takes untagged jobs too."""
    return Machine(through(client), cast.runner(settings=EVERYTHING).token)


def again(session: Session, job: Job) -> Job:
    session.expire_all()
    return session.get_one(Job, job.id)


def test_a_waiting_job_is_handed_out_once(cast: Cast, machine: Machine, session: Session) -> None:
    job = cast.job(script=("echo hello", "true"))
    given = machine.ask_for_job()
    assert given.id == job.id
    assert given.token.startswith("glcbt-")
    assert given.payload["steps"][0]["script"] == ["echo hello", "true"]
    assert machine.poll().status == 204
    assert again(session, job).state is JobStatus.RUNNING
    assert job.token_digest == tokens.digest(given.token)
    assert session.scalars(select(PendingJob)).all() == []


def test_the_job_knows_which_machine_has_it(cast: Cast, machine: Machine, session: Session) -> None:
    job = cast.job()
    machine.ask_for_job(system_id="r_thisonehasit")
    found = session.scalars(select(JobMachine)).one()
    assert (found.job_id, found.system_xid) == (job.id, "r_thisonehasit")
    assert session.get_one(RunnerManager, found.runner_machine_id).system_xid == "r_thisonehasit"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_job_runs_to_success_with_every_version(
    version: str, cast: Cast, machine: Machine, session: Session
) -> None:
    job = cast.job()
    machine.info = info_of(version)
    given = machine.ask_for_job()
    assert given.report("running").status == 200
    assert given.write(b"hello\n").status == 202
    done = given.finish(b"hello\n")
    assert (done.status, done.body, done.headers["Job-Status"]) == (200, b"200", "success")
    assert again(session, job).state is JobStatus.SUCCESS
    assert job.finished_at is not None


def test_a_failed_job_keeps_why_and_its_exit_code(cast: Cast, machine: Machine, session: Session) -> None:
    job = cast.job()
    given = machine.ask_for_job()
    assert given.finish(state="failed", failure_reason="script_failure", exit_code=7).status == 200
    assert again(session, job).state is JobStatus.FAILED
    assert (job.failure_reason, job.exit_code) == ("script_failure", 7)


def test_a_failed_job_runs_again_while_it_has_retries(cast: Cast, machine: Machine, session: Session) -> None:
    first = cast.job(retry=1)
    machine.ask_for_job().finish(state="failed", failure_reason="script_failure")
    second = machine.ask_for_job()
    assert session.get_one(Job, second.id).retry_of_id == first.id
    second.finish(state="failed", failure_reason="script_failure")
    assert machine.poll().status == 204
    assert again(session, first).retried


def test_the_last_report_sent_twice_changes_nothing(cast: Cast, machine: Machine) -> None:
    cast.job()
    given = machine.ask_for_job()
    assert [given.finish().status for _ in range(2)] == [200, 200]


def test_a_job_that_is_over_takes_no_other_end(cast: Cast, machine: Machine) -> None:
    cast.job()
    given = machine.ask_for_job()
    given.finish()
    late = given.finish(state="failed")
    assert (late.status, late.headers["Job-Status"]) == (403, "success")


def test_a_job_token_is_good_for_its_own_job_only(cast: Cast, machine: Machine) -> None:
    cast.job(), cast.job()
    one, two = machine.ask_for_job(), machine.ask_for_job()
    foreign = replace(one, payload={**two.payload, "token": one.token})
    assert foreign.report("running").status == 403
    assert foreign.write(b"x").status == 403
    assert replace(one, payload={**one.payload, "token": machine.token}).report("running").status == 403


def test_a_log_that_arrived_damaged_is_asked_for_once_more(cast: Cast, machine: Machine, session: Session) -> None:
    job = cast.job()
    given = machine.ask_for_job()
    given.write(b"hellO\n")
    assert given.finish(b"hello\n").status == 412
    assert given.write(b"hello\n").status == 202
    assert given.finish(b"hello\n").status == 200
    assert session.get_one(JobLog, job.id).size == 6


def test_a_checksum_that_never_fits_does_not_keep_the_job_from_ending(
    cast: Cast, machine: Machine, session: Session
) -> None:
    job = cast.job()
    given = machine.ask_for_job()
    answers = []
    for _ in range(3):
        given.write(b"hellO\n")
        answers.append(given.finish(b"hello\n").status)
    assert answers == [412, 412, 200]
    assert again(session, job).state is JobStatus.SUCCESS


def test_a_job_of_somebody_who_was_blocked_since_is_not_run(cast: Cast, machine: Machine, session: Session) -> None:
    job = cast.job(retry=2)
    cast.dana.blocked_at = now()
    session.commit()
    assert machine.poll().status == 204
    assert again(session, job).failure_reason == "user_blocked"
    assert not job.retried


def test_a_request_sent_again_gets_the_same_job(cast: Cast, machine: Machine) -> None:
    cast.job(), cast.job()
    machine.headers = {"X-Request-Id": "a" * 32}
    first, second = machine.ask_for_job(), machine.ask_for_job()
    assert first.id == second.id
    assert first.report("running").status == 403  # only the answer that was read last is good
    assert second.report("running").status == 200
    assert machine.ask_for_job().id != first.id  # the machine has it for sure: this is a new request


def test_another_machine_with_the_same_request_id_gets_another_job(cast: Cast, machine: Machine) -> None:
    cast.job(), cast.job()
    machine.headers = {"X-Request-Id": "a" * 32}
    assert machine.ask_for_job(system_id="r_one").id != machine.ask_for_job(system_id="r_two").id


def test_a_canceled_job_stops_its_machine(cast: Cast, machine: Machine, session: Session) -> None:
    machine.info = info_of("13.12.0")
    job = cast.job()
    given = machine.ask_for_job()
    given.report("running")
    jobs.cancel(session, cast.as_(cast.dana), job)
    session.commit()
    told = given.write(b"still here\n")
    assert (told.status, told.headers["Job-Status"]) == (403, "canceled")


def test_a_newer_machine_may_run_the_after_script_of_a_canceled_job(
    cast: Cast, machine: Machine, session: Session
) -> None:
    job = cast.job()
    given = machine.ask_for_job()
    given.report("running")
    jobs.cancel(session, cast.as_(cast.dana), job)
    session.commit()
    told = given.report("running")
    assert (told.status, told.headers["Job-Status"]) == (200, "canceling")
    assert given.write(b"cleaning up\n").status == 202
    assert given.finish(b"cleaning up\n", "failed").headers["Job-Status"] == "canceled"
    assert again(session, job).state is JobStatus.CANCELED


def test_a_check_is_taken_by_its_runner_and_no_other(
    cast: Cast, machine: Machine, client: FlaskClient, session: Session
) -> None:
    checked = cast.runner()  # takes tagged jobs only, and the check has no tags
    job = cast.check(checked.runner)
    assert machine.poll().status == 204
    given = Machine(through(client), checked.token).ask_for_job()
    assert given.id == job.id
    assert given.variables["GIT_STRATEGY"] == "none"


def test_a_check_of_one_machine_is_left_alone_by_the_others(
    cast: Cast, machine: Machine, client: FlaskClient, session: Session
) -> None:
    checked = cast.runner()
    one, two = (Machine(through(client), checked.token, name) for name in ("r_one", "r_two"))
    one.poll(), two.poll()
    manager = session.scalars(select(RunnerManager).where(RunnerManager.system_xid == "r_two")).one()
    job = cast.check(checked.runner, manager)
    assert one.poll().status == 204
    assert two.ask_for_job().id == job.id


def test_projects_take_turns_on_an_instance_runner(cast: Cast, client: FlaskClient) -> None:
    from portal.domain import scopes

    shared = Machine(through(client), cast.runner(scopes.INSTANCE, EVERYTHING).token)
    shop = cast.project("shop", cast.acme)
    mine = [cast.job(name=f"web {number}").id for number in range(4)]
    theirs = [cast.job(shop, name=f"shop {number}").id for number in range(2)]
    assert [shared.ask_for_job().id for _ in range(6)] == [
        mine[0], theirs[0], mine[1], theirs[1], mine[2], mine[3]
    ]  # fmt: skip


def test_a_job_nobody_spoke_of_is_taken_back_and_its_token_is_worth_nothing(
    cast: Cast, machine: Machine, session: Session
) -> None:
    job = cast.job()
    lost = machine.ask_for_job()
    job_reports.take_back(session, job)
    session.commit()
    assert lost.report("running").status == 403
    assert machine.ask_for_job().id == job.id


@pytest.mark.parametrize("code", [3221225477, -1073741819, 10**17, -(10**17)])
def test_a_job_ends_whatever_its_exit_code(code: int, cast: Cast, machine: Machine, session: Session) -> None:
    """On Windows a program that crashed ends with 0xC0000005."""
    job = cast.job()
    assert machine.ask_for_job().finish(state="failed", exit_code=code).status == 200
    assert again(session, job).exit_code == -1073741819 if abs(code) < 10**10 else job.exit_code is None
