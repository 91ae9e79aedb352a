"""`POST /jobs/request`: a runner's poll, which is its heartbeat too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.runners import runner_tokens, runners
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.models import RunnerManager, RunnerToken
from tests.api.machines import JSON, VERSIONS, Machine, info_of, through
from tests.cast import TAGGED, Cast


def manager(session: Session) -> RunnerManager:
    """The one manager there is."""
    session.expire_all()
    return session.scalars(select(RunnerManager)).one()


def test_a_poll_hears_that_there_is_nothing_to_do(machine: Machine) -> None:
    answer = machine.poll()
    assert answer.status == 204
    assert answer.body == b""
    assert answer.headers["X-GitLab-Last-Update"]


def test_a_poll_with_an_unknown_token_gets_403(stranger: Machine) -> None:
    answer = stranger.poll()
    assert answer.status == 403
    assert "This token belongs to no runner" in answer.message
    assert "X-GitLab-Last-Update" not in answer.headers


def test_a_paused_runner_hears_204_and_never_the_403_that_would_silence_it(cast: Cast, machine: Machine) -> None:
    machine.token = cast.runner(settings=replace(TAGGED, paused=True)).token
    answer = machine.poll()
    assert answer.status == 204
    assert answer.headers["X-GitLab-Last-Update"]


def test_the_queue_value_stays_while_the_runner_does(machine: Machine) -> None:
    assert len({machine.poll().headers["X-GitLab-Last-Update"] for _ in range(3)}) == 1


def test_the_queue_value_changes_when_the_runner_is_edited(
    cast: Cast, machine: Machine, issued: IssuedRunner, session: Session
) -> None:
    before = machine.poll().headers["X-GitLab-Last-Update"]
    runners.update_runner(session, cast.as_(cast.alice), issued.runner, replace(TAGGED, description="Other"))
    session.commit()
    after = machine.poll(last_update=before).headers["X-GitLab-Last-Update"]
    assert after != before
    runners.set_paused(session, cast.as_(cast.alice), issued.runner, True)
    session.commit()
    assert machine.poll(last_update=after).headers["X-GitLab-Last-Update"] not in (before, after)


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_tells_what_it_is(machine: Machine, session: Session, version: str) -> None:
    info = info_of(version)
    assert machine.poll(info=info).status == 204
    row = manager(session)
    assert (row.version, row.revision, row.platform, row.architecture) == (version, "df85dadf", "linux", "amd64")
    assert row.executor_name == "shell"
    assert row.runtime_features == info["features"]
    assert row.config == info.get("config", {})
    assert row.labels == info.get("labels", {})
    assert row.has_polled
    assert row.runner.contacted_at == row.contacted_at


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"version": "development version", "revision": "HEAD"},
        {"features": {"cancelable": True}},
        {"name": "", "version": "", "executor": "", "features": None, "config": None, "labels": None},
        {"a_key_of_next_year": {"deep": [1, 2, {"er": None}]}, "version": "25.0.0"},
        {"executor": "an executor of next year"},
    ],
)
def test_third_party_clients_and_coming_versions_are_understood(machine: Machine, info: dict[str, Any]) -> None:
    assert machine.poll(info=info).status == 204


@pytest.mark.parametrize(
    "said",
    [
        {"session": {"url": "https://box1:8093", "certificate": "-----BEGIN", "authorization": "x"}},
        {"last_update": "0123abcd"},
        {"last_update": 7},
        {"job_age": 12},
        {"a_key_of_next_year": [None]},
        {"info": None, "system_id": None},
    ],
)
def test_other_keys_of_a_poll_are_no_obstacle(machine: Machine, said: dict[str, Any]) -> None:
    assert machine.poll(**said).status == 204


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("docker", 3),
        ("docker+machine", 9),
        ("docker-ssh+machine", 10),
        ("kubernetes", 11),
        ("instance", 13),
        ("?", 0),
    ],
)
def test_executors_are_stored_as_gitlab_numbers_them(
    machine: Machine, session: Session, name: str, number: int
) -> None:
    machine.poll(info=info_of("18.6.6", executor=name))
    assert manager(session).executor_type == number


def test_the_token_that_was_used_is_kept_with_the_machine(
    machine: Machine, issued: IssuedRunner, session: Session
) -> None:
    machine.poll()
    assert manager(session).token_id == issued.record.id
    token = session.get(RunnerToken, issued.record.id)
    assert token is not None
    assert token.first_used_at is not None


def test_a_reset_by_a_person_ends_polls_with_the_old_token_at_once(
    cast: Cast, machine: Machine, issued: IssuedRunner, session: Session
) -> None:
    assert machine.poll().status == 204
    fresh = runner_tokens.reset_token(session, cast.as_(cast.alice), issued.runner, seen_token_id=None)
    session.commit()
    assert machine.poll().status == 403
    machine.token = fresh.token
    assert machine.poll().status == 204


def test_a_deleted_runner_is_unknown(cast: Cast, machine: Machine, issued: IssuedRunner, session: Session) -> None:
    assert machine.poll().status == 204
    runners.delete_runner(session, cast.as_(cast.alice), issued.runner)
    session.commit()
    assert machine.poll().status == 403


def test_a_number_that_postgresql_does_not_know_is_no_failure(client: FlaskClient, machine: Machine) -> None:
    for number in (b"1e999", b"-1e999", b"123456789012345678901234567890", b"1e-999"):
        body = b'{"token": "%b", "info": {"config": {"gpus": %b}}}' % (machine.token.encode(), number)
        assert through(client)("POST", "/api/v4/jobs/request", body, JSON).status in (204, 400)
