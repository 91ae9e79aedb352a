"""Checks of a runner: who may start one, how far it has come, and what keeps it from going on."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.deletions import deletion_purge, restores
from portal.domain.errors import Invalid, KeyReused, NotAllowed, NotFound
from portal.domain.jobs import check_progress, job_checks, job_lists, jobs
from portal.domain.jobs.check_progress import Progress, Step
from portal.domain.runners import runner_tokens, runners
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import Job, Runner, RunnerManager
from tests.api.machines import Machine, through
from tests.cast import JOB_VAULT, Cast

EVERYTHING = RunnerSettings(description="Takes all", run_untagged=True)


@pytest.fixture
def session(session_beside: Session) -> Session:
    return session_beside


def check(cast: Cast, runner: Runner, manager: RunnerManager | None = None) -> Job:
    job = cast.check(runner, manager)
    cast.session.expire_all()
    return job


def stands(session: Session, job: Job) -> Progress:
    session.expire_all()
    assert job.checks_runner is not None
    return check_progress.of(session, job, job.checks_runner, now())


def machine_of(client: FlaskClient, token: str, system_id: str = "s_one") -> Machine:
    return Machine(through(client), token, system_id)


def manager(session: Session, system_id: str) -> RunnerManager:
    return session.scalars(select(RunnerManager).where(RunnerManager.system_xid == system_id)).one()


def test_the_same_form_sent_twice_starts_one_check(cast: Cast, session: Session) -> None:
    runner, key, alice = cast.runner().runner, uuid4(), cast.as_(cast.alice)
    first = job_checks.check(session, alice, runner, JOB_VAULT, request_key=key)
    assert job_checks.check(session, alice, runner, JOB_VAULT, request_key=key).id == first.id
    assert job_checks.check(session, alice, runner, JOB_VAULT, request_key=uuid4()).id != first.id


def test_a_key_that_started_a_check_starts_none_of_another_runner(cast: Cast, session: Session) -> None:
    key, alice = uuid4(), cast.as_(cast.alice)
    job_checks.check(session, alice, cast.runner().runner, JOB_VAULT, request_key=key)
    with pytest.raises(KeyReused):
        job_checks.check(session, alice, cast.runner().runner, JOB_VAULT, request_key=key)


def test_a_key_is_worth_nothing_to_who_may_not_check(cast: Cast, session: Session) -> None:
    runner, key = cast.runner().runner, uuid4()
    job_checks.check(session, cast.as_(cast.alice), runner, JOB_VAULT, request_key=key)
    with pytest.raises(NotAllowed):
        job_checks.check(session, cast.as_(cast.erin), runner, JOB_VAULT, request_key=key)
    with pytest.raises(NotFound):
        job_checks.check(session, cast.as_(cast.charlie), runner, JOB_VAULT, request_key=key)


def test_checks_that_wait_are_bounded(cast: Cast, session: Session) -> None:
    runner, alice = cast.runner().runner, cast.as_(cast.alice)
    for _ in range(job_checks.MOST_PENDING_CHECKS):
        last = job_checks.check(session, alice, runner, JOB_VAULT)
    with pytest.raises(Invalid, match="wait already"):
        job_checks.check(session, alice, runner, JOB_VAULT)
    jobs.cancel(session, alice, last)
    job_checks.check(session, alice, runner, JOB_VAULT)


def test_a_check_of_a_runner_without_a_machine_says_so(cast: Cast, session: Session) -> None:
    assert stands(session, check(cast, cast.runner().runner)).step is Step.NO_MACHINE


def test_a_check_waits_for_a_machine_that_polls(cast: Cast, session: Session, client: FlaskClient) -> None:
    issued = cast.runner()
    machine_of(client, issued.token).poll()
    found = stands(session, check(cast, issued.runner))
    assert (found.step, found.busy) == (Step.WAITING, 0)
    assert found.contacted_at is not None


def test_it_tells_of_jobs_that_keep_the_runner_busy(cast: Cast, session: Session, client: FlaskClient) -> None:
    issued = cast.runner(settings=EVERYTHING)
    cast.job()
    machine_of(client, issued.token).ask_for_job()
    assert stands(session, check(cast, issued.runner)).busy == 1


def test_a_machine_that_is_silent_for_a_minute_is_said_to_stand(
    cast: Cast, session: Session, client: FlaskClient
) -> None:
    issued = cast.runner()
    machine_of(client, issued.token).poll()
    job = check(cast, issued.runner)
    issued.runner.contacted_at = now() - timedelta(minutes=2)
    session.commit()
    assert stands(session, job).step is Step.SILENT


def test_a_runner_paused_meanwhile_keeps_its_check_waiting(cast: Cast, session: Session) -> None:
    issued = cast.runner()
    job = check(cast, issued.runner)
    runners.set_paused(session, cast.as_(cast.alice), issued.runner, True)
    session.commit()
    assert stands(session, job).step is Step.PAUSED


def test_a_check_of_a_machine_looks_at_that_machine_alone(cast: Cast, session: Session, client: FlaskClient) -> None:
    issued = cast.runner()
    for name in ("s_one", "s_two"):
        machine_of(client, issued.token, name).poll()
    job = check(cast, issued.runner, manager(session, "s_two"))
    assert (stands(session, job).step, stands(session, job).machine) == (Step.WAITING, "s_two")
    manager(session, "s_two").contacted_at = now() - timedelta(hours=1)
    session.commit()
    assert stands(session, job).step is Step.SILENT
    session.delete(manager(session, "s_two"))
    session.commit()
    assert stands(session, job).step is Step.FORGOTTEN


def test_machines_whose_tokens_have_ended_are_said_to_be_refused(
    cast: Cast, session: Session, client: FlaskClient
) -> None:
    issued = cast.runner()
    machine_of(client, issued.token).poll()
    job = check(cast, issued.runner)
    runner_tokens.reset_token(session, cast.as_(cast.alice), issued.runner, seen_token_id=None)
    session.commit()
    assert stands(session, job).step is Step.REFUSED


def test_a_check_runs_and_succeeds_on_a_machine(cast: Cast, session: Session, client: FlaskClient) -> None:
    issued = cast.runner()
    job = check(cast, issued.runner)
    given = machine_of(client, issued.token).ask_for_job()
    running = stands(session, job)
    assert (running.step, running.machine) == (Step.RUNNING, "s_one")
    given.finish()
    done = stands(session, job)
    assert (done.step, done.machine) == (Step.SUCCESS, "s_one")
    assert done.seconds is not None


def test_a_deleted_runner_gets_no_check_and_a_restored_one_does(
    cast: Cast, session: Session, client: FlaskClient
) -> None:
    issued = cast.runner()
    job = check(cast, issued.runner)
    deletion_id = runners.delete_runner(session, cast.as_(cast.alice), issued.runner).id
    session.commit()
    machine = machine_of(client, issued.token)
    assert machine.poll().status == 403
    restores.restore(session, cast.as_(cast.alice), deletion_id, timedelta(days=7))
    session.commit()
    assert machine.ask_for_job().id == job.id


def test_a_running_check_of_a_deleted_runner_may_end(cast: Cast, session: Session, client: FlaskClient) -> None:
    issued = cast.runner()
    job = check(cast, issued.runner)
    given = machine_of(client, issued.token).ask_for_job()
    runners.delete_runner(session, cast.as_(cast.alice), issued.runner)
    session.commit()
    assert given.write(b"still here\n").status == 202
    assert given.finish(b"still here\n").status == 200
    session.expire_all()
    assert session.get_one(Job, job.id).status == "success"


def test_checks_go_with_a_runner_that_is_deleted_for_good(cast: Cast, session: Session) -> None:
    runner = cast.runner().runner
    job_id = check(cast, runner).id
    deletion_id = runners.delete_runner(session, cast.as_(cast.alice), runner).id
    session.commit()
    deletion_purge.end(session, cast.as_(cast.alice), deletion_id, timedelta(days=7))
    session.commit()
    assert session.get(Job, job_id) is None


def test_jobs_that_run_on_a_runner_are_counted_whosever_they_are(
    cast: Cast, session: Session, client: FlaskClient
) -> None:
    issued = cast.runner(settings=EVERYTHING)
    cast.job(), cast.job()
    machine = machine_of(client, issued.token)
    machine.ask_for_job().finish()
    assert job_lists.running_on(session, issued.runner) == 0
    machine.ask_for_job()
    assert job_lists.running_on(session, issued.runner) == 1


def test_a_list_says_when_it_leaves_jobs_out(cast: Cast, session: Session, client: FlaskClient) -> None:
    issued = cast.runner(settings=EVERYTHING)
    shop = cast.project("shop", cast.acme)
    cast.job(cast.web)
    machine_of(client, issued.token).ask_for_job()
    assert not job_lists.leaves_out(session, cast.as_(cast.bob), issued.runner)
    cast.job(shop)
    machine_of(client, issued.token).ask_for_job()
    assert job_lists.leaves_out(session, cast.as_(cast.bob), issued.runner)
    assert not job_lists.leaves_out(session, cast.as_(cast.alice), issued.runner)
    assert not job_lists.leaves_out(session, cast.as_(cast.dana), issued.runner)
