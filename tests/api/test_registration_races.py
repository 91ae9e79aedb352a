"""Registrations that arrive together, at a portal that runs in two processes: as if one had come after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import uuid4

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.domain.groups import groups, scope_settings
from portal.domain.scopes import INSTANCE
from portal.models import RegistrationToken, Runner, RunnerToken
from tests.api.machines import Answer, Machine, over_http
from tests.api.processes import Process
from tests.api.registering import Office
from tests.api.test_races import at_once, count
from tests.cast import SYSTEM, Cast
from tests.portals import RunningPortal


@pytest.fixture
def session(process: Process) -> Iterator[Session]:
    with process.session() as session:
        yield session


@pytest.fixture
def cast(session: Session) -> Cast:
    return Cast(session)


@pytest.fixture
def office(process: Process, session: Session) -> Office:
    return Office(process.app.extensions["registration"], session)


@pytest.fixture
def box(portal: RunningPortal, office: Office, cast: Cast) -> Machine:
    """A machine with the registration token of acme, on the wire."""
    return Machine(over_http(portal.url), office.token(cast.acme), None)


def of(statuses: list[Answer]) -> set[int]:
    return {answer.status for answer in statuses}


def test_thirty_sendings_of_one_registration_make_one_runner(
    box: Machine, process: Process, session: Session
) -> None:
    box.headers = {"X-Request-Id": uuid4().hex}
    answers = at_once(*[lambda: box.register(description="box1")] * 30)
    assert of(answers) == {201}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert count(process, Runner) == 1
    live = session.scalar(select(func.count()).select_from(RunnerToken).where(RunnerToken.ends_at.is_(None)))
    assert live == 1
    polls = [Machine(box.way, answer.json["token"]).poll().status for answer in answers]
    assert sorted(polls) == [204] + [403] * 29


def test_thirty_registrations_make_thirty_runners(box: Machine, process: Process) -> None:
    answers = at_once(*[box.register] * 30)
    assert of(answers) == {201}
    assert len({answer.json["token"] for answer in answers}) == 30
    assert count(process, Runner) == 30


def test_one_request_id_with_two_registration_tokens_is_two_runners(
    box: Machine, office: Office, cast: Cast, process: Process
) -> None:
    for _ in range(5):  # the two must meet
        before = count(process, Runner)
        headers = {"X-Request-Id": uuid4().hex}
        both = [Machine(box.way, token, None, headers=headers) for token in (box.token, office.token(cast.other))]
        answers = at_once(*[machine.register for machine in both])
        assert of(answers) == {201}
        assert count(process, Runner) == before + 2
        assert [Machine(box.way, answer.json["token"]).poll().status for answer in answers] == [204, 204]


def test_a_scope_takes_no_more_than_it_may_have(box: Machine, cast: Cast, session: Session, process: Process) -> None:
    scope_settings.own_for_update(session, cast.acme).ci_registered_group_runners = 5
    session.commit()
    answers = at_once(*[box.register] * 20)
    assert sorted(answer.status for answer in answers) == [201] * 5 + [400] * 15
    assert count(process, Runner) == 5


@dataclass
class Stream:
    """Machines that register one after the other in several threads, until they are told to stop."""

    box: Machine
    answers: list[tuple[float, Answer]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Stream:
        self._threads = [threading.Thread(target=self._run) for _ in range(8)]
        for thread in self._threads:
            thread.start()
        while len(self.answers) < 16:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.5)
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            self.answers.append((began, self.box.register()))

    def statuses(self, *, since: float = 0.0) -> set[int]:
        return of([answer for began, answer in self.answers if began >= since])


@pytest.mark.parametrize("times", range(3))
def test_after_a_reset_has_committed_no_registration_with_the_old_token_succeeds(
    box: Machine, office: Office, cast: Cast, session: Session, process: Process, times: int
) -> None:
    with Stream(box) as stream:
        office.reset(cast.acme)
        moment, runners = time.monotonic(), count(process, Runner)
    assert stream.statuses() == {201, 403}
    assert stream.statuses(since=moment) == {403}
    assert count(process, Runner) == runners
    assert len([answer for _, answer in stream.answers if answer.status == 201]) == runners
    assert session.scalar(select(func.count()).select_from(RegistrationToken)) == 2


@pytest.mark.parametrize("off", ["group", "instance"])
def test_after_the_switch_has_committed_no_registration_succeeds(
    box: Machine, office: Office, cast: Cast, process: Process, off: str
) -> None:
    with Stream(box) as stream:
        office.turn_off(cast.acme if off == "group" else INSTANCE)
        moment, runners = time.monotonic(), count(process, Runner)
    assert stream.statuses() == {201, 410}
    assert stream.statuses(since=moment) == {410}
    assert count(process, Runner) == runners


def test_every_registration_that_begins_after_turning_on_succeeds(box: Machine, office: Office, cast: Cast) -> None:
    office.turn_off(cast.acme)
    with Stream(box) as stream:
        office.turn_on(cast.acme)
        moment = time.monotonic()
    assert stream.statuses() == {201, 410}
    assert stream.statuses(since=moment) == {201}


@pytest.mark.parametrize("kind", ["group", "project"])
def test_a_scope_that_is_deleted_while_machines_register_takes_them_all_along(
    box: Machine, office: Office, cast: Cast, session: Session, process: Process, kind: str
) -> None:
    scope = cast.acme if kind == "group" else cast.web
    box.token = office.token(scope)
    with Stream(box) as stream:
        groups.delete(session, SYSTEM, scope)
        session.commit()
        moment = time.monotonic()
    assert stream.statuses() == {201, 403}
    assert stream.statuses(since=moment) == {403}
    assert count(process, Runner) == 0
