"""Who deletes, turns switches, submits, cancels, claims and gives up at once: nobody waits in a circle."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import scopes
from portal.domain.deletions import restores
from portal.domain.errors import LostRace, NotFound, TokenUnknown
from portal.domain.groups import groups
from portal.domain.jobs import job_claims, job_classes, job_reports, job_rules, jobs, pending_jobs, runner_offers
from portal.domain.jobs.job_claims import Claim, HandedOut
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.jobs.job_matching import queue_scopes
from portal.domain.machines import runner_managers
from portal.domain.machines.runner_managers import Contact
from portal.domain.runners import runners
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import Job, JobStatus, PendingJob, Runner, RunnerManager
from tests.cast import JOB_VAULT, SYSTEM, Cast
from tests.domain.all_at_once import AllAtOnce

KEPT = timedelta(days=1)
UNTAGGED = RunnerSettings(run_untagged=True)


@pytest.fixture
def engine(own_database: str) -> Iterator[Engine]:
    made = create_engine(own_database, pool_size=12)
    yield made
    made.dispose()


def claim_of(session: Session, runner_id: int, request_id: str = "") -> Claim:
    runner = session.get(Runner, runner_id)
    if runner is None:
        raise NotFound("It is deleted.")
    offer = runner_offers.offers_of(session, [runner])[runner_id]
    return Claim(offer, token_id=1, system_xid="s_0", request_id=request_id)


def claim(session: Session, runner_id: int, request_id: str = "") -> HandedOut | None:
    known = claim_of(session, runner_id, request_id)
    return job_claims.claim(session, known, [job_classes.UNTAGGED], JOB_VAULT)


@contextmanager
def meanwhile(engine: Engine, act: Callable[[Session], object]) -> Iterator[list[Any]]:
    """Do this in a thread, which is to wait for what the test holds. Its outcome is there afterwards."""
    outcome: list[Any] = []

    def run() -> None:
        with Session(engine) as session:
            try:
                outcome.append(act(session))
                session.commit()
            except Exception as failure:
                outcome.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.3)
    yield outcome
    thread.join(timeout=20)
    assert not thread.is_alive()


def test_a_claim_does_not_meet_the_deletion_of_the_group_that_holds_its_runner(engine: Engine) -> None:
    with Session(engine) as session:
        cast = Cast(session)
        runner_id, job = cast.runner(cast.acme, UNTAGGED).runner.id, cast.job()
        groups.hold_all(session, cast.acme)
        with meanwhile(engine, lambda beside: claim(beside, runner_id)) as outcome:
            pending_jobs.park(session, [cast.web.id])
            session.commit()
        assert outcome == [None] or isinstance(outcome[0], LostRace), outcome
        assert session.scalar(select(Job.status).where(Job.id == job.id)) == JobStatus.PENDING


def test_a_runner_that_was_deleted_a_moment_ago_gets_no_job(engine: Engine) -> None:
    with Session(engine) as session:
        cast = Cast(session)
        runner = cast.runner(cast.acme, UNTAGGED).runner
        cast.job()
        known = claim_of(session, runner.id, "r1")
        runners.delete_runner(session, cast.as_(cast.dana), runner)
        session.commit()
        with pytest.raises(TokenUnknown):
            job_claims.claim(session, known, [job_classes.UNTAGGED], JOB_VAULT)
        session.rollback()
        assert session.scalar(select(func.count()).where(Job.status == JobStatus.RUNNING)) == 0


def test_a_runner_that_is_deleted_after_its_claim_does_not_get_the_job_again(engine: Engine) -> None:
    with Session(engine) as session:
        cast = Cast(session)
        runner = cast.runner(cast.acme, UNTAGGED).runner
        cast.job()
        known = claim_of(session, runner.id, "r1")
        assert job_claims.claim(session, known, [job_classes.UNTAGGED], JOB_VAULT)
        runners.delete_runner(session, cast.as_(cast.dana), runner)
        session.commit()
        with pytest.raises(TokenUnknown):
            job_claims.claim(session, known, [job_classes.UNTAGGED], JOB_VAULT)


def test_a_group_of_many_projects_is_deleted_and_restored_with_few_locks(engine: Engine) -> None:
    """The database has room for some thousand locks, of all transactions together."""
    with Session(engine) as session:
        Cast(session)
        pending_jobs.park(session, range(1, 20_000))
        held = session.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))
        assert 0 < (held or 0) <= 512


class Traffic(AllAtOnce):
    """What people, machines and the portal itself do with the jobs of a group, all at once."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        with Session(engine) as session:
            cast = Cast(session)
            api = cast.project("api", cast.acme)
            self.projects = [cast.web.full_path, api.full_path]
            scopes_of_runners = (scopes.INSTANCE, cast.acme, cast.web)
            self.runners = [cast.runner(scope, UNTAGGED).runner.id for scope in scopes_of_runners]
            for runner_id in self.runners:
                runner_managers.record_contact(session, Contact(runner_id, runner_id, "s_0", now(), "", True, None))
            session.commit()
            self.machines = list(session.scalars(select(RunnerManager.id)))

    def project(self, session: Session, chance: random.Random) -> scopes.Scope:
        return scopes.find_project(session, chance.choice(self.projects))

    def some(self, session: Session, chance: random.Random, *states: JobStatus) -> Job:
        newest = session.scalars(select(Job).where(Job.status.in_(states)).order_by(Job.id.desc()).limit(20)).all()
        if not newest:
            raise NotFound("There is none.")
        return chance.choice(newest)

    def submit(self, session: Session, chance: random.Random) -> None:
        new = NewJob("build", ("make",), tags=chance.choice(((), (f"t{chance.randrange(50)}",))), retry=1)
        jobs.submit(session, SYSTEM, self.project(session, chance), new, JOB_VAULT)

    def take(self, session: Session, chance: random.Random) -> None:
        if claim(session, chance.choice(self.runners), str(chance.randrange(10**9))) is None:
            raise NotFound("Nothing waits.")

    def end(self, session: Session, chance: random.Random) -> None:
        job = job_reports.hear(session, self.some(session, chance, JobStatus.RUNNING))
        job_reports.finish(session, job, success=chance.random() < 0.5, failure_reason="script_failure")

    def give_up(self, session: Session, chance: random.Random) -> None:
        job_reports.take_back(session, self.some(session, chance, JobStatus.RUNNING))

    def cancel(self, session: Session, chance: random.Random) -> None:
        jobs.cancel(session, SYSTEM, self.some(session, chance, JobStatus.PENDING, JobStatus.RUNNING))

    def again(self, session: Session, chance: random.Random) -> None:
        jobs.retry(session, SYSTEM, self.some(session, chance, JobStatus.FAILED, JobStatus.CANCELED), JOB_VAULT)

    def switch(self, session: Session, chance: random.Random) -> None:
        said = {chance.choice(job_rules.SWITCHES): chance.random() < 0.5}
        job_rules.amend(session, SYSTEM, self.project(session, chance), said)

    def give_away(self, session: Session, chance: random.Random) -> None:
        """Delete a project or the group with its runners, and restore it."""
        time.sleep(0.2)
        path = chance.choice([*self.projects, "acme"])
        scope = scopes.find_group(session, path) if path == "acme" else scopes.find_project(session, path)
        deletion_id = groups.delete(session, SYSTEM, scope).id
        session.commit()
        restores.restore(session, SYSTEM, deletion_id, KEPT)

    def speak(self, session: Session, chance: random.Random) -> None:
        uses = {each: (now(), "192.0.2.1") for each in chance.sample(self.machines, len(self.machines))}
        runner_managers.write_job_contacts(session, uses)

    def sweep(self, session: Session, chance: random.Random) -> None:
        time.sleep(0.1)
        job_classes.prune(session)


def test_whatever_is_done_with_jobs_at_once_nobody_waits_in_a_circle_and_no_job_is_lost(engine: Engine) -> None:
    traffic, until = Traffic(engine), time.monotonic() + 5
    acts = (traffic.submit, traffic.take, traffic.end, traffic.give_up, traffic.cancel, traffic.again)
    others = (traffic.switch, traffic.give_away, traffic.speak, traffic.sweep)
    for thread in [traffic.keep_doing(act, until) for act in (*acts, *others)]:
        thread.join(timeout=60)
    assert traffic.failures == []
    assert {act.__name__ for act in (*acts, *others)} == set(traffic.did)
    with Session(engine) as session:
        waiting = set(session.scalars(select(PendingJob.job_id)))
        assert waiting == set(session.scalars(select(Job.id).where(Job.status == JobStatus.PENDING)))
        for path in traffic.projects:
            assert_found_as_the_switches_say(session, scopes.find_project(session, path))


def assert_found_as_the_switches_say(session: Session, project: scopes.Scope) -> None:
    pending = session.scalars(select(Job).where(Job.project_id == project.id, Job.status == JobStatus.PENDING)).all()
    for job_id, demand in pending_jobs.demands_of(session, pending).items():
        rows = session.execute(select(PendingJob.scope_kind, PendingJob.scope_id).where(PendingJob.job_id == job_id))
        assert {(row[0], row[1]) for row in rows} == {(int(kind), n) for kind, n in queue_scopes(demand)}
