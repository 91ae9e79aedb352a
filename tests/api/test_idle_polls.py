"""An idle poll costs no query: the first one writes, the next ones are kept in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.api.machines import Machine, info_of, until
from tests.api.processes import Process
from tests.cast import Cast


@pytest.fixture
def process(own_database: str) -> Iterator[Process]:
    with Process(own_database) as process:
        yield process


@pytest.fixture
def machine(process: Process) -> Machine:
    with process.session() as session:
        return process.machine(Cast(session).runner().token)


def settle(process: Process, machine: Machine) -> None:
    """Poll until the news of the first use has come back and everything is remembered."""

    def is_idle() -> bool:
        with process.statements() as asked:
            assert machine.poll().status == 204
            time.sleep(0.5)  # news that is still on its way would make the next poll ask
            assert machine.poll().status == 204
        return not asked

    until(is_idle)


def test_the_first_poll_writes_and_the_next_ones_ask_nothing(process: Process, machine: Machine) -> None:
    with process.statements() as asked:
        assert machine.poll().status == 204
    assert any(statement.startswith("INSERT INTO ci_runner_machines") for statement in asked)
    settle(process, machine)
    with process.statements() as asked:
        assert {machine.poll().status for _ in range(20)} == {204}
    assert asked == []


def test_a_verify_of_a_known_machine_asks_nothing_either(process: Process, machine: Machine) -> None:
    settle(process, machine)
    with process.statements() as asked:
        assert {machine.verify().status for _ in range(20)} == {200}
    assert asked == []


def test_a_machine_that_tells_something_new_still_asks_nothing(process: Process, machine: Machine) -> None:
    settle(process, machine)
    with process.statements() as asked:
        assert machine.poll(info=info_of("19.3.0")).status == 204
    assert asked == []


def test_an_unknown_token_is_looked_up_once(process: Process, machine: Machine) -> None:
    settle(process, machine)
    machine.token = "glrt-nobody-has-this-token"
    assert machine.poll().status == 403
    with process.statements() as asked:
        assert {machine.poll().status for _ in range(20)} == {403}
    assert asked == []


def test_a_mistyped_token_is_not_looked_up_at_all(process: Process, machine: Machine) -> None:
    machine.token = machine.token[:-1] + ("0" if machine.token[-1] != "0" else "1")
    with process.statements() as asked:
        assert machine.poll().status == 403
    assert asked == []


def test_while_nobody_listens_every_poll_asks(own_database: str) -> None:
    process = Process(own_database)
    with process.session() as session:
        machine = process.machine(Cast(session).runner().token)
    machine.poll()
    for _ in range(3):
        with process.statements() as asked:
            assert machine.poll().status == 204
        assert len(asked) > 0
    process.close()
