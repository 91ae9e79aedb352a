"""Many machines and many jobs on several server processes: each job runs to its end once, and none is lost."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from sqlalchemy import create_engine, func, select, update
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import scopes
from portal.domain.jobs import jobs
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import Scope
from portal.models import Job, JobMachine, JobStatus, PendingJob
from tests.api.machines import JSON, Answer, Machine, over_http, until
from tests.api.machines import Job as MachineJob
from tests.cast import JOB_VAULT, SYSTEM, Cast
from tests.portals import RunningPortal

JOBS = 1000
POLLERS = 8
UNTAGGED = RunnerSettings(run_untagged=True)


@dataclass
class Crowd:
    """Machines of one runner at work, until nothing is left. What each did is counted."""

    portal: RunningPortal
    token: str
    seed: int = 1
    ran: Counter[int] = field(default_factory=Counter)  # by job: how often a machine ran it to its end
    answers: Counter[int] = field(default_factory=Counter)  # statuses of polls
    hung_up: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def work(self, number: int) -> None:
        chance = random.Random(self.seed * 1000 + number)  # noqa: S311
        machine = Machine(over_http(self.portal.url), self.token, f"r_machine{number:05}")
        last_update: str | None = None
        while not self.over.is_set():
            machine.headers = {"X-Request-Id": uuid.UUID(int=chance.getrandbits(128)).hex}
            if chance.random() < 0.05:
                self.hang_up(machine, chance)
                continue
            answer = machine.poll(last_update=last_update)
            if answer.status == 201 and chance.random() < 0.1:
                first = MachineJob(machine, answer.json)
                answer = machine.poll(last_update=last_update)  # its answer was lost on the way, it believes
                assert MachineJob(machine, answer.json).id == first.id
                assert first.report("running").status == 403
            self.count(answer)
            last_update = answer.headers.get("X-GitLab-Last-Update", last_update)
            if answer.status == 201:
                self.run(MachineJob(machine, answer.json))
            elif answer.status == 204:
                time.sleep(0.1)

    def hang_up(self, machine: Machine, chance: random.Random) -> None:
        """Ask, and be gone before the answer comes, or just when it does."""
        place = urlsplit(self.portal.url)
        connection = HTTPConnection(place.hostname or "", place.port, timeout=60)
        body = {
            "token": machine.token,
            "system_id": machine.system_id,
            "info": {"features": {"two_phase_job_commit": True}},
        }
        connection.request("POST", "/api/v4/jobs/request", json.dumps(body).encode(), {**JSON, **machine.headers})
        time.sleep(chance.choice((0, 0.005, 0.02)))
        assert connection.sock is not None
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        with self.lock:
            self.hung_up += 1

    def count(self, answer: Answer) -> None:
        assert answer.status in (201, 204, 409), answer
        with self.lock:
            self.answers[answer.status] += 1

    def run(self, job: MachineJob) -> None:
        said = [job.report("running").status, job.write(b"hello\n").status, job.finish(b"hello\n").status]
        while said[-1] == 202:  # as gitlab-runner does: somebody was just looking whether the job is lost
            time.sleep(1)
            said[-1] = job.finish(b"hello\n").status
        assert said == [200, 202, 200], said
        with self.lock:
            self.ran[job.id] += 1


@pytest.fixture
def portal(own_database: str) -> Iterator[RunningPortal]:
    with RunningPortal(own_database, PORTAL_WORKERS="3") as portal:
        yield portal


@pytest.fixture
def stage(own_database: str) -> Iterator[Cast]:
    engine = create_engine(own_database)
    with Session(engine) as session:
        yield Cast(session)
    engine.dispose()


def submit(cast: Cast, projects: Sequence[Scope], number: int) -> None:
    """So many jobs in all, of the projects in turn."""
    new = NewJob("build", ("make",))
    for turn in range(number):
        jobs.submit(cast.session, SYSTEM, projects[turn % len(projects)], new, JOB_VAULT)
        if turn % 50 == 49:
            cast.session.commit()
    cast.session.commit()


def left(session: Session) -> int:
    session.rollback()
    over = (JobStatus.SUCCESS, JobStatus.FAILED, JobStatus.CANCELED)
    return session.scalar(select(func.count()).select_from(Job).where(Job.status.not_in(over))) or 0


def make_the_lost_older(session: Session) -> None:
    """As if time went by quicker for jobs that were handed out and of which nobody has spoken for a second."""
    lost = (Job.status == JobStatus.RUNNING) & Job.acknowledged_at.is_(None)
    lost &= Job.started_at < now() - timedelta(seconds=1)
    session.execute(update(Job).where(lost).values(started_at=Job.started_at - timedelta(minutes=10)))
    session.commit()


def test_each_of_a_thousand_jobs_runs_once_whoever_hangs_up(portal: RunningPortal, stage: Cast) -> None:
    shop = stage.project("shop", stage.acme)
    crowd = Crowd(portal, stage.runner(scopes.INSTANCE, UNTAGGED).token)
    submit(stage, [stage.web, shop], JOBS // 2)
    with ThreadPoolExecutor(POLLERS) as pool:
        machines = [pool.submit(crowd.work, number) for number in range(POLLERS)]
        try:
            submit(stage, [stage.web, shop], JOBS // 2)  # while they work

            def done() -> bool:
                for each in machines:
                    if each.done():
                        each.result()
                make_the_lost_older(stage.session)
                time.sleep(0.2)
                return left(stage.session) == 0

            until(done, seconds=400, why="no job is left")
        finally:
            crowd.over.set()
        for each in machines:
            each.result()
    stage.session.rollback()
    rows = stage.session.execute(select(Job.id, Job.status, Job.taken_back)).all()
    assert Counter(row.status for row in rows) == {JobStatus.SUCCESS: JOBS}
    assert crowd.ran == Counter(row.id for row in rows)
    assert crowd.hung_up > 10
    assert sum(row.taken_back for row in rows) > 0
    assert stage.session.scalars(select(PendingJob)).all() == []
    assert len(stage.session.scalars(select(JobMachine.job_id)).all()) == JOBS
