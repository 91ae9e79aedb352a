"""Machines whose runner was deleted: told so with 403, for nothing, and back at once when it is restored."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import orjson
import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.deletions import deletion_lists, deletion_purge, restores
from portal.domain.errors import NotFound
from portal.domain.groups import groups
from portal.domain.groups.groups import Naming
from portal.domain.machines import runner_managers
from portal.domain.machines.runner_managers import Contact
from portal.domain.runners import runner_tokens, runners
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.domain.scopes import INSTANCE, find_group
from portal.models import WITH_DELETED, Deletion, Group, Project, Runner, RunnerManager
from tests.api.machines import Machine, until
from tests.api.processes import Process
from tests.api.registering import NOBODYS, Office
from tests.api.test_races import at_once
from tests.cast import SYSTEM, TAGGED, Cast

KEPT = timedelta(days=7)


@pytest.fixture
def deleted(machine: Machine, issued: IssuedRunner, session: Session, cast: Cast) -> Deletion:
    """The machine's runner, which it has polled with, was deleted by Alice."""
    assert machine.poll().status == 204
    deletion = runners.delete_runner(session, cast.as_(cast.alice), session.get_one(Runner, issued.runner.id))
    session.commit()
    return deletion


@pytest.mark.parametrize("call", ["poll", "verify", "unregister"])
def test_a_deleted_runners_machine_gets_403_and_is_told_until_when_it_can_be_restored(
    machine: Machine, issued: IssuedRunner, deleted: Deletion, call: str
) -> None:
    answer = getattr(machine, call)()
    assert answer.status == 403
    until_ = deleted.created_at + KEPT
    assert (
        f"This runner was deleted on {deleted.created_at:%Y-%m-%d}. Until {until_:%Y-%m-%d %H:%M} UTC"
        in answer.message
    )
    assert answer.message.endswith(f"/-/runners/{issued.runner.id}")
    assert "Alice" not in answer.message


def test_the_old_way_of_unregistering_is_refused_the_same_way(machine: Machine, deleted: Deletion) -> None:
    answer = machine.call("DELETE", "runners")
    assert (answer.status, "This runner was deleted on" in answer.message) == (403, True)


def test_a_reset_waits_because_a_client_would_repeat_it_at_once(machine: Machine, deleted: Deletion) -> None:
    answer = machine.reset_token()
    assert (answer.status, answer.headers["Retry-After"]) == (429, "60")
    assert "This runner was deleted on" in answer.message


def test_what_is_over_or_cut_says_so_and_nothing_of_the_deletion(
    machine: Machine, issued: IssuedRunner, session: Session, cast: Cast
) -> None:
    runner = session.get_one(Runner, issued.runner.id)
    runner_tokens.reset_token(session, cast.as_(cast.alice), runner, seen_token_id=None)
    runners.delete_runner(session, cast.as_(cast.alice), runner)
    session.commit()
    answer = machine.poll()
    assert (answer.status, "deleted" in answer.message) == (403, False)


def test_deleted_for_good_is_unknown(machine: Machine, deleted: Deletion, session: Session, cast: Cast) -> None:
    deletion_purge.end(session, cast.as_(cast.alice), deleted.id, KEPT)
    session.commit()
    answer = machine.poll()
    assert (answer.status, "belongs to no runner" in answer.message) == (403, True)


def test_nothing_that_a_machine_says_meanwhile_is_written(
    machine: Machine, deleted: Deletion, session: Session, issued: IssuedRunner
) -> None:
    query = select(RunnerManager.contacted_at, RunnerManager.ip_address)
    before = session.execute(query).one()
    contact = Contact(issued.runner.id, issued.record.id, machine.system_id or "", now(), "192.0.2.99", True, None)
    missing = runner_managers.write_heartbeats(session, [contact], lambda beats: orjson.dumps(beats).decode()).missing
    session.commit()
    assert missing == {(issued.runner.id, machine.system_id)}
    assert session.execute(query).one() == before


def test_restored_it_works_again_with_the_same_token(
    machine: Machine, deleted: Deletion, session: Session, cast: Cast
) -> None:
    assert machine.poll().status == 403
    restores.restore(session, cast.as_(cast.alice), deleted.id, KEPT)
    session.commit()
    assert (machine.poll().status, machine.verify().status) == (204, 200)
    assert session.scalars(select(RunnerManager.system_xid)).all() == [machine.system_id]


def test_a_runner_that_its_machine_unregisters_the_old_way_can_be_restored(
    box: Machine, session: Session, cast: Cast
) -> None:
    box.token = box.register().json["token"]
    assert box.call("DELETE", "runners").status == 204
    assert box.poll().status == 403
    (deletion,) = session.scalars(select(Deletion))
    assert (deletion.kind, deletion.path) == ("runner", "acme")
    restores.restore(session, cast.as_(cast.alice), deletion.id, KEPT)
    session.commit()
    assert box.poll().status == 204


@pytest.mark.parametrize("place", ["acme", "web"])
def test_a_registration_token_of_a_deleted_scope_is_refused_and_works_again_when_it_is_restored(
    box: Machine, office: Office, session: Session, cast: Cast, place: str
) -> None:
    scope = getattr(cast, place)
    box.token = office.token(scope)
    deletion = groups.delete(session, SYSTEM, cast.acme)
    session.commit()
    answer = box.register()
    assert answer.status == 403
    assert answer.message.startswith(f"{NOBODYS}The {scope.kind} of this registration token was deleted.")
    assert session.scalars(select(Runner.id), execution_options=WITH_DELETED).all() == []
    restores.restore(session, cast.as_(cast.dana), deletion.id, KEPT)
    session.commit()
    assert box.register().status == 201


class TestSeveralProcesses:
    """What one process deletes or restores the other knows at once."""

    @pytest.fixture
    def processes(self, own_database: str) -> Iterator[list[Process]]:
        with Process(own_database) as one, Process(own_database) as two:
            yield [one, two]

    @pytest.fixture
    def machines(self, processes: list[Process]) -> list[Machine]:
        with processes[0].session() as session:
            token = Cast(session).runner().token
        made = [process.machine(token) for process in processes]
        for machine in made:
            assert machine.poll().status == 204
        return made

    @staticmethod
    def delete(process: Process) -> int:
        with process.session() as session:
            deletion = runners.delete_runner(session, SYSTEM, session.scalars(select(Runner)).one())
            session.commit()
            return deletion.id

    @staticmethod
    def restore(process: Process, deletion_id: int) -> bool:
        with process.session() as session:
            restores.restore(session, SYSTEM, deletion_id, KEPT)
            session.commit()
            return True

    @staticmethod
    def purge(process: Process) -> bool:
        with process.session() as session:
            taken = deletion_purge.purge(session, now() + timedelta(days=8), KEPT)
            session.commit()
            return taken > 0

    def test_deletion_and_restoring_are_heard_and_a_refusal_costs_no_query(
        self, processes: list[Process], machines: list[Machine]
    ) -> None:
        deletion_id = self.delete(processes[0])
        for process, machine in zip(processes, machines, strict=True):
            until(lambda m=machine: m.poll().status == 403, why="the deletion is heard")

            def free(p: Process = process, m: Machine = machine) -> bool:
                with p.statements() as asked:
                    assert {m.poll().status for _ in range(5)} == {403}
                return asked == []

            until(free, why="it is remembered")
            assert "can restore it" in machine.poll().message
        self.restore(processes[1], deletion_id)
        for machine in machines:
            until(lambda m=machine: m.poll().status == 204, why="the restoring is heard")

    def test_polls_that_race_with_a_deletion_bring_nothing_back(
        self, processes: list[Process], machines: list[Machine]
    ) -> None:
        over, answers = threading.Event(), []

        def poll(machine: Machine) -> None:
            number = 0
            while not over.is_set():
                number += 1
                answers.append(machine.poll(system_id=f"r_{number:012}").status)

        threads = [threading.Thread(target=poll, args=(machine,)) for machine in machines * 2]
        for thread in threads:
            thread.start()
        until(lambda: len(answers) > 20)
        self.delete(processes[0])
        moment = now()
        time.sleep(1.0)  # more polls, and a write of heartbeats
        over.set()
        for thread in threads:
            thread.join()
        assert set(answers) == {204, 403}
        for process in processes:
            process.background.write_heartbeats()
        with processes[0].session() as session:
            assert session.scalars(select(Runner)).all() == []
            latest = session.scalar(
                select(RunnerManager.created_at).order_by(RunnerManager.created_at.desc()).limit(1)
            )
            assert latest is not None
            assert latest <= moment

    def test_of_restoring_and_purging_at_once_exactly_one_wins(
        self, processes: list[Process], machines: list[Machine]
    ) -> None:
        for _ in range(8):
            deletion_id = self.delete(processes[0])

            def restored(key: int = deletion_id) -> bool:
                try:
                    return self.restore(processes[0], key)
                except NotFound:
                    return False

            came_back, _ = at_once(restored, lambda: self.purge(processes[1]))
            with processes[0].session() as session:
                alive = session.scalars(select(Runner.id)).all()
                left = session.scalars(select(Runner.id), execution_options=WITH_DELETED).all()
                assert (len(alive), len(left)) == ((1, 1) if came_back else (0, 0))
                if not came_back:  # the next round needs another one
                    runners.create_runner(session, SYSTEM, INSTANCE, TAGGED)
                    session.commit()

    @pytest.mark.parametrize("what", ["runner", "project", "group"])
    def test_what_is_made_while_its_group_is_deleted_goes_with_it_or_is_refused(
        self, processes: list[Process], what: str
    ) -> None:
        with processes[0].session() as session:
            Cast(session)
            made_there = {
                "runner": lambda s, acme: runners.create_runner(s, SYSTEM, acme, TAGGED),
                "project": lambda s, acme: groups.create_project(s, SYSTEM, acme, Naming("Fresh", "fresh")),
                "group": lambda s, acme: groups.create_group(s, SYSTEM, acme, Naming("Fresh", "fresh")),
            }[what]

        def make() -> bool:
            with processes[0].session() as session:
                try:
                    made_there(session, find_group(session, "acme"))
                except NotFound:
                    return False
                session.commit()
                return True

        def delete() -> int:
            with processes[1].session() as session:
                deletion = groups.delete(session, SYSTEM, find_group(session, "acme"))
                session.commit()
                return deletion.id

        for _ in range(8):
            made, deletion_id = at_once(make, delete)
            with processes[0].session() as session:
                assert session.scalars(select(Runner.id)).all() == []
                assert session.scalars(select(Project.path)).all() == []
                assert session.scalars(select(Group.path)).all() == ["other"]
                entry = deletion_lists.find(session, SYSTEM, deletion_id, KEPT)
                assert (entry.groups + entry.projects + entry.runners) == 3 + made
            self.restore(processes[0], deletion_id)
            if made:
                break


def test_the_setting_says_how_long_it_can_be_restored(app: Flask, machine: Machine, deleted: Deletion) -> None:
    until_ = deleted.created_at + app.config["PORTAL"].deleted_kept
    assert f"{until_:%Y-%m-%d %H:%M} UTC" in machine.poll().message
