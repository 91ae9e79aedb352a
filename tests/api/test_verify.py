"""`POST /runners/verify`: what `gitlab-runner register` and `verify` ask."""

from __future__ import annotations

from datetime import datetime, timedelta
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import tokens
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.models import CreationState, RunnerManager
from tests.api.machines import Answer, Machine, info_of, through


def managers(session: Session) -> list[RunnerManager]:
    session.expire_all()
    return list(session.scalars(select(RunnerManager).order_by(RunnerManager.id)))


def test_a_good_token_is_answered_with_id_token_and_no_expiry(machine: Machine, issued: IssuedRunner) -> None:
    answer = machine.verify()
    assert answer.status == 200
    assert answer.json == {"id": issued.runner.id, "token": issued.token, "token_expires_at": None}


def test_the_id_is_a_number_and_the_media_type_json_or_the_client_asks_twice_and_fails(machine: Machine) -> None:
    answer = machine.verify()
    assert answer.headers["Content-Type"] == "application/json"
    assert type(answer.json["id"]) is int
    assert answer.json["id"] > 0


def test_an_expiry_is_a_time_with_its_zone(machine: Machine, issued: IssuedRunner, session: Session) -> None:
    issued.record.expires_at = now() + timedelta(days=30)
    session.commit()
    told = datetime.fromisoformat(machine.verify().json["token_expires_at"])
    assert told.utcoffset() == timedelta(0)
    assert told == issued.record.expires_at


def test_a_token_past_its_expiry_is_unknown(machine: Machine, issued: IssuedRunner, session: Session) -> None:
    issued.record.expires_at = now() - timedelta(seconds=1)
    session.commit()
    assert machine.verify().status == 403


@pytest.mark.parametrize(
    "token",
    [
        "glrt-nobody-has-this-token",
        tokens.make(2),
        tokens.make(2)[:-1] + "!",
        "GR1348941" + "x" * 20,
        "x" * 20,
        "y" * 100_000,
        "glrt-",
        "Ünïcödé-tökén",
        "with\0null",
    ],
)
def test_an_unknown_token_gets_403_and_a_sentence_with_the_way_out(
    client: FlaskClient, session: Session, token: str
) -> None:
    answer = Machine(through(client), token).verify()
    assert answer.status == 403
    assert answer.message.startswith("403 Forbidden - This token belongs to no runner")
    assert answer.message.endswith(": https://portal.example.com/")
    assert token not in answer.message
    assert managers(session) == []


def test_the_first_verify_makes_the_manager_which_has_not_polled(machine: Machine, session: Session) -> None:
    machine.verify()
    (manager,) = managers(session)
    assert manager.system_xid == "r_machine00001"
    assert manager.creation_state == CreationState.STARTED
    assert manager.ip_address == "127.0.0.1"
    assert manager.runner.contacted_at is None


def test_verifying_again_and_again_changes_nothing(machine: Machine, session: Session) -> None:
    assert {machine.verify().status for _ in range(5)} == {200}
    assert len(managers(session)) == 1


def test_a_verify_after_a_poll_does_not_take_the_poll_back(machine: Machine, session: Session) -> None:
    machine.poll()
    machine.verify()
    (manager,) = managers(session)
    assert manager.has_polled
    assert manager.version == "18.6.6"


@pytest.mark.parametrize("said", [None, ""])
def test_a_machine_that_sends_no_system_id_is_legacy(machine: Machine, session: Session, said: str | None) -> None:
    assert machine.verify(system_id=said).status == 200
    assert [manager.system_xid for manager in managers(session)] == ["<legacy>"]


@pytest.mark.parametrize("shape", ["s_0123456789ab", "r_machine00001", "s_ystem_id1234", "host-7.example", "机器"])
def test_a_system_id_may_have_any_shape(machine: Machine, session: Session, shape: str) -> None:
    assert machine.verify(system_id=shape).status == 200
    assert [manager.system_xid for manager in managers(session)] == [shape]


def test_19_3_tells_its_facts_with_the_first_verify(machine: Machine, session: Session) -> None:
    assert machine.verify(info=info_of("19.3.0")).status == 200
    (manager,) = managers(session)
    assert (manager.version, manager.platform, manager.executor_name) == ("19.3.0", "linux", "shell")
    assert manager.labels == {"region": "eu-1", "rack": "b7"}
    assert not manager.has_polled


def test_two_system_ids_are_two_machines_of_one_runner(machine: Machine, session: Session) -> None:
    machine.verify(system_id="r_machine00001")
    machine.verify(system_id="r_machine00002")
    assert [manager.system_xid for manager in managers(session)] == ["r_machine00001", "r_machine00002"]


def test_a_form_body_is_read_like_json(client: FlaskClient, issued: IssuedRunner, session: Session) -> None:
    body = urlencode({"token": issued.token, "system_id": "r_form00000001", "unknown": "1"}).encode()
    answer = through(client)(
        "POST", "/api/v4/runners/verify", body, {"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert answer.status == 200
    assert answer.json["id"] == issued.runner.id
    assert [manager.system_xid for manager in managers(session)] == ["r_form00000001"]


@pytest.mark.parametrize("header", ["PRIVATE-TOKEN", "RUNNER-TOKEN", "JOB-TOKEN", "Authorization"])
@pytest.mark.parametrize("value", ["{token}", "glrt-another-token-altogether", "", "Bearer nonsense"])
def test_no_header_disturbs_the_token_of_the_body(machine: Machine, header: str, value: str) -> None:
    machine.headers = {header: value.format(token=machine.token)}
    assert machine.verify().status == 200
    assert machine.poll().status == 204


@pytest.mark.parametrize("header", ["PRIVATE-TOKEN", "RUNNER-TOKEN"])
def test_a_good_header_does_not_save_a_bad_token_in_the_body(
    stranger: Machine, issued: IssuedRunner, header: str
) -> None:
    stranger.headers = {header: issued.token}
    assert stranger.verify().status == 403
    assert stranger.poll().status == 403


def test_a_request_id_comes_back_for_the_client_s_log(machine: Machine) -> None:
    machine.headers = {"X-Request-Id": "0123456789abcdef0123456789abcdef"}
    assert machine.verify().headers["X-Request-Id"] == "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "ü"])
def test_a_request_id_that_is_none_is_replaced(machine: Machine, given: str) -> None:
    machine.headers = {"X-Request-Id": given.encode().decode("latin-1")}
    answer = machine.verify().headers["X-Request-Id"]
    assert answer != given
    assert len(answer) == 32


def test_answers_with_a_token_are_kept_by_no_cache(machine: Machine) -> None:
    def is_kept_out(answer: Answer) -> bool:
        return answer.headers["Cache-Control"] == "no-store" and "Set-Cookie" not in answer.headers

    assert is_kept_out(machine.verify())
    assert is_kept_out(machine.reset_token())
