"""What a poll costs while jobs come in: one for somebody else costs no query, one's own is found in every process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy import select, text

from portal.domain import scopes
from portal.domain.jobs import jobs, queue_news
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.jobs.queue_news import Announcement, QueueNews
from portal.domain.runners import runner_projects
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import Job, QueueScope, Runner, RunnerManager
from tests.api.machines import Answer, until
from tests.api.processes import Process
from tests.cast import JOB_VAULT, SYSTEM, Cast

UNTAGGED = RunnerSettings(run_untagged=True)
DOCKER = RunnerSettings(tags=("docker",))

# All connections that listen; they ask nothing but whether the server is there.
CUT_OFF = text("""
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND (query LIKE 'LISTEN%' OR query = 'SELECT 1') AND pid <> pg_backend_pid()
""")


class Poller:
    """A machine that echoes the value it was told, as gitlab-runner does."""

    def __init__(self, process: Process, token: str, system_id: str = "r_machine00001") -> None:
        self.process, self.machine = process, process.machine(token, system_id)
        self.value: str | None = None

    def poll(self) -> Answer:
        answer = self.machine.poll(last_update=self.value)
        self.value = answer.headers.get("X-GitLab-Last-Update", self.value)
        return answer

    def costs(self) -> int:
        """How many statements a poll makes that finds nothing."""
        with self.process.statements() as asked:
            assert self.poll().status == 204
        return len(asked)

    def settle(self) -> None:
        """Poll until nothing is asked any more, and news that is on its way has come."""
        until(lambda: self.costs() == 0 and (time.sleep(0.5) or self.costs()) == 0)

    def finds_one(self) -> int:
        """The number of the job that is found within a second."""
        answer = until(lambda: found if (found := self.poll()).status == 201 else None, seconds=5)
        number: int = answer.json["id"]
        return number


@pytest.fixture
def processes(own_database: str) -> Iterator[list[Process]]:
    """Two server processes at work."""
    with ExitStack() as stack:
        yield [stack.enter_context(Process(own_database)) for _ in range(2)]


def test_a_job_for_somebody_else_costs_nothing_and_ones_own_is_found_in_every_process(
    processes: list[Process],
) -> None:
    with processes[0].session() as session:
        cast = Cast(session)
        tokens = [cast.runner(settings=settings).token for settings in (UNTAGGED, DOCKER)]
        pollers = [Poller(process, token) for process in processes for token in tokens]
        jobs.cancel(session, SYSTEM, cast.job(tags=("docker",)))  # what is new costs one look, in every process
        session.commit()
        for poller in pollers:
            poller.settle()
        for _ in range(3):
            job = cast.job(tags=("docker",)).id
            time.sleep(1)
            assert [poller.costs() for poller in (pollers[0], pollers[2])] == [0, 0]
            assert pollers[3].finds_one() == job
            pollers[1].poll()  # looks once, finds that it is gone
            assert pollers[1].costs() == 0


def test_a_class_of_jobs_that_is_new_is_known_at_once(processes: list[Process]) -> None:
    with processes[0].session() as session:
        cast = Cast(session)
        tags = tuple(f"tag-{number}" for number in range(5))
        poller = Poller(processes[1], cast.runner(settings=RunnerSettings(tags=tags)).token)
        poller.settle()
        for tag in tags:
            assert cast.job(tags=(tag,)).id == poller.finds_one()


def test_what_is_announced_while_nobody_listens_is_found(processes: list[Process]) -> None:
    process = processes[1]
    with process.session() as session:
        cast = Cast(session)
        poller = Poller(process, cast.runner(settings=UNTAGGED).token)
        poller.settle()
        for _ in range(3):
            session.execute(CUT_OFF)
            session.commit()
            job = cast.job().id
            assert poller.finds_one() == job
            until(lambda: process.known.listening)
            poller.settle()


def test_a_process_that_cannot_read_the_mark_listens_as_soon_as_it_can(processes: list[Process]) -> None:
    """The database is just back, say, and answers some connections but not all."""
    process = processes[1]
    with process.session() as session:
        cast = Cast(session)
        poller = Poller(process, cast.runner(settings=UNTAGGED).token)
        session.execute(text("ALTER SEQUENCE ci_queue_marks RENAME TO away"))
        session.execute(CUT_OFF)
        session.commit()
        until(lambda: not process.known.listening)
        time.sleep(1.5)
        session.execute(text("ALTER SEQUENCE away RENAME TO ci_queue_marks"))
        session.commit()
        until(lambda: process.known.listening)
        poller.settle()
        job = cast.job().id
        assert poller.finds_one() == job


def test_another_machine_of_the_runner_finds_the_check_that_is_for_it(processes: list[Process]) -> None:
    process = processes[0]
    with process.session() as session:
        cast = Cast(session)
        issued = cast.runner()
        one, two = (Poller(process, issued.token, name) for name in ("r_one", "r_two"))
        one.settle(), two.settle()
        manager = session.scalars(select(RunnerManager).where(RunnerManager.system_xid == "r_two")).one()
        job = cast.check(issued.runner, manager).id
        time.sleep(1)
        assert one.poll().status == 204
        assert two.finds_one() == job
        one.settle()


def test_a_runner_that_is_assigned_to_a_project_finds_what_waits_there(processes: list[Process]) -> None:
    process = processes[1]
    with process.session() as session:
        cast = Cast(session)
        shop = cast.project("shop", cast.acme)
        issued = cast.runner(cast.web, RunnerSettings(run_untagged=True, locked=False))
        job = cast.job(shop).id
        poller = Poller(process, issued.token)
        poller.settle()
        runner_projects.assign(session, cast.as_(cast.dana), session.get_one(Runner, issued.runner.id), shop)
        session.commit()
        assert poller.finds_one() == job


def test_ten_jobs_that_nobody_can_run_are_not_found_for_ever(processes: list[Process]) -> None:
    """Their needs are gone. In each request some of them fail, whatever comes of the request."""
    process = processes[0]
    with process.session() as session:
        cast = Cast(session)
        poller = Poller(process, cast.runner(settings=UNTAGGED).token)
        needed = cast.job()
        for _ in range(25):
            cast.job(needs=(needed.id,), retry=2)
        jobs.cancel(session, SYSTEM, needed)
        good = cast.job().id
        assert poller.finds_one() == good
        session.expire_all()
        reasons = session.scalars(select(Job.failure_reason).where(Job.status == "failed")).all()
        assert reasons == ["missing_dependency_failure"] * 25


def heard(payload: str) -> Announcement:
    found = queue_news.read(payload)
    assert found is not None
    return found


def test_an_announcement_is_read_as_it_was_made() -> None:
    made = Announcement(3, ((QueueScope.GROUP, 4), (QueueScope.PROJECT, 5)), jobs=12, system_xid="r with space")
    assert heard(f"7 {made.text()}") == replace(made, mark=7)


@pytest.mark.parametrize(
    "payload", ["", "nonsense", "1 2 3", "1 1 2 3 4:5:6 ", "1 1 2 3 9:1 ", "a 1 2 3 1:0 ", "1 1 2 3 "]
)
def test_what_nobody_announces_so_is_passed_over(payload: str) -> None:
    assert queue_news.read(payload) is None


def test_a_class_is_expected_before_its_announcement_can_be_read() -> None:
    news, expected = QueueNews(), list[tuple[int, int]]()
    news.start(0)
    news.hear(heard("7 1 3 1 1:0 "), lambda class_id: expected.append((class_id, news.mark)))
    assert expected == [(3, 0)]
    assert news.mark == 7
    assert not news.is_quiet(6, [(QueueScope.INSTANCE, 0)], lambda class_id: class_id == 3, 0)
    assert news.is_quiet(7, [(QueueScope.INSTANCE, 0)], lambda class_id: class_id == 3, 0)


def test_after_a_backup_was_put_back_nobody_waits_for_marks_to_come_again() -> None:
    """Clients and processes know higher marks than the database gives now."""
    news, scope = QueueNews(), [(QueueScope.INSTANCE, 0)]
    news.start(5000)
    news.found_nothing(1, "s_1", "version", 5000)
    news.stop()
    news.start(1000)
    assert news.searched(1, "s_1", "version") is None
    assert not news.is_quiet(5000, scope, lambda _: True, 0)
    news.hear(heard("1001 1 3 1 1:0 "), lambda _: None)
    assert (news.mark, news.is_quiet(1001, scope, lambda _: True, 0)) == (1001, True)
    assert not news.is_quiet(1000, scope, lambda _: True, 0)


def test_an_instance_runner_gives_each_project_its_turn_under_load(processes: list[Process]) -> None:
    """One project has submitted a hundred jobs before the others came with theirs."""
    with processes[0].session() as session:
        cast = Cast(session)
        many, few = cast.web, [cast.project(f"few{number}", cast.acme) for number in range(3)]
        shared = cast.runner(scopes.INSTANCE, UNTAGGED).token
        for _ in range(40):
            cast.job(many)
        theirs = {cast.job(project).id for project in few for _ in range(5)}
        machines = [process.machine(shared, f"r_{number}") for number, process in enumerate(processes)]
        first = [machines[turn % 2].ask_for_job().id for turn in range(24)]
        assert theirs <= set(first)


def test_of_several_announcements_with_one_mark_the_last_says_so(processes: list[Process]) -> None:
    heard: list[Announcement] = []
    with processes[0].session() as session:
        cast = Cast(session)
        jobs.submit(session, cast.as_(cast.dana), cast.web, NewJob("one", ("make",), tags=("docker",)), JOB_VAULT)
        jobs.submit(session, cast.as_(cast.dana), cast.web, NewJob("two", ("make",), tags=("gpu",)), JOB_VAULT)
        url = processes[0].engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as listening:
            listening.execute(f"LISTEN {queue_news.CHANNEL}")
            session.commit()
            for notice in listening.notifies(timeout=5, stop_after=2):
                heard += [said] if (said := queue_news.read(notice.payload)) else []
    assert [(said.last, said.jobs) for said in heard] == [(False, 1), (True, 1)]
    assert len({said.mark for said in heard}) == 1
