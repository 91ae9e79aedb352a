"""What runs beside the requests: heartbeats reach the database, changes reach every process, old machines go."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import scopes
from portal.domain.machines import runner_managers, silent_machines
from portal.domain.machines.runner_managers import Contact
from portal.domain.runners import ended_tokens, runner_cleanup, runner_tokens, runners
from portal.domain.runners.runner_cleanup import Criteria
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.housekeeping import PRUNE_LOCK
from portal.models import AuditEvent, Runner, RunnerManager, RunnerToken
from tests.api.machines import Machine, info_of, over_http, until
from tests.api.processes import Process
from tests.cast import SYSTEM, Cast
from tests.domain.clock import let_pass
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
        with process.session() as session:  # its use is told in minutes
            session.execute(update(RunnerToken).values(last_used_at=now() - timedelta(minutes=2)))
            session.commit()
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
        assert silent.background.housekeeping.prune() == self.MANY - 1
        assert self.left(silent) == ["r_000000000000"]
        with silent.session() as session:
            assert session.scalar(select(func.count(Runner.id))) == 1

    def test_leaves_it_to_the_process_that_is_at_it(self, silent: Process) -> None:
        with silent.engine.connect() as other:
            other.execute(select(func.pg_advisory_lock(PRUNE_LOCK)))
            assert silent.background.housekeeping.prune() == 0
            assert len(self.left(silent)) == self.MANY
            other.execute(select(func.pg_advisory_unlock(PRUNE_LOCK)))
        assert silent.background.housekeeping.prune() == self.MANY - 1

    def test_by_several_processes_at_once_takes_each_machine_once(self, silent: Process, own_database: str) -> None:
        processes = [silent, *(Process(own_database) for _ in range(3))]
        start, gone = threading.Barrier(len(processes)), []

        def prune(process: Process) -> None:
            start.wait()
            gone.append(process.background.housekeeping.prune())

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

    def test_says_in_the_log_after_each_batch_how_many_so_far(
        self, silent: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level("INFO", logger="portal.housekeeping"):
            silent.background.housekeeping.prune()
        said = [record.getMessage() for record in caplog.records]
        assert said == [f"silent machines forgotten: {number} so far" for number in (1000, 2000, 2499)]
        with silent.session() as session:
            assert session.scalars(select(Runner.machines_forgotten)).one() == self.MANY - 1
            told = session.scalars(select(AuditEvent.changes).where(AuditEvent.action == "machines_forgotten"))
            assert sorted(each["machines"][1] for each in told) == [499, 1000, 1000]

    @pytest.mark.parametrize("table", [RunnerManager, Runner])
    def test_waits_for_nobody_who_holds_a_machine_or_its_runner(self, silent: Process, table: Any) -> None:
        with silent.session() as other:
            held = len(other.execute(select(table.id).limit(10).with_for_update()).all())
            with silent.session() as session:
                session.execute(text("SET LOCAL lock_timeout = '1ms'"))
                gone = silent_machines.prune(session, batch=self.MANY)
                session.commit()
        assert gone in ([0] if table is Runner else [self.MANY - 1 - held, self.MANY - held])
        assert gone + silent.background.housekeeping.prune() == self.MANY - 1


class TestPruneTokens:
    """Tokens that are over for ninety days go, in one process at a time, and no runner waits for it."""

    MANY = 2500  # more than two batches; the last one is the runner's newest, and stays

    @pytest.fixture
    def ended(self, process: Process) -> Process:
        long_ago = now() - timedelta(days=91)
        with process.session() as session:
            runner_id = Cast(session).runner().runner.id
            row = {"runner_id": runner_id, "origin": 2, "created_at": long_ago, "ends_at": long_ago}
            made = [{**row, "digest": n.to_bytes(32), "short": f"t{n}"} for n in range(self.MANY + 1)]
            session.execute(insert(RunnerToken), made)
            session.commit()
        return process

    @staticmethod
    def left(process: Process) -> int:
        with process.session() as session:
            return session.scalar(select(func.count(RunnerToken.id))) or 0

    def test_takes_them_in_batches_and_says_how_many_so_far(
        self, ended: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level("INFO", logger="portal.housekeeping"):
            assert ended.background.housekeeping.prune_tokens() == self.MANY
        said = [record.getMessage() for record in caplog.records]
        assert said == [f"ended tokens deleted: {number} so far" for number in (1000, 2000, 2500)]
        assert self.left(ended) == 2

    def test_leaves_it_to_the_process_that_is_at_it(self, ended: Process) -> None:
        with ended.engine.connect() as other:
            other.execute(select(func.pg_advisory_lock(PRUNE_LOCK)))
            assert ended.background.housekeeping.prune_tokens() == 0
            other.execute(select(func.pg_advisory_unlock(PRUNE_LOCK)))
        assert ended.background.housekeeping.prune_tokens() == self.MANY

    @pytest.mark.parametrize("table", [RunnerToken, Runner])
    def test_waits_for_nobody_who_holds_a_token_or_its_runner(self, ended: Process, table: Any) -> None:
        with ended.session() as other:
            query = select(table.id).order_by(table.id.desc()).limit(10).offset(1 if table is RunnerToken else 0)
            held = len(other.execute(query.with_for_update()).all())
            with ended.session() as session:
                session.execute(text("SET LOCAL lock_timeout = '1ms'"))
                gone = ended_tokens.prune(session, now(), batch=2 * self.MANY).taken
                session.commit()
        assert gone == (0 if table is Runner else self.MANY - held)
        assert gone + ended.background.housekeeping.prune_tokens() == self.MANY

    def test_happens_by_itself(self, ended: Process, own_database: str) -> None:
        with RunningPortal(own_database):
            until(lambda: self.left(ended) == 2, seconds=60, why="ended tokens are gone")


class TestCleanUp:
    """Stale runners go where that is turned on, once an hour, and none whose machine calls at that moment."""

    MANY = 12
    WEEK = Criteria(7)

    @pytest.fixture
    def stale(self, process: Process) -> list[IssuedRunner]:
        """Runners of acme that are stale for a week, each with a machine, and one that is not."""
        with process.session() as session:
            cast = Cast(session)
            issued = [cast.runner() for _ in range(self.MANY)]
            for each in issued:
                session.add(RunnerManager(runner_id=each.runner.id, system_xid="r_machine00001", contacted_at=now()))
            let_pass(session, timedelta(days=8))
            cast.runner()
            runner_cleanup.change(session, SYSTEM, cast.acme, self.WEEK)
            session.commit()
            for each in issued:
                session.refresh(each.runner)
                session.refresh(each.record)
            session.expunge_all()
        return issued

    @staticmethod
    def left(process: Process) -> set[int]:
        with process.session() as session:
            return set(session.scalars(select(Runner.id)))

    @staticmethod
    def clean(process: Process) -> list[int]:
        """Clean acme up at once; whoever makes it wait fails the test."""
        with process.session() as session:
            session.execute(text("SET LOCAL lock_timeout = '1ms'"))
            acme = scopes.find_group(session, "acme")
            gone = runner_cleanup.delete_stale(session, SYSTEM, acme, TestCleanUp.WEEK, now())
            session.commit()
            return [each.id for each in gone]

    @staticmethod
    def contact(issued: IssuedRunner, *, polled: bool, at: datetime | None = None) -> Contact:
        return Contact(issued.runner.id, issued.record.id, "r_machine00001", at or now(), "192.0.2.1", polled, None)

    def test_takes_them_and_says_so_in_the_log(
        self, process: Process, stale: list[IssuedRunner], caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level("INFO", logger="portal.housekeeping"):
            assert process.background.housekeeping.clean_up() == self.MANY
        (said,) = [record.getMessage() for record in caplog.records]
        assert said.startswith("stale runners of group ")
        assert said.endswith(f" deleted: {self.MANY} so far")
        assert len(self.left(process)) == 1

    def test_happens_at_most_once_an_hour_whichever_process_does_it(
        self, process: Process, stale: list[IssuedRunner], own_database: str
    ) -> None:
        assert process.background.housekeeping.clean_up() == self.MANY
        other = Process(own_database)
        for age, gone in ((timedelta(minutes=59), 0), (timedelta(minutes=2), 1)):
            with process.session() as session:
                let_pass(session, age)
                session.execute(update(Runner).values(created_at=now() - timedelta(days=8)))
                session.execute(update(RunnerToken).values(created_at=now() - timedelta(days=8)))
                session.commit()
            assert other.background.housekeeping.clean_up() == gone
        other.close()

    def test_leaves_it_to_the_process_that_is_at_it(self, process: Process, stale: list[IssuedRunner]) -> None:
        with process.engine.connect() as other:
            other.execute(select(func.pg_advisory_lock(PRUNE_LOCK)))
            assert process.background.housekeeping.clean_up() == 0
            other.execute(select(func.pg_advisory_unlock(PRUNE_LOCK)))
        assert process.background.housekeeping.clean_up() == self.MANY

    def test_of_one_group_that_fails_does_not_stop_the_others_and_is_tried_again(
        self, process: Process, stale: list[IssuedRunner], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with process.session() as session:
            runner_cleanup.change(session, SYSTEM, scopes.INSTANCE, Criteria(3650))
            session.commit()
        run = runner_cleanup.run

        def fail_at_the_instance(session: Session, group_id: int | None, at: datetime) -> object:
            if group_id is None:
                session.execute(text("SELECT 1/0"))
            return run(session, group_id, at)

        with monkeypatch.context() as patched:
            patched.setattr(runner_cleanup, "run", fail_at_the_instance)
            assert process.background.housekeeping.clean_up() == self.MANY
        with process.session() as session:
            assert runner_cleanup.due(session, now()) == [None]

    @pytest.mark.parametrize("polled", [True, False], ids=["poll", "verification"])
    def test_a_machine_that_calls_at_that_moment_keeps_its_runner(
        self, process: Process, stale: list[IssuedRunner], polled: bool
    ) -> None:
        with process.session() as calling:
            runner_managers.record_contact(calling, self.contact(stale[0], polled=polled))
            assert len(self.clean(process)) == self.MANY - 1
            calling.commit()
        assert self.clean(process) == []
        assert stale[0].runner.id in self.left(process)

    def test_a_machine_whose_call_came_to_nothing_does_not(self, process: Process, stale: list[IssuedRunner]) -> None:
        with process.session() as calling:
            runner_managers.record_contact(calling, self.contact(stale[0], polled=True))
            assert len(self.clean(process)) == self.MANY - 1
            calling.rollback()
        assert self.clean(process) == [stale[0].runner.id]

    def test_heartbeats_that_are_being_written_keep_their_runners(
        self, process: Process, stale: list[IssuedRunner]
    ) -> None:
        contacts = [self.contact(each, polled=n % 2 == 0) for n, each in enumerate(stale[:4])]
        with process.session() as writing:
            runner_managers.write_heartbeats(writing, contacts, lambda beats: orjson.dumps(beats).decode())
            assert len(self.clean(process)) == self.MANY - 4
            writing.commit()
        assert self.clean(process) == []
        assert {each.runner.id for each in stale[:4]} < self.left(process)

    def test_a_verification_between_the_choice_and_the_deletion_keeps_the_runner(
        self, process: Process, stale: list[IssuedRunner], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The statement that deletes asks again: what it chose from may be older than the lock on the runner."""
        hold = runner_cleanup._hold

        def hold_late(session: Session, ids: Any) -> dict[int, int]:
            with process.session() as calling:
                calling.execute(text("SET LOCAL lock_timeout = '100ms'"))
                machine = update(RunnerManager).where(RunnerManager.runner_id == stale[0].runner.id)
                calling.execute(machine.values(contacted_at=now()))
                calling.commit()
            return hold(session, ids)

        monkeypatch.setattr(runner_cleanup, "_hold", hold_late)
        assert len(self.clean(process)) == self.MANY - 1
        assert stale[0].runner.id in self.left(process)

    def test_polls_against_clean_ups_are_answered_as_it_went(
        self, process: Process, stale: list[IssuedRunner], own_database: str
    ) -> None:
        """Whose poll was accepted, that runner stands; whose was refused, that one is gone; nothing fails."""
        cleaning = [Process(own_database) for _ in range(2)]
        start = threading.Barrier(len(stale) + len(cleaning))
        answers: dict[int, int] = {}

        def poll(issued: IssuedRunner) -> None:
            machine = process.machine(issued.token)
            start.wait()
            answers[issued.runner.id] = machine.poll().status

        def clean(other: Process) -> None:
            start.wait()
            for _ in range(5):
                self.clean(other)

        threads = [threading.Thread(target=poll, args=(issued,)) for issued in stale]
        threads += [threading.Thread(target=clean, args=(other,)) for other in cleaning]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(answers.values()) <= {204, 403}
        assert self.left(process) & set(answers) == {each for each, status in answers.items() if status == 204}
        for other in cleaning:
            other.close()

    def test_happens_by_itself(self, process: Process, stale: list[IssuedRunner], own_database: str) -> None:
        with RunningPortal(own_database):
            until(lambda: len(self.left(process)) == 1, seconds=60, why="stale runners are gone")
