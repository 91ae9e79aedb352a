"""Three portals on one database, as three hosts run them: a process dies, or hears nothing, or the database dies."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType

import pytest
from sqlalchemy import TextClause, create_engine, func, select, text
from sqlalchemy.orm import Session

from portal import embedded_postgres
from portal.database import now
from portal.domain import scopes
from portal.domain.jobs import jobs, queue_news
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.runners import runners
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.domain.scopes import Scope
from portal.models import Job, JobMachine, JobStatus, PendingJob, Project, Runner, RunnerManager
from tests.api.machines import JSON, Answer, Machine, info_of, over_http, until
from tests.api.machines import Job as MachineJob
from tests.cast import JOB_VAULT, SYSTEM, Cast
from tests.databases import Server
from tests.portals import RunningPortal

NAMES = ("one", "two", "three")  # by which the database knows whose connection is whose
UNTAGGED = RunnerSettings(run_untagged=True)
INFO = info_of("18.6.6")
# The connection with which a portal hears asks nothing but whether the server is there.
CUT_OFF = text("""
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = :name AND datname = current_database() AND (query LIKE 'LISTEN%' OR query = 'SELECT 1')
""")
LISTENING = text("""
SELECT count(*) FROM pg_stat_activity
WHERE application_name = :name AND datname = current_database() AND (query LIKE 'LISTEN%' OR query = 'SELECT 1')
""")
WAITING = text("""
SELECT count(*) FROM pg_stat_activity
WHERE application_name = :name AND datname = current_database() AND wait_event = 'advisory'
""")


@dataclass
class Three:
    """Three portals on one database, and the cast, which acts beside them on one connection."""

    portals: list[RunningPortal]
    cast: Cast
    numbers: Iterator[int] = field(default_factory=itertools.count)
    stack: ExitStack = field(default_factory=ExitStack)  # of a test: who still waits hangs up at its end

    @property
    def session(self) -> Session:
        return self.cast.session

    def shop(self) -> Shop:
        """A project of the test's own, whose runner takes what waits there and nothing else."""
        project = self.cast.project(f"shop{next(self.numbers)}", self.cast.acme)
        return Shop(self, project, self.cast.runner(project, UNTAGGED))

    @contextmanager
    def killed(self, name: str) -> Iterator[None]:
        """kill -9 to one of them; it is started again at the end, for the next test."""
        portal = self.portals[NAMES.index(name)]
        portal.kill()
        yield
        portal.start()

    def deafen(self, name: str) -> None:
        """Cut off the connection with which this portal hears what the others do."""
        assert len(self.session.execute(CUT_OFF, {"name": name}).all()) == 1
        self.session.commit()

    def connections(self, name: str, which: TextClause) -> int:
        """How many of this portal's connections are in this condition just now."""
        self.session.rollback()  # a transaction would see what it saw before
        found = self.session.scalar(which, {"name": name}) or 0
        self.session.rollback()
        return found

    @contextmanager
    def deaf(self, name: str) -> Iterator[None]:
        """For so long this portal has lost that connection, and cannot make it again.

        It waits for the lock that everybody holds who puts a job into the queue; only the cast does, meanwhile.
        """
        self.session.execute(select(func.pg_advisory_lock(queue_news.LOCK)))
        self.deafen(name)
        until(lambda: self.connections(name, WAITING) == 1, why="it wants to listen again")
        try:
            yield
        finally:
            self.session.rollback()
            self.session.execute(select(func.pg_advisory_unlock(queue_news.LOCK)))
            self.session.commit()
        until(lambda: self.connections(name, LISTENING) == 1, why="it listens again")


@dataclass
class Shop:
    """A project, its runner, and what a test asks of them."""

    three: Three
    project: Scope
    issued: IssuedRunner

    def machines(self, system_id: str = "r_machine00001") -> list[Machine]:
        """The same machine, as it calls the one portal, the other and the third; they know it."""
        machines = [Machine(over_http(portal.url), self.issued.token, system_id) for portal in self.three.portals]
        for machine in machines * 2:
            assert machine.poll().status == 204
        return machines

    def waiting(self, name: str, number: int = 1) -> list[Waiting]:
        """So many machines that wait at this portal."""
        portal = self.three.portals[NAMES.index(name)]
        machines = [Machine(over_http(portal.url), self.issued.token, f"r_{name}{each:05}") for each in range(number)]
        found = [self.three.stack.enter_context(Waiting(portal, machine)) for machine in machines]
        until(lambda: self._are_held(found), why="what was announced of the runner has been heard, and all are held")
        return found

    @staticmethod
    def _are_held(machines: Sequence[Waiting]) -> bool:
        for each in machines:
            each.vain.clear()
        time.sleep(1)
        return not any(each.vain for each in machines)

    def job(self) -> int:
        return self.three.cast.job(self.project).id

    def last_contact(self) -> datetime:
        """When its only machine was heard of, as it is written."""
        self.three.session.rollback()
        mine = RunnerManager.runner_id == self.issued.runner.id
        found = self.three.session.scalars(select(RunnerManager.contacted_at).where(mine)).one()
        assert found is not None
        return found

    @contextmanager
    def locked(self) -> Iterator[None]:
        """For so long nobody can write a heartbeat of its machines."""
        self.three.session.execute(select(Runner.id).where(Runner.id == self.issued.runner.id).with_for_update())
        yield
        self.three.session.rollback()


class Waiting:
    """A machine that waits at one portal for a job, and asks again whenever it is answered without one.

    It begins with the `with` and hangs up at its end.
    """

    def __init__(self, portal: RunningPortal, machine: Machine) -> None:
        self.machine, self.port = machine, portal.port
        self.value = machine.poll().headers["X-GitLab-Last-Update"]
        self.job: int | None = None  # the number of the one that it got
        self.vain: list[int] = []  # statuses of the answers without a job
        self.lost = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live)
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def __enter__(self) -> Waiting:
        self._connection.connect()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with suppress(OSError, AttributeError):  # the other side may have ended it
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def _live(self) -> None:
        try:
            while self.job is None and not self._over.is_set():
                self._ask()
        except (OSError, http.client.HTTPException):
            self.lost = True

    def _ask(self) -> None:
        told = {"token": self.machine.token, "system_id": self.machine.system_id, "info": INFO}
        body = json.dumps({**told, "last_update": self.value}).encode()
        self._connection.request("POST", "/api/v4/jobs/request", body, dict(JSON))
        answer = self._connection.getresponse()
        said = answer.read()
        if answer.status == 201:
            self.job = json.loads(said)["id"]
            return
        self.vain.append(answer.status)
        self.value = answer.headers.get("X-GitLab-Last-Update", self.value)
        self._over.wait(0.1)


def jobs_of(machines: Sequence[Waiting]) -> list[int]:
    return sorted(machine.job for machine in machines if machine.job is not None)


@contextmanager
def three_on(database_url: str, **environment: str) -> Iterator[Three]:
    engine = create_engine(database_url)
    with ExitStack() as stack:
        portals = [RunningPortal(database_url, PGAPPNAME=name, **environment) for name in NAMES]
        for portal in portals:
            stack.enter_context(portal)
        stack.callback(engine.dispose)
        session = stack.enter_context(Session(stack.enter_context(engine.connect())))
        yield Three(portals, Cast(session))


@pytest.fixture(scope="module")
def three(postgres: Server) -> Iterator[Three]:
    with postgres.copy() as url, three_on(url) as found:
        yield found


@pytest.fixture
def shop(three: Three) -> Iterator[Shop]:
    with ExitStack() as three.stack:
        yield three.shop()


class TestAKilledProcess:
    def test_takes_nothing_with_it_but_the_last_contacts_that_were_not_written(
        self, three: Three, shop: Shop
    ) -> None:
        here, there, elsewhere = shop.machines()
        asked = now()
        until(lambda: here.poll() and shop.last_contact() >= asked, why="heartbeats are written")
        with shop.locked():
            unwritten = now()
            assert here.poll().status == 204
            three.portals[0].kill()
        with three.killed("one"):
            assert asked <= shop.last_contact() < unwritten
            assert [each.poll().status for each in (there, elsewhere)] == [204, 204]
            until(lambda: shop.last_contact() >= unwritten, seconds=5, why="the others' heartbeats are written")

    def test_is_missed_by_no_job(self, three: Three, shop: Shop) -> None:
        """What it had handed out goes on at the others; what waited is handed out by them."""
        here, there, elsewhere = shop.machines()
        first, second = shop.job(), shop.job()
        job = here.wait_for_job()
        assert job.id == first
        with three.killed("one"):
            assert there.wait_for_job().id == second
            moved = MachineJob(elsewhere, job.payload)
            assert [moved.report("running").status, moved.write(b"hello\n").status] == [200, 202]
            assert moved.finish(b"hello\n").status == 200


class TestAChangeThroughOne:
    """Each of them remembers the runner, and none learns of a change but by what another announces."""

    def test_of_a_runner_is_heard_by_the_others(self, three: Three, shop: Shop) -> None:
        machines = shop.machines()
        headers = {**JSON, "PRIVATE-TOKEN": three.cast.access_token(three.cast.dana)}
        reset = f"/api/v4/runners/{shop.issued.runner.id}/reset_authentication_token"
        assert over_http(three.portals[0].url)("POST", reset, b"{}", headers).status == 201
        for machine in machines:
            until(lambda m=machine: m.poll().status == 403, seconds=5, why="the reset is heard")

    def test_that_queues_a_job_is_heard_by_the_others(self, three: Three, shop: Shop) -> None:
        machines = shop.machines()
        headers = {**JSON, "PRIVATE-TOKEN": three.cast.access_token(three.cast.dana)}
        for submitting, machine in itertools.product(three.portals, machines):
            assert machine.poll().status == 204
            path = f"/api/v4/projects/{shop.project.id}/jobs"
            job = {"name": "build", "script": ["make"], "ref": "main"}
            made = over_http(submitting.url)("POST", path, json.dumps(job).encode(), headers)
            assert made.status == 201, made
            given = machine.wait_for_job()
            assert given.id == made.json["id"]
            assert given.finish().status == 200


class TestADeafProcess:
    """It has lost the connection that hears of changes: it asks the database, and answers nothing from memory."""

    def test_does_not_know_a_runner_that_is_deleted_meanwhile(self, three: Three, shop: Shop) -> None:
        _, deaf, _ = machines = shop.machines()
        with three.deaf("two"):
            runners.delete_runner(three.session, Cast.as_(three.cast.dana), shop.issued.runner)
            three.session.commit()
            assert deaf.poll().status == 403
        for machine in machines:
            until(lambda m=machine: m.poll().status == 403, seconds=5, why="all have heard it")

    def test_hands_out_what_is_queued_meanwhile(self, three: Three, shop: Shop) -> None:
        _, deaf, _ = shop.machines()
        value = deaf.poll().headers["X-GitLab-Last-Update"]
        with three.deaf("two"):
            job = shop.job()
            assert deaf.ask_for_job(last_update=value).id == job

    def test_hears_again_what_comes_after(self, three: Three, shop: Shop) -> None:
        _, deaf, _ = machines = shop.machines()
        for _ in range(3):
            three.deafen("two")
            until(lambda: three.connections("two", LISTENING) == 1, why="it listens again")
            for machine in machines * 2:
                assert machine.poll().status == 204
            job = shop.job()
            assert deaf.wait_for_job().id == job


class TestHeldPolls:
    def test_at_all_three_are_answered_by_one_job_once(self, three: Three, shop: Shop) -> None:
        machines = [each for name in NAMES for each in shop.waiting(name, 3)]
        given: list[int] = []
        for _ in range(3):
            given.append(shop.job())
            until(lambda: jobs_of(machines) == given, seconds=10, why="one machine gets it")
        time.sleep(1)
        assert jobs_of(machines) == given
        assert [each.vain for each in machines] == [[]] * 9, "somebody was answered in vain"

    def test_that_a_killed_process_held_are_missed_by_no_job(self, three: Three, shop: Shop) -> None:
        here, there = shop.waiting("one", 3), shop.waiting("two", 3)
        with three.killed("one"):
            until(lambda: all(each.lost for each in here), seconds=10, why="their connections end")
            job = shop.job()
            until(lambda: jobs_of(there) == [job], seconds=10, why="one machine gets it")
        assert [each.vain for each in there] == [[]] * 3

    def test_are_told_that_their_runner_changed_through_another(self, three: Three, shop: Shop) -> None:
        machines = [*shop.waiting("two"), *shop.waiting("three")]
        headers = {**JSON, "PRIVATE-TOKEN": three.cast.access_token(three.cast.dana)}
        reset = f"/api/v4/runners/{shop.issued.runner.id}/reset_authentication_token"
        assert over_http(three.portals[0].url)("POST", reset, b"{}", headers).status == 201
        until(lambda: all(403 in each.vain for each in machines), seconds=10, why="both know that it is over")

    def test_at_a_deaf_process_get_what_was_queued_meanwhile(self, three: Three, shop: Shop) -> None:
        machines = shop.waiting("two")
        with three.deaf("two"):
            job = shop.job()
        until(lambda: jobs_of(machines) == [job], seconds=10, why="it gets it when the process hears again")

    def test_get_what_is_queued_the_moment_their_process_is_deafened(self, three: Three, shop: Shop) -> None:
        for _ in range(3):
            machines = shop.waiting("two")
            three.deafen("two")
            job = shop.job()
            until(lambda m=machines, j=job: jobs_of(m) == [j], seconds=10, why="it gets it")
            until(lambda: three.connections("two", LISTENING) == 1, why="it listens again")


class Postgres:
    """A database server of the test's own, which dies and comes again."""

    def __init__(self, folder: Path) -> None:
        self.url, self.server = embedded_postgres.start(folder)

    def die(self) -> None:
        """As of a power cut: all its processes end at once, and what was not committed never was."""
        pid = self.server.get_pid()
        os.kill(pid, signal.SIGQUIT)
        until(lambda: not self._lives(pid), why="the database server is gone")

    def start(self) -> None:
        self.server.ensure_postgres_running()

    @staticmethod
    def _lives(pid: int) -> bool:
        try:
            return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
        except FileNotFoundError:
            return False


@pytest.fixture
def database() -> Iterator[Postgres]:
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK | os.X_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="portal-data-", dir=place))
    found = Postgres(folder)
    yield found
    found.server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Crowd:
    """Machines that call whichever portal comes next, and send again what nobody answered. All is counted."""

    three: Three
    token: str
    ran: Counter[int] = field(default_factory=Counter)  # by job: how often a machine ran it to its end
    failed: Counter[str] = field(default_factory=Counter)  # what was answered in place of an answer
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def work(self, number: int) -> None:
        chance = random.Random(number)  # noqa: S311
        machine = Machine(self.anywhere(chance), self.token, f"r_machine{number:05}")
        while not self.over.is_set():
            machine.headers = {"X-Request-Id": uuid.UUID(int=chance.getrandbits(128)).hex}
            answer = machine.poll()
            assert answer.status in (201, 204, 409), answer
            if answer.status == 201:
                self.run(MachineJob(machine, answer.json))
            time.sleep(0.02)

    def anywhere(self, chance: random.Random) -> Callable[..., Answer]:
        ways = [over_http(portal.url) for portal in self.three.portals]

        def call(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
            deadline = time.monotonic() + 60
            while True:
                with suppress(OSError, http.client.HTTPException):
                    answer = chance.choice(ways)(method, path, body, headers)
                    if answer.status < 500:
                        return answer
                    with self.lock:
                        self.failed[str(answer.status)] += 1
                assert time.monotonic() < deadline, "nobody answers any more"
                time.sleep(0.1)

        return call

    def run(self, job: MachineJob) -> None:
        assert job.report("running").status == 200
        assert job.write(b"hello\n").status in (202, 416)  # the second: sent again, as its answer was lost
        assert job.finish(b"hello\n").status == 200
        with self.lock:
            self.ran[job.id] += 1


class TestADatabaseThatDies:
    JOBS = 300

    def test_and_comes_again_loses_no_job_and_gives_none_twice(self, database: Postgres) -> None:
        with three_on(database.url) as three:
            shop = three.shop()
            crowd = Crowd(three, shop.issued.token)
            for _ in range(self.JOBS):
                jobs.submit(three.session, SYSTEM, shop.project, NewJob("build", ("make",)), JOB_VAULT)
            three.session.commit()
            with ThreadPoolExecutor(6) as pool:
                machines = [pool.submit(crowd.work, number) for number in range(6)]
                try:
                    for share in (4, 2):
                        until(lambda s=share: len(crowd.ran) >= self.JOBS // s, seconds=120, why="they are at work")
                        database.die()
                        time.sleep(0.5)
                        database.start()
                    until(lambda: self._none_is_left(database), seconds=120, why="no job is left")
                finally:
                    crowd.over.set()
                for each in machines:
                    each.result()
            rows, left, given = self._ends(database)
            assert Counter(rows.values()) == {JobStatus.SUCCESS: self.JOBS}
            assert crowd.ran == Counter(list(rows))
            assert left == 0
            assert given == self.JOBS
            assert sum(crowd.failed.values()) > 0, "nobody has noticed that the database was gone"
            shop.machines()  # all three answer again

    def test_and_comes_again_finds_those_who_still_wait(self, database: Postgres) -> None:
        with three_on(database.url) as three, ExitStack() as three.stack:
            machines = [
                each for name, shop in itertools.product(NAMES, [three.shop()]) for each in shop.waiting(name)
            ]
            database.die()
            time.sleep(0.5)
            database.start()
            with self._looking(database) as session:
                project = session.scalars(select(Project).where(Project.path == "shop0")).one()
                job = jobs.submit(
                    session, SYSTEM, scopes.of_project(project), NewJob("build", ("make",)), JOB_VAULT
                ).id
                session.commit()
            until(lambda: jobs_of(machines) == [job], seconds=20, why="one machine gets it")
            time.sleep(1)
            assert jobs_of(machines) == [job]

    @contextmanager
    def _looking(self, database: Postgres) -> Iterator[Session]:
        engine = create_engine(database.url)
        with Session(engine) as session:
            yield session
        engine.dispose()

    def _none_is_left(self, database: Postgres) -> bool:
        with self._looking(database) as session:
            over = Job.status == JobStatus.SUCCESS
            return session.scalar(select(func.count()).select_from(Job).where(~over)) == 0

    def _ends(self, database: Postgres) -> tuple[dict[int, JobStatus], int, int]:
        """How each job ended, how many are still in the queue, and how many machines were noted for them."""
        with self._looking(database) as session:
            rows = {row.id: row.status for row in session.execute(select(Job.id, Job.status))}
            left = session.scalar(select(func.count()).select_from(PendingJob)) or 0
            return rows, left, session.scalar(select(func.count()).select_from(JobMachine)) or 0
