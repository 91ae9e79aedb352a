"""What runs beside the requests: heartbeats reach the database, changes reach every process, old machines go."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import ProgrammingError

from portal.background import PRUNE_LOCK
from portal.database import now
from portal.domain import runner_tokens, runners
from portal.domain.runner_tokens import IssuedRunner
from portal.models import Runner, RunnerManager, RunnerToken
from tests.api.machines import Machine, info_of, over_http, until
from tests.api.processes import Process
from tests.cast import Cast
from tests.portals import RunningPortal


@pytest.fixture
def process(own_database: str) -> Iterator[Process]:
    """A server process whose background work stands still, so that a test does it step by step."""
    process = Process(own_database)
    yield process
    process.close()


def runner_in(process: Process) -> str:
    """The token of a new runner."""
    with process.session() as session:
        return Cast(session).runner().token


def manager(process: Process) -> RunnerManager:
    with process.session() as session:
        return session.scalars(select(RunnerManager)).one()


def last_contact(process: Process) -> datetime:
    found = manager(process).contacted_at
    assert found is not None
    return found


class TestHeartbeats:
    def test_are_collected_and_written_together(self, process: Process) -> None:
        machine = process.machine(runner_in(process))
        machine.poll()
        for _ in range(3):
            machine.poll()
        asked = now()
        machine.poll(info=info_of("19.3.0"))
        assert last_contact(process) < asked
        assert process.background.write_heartbeats() == 1
        assert last_contact(process) >= asked
        assert manager(process).version == "19.3.0"

    def test_reach_the_runner_and_its_token_too(self, process: Process) -> None:
        machine = process.machine(runner_in(process))
        machine.poll()
        asked = now()
        machine.poll()
        process.background.write_heartbeats()
        with process.session() as session:
            contacted, used = (
                session.scalar(select(Runner.contacted_at)),
                session.scalar(select(RunnerToken.last_used_at)),
            )
        assert contacted is not None
        assert contacted >= asked
        assert used is not None
        assert used >= asked

    def test_are_kept_when_the_database_refuses_them_and_written_later(self, process: Process) -> None:
        machine = process.machine(runner_in(process))
        machine.poll()
        asked = now()
        machine.poll()
        with process.engine.begin() as connection:
            connection.execute(text("ALTER TABLE ci_runner_machines RENAME TO not_here"))
        with pytest.raises(ProgrammingError):
            process.background.write_heartbeats()
        with process.engine.begin() as connection:
            connection.execute(text("ALTER TABLE not_here RENAME TO ci_runner_machines"))
        assert process.background.write_heartbeats() == 1
        assert last_contact(process) >= asked

    def test_of_a_machine_that_is_gone_bring_it_not_back_but_its_next_poll_does(self, process: Process) -> None:
        machine = process.machine(runner_in(process))
        machine.poll()
        machine.poll()
        with process.session() as session:
            session.delete(session.scalars(select(RunnerManager)).one())
            session.commit()
        assert process.background.write_heartbeats() == 0
        with process.session() as session:
            assert session.scalar(select(func.count(RunnerManager.id))) == 0
        machine.poll()
        assert manager(process).system_xid == machine.system_id

    def test_are_written_by_themselves_while_the_process_runs(self, own_database: str) -> None:
        with Process(own_database) as process:
            machine = process.machine(runner_in(process))
            machine.poll()
            asked = now()
            machine.poll()
            until(lambda: last_contact(process) >= asked, why="a heartbeat is written")

    def test_are_not_lost_by_a_clean_stop(self, own_database: str) -> None:
        process = Process(own_database)
        with RunningPortal(own_database) as portal:
            machine = Machine(over_http(portal.url), runner_in(process))
            machine.poll()
            asked = now()
            assert machine.poll().status == 204
            assert portal.stop() == 0
        assert last_contact(process) >= asked
        process.close()


class TestTwoPortalsOnOneDatabase:
    """What is changed here, or through one of them, the other one does not answer from an old memory."""

    @pytest.fixture
    def machines(self, own_database: str, process: Process) -> Iterator[list[Machine]]:
        """The same machine as it calls the one portal and the other; both remember it."""
        token = runner_in(process)
        with ExitStack() as stack:
            portals = [stack.enter_context(RunningPortal(own_database)) for _ in range(2)]
            machines = [Machine(over_http(portal.url), token) for portal in portals]
            for machine in machines * 3:
                assert machine.poll().status == 204
            yield machines

    @staticmethod
    def act(process: Process, what: Any) -> Any:
        """Dana does something with the runner, in a process of her own."""
        with process.session() as session:
            dana = session.scalars(select(Runner)).one().creator
            assert dana is not None
            done = what(session, Cast.as_(dana), session.scalars(select(Runner)).one())
            session.commit()
            return done

    def test_all_changes_of_a_runner_are_heard(self, process: Process, machines: list[Machine]) -> None:
        before = {machine.poll().headers["X-GitLab-Last-Update"] for machine in machines}
        assert len(before) == 1
        self.act(process, lambda *who: runners.set_paused(*who, True))
        for machine in machines:
            until(lambda m=machine: m.poll().headers["X-GitLab-Last-Update"] not in before, why="the pause is heard")
        issued: IssuedRunner = self.act(process, lambda *who: runner_tokens.reset_token(*who, seen_token_id=None))
        for machine in machines:
            until(lambda m=machine: m.poll().status == 403, why="the reset is heard")
            machine.token = issued.token
            assert machine.poll().status == 204
        self.act(process, runners.delete_runner)
        for machine in machines:
            until(lambda m=machine: m.poll().status == 403, why="the deletion is heard")

    def test_a_machine_that_unregisters_at_one_portal_comes_back_at_the_other(
        self, process: Process, machines: list[Machine]
    ) -> None:
        first, second = machines
        assert first.unregister().status == 204

        def is_back() -> bool:
            assert second.poll().status == 204
            with process.session() as session:
                return session.scalar(select(func.count(RunnerManager.id))) == 1

        until(is_back, why="the machine has a row again")

    def test_a_token_that_one_portal_minted_works_at_the_other_at_once(self, machines: list[Machine]) -> None:
        first, second = machines
        second.token = first.reset_token().json["token"]
        assert second.poll().status == 204
        assert first.poll().status == 204


class TestALostConnection:
    """The connection that hears of changes breaks: it is made again, and nothing old is answered meanwhile."""

    @staticmethod
    def cut_all(process: Process) -> None:
        with process.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )

    def test_is_made_again(self, own_database: str) -> None:
        with Process(own_database) as process:
            machine = process.machine(runner_in(process))
            assert machine.poll().status == 204
            self.cut_all(process)
            until(lambda: not process.known.listening, why="it notices")
            until(lambda: process.known.listening, why="it listens again")
            assert machine.poll().status == 204

    def test_makes_every_poll_ask_until_then(self, own_database: str) -> None:
        with Process(own_database) as process:
            machine = process.machine(runner_in(process))
            for _ in range(3):
                assert machine.poll().status == 204
            self.cut_all(process)
            until(lambda: not process.known.listening)
            with process.session() as session:
                # Unheard: the token ends without a word to the processes.
                session.scalars(select(RunnerToken)).one().ends_at = now()
                session.commit()
            assert machine.poll().status == 403

    def test_hears_the_changes_that_come_after(self, own_database: str) -> None:
        with Process(own_database) as process:
            machine = process.machine(runner_in(process))
            self.cut_all(process)
            until(lambda: not process.known.listening)
            until(lambda: process.known.listening)
            for _ in range(3):
                assert machine.poll().status == 204
            TestTwoPortalsOnOneDatabase.act(process, runners.delete_runner)
            until(lambda: machine.poll().status == 403, why="the deletion is heard")


class TestPrune:
    """Machines without contact for seven days go, in one process at a time; their runner stays."""

    MANY = 2500  # more than two batches

    @pytest.fixture
    def silent(self, process: Process) -> Process:
        long_ago = now() - timedelta(days=8)
        with process.session() as session:
            runner_id = Cast(session).runner().runner.id
            row = {"runner_id": runner_id, "created_at": long_ago, "contacted_at": long_ago}
            rows = [{**row, "system_xid": f"r_{number:012}"} for number in range(self.MANY)]
            rows[0]["contacted_at"] = now() - timedelta(days=6)
            session.execute(insert(RunnerManager), rows)
            session.commit()
        return process

    @staticmethod
    def left(process: Process) -> list[str]:
        with process.session() as session:
            return list(session.scalars(select(RunnerManager.system_xid)))

    def test_takes_all_silent_machines_in_batches_and_keeps_the_runner(self, silent: Process) -> None:
        assert silent.background.prune() == self.MANY - 1
        assert self.left(silent) == ["r_000000000000"]
        with silent.session() as session:
            assert session.scalar(select(func.count(Runner.id))) == 1

    def test_leaves_it_to_the_process_that_is_at_it(self, silent: Process) -> None:
        with silent.engine.connect() as other:
            other.execute(select(func.pg_advisory_lock(PRUNE_LOCK)))
            assert silent.background.prune() == 0
            assert len(self.left(silent)) == self.MANY
            other.execute(select(func.pg_advisory_unlock(PRUNE_LOCK)))
        assert silent.background.prune() == self.MANY - 1

    def test_by_several_processes_at_once_takes_each_machine_once(self, silent: Process, own_database: str) -> None:
        processes = [silent, *(Process(own_database) for _ in range(3))]
        start, gone = threading.Barrier(len(processes)), []

        def prune(process: Process) -> None:
            start.wait()
            gone.append(process.background.prune())

        threads = [threading.Thread(target=prune, args=(process,)) for process in processes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(gone) == self.MANY - 1
        assert self.left(silent) == ["r_000000000000"]
        with silent.engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")) == 0
        for process in processes[1:]:
            process.close()

    def test_happens_by_itself(self, silent: Process, own_database: str) -> None:
        with RunningPortal(own_database):
            until(lambda: self.left(silent) == ["r_000000000000"], seconds=60, why="silent machines are gone")
