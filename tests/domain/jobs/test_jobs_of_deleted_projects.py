"""What deleting a project, or a group above it, means for its jobs; and restoring it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain import scopes
from portal.domain.deletions import deletion_purge, restores
from portal.domain.errors import NotFound
from portal.domain.groups import groups
from portal.domain.jobs import job_checks, job_reports, jobs
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import Scope
from portal.models import WITH_DELETED, Job, JobStatus, PendingJob, Project, ProjectSettings
from tests.api.machines import Machine, through
from tests.cast import JOB_VAULT, SYSTEM, Cast

KEPT = timedelta(days=7)
EVERYTHING = RunnerSettings(description="Takes all", run_untagged=True)


@pytest.fixture
def session(session_beside: Session) -> Session:
    return session_beside


@pytest.fixture
def machine(client: FlaskClient, cast: Cast) -> Machine:
    """A machine of an instance runner, which no project takes with it."""
    return Machine(through(client), cast.runner(scopes.INSTANCE, EVERYTHING).token)


def delete(cast: Cast, scope: Scope) -> int:
    found: int = groups.delete(cast.session, SYSTEM, scope).id
    cast.session.commit()
    return found


def restore(cast: Cast, deletion_id: int) -> None:
    restores.restore(cast.session, cast.as_(cast.dana), deletion_id, KEPT)
    cast.session.commit()


@pytest.mark.parametrize("kind", ["project", "group"])
def test_waiting_jobs_are_handed_to_nobody_until_they_are_restored(kind: str, cast: Cast, machine: Machine) -> None:
    job = cast.job()
    deletion = delete(cast, cast.web if kind == "project" else cast.acme)
    assert machine.poll().status == 204
    restore(cast, deletion)
    assert machine.ask_for_job().id == job.id


def test_a_restored_project_has_its_jobs_in_their_order(cast: Cast, machine: Machine) -> None:
    made = [cast.job(name=f"job {number}").id for number in range(3)]
    restore(cast, delete(cast, cast.web))
    assert [machine.ask_for_job().id for _ in made] == made


def test_a_restored_project_is_found_as_its_switches_say(cast: Cast, session: Session, machine: Machine) -> None:
    cast.job()
    session.add(ProjectSettings(project_id=cast.web.id, shared_runners_enabled=False, group_runners_enabled=True))
    restore(cast, delete(cast, cast.web))
    assert machine.poll().status == 204


def test_a_project_that_was_deleted_before_its_group_stays_so(cast: Cast, machine: Machine) -> None:
    cast.job()
    first, second = delete(cast, cast.web), delete(cast, cast.acme)
    restore(cast, second)
    assert machine.poll().status == 204
    restore(cast, first)
    assert machine.ask_for_job()


def test_other_projects_go_on(cast: Cast, machine: Machine) -> None:
    shop = cast.project("shop", cast.acme)
    cast.job()
    theirs = cast.job(shop)
    delete(cast, cast.web)
    assert machine.ask_for_job().id == theirs.id


def test_a_machine_that_runs_a_job_of_a_deleted_project_is_told_to_stop(cast: Cast, machine: Machine) -> None:
    cast.job()
    given = machine.ask_for_job()
    assert given.report("running").status == 200
    delete(cast, cast.web)
    for answer in (given.report("running"), given.write(b"more\n"), given.finish(b"more\n")):
        assert answer.status == 403
        assert answer.message == "403 Forbidden - Project has been deleted!"
        assert answer.headers["Job-Status"] == "canceled"


def test_who_has_no_token_of_the_job_hears_nothing_of_its_project(cast: Cast, machine: Machine) -> None:
    cast.job()
    given = machine.ask_for_job()
    delete(cast, cast.web)
    guessed = replace(given, payload={**given.payload, "token": "glcbt-nobodys"})
    assert "deleted!" not in guessed.report("running").message
    assert "Job-Status" not in guessed.report("running").headers


def test_a_job_that_goes_on_is_heard_again_once_its_project_is_restored(cast: Cast, machine: Machine) -> None:
    cast.job()
    given = machine.ask_for_job()
    given.report("running")
    deletion = delete(cast, cast.web)
    assert given.report("running").status == 403
    restore(cast, deletion)
    assert given.report("running").status == 200


def test_a_job_taken_back_from_a_deleted_project_waits_until_it_is_restored(
    cast: Cast, session: Session, machine: Machine
) -> None:
    job = cast.job()
    machine.ask_for_job()
    deletion = delete(cast, cast.web)
    job_reports.take_back(session, session.get_one(Job, job.id))
    session.commit()
    assert machine.poll().status == 204
    restore(cast, deletion)
    assert machine.ask_for_job().id == job.id


def test_jobs_go_with_a_project_that_is_deleted_for_good(cast: Cast, session: Session, machine: Machine) -> None:
    project_id, job_ids = cast.web.id, [cast.job().id, cast.job().id]
    given = machine.ask_for_job()
    deletion = delete(cast, cast.web)
    deletion_purge.end(session, cast.as_(cast.dana), deletion, KEPT)
    session.commit()
    session.expire_all()
    assert session.scalar(select(Project).where(Project.id == project_id), execution_options=WITH_DELETED) is None
    assert session.scalars(select(Job.id).where(Job.id.in_(job_ids))).all() == []
    assert session.scalars(select(PendingJob)).all() == []
    assert given.report("running").status == 403


def test_a_job_that_was_given_up_meanwhile_is_not_queued_again(
    cast: Cast, session: Session, machine: Machine
) -> None:
    job = cast.job()
    machine.ask_for_job()
    deletion = delete(cast, cast.web)
    job_reports.finish(session, session.get_one(Job, job.id), success=False)
    session.commit()
    restore(cast, deletion)
    assert machine.poll().status == 204
    assert session.get_one(Job, job.id).state is JobStatus.FAILED


def test_a_check_knows_no_project(cast: Cast, session: Session, client: FlaskClient) -> None:
    issued = cast.runner()
    job_checks.check(session, cast.as_(cast.alice), issued.runner, JOB_VAULT)
    session.commit()
    assert Machine(through(client), issued.token).ask_for_job().report("running").status == 200


def test_what_is_deleted_hides_its_jobs_and_checks_from_everybody(cast: Cast, session: Session) -> None:
    """Also from who names the job by its number alone, as GraphQL does."""
    runner = cast.runner(cast.web).runner
    over, waiting, check = cast.job(), cast.job(), cast.check(runner)
    jobs.cancel(session, SYSTEM, over)
    for person in (cast.alice, cast.bob, cast.erin, cast.dana):
        assert jobs.readable(session, cast.as_(person), over.id)
    delete(cast, cast.web)
    for actor in map(cast.as_, (cast.alice, cast.bob, cast.charlie, cast.erin, cast.dana)):
        for job in (over, waiting, check):
            assert not jobs.may_write(session, actor, job)
            for act in (jobs.cancel, jobs.require_write):
                with pytest.raises(NotFound):
                    act(session, actor, job)
            with pytest.raises(NotFound):
                jobs.readable(session, actor, job.id)
        with pytest.raises(NotFound):
            jobs.retry(session, actor, over, JOB_VAULT)
