"""Claims: which job a runner gets of all that it may take, what that asks the database, and who looks where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, insert, select, text, update
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.errors import LostRace
from portal.domain.jobs import job_claims, job_classes, job_reports, pending_jobs, runner_offers
from portal.domain.jobs.job_claims import Claim, HandedOut
from portal.domain.jobs.job_matching import Offer
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import Scope
from portal.models import Job, JobClass, JobLog, JobMachine, JobStatus, PendingJob, Runner, RunnerManager, User
from tests.cast import JOB_VAULT, Cast
from tests.domain.queries import asked

MACHINE = "s_0123456789ab"
MANY = tuple(f"t{number}" for number in range(12))
ALL = RunnerSettings(tags=MANY, run_untagged=True)


def offer_of(session: Session, runner: Runner, *further: Scope) -> Offer:
    """What the runner offers; `further` projects are served by it too."""
    found = runner_offers.offer_of(session, runner)
    return replace(found, project_ids=found.project_ids | {each.id or 0 for each in further})


def taken_by(session: Session, offer: Offer) -> list[int]:
    rows = session.execute(select(JobClass.id, JobClass.tag_list, JobClass.ref_protected))
    return [row.id for row in rows if offer.takes(frozenset(row.tag_list), row.ref_protected)]


def claim(session: Session, offer: Offer, request_id: str = "", system_xid: str = MACHINE) -> HandedOut | None:
    asks = Claim(offer, token_id=1, system_xid=system_xid, request_id=request_id)
    found = job_claims.claim(session, asks, taken_by(session, offer), JOB_VAULT)
    session.commit()
    return found


def claimed(session: Session, offer: Offer, times: int) -> list[int]:
    """The numbers of the jobs that so many claims get, in their order."""
    found = [claim(session, offer) for _ in range(times)]
    assert all(each is not None for each in found)
    return [each.job.id for each in found if each is not None]


@pytest.fixture
def engine(own_database: str) -> Iterator[Engine]:
    made = create_engine(own_database)
    yield made
    made.dispose()


def test_a_claim_makes_three_statements_and_one_more_for_a_job_with_needs(session: Session, cast: Cast) -> None:
    offer = offer_of(session, cast.runner(settings=ALL).runner)
    classes, first = [job_classes.UNTAGGED], cast.job().id
    needing = cast.job(needs=(first,)).id
    for statements, job_id in ((3, first), (4, needing)):
        session.expire_all()
        with asked(session) as said:
            found = job_claims.claim(session, Claim(offer, 1, MACHINE, f"r{job_id}"), classes, JOB_VAULT)
            assert found is not None
            assert found.job.project is not None
            assert found.job.id == job_id
            assert found.job.project.full_path == "acme/web"
        assert len(said) == statements, said
        session.commit()
        job_reports.finish(session, found.job, success=True)
        session.commit()


def test_a_poll_that_finds_nothing_makes_one_statement_and_holds_nothing(engine: Engine) -> None:
    with Session(engine) as session, Session(engine) as beside:
        offer = offer_of(session, Cast(session).runner(settings=ALL).runner)
        with asked(session) as said:
            asks = Claim(offer, token_id=1, system_xid=MACHINE, request_id="r1")
            assert job_claims.claim(session, asks, [job_classes.UNTAGGED], JOB_VAULT) is None
        assert len(said) == 1
        assert beside.scalar(select(Runner.id).where(Runner.id == offer.runner_id).with_for_update(nowait=True))


def test_what_a_claim_wrote_is_there_for_whoever_reads_it_next(session: Session, cast: Cast) -> None:
    runner = cast.runner(settings=replace(ALL, maximum_timeout=900)).runner
    manager = RunnerManager(runner_id=runner.id, system_xid=MACHINE)
    session.add(manager)
    job = cast.job(timeout=3600)
    found = claim(session, offer_of(session, runner), "r1")
    assert found is not None
    said = (job.status, job.runner_id, job.runner_type, job.effective_timeout, job.runner)
    assert said == (JobStatus.RUNNING, runner.id, runner.runner_type, 900, runner)
    session.expire_all()
    assert (job.status, job.runner_id, job.runner_type, job.effective_timeout, job.runner) == said
    assert session.get_one(JobLog, job.id).heard_at == job.started_at
    machine = session.get_one(JobMachine, (job.partition_id, job.id))
    assert (machine.runner_machine_id, machine.system_xid) == (manager.id, MACHINE)
    assert session.scalars(select(PendingJob)).all() == []


def test_a_job_that_was_taken_back_is_the_next_machines_from_then_on(session: Session, cast: Cast) -> None:
    job, offer = cast.job(), offer_of(session, cast.runner(settings=ALL).runner)
    assert claim(session, offer)
    before = session.get_one(JobLog, job.id).heard_at
    job_reports.take_back(session, job)
    session.commit()
    assert claim(session, offer, system_xid="s_another")
    assert session.get_one(JobMachine, (job.partition_id, job.id)).system_xid == "s_another"
    heard_at = session.get_one(JobLog, job.id).heard_at
    assert before is not None
    assert heard_at is not None
    assert heard_at > before


def test_of_all_classes_the_oldest_job_is_first(session: Session, cast: Cast) -> None:
    """Also where classes that the runner does not take stand between those that it takes."""
    submitted = [cast.job(tags=(tag,)).id for tag in (*MANY[::-1], *MANY)]
    offer = offer_of(session, cast.runner(settings=RunnerSettings(tags=MANY[::3])).runner)
    may = [number for number, tag in zip(submitted, (*MANY[::-1], *MANY), strict=True) if tag in MANY[::3]]
    assert claimed(session, offer, len(may)) == may
    assert claim(session, offer) is None


def test_a_runner_of_many_projects_takes_the_oldest_job_of_all(session: Session, cast: Cast) -> None:
    projects = [cast.project(f"p{number}", cast.acme) for number in range(6)]
    submitted = [cast.job(projects[number % 6], tags=(MANY[number % 4],)).id for number in range(12)]
    offer = offer_of(session, cast.runner(cast.web, ALL).runner, *projects)
    assert claimed(session, offer, 12) == submitted


def test_where_more_waits_than_is_compared_no_project_and_no_class_is_left_behind(
    session: Session, cast: Cast
) -> None:
    """One statement compares 500 places: here either of two projects has four times as many, in as many classes."""
    projects = [cast.project(f"p{number}", cast.acme) for number in range(2)]
    offer = offer_of(session, cast.runner(cast.web, ALL).runner, *projects)
    wait_of_all_kinds(session, cast, projects, kinds=2000)
    classes = list(session.scalars(select(JobClass.id).where(JobClass.tag_list[1].like("kind%"))))
    found = [pending_jobs.take(session, offer, classes, MACHINE, None).job_id for _ in range(40)]
    rows = session.execute(select(Job.project_id, Job.tag_list).where(Job.id.in_(found))).all()
    assert {row.project_id for row in rows} == {each.id for each in projects}
    assert {int(row.tag_list[0].removeprefix("kind")) >= 1000 for row in rows} == {False, True}


def test_of_more_classes_than_are_compared_the_oldest_job_is_first_where_few_of_them_wait(
    session: Session, cast: Cast
) -> None:
    """Whether it is of the class that was known first or last, and however long the queue of the other one is."""
    classes = [job_classes.class_of(session, [f"kind{number}"], False) for number in range(600)]
    session.commit()
    alone = offer_of(session, cast.runner(cast.web, ALL).runner)
    both = replace(alone, project_ids=alone.project_ids | {cast.project("shop", cast.acme).id or 0})
    for offer, most in ((alone, pending_jobs.MOST_IN_ONE), (both, pending_jobs.MOST_IN_MANY)):
        assert len(classes) > most
        for first, last in (("kind0", "kind599"), ("kind599", "kind0")):
            waiting = [cast.job(tags=(tag,)).id for tag in (first, last, last, last)]
            found = {pending_jobs.take(session, offer, classes, MACHINE, None).job_id for _ in range(12)}
            assert found == {waiting[0]}
            for each in waiting:
                pending_jobs.take_out(session, each)


def test_where_more_classes_wait_than_are_compared_the_first_one_is_compared_as_often_as_any(
    session: Session, cast: Cast
) -> None:
    """One of 1,500 is among the 500 in every third claim, and here its job is the oldest of all."""
    offer = offer_of(session, cast.runner(cast.web, ALL).runner)
    wait_of_all_kinds(session, cast, [cast.web], kinds=1500)
    classes = sorted(session.scalars(select(JobClass.id).where(JobClass.tag_list[1].like("kind%"))))
    oldest = session.scalars(select(PendingJob.job_id).where(PendingJob.class_id == classes[0])).one()
    found = [pending_jobs.take(session, offer, classes, MACHINE, None).job_id for _ in range(60)]
    assert 4 <= found.count(oldest) <= 45


def wait_of_all_kinds(session: Session, cast: Cast, projects: Sequence[Scope], kinds: int) -> None:
    """A job of each of so many kinds in each project."""
    template = cast.job(projects[0])
    pending_jobs.take_out(session, template.id)
    values = [
        {"tag_list": [f"kind{number}"], "digest": job_classes.digest([f"kind{number}"]), "ref_protected": False}
        for number in range(kinds)
    ]
    made = session.execute(insert(JobClass).returning(JobClass.id, JobClass.tag_list), values).all()
    alike = {"partition_id": 100, "definition_id": template.definition_id, "name": "build", "timeout": 3600}
    for project in projects:
        jobs = [{**alike, "project_id": project.id, "tag_list": row.tag_list} for row in made]
        ids = session.scalars(insert(Job).returning(Job.id, sort_by_parameter_order=True), jobs).all()
        places = {"scope_kind": 3, "scope_id": project.id, "turn": 0}
        rows = [{**places, "class_id": row.id, "job_id": job_id} for row, job_id in zip(made, ids, strict=True)]
        session.execute(insert(PendingJob), rows)
    session.commit()


def test_two_that_claim_at_once_get_different_jobs_and_a_third_hears_that_it_was_late(engine: Engine) -> None:
    with Session(engine) as one, Session(engine) as two, Session(engine) as three:
        cast = Cast(one)
        offer = offer_of(one, cast.runner(settings=ALL).runner)
        jobs, classes = [cast.job().id, cast.job(tags=("t1",)).id], taken_by(one, offer)
        one.commit()
        asks = Claim(offer, token_id=1, system_xid=MACHINE)
        found = [job_claims.claim(session, asks, classes, JOB_VAULT) for session in (one, two)]
        assert [each.job.id for each in found if each is not None] == jobs
        with pytest.raises(LostRace):
            job_claims.claim(three, asks, classes, JOB_VAULT)


def test_the_same_request_at_the_same_moment_is_answered_once(engine: Engine) -> None:
    with Session(engine) as one, Session(engine) as two:
        cast = Cast(one)
        offer = offer_of(one, cast.runner(settings=ALL).runner)
        first, _ = cast.job().id, cast.job()
        asks, classes = Claim(offer, 1, MACHINE, "r1"), [job_classes.UNTAGGED]
        assert job_claims.claim(one, asks, classes, JOB_VAULT)
        held = pending_jobs.take(two, offer, classes, MACHINE, asks.digest)
        one.commit()
        assert held.job_id not in (None, first)  # the other's claim was not to be seen yet
        two.rollback()
        again = job_claims.claim(two, asks, classes, JOB_VAULT)
        assert again is not None
        assert again.job.id == first


def test_what_nobody_could_run_stays_failed_where_the_same_request_was_answered_elsewhere(engine: Engine) -> None:
    with Session(engine) as one, Session(engine) as two:
        cast = Cast(one)
        offer = offer_of(one, cast.runner(settings=ALL).runner)
        jobs = [cast.job().id for _ in range(3)]
        asks, classes = Claim(offer, 1, MACHINE, "r1"), [job_classes.UNTAGGED]
        assert job_claims.claim(one, asks, classes, JOB_VAULT)
        submitter = two.get_one(Job, jobs[1]).user_id
        two.execute(update(Job).where(Job.id == jobs[2]).values(user_id=None))
        two.execute(update(User).where(User.id == submitter).values(blocked_at=now()))
        two.commit()
        answered = answer_before(two, "INSERT INTO p_ci_runner_machine_builds", one)
        with answered, pytest.raises(LostRace):
            job_claims.claim(two, asks, classes, JOB_VAULT)
        two.commit()
        stood = select(Job.status, Job.failure_reason).where(Job.id.in_(jobs)).order_by(Job.id)
        wanted = [(JobStatus.RUNNING, None), (JobStatus.FAILED, "user_blocked"), (JobStatus.PENDING, None)]
        assert two.execute(stood).all() == wanted


@contextmanager
def answer_before(session: Session, statement: str, other: Session) -> Iterator[None]:
    """Commit the other session just before this one says the statement."""

    def commit(_connection: Any, _cursor: Any, said: str, *_rest: Any) -> None:
        if statement in said:
            other.commit()

    connection = session.connection()
    event.listen(connection, "before_cursor_execute", commit)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", commit)


def test_the_database_vacuums_the_tables_of_the_queue_as_the_models_say(session: Session) -> None:
    for model in (PendingJob, Job):
        wanted = model.__table__.dialect_options["postgresql"]["with"]
        query = text("SELECT unnest(reloptions) FROM pg_class WHERE oid = CAST(:name AS regclass)")
        said = session.scalars(query, {"name": model.__tablename__}).all()
        assert sorted(said) == sorted(f"{name}={value}" for name, value in wanted.items())
