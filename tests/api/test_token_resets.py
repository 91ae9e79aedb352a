"""`POST /runners/reset_authentication_token`: a machine renews its own token, and no other machine notices."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import tokens
from portal.domain.runners import runner_tokens
from portal.domain.runners.runner_tokens import UNUSED_RESETS, IssuedRunner
from portal.models import RunnerToken
from tests.api.machines import Machine
from tests.cast import Cast


def row_of(session: Session, token: str) -> RunnerToken:
    session.expire_all()
    return session.scalars(select(RunnerToken).where(RunnerToken.digest == tokens.digest(token))).one()


def test_a_reset_answers_201_with_a_new_token_of_the_same_runner(machine: Machine, issued: IssuedRunner) -> None:
    answer = machine.reset_token()
    assert answer.status == 201
    assert set(answer.json) == {"token", "token_expires_at"}
    assert answer.json["token_expires_at"] is None
    assert answer.json["token"] != issued.token
    machine.token = answer.json["token"]
    assert machine.verify().json["id"] == issued.runner.id


def test_the_new_token_has_the_form_of_the_old_one(machine: Machine) -> None:
    assert machine.reset_token().json["token"].startswith("glrt-t2_")


def test_the_old_token_works_until_its_grace_period_ends(
    machine: Machine, issued: IssuedRunner, session: Session
) -> None:
    assert machine.reset_token().status == 201
    assert machine.poll().status == 204
    ends_at = row_of(session, issued.token).ends_at
    assert ends_at is not None
    assert timedelta(hours=23) < ends_at - now() <= timedelta(hours=24)
    row_of(session, issued.token).ends_at = now() - timedelta(seconds=1)
    session.commit()
    assert machine.poll().status == 403


def test_polls_with_the_old_token_do_not_prolong_it(machine: Machine, issued: IssuedRunner, session: Session) -> None:
    machine.reset_token()
    before = row_of(session, issued.token).ends_at
    machine.poll()
    machine.reset_token()
    assert row_of(session, issued.token).ends_at == before


def test_a_new_token_that_nobody_uses_ends_with_the_grace_period(machine: Machine, session: Session) -> None:
    lost = machine.reset_token().json["token"]
    assert row_of(session, lost).ends_at is not None


def test_a_new_token_that_is_used_stays(machine: Machine, session: Session) -> None:
    machine.token = machine.reset_token().json["token"]
    assert machine.poll().status == 204
    assert row_of(session, machine.token).ends_at is None


def test_two_machines_that_reset_the_same_token_both_go_on(machine: Machine) -> None:
    first, second = machine.reset_token().json["token"], machine.reset_token().json["token"]
    assert first != second
    machine.token = first
    assert machine.poll(system_id="r_machine00001").status == 204
    machine.token = second
    assert machine.poll(system_id="r_machine00002").status == 204
    machine.token = first
    assert machine.poll(system_id="r_machine00001").status == 204


def test_a_reset_by_a_person_ends_the_tokens_of_all_machines(
    cast: Cast, machine: Machine, issued: IssuedRunner, session: Session
) -> None:
    old = machine.token
    machine.token = renewed = machine.reset_token().json["token"]
    machine.poll()
    runner_tokens.reset_token(session, cast.as_(cast.alice), issued.runner, seen_token_id=None)
    session.commit()
    for token in (old, renewed):
        machine.token = token
        assert machine.poll().status == 403


@pytest.mark.parametrize("token", ["glrt-nobody-has-this-token", tokens.make(2), "x" * 10_000])
def test_a_reset_that_cannot_succeed_is_told_to_wait(stranger: Machine, token: str) -> None:
    stranger.token = token
    answer = stranger.reset_token()
    assert answer.status == 429
    assert int(answer.headers["Retry-After"]) == 60
    assert answer.message.startswith("429 Too Many Requests - This token has ended or belongs to no runner")
    assert "https://portal.example.com/" in answer.message


def test_a_token_that_a_person_has_reset_is_told_to_wait(
    cast: Cast, machine: Machine, issued: IssuedRunner, session: Session
) -> None:
    runner_tokens.reset_token(session, cast.as_(cast.alice), issued.runner, seen_token_id=None)
    session.commit()
    answer = machine.reset_token()
    assert (answer.status, answer.headers["Retry-After"]) == (429, "60")


def test_a_loop_of_resets_is_stopped_and_waits(machine: Machine) -> None:
    answers = [machine.reset_token() for _ in range(UNUSED_RESETS + 3)]
    assert [answer.status for answer in answers] == [201] * UNUSED_RESETS + [429] * 3
    assert answers[-1].headers["Retry-After"] == "60"
    assert machine.poll().status == 204


def test_no_answer_about_tokens_is_stored_in_clear(machine: Machine, session: Session) -> None:
    fresh = machine.reset_token().json["token"]
    everything = session.scalars(select(RunnerToken)).all()
    assert fresh not in repr([vars(row) for row in everything])
