"""`DELETE /runners/managers` and `DELETE /runners`: a machine leaves, the runner that a person created stays."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.runners.runner_tokens import IssuedRunner
from portal.models import AuditEvent, RegistrationType, Runner, RunnerManager
from tests.api.machines import Machine, through


def system_ids(session: Session) -> set[str]:
    return set(session.scalars(select(RunnerManager.system_xid)))


def test_a_machine_unregisters_itself_alone(machine: Machine, session: Session) -> None:
    machine.poll(system_id="r_other0000001")
    machine.poll()
    answer = machine.unregister()
    assert (answer.status, answer.body) == (204, b"")
    assert system_ids(session) == {"r_other0000001"}


def test_the_runner_and_its_token_stay(machine: Machine, issued: IssuedRunner, session: Session) -> None:
    machine.poll()
    machine.unregister()
    assert session.get(Runner, issued.runner.id) is not None
    assert machine.verify().status == 200


def test_a_machine_that_unregistered_comes_back_with_its_next_poll(machine: Machine, session: Session) -> None:
    machine.poll()
    machine.unregister()
    assert machine.poll().status == 204
    assert system_ids(session) == {machine.system_id}


def test_unregistering_leaves_a_trace(machine: Machine, issued: IssuedRunner, session: Session) -> None:
    machine.poll()
    machine.unregister()
    event = session.scalars(select(AuditEvent).where(AuditEvent.action == "machine_unregistered")).one()
    assert machine.token not in repr(vars(event))


def test_a_machine_that_nobody_knows_gets_404(machine: Machine, session: Session) -> None:
    machine.poll()
    answer = machine.unregister(system_id="r_other0000001")
    assert answer.status == 404
    assert "no machine with this system ID" in answer.message
    assert system_ids(session) == {machine.system_id}


@pytest.mark.parametrize("said", [None, ""])
def test_unregistering_a_machine_needs_its_system_id(machine: Machine, session: Session, said: str | None) -> None:
    machine.poll(system_id=None)
    answer = machine.unregister(system_id=said)
    assert answer.status == 400
    assert "system_id is missing" in answer.message
    assert system_ids(session) == {"<legacy>"}


def test_an_unknown_token_unregisters_nothing(machine: Machine, stranger: Machine, session: Session) -> None:
    machine.poll()
    assert stranger.unregister(system_id=machine.system_id).status == 403
    assert stranger.unregister_the_old_way().status == 403
    assert system_ids(session) == {machine.system_id}


def test_the_old_way_takes_the_only_machine_and_never_the_runner(
    machine: Machine, issued: IssuedRunner, session: Session
) -> None:
    machine.poll()
    answer = machine.unregister_the_old_way()
    assert (answer.status, answer.body) == (204, b"")
    assert system_ids(session) == set()
    assert session.get(Runner, issued.runner.id) is not None


def test_the_old_way_takes_none_of_several_machines(machine: Machine, session: Session) -> None:
    machine.poll()
    machine.poll(system_id="r_other0000001")
    assert machine.unregister_the_old_way().status == 204
    assert system_ids(session) == {machine.system_id, "r_other0000001"}
    assert machine.poll().status == 204


def test_the_old_way_without_any_machine_is_done_already(machine: Machine) -> None:
    assert machine.unregister_the_old_way().status == 204
    assert machine.unregister_the_old_way().status == 204


def test_the_old_way_deletes_a_runner_that_a_registration_token_made(
    machine: Machine, issued: IssuedRunner, session: Session
) -> None:
    issued.runner.registration_type = RegistrationType.REGISTRATION_TOKEN
    session.commit()
    machine.poll()
    number = issued.runner.id
    assert machine.unregister_the_old_way().status == 204
    session.expunge_all()
    assert session.get(Runner, number) is None
    assert machine.poll().status == 403


@pytest.mark.parametrize("path", ["/api/v4/runners", "/api/v4/runners/managers"])
def test_a_form_body_unregisters_too(client: FlaskClient, machine: Machine, session: Session, path: str) -> None:
    machine.poll()
    body = urlencode({"token": machine.token, "system_id": machine.system_id}).encode()
    answer = through(client)("DELETE", path, body, {"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status == 204
    assert system_ids(session) == set()


def test_a_token_in_the_address_is_not_read_and_the_answer_says_why(
    client: FlaskClient, issued: IssuedRunner, session: Session
) -> None:
    answer = client.delete("/api/v4/runners", query_string={"token": issued.token})
    assert answer.status_code == 400
    assert answer.get_json()["message"].startswith("400 Bad Request - token is missing: send it in the body.")
    assert session.get(Runner, issued.runner.id) is not None
