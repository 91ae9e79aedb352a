"""A registration that is sent again, as gitlab-runner 18.3 and newer do after a lost answer: still one runner."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.domain.groups import scope_settings
from portal.domain.scopes import INSTANCE
from portal.models import AuditEvent, RunnerToken
from tests.api.machines import Answer, Machine, through
from tests.api.registering import Office
from tests.cast import Cast


@pytest.fixture
def again(box: Machine) -> Machine:
    """A client that says with each sending that it is the same request."""
    return replace(box, headers={"X-Request-Id": uuid4().hex})


def polls(box: Machine, answer: Answer) -> int:
    return Machine(box.way, answer.json["token"]).poll().status


def test_the_same_request_makes_one_runner_and_gets_a_token_that_works(again: Machine, office: Office) -> None:
    answers = [again.register(description="box1") for _ in range(5)]
    assert {answer.status for answer in answers} == {201}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert len({answer.json["token"] for answer in answers}) == 5
    assert len(office.runners()) == 1
    assert polls(again, answers[-1]) == 204


def test_the_token_that_was_lost_has_ended(again: Machine) -> None:
    lost, second = again.register(), again.register()
    assert [polls(again, lost), polls(again, second)] == [403, 204]


def test_sent_again_after_a_machine_used_it_is_another_registration(again: Machine, office: Office) -> None:
    first = again.register()
    assert polls(again, first) == 204
    second, third = again.register(), again.register()
    assert [polls(again, answer) for answer in (first, second, third)] == [204, 204, 204]
    assert len({answer.json["id"] for answer in (first, second, third)}) == 3
    assert len(office.runners()) == 3


def test_another_request_is_another_runner(again: Machine, office: Office) -> None:
    again.register()
    again.headers = {"X-Request-Id": uuid4().hex}
    again.register()
    assert len(office.runners()) == 2


@pytest.mark.parametrize("header", [None, "", "no-uuid", "0" * 31, "0" * 33, "0123456789ABCDEF" * 2, str(uuid4())])
def test_what_is_no_request_id_of_the_client_s_repeats_nothing(
    box: Machine, office: Office, header: str | None
) -> None:
    box.headers = {} if header is None else {"X-Request-Id": header}
    assert [box.register().status for _ in range(2)] == [201, 201]
    assert len(office.runners()) == 2


def test_the_same_request_with_another_registration_token_is_another_runner(
    again: Machine, office: Office, cast: Cast, client: FlaskClient
) -> None:
    elsewhere = Machine(through(client), office.token(cast.other), None, headers=again.headers)
    first, second = again.register(), elsewhere.register()
    assert [polls(again, first), polls(again, second)] == [204, 204]
    assert [runner.group for runner in office.runners()] == [cast.acme.group, cast.other.group]


def test_the_same_request_after_a_reset_is_refused(again: Machine, office: Office, cast: Cast) -> None:
    first = again.register()
    office.reset(cast.acme)
    assert again.register().status == 403
    assert polls(again, first) == 204


def test_the_same_request_where_it_was_turned_off_meanwhile_is_gone(
    again: Machine, office: Office, cast: Cast
) -> None:
    again.register()
    office.turn_off(cast.acme)
    assert again.register().status == 410


def test_the_same_request_after_the_runner_was_deleted_makes_another(again: Machine, office: Office) -> None:
    first = again.register()
    Machine(again.way, first.json["token"]).unregister_the_old_way()
    assert again.register().status == 201
    assert [runner.id for runner in office.runners()] != [first.json["id"]]
    assert len(office.runners()) == 1


def test_the_same_request_fits_into_a_scope_that_its_own_runner_filled(
    again: Machine, office: Office, session: Session
) -> None:
    scope_settings.own_for_update(session, INSTANCE).ci_registered_group_runners = 1
    session.commit()
    assert [again.register().status for _ in range(2)] == [201, 201]
    assert len(office.runners()) == 1


def test_the_trail_tells_of_one_registration(again: Machine, session: Session) -> None:
    for _ in range(3):
        again.register()
    told = select(func.count()).select_from(AuditEvent).where(AuditEvent.action == "runner_registered")
    assert session.scalar(told) == 1
    told = select(AuditEvent.changes).where(AuditEvent.action == "runner_registered_again").order_by(AuditEvent.id)
    replaced = [changes["token"] for changes in session.scalars(told)]
    assert len(replaced) == 2
    assert replaced[0][1] == replaced[1][0]  # each names the token that it ends and the one that it makes
    live = select(func.count()).select_from(RunnerToken).where(RunnerToken.ends_at.is_(None))
    assert session.scalar(live) == 1
