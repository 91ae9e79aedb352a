"""Many at once against a portal that runs in two processes: still one row, one runner, one live token."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import pytest
from sqlalchemy import func, select

from portal.models import Runner, RunnerManager, RunnerToken
from tests.api.machines import Machine, over_http, until
from tests.api.people import Person, runner_id_on, token_on
from tests.api.processes import Process
from tests.portals import RunningPortal

T = TypeVar("T")


@pytest.fixture
def root(portal: RunningPortal) -> Person:
    return Person(portal.url).sign_in()


def at_once(*acts: Callable[[], T]) -> list[T]:
    """Do all of it at the same moment, each in a thread of its own."""
    start = Barrier(len(acts))

    def run(act: Callable[[], T]) -> T:
        start.wait()
        return act()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


def count(process: Process, model: type) -> int:
    with process.session() as session:
        return session.scalar(select(func.count()).select_from(model)) or 0


def test_fifty_first_polls_make_one_manager(portal: RunningPortal, root: Person, process: Process) -> None:
    token = token_on(root.create_runner().body.decode())
    machine = Machine(over_http(portal.url), token)
    answers = at_once(*[machine.poll] * 50)
    assert {answer.status for answer in answers} == {204}
    assert len({answer.headers["X-GitLab-Last-Update"] for answer in answers}) == 1
    assert count(process, RunnerManager) == 1


def test_fifty_verifications_make_one_manager(portal: RunningPortal, root: Person, process: Process) -> None:
    page = root.create_runner().body.decode()
    machine = Machine(over_http(portal.url), token_on(page))
    answers = at_once(*[machine.verify] * 50)
    assert {(answer.status, answer.json["id"]) for answer in answers} == {(200, runner_id_on(page))}
    assert count(process, RunnerManager) == 1


def test_fifty_machines_that_arrive_together_are_fifty(portal: RunningPortal, root: Person, process: Process) -> None:
    token = token_on(root.create_runner().body.decode())
    machines = [Machine(over_http(portal.url), token, f"r_machine{number:05}") for number in range(50)]
    answers = at_once(*[machine.poll for machine in machines])
    assert {answer.status for answer in answers} == {204}
    assert count(process, RunnerManager) == 50


def test_polls_and_unregistrations_of_one_machine_never_fail(
    portal: RunningPortal, root: Person, process: Process
) -> None:
    machine = Machine(over_http(portal.url), token_on(root.create_runner().body.decode()))
    answers = at_once(*[machine.poll, machine.unregister, machine.verify, machine.unregister_the_old_way] * 8)
    assert {answer.status for answer in answers} <= {200, 204, 404}
    assert count(process, RunnerManager) <= 1

    def is_back() -> bool:
        assert machine.poll().status == 204
        return count(process, RunnerManager) == 1

    until(is_back)


def test_resets_by_many_machines_at_once_each_get_a_token_that_works(portal: RunningPortal, root: Person) -> None:
    machine = Machine(over_http(portal.url), token_on(root.create_runner().body.decode()))
    answers = at_once(*[machine.reset_token] * 10)
    assert {answer.status for answer in answers} == {201}
    fresh = {answer.json["token"] for answer in answers}
    assert len(fresh) == 10
    for number, token in enumerate(fresh):
        assert Machine(machine.way, token, f"r_machine{number:05}").poll().status == 204


def test_two_people_who_reset_at_once_get_one_token_and_one_is_told(
    portal: RunningPortal, root: Person, process: Process
) -> None:
    runner_id = runner_id_on(root.create_runner().body.decode())
    place = f"/admin/runners/{runner_id}/reset-token"
    second = Person(portal.url).sign_in()
    forms = [(person, person.filled_in(place)) for person in (root, second)]
    answers = at_once(*[lambda p=person, f=form: p.open(place, f) for person, form in forms])
    assert sorted(answer.status for answer in answers) == [200, 409]
    winner, loser = sorted(answers, key=lambda answer: answer.status)
    assert "Somebody else reset this token a moment ago" in loser.body.decode()
    assert token_on(loser.body.decode()) == ""
    assert Machine(over_http(portal.url), token_on(winner.body.decode())).poll().status == 204
    with process.session() as session:
        assert session.scalar(select(func.count()).where(RunnerToken.ends_at.is_(None))) == 1


def test_the_same_creation_sent_twice_at_once_makes_one_runner_and_shows_one_token(
    portal: RunningPortal, root: Person, process: Process
) -> None:
    form = root.filled_in("/admin/runners/new", run_untagged="y", description="Once")
    tabs = [root.another_tab() for _ in range(6)]
    answers = at_once(*[lambda tab=tab: tab.open("/admin/runners/new", form) for tab in tabs])
    pages = [answer.body.decode() for answer in answers]
    shown = [token for token in map(token_on, pages) if token]
    assert len(shown) == 1
    assert count(process, Runner) == 1
    told = [page for page in pages if "This form was already sent" in page]
    assert len(told) == 5
    assert Machine(over_http(portal.url), shown[0]).poll().status == 204


def test_a_runner_that_is_deleted_while_it_polls_is_refused_and_gets_no_machine_any_more(
    portal: RunningPortal, root: Person, process: Process
) -> None:
    page = root.create_runner().body.decode()
    machines = [Machine(over_http(portal.url), token_on(page), f"r_machine{number:05}") for number in range(20)]
    place = f"/admin/runners/{runner_id_on(page)}/delete"
    form = root.filled_in(place)
    answers = at_once(lambda: root.open(place, form), *[machine.poll for machine in machines])
    assert {answer.status for answer in answers[1:]} <= {204, 403}
    until(lambda: {machine.poll().status for machine in machines} == {403}, why="nobody knows the token")
    runners, tokens, machines_kept = (count(process, model) for model in (Runner, RunnerToken, RunnerManager))
    assert (runners, tokens) == (0, 1)  # the token waits with those that got in, in case it is restored
    assert {machine.poll().status for machine in machines} == {403}
    assert count(process, RunnerManager) == machines_kept
