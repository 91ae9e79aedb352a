"""How the runner API says no: the status the client understands, and a sentence that its user reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from portal.database import db
from tests.api.machines import JSON, Machine, through
from tests.api.registering import Office
from tests.cast import Cast

TEXT = "must be a text of at most"


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"system_id": "x" * 65}, f"system_id {TEXT} 64 characters"),
        ({"system_id": 7}, f"system_id {TEXT}"),
        ({"system_id": ["r_machine00001"]}, f"system_id {TEXT}"),
        ({"system_id": "r_\0"}, f"system_id {TEXT}"),
        ({"info": "18.6.6"}, "info must be an object"),
        ({"info": [1]}, "info must be an object"),
        ({"info": {"version": "x" * 2049}}, f"info.version {TEXT} 2048"),
        ({"info": {"version": 18.6}}, f"info.version {TEXT}"),
        ({"info": {"revision": "x" * 256}}, f"info.revision {TEXT} 255"),
        ({"info": {"platform": {"os": "linux"}}}, f"info.platform {TEXT}"),
        ({"info": {"architecture": "a\0b"}}, f"info.architecture {TEXT}"),
        ({"info": {"executor": True}}, f"info.executor {TEXT}"),
        ({"info": {"features": ["variables"]}}, "info.features must be an object"),
        ({"info": {"features": {"variables": "yes"}}}, "info.features.variables has a value of a wrong type"),
        ({"info": {"features": {str(n): True for n in range(257)}}}, "info.features must be an object with at most"),
        ({"info": {"config": "gpus"}}, "info.config must be an object"),
        ({"info": {"config": {"gpus": {"deep": {}}}}}, "info.config.gpus has a value of a wrong type"),
        ({"info": {"config": {"gpus": ["a", "b"]}}}, "info.config.gpus has a value of a wrong type"),
        ({"info": {"config": {"gpus": "x" * 1025}}}, "info.config.gpus has a value"),
        ({"info": {"labels": {"rack": 7}}}, "info.labels.rack has a value of a wrong type"),
        ({"info": {"labels": {"rack": "\0"}}}, "info.labels.rack has a value"),
        ({"info": {"labels": {"\0": "rack"}}}, "has a value of a wrong type or length"),
        ({"info": {"labels": {"k" * 256: "rack"}}}, "has a value of a wrong type or length"),
    ],
)
def test_a_value_that_cannot_be_kept_is_named(machine: Machine, said: dict[str, Any], sentence: str) -> None:
    for answer in (machine.poll(**said), machine.verify(**said)):
        assert answer.status == 400
        assert answer.message.startswith("400 Bad Request - ")
        assert sentence in answer.message
        assert len(answer.message) < 300


def test_a_bad_value_is_refused_from_a_machine_that_is_known_already(machine: Machine) -> None:
    assert machine.poll().status == 204
    assert machine.poll(info={"version": 7}).status == 400
    assert machine.poll().status == 204


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("jobs/request", "POST"),
        ("runners/verify", "POST"),
        ("runners/reset_authentication_token", "POST"),
        ("runners/managers", "DELETE"),
        ("runners", "DELETE"),
        ("runners", "POST"),
    ],
)
class TestEachDoor:
    """What every door that takes a runner's token does with a request that has none it can read."""

    @pytest.mark.parametrize("token", [None, "", 7, ["glrt-x"], {"token": "x"}, True])
    def test_asks_for_the_token(self, stranger: Machine, path: str, method: str, token: object) -> None:
        stranger.token = token  # type: ignore[assignment]
        answer = stranger.call(method, path, system_id="r_machine00001")
        assert answer.status == 400
        assert "token" in answer.message

    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b"[]",
            b"7",
            b'"token"',
            b"\xff\xfe",
            b'{"token": NaN}',
            b'{"token": "\\ud800"}',
            b"[" * 50_000,
            b'{"a":' * 50_000,
            b"token=glrt-a-form-without-its-media-type",
        ],
    )
    def test_says_that_the_body_cannot_be_read(
        self, client: FlaskClient, path: str, method: str, body: bytes
    ) -> None:
        answer = through(client)(method, f"/api/v4/{path}", body, JSON)
        assert answer.status == 400
        assert "The body " in answer.message

    def test_takes_an_empty_body_or_null_for_no_token(self, client: FlaskClient, path: str, method: str) -> None:
        for body in (b"", b"null", b"{}"):
            answer = through(client)(method, f"/api/v4/{path}", body, JSON)
            assert (answer.status, answer.message) == (400, "400 Bad Request - token is missing")

    def test_takes_no_body_over_the_limit(self, machine: Machine, path: str, method: str) -> None:
        answer = machine.call(method, path, padding="x" * 1_048_576)
        assert answer.status == 413
        assert "too large" in answer.message

    def test_answers_another_method_with_405(self, client: FlaskClient, path: str, method: str) -> None:
        answer = through(client)("PATCH", f"/api/v4/{path}", b"{}", JSON)
        assert answer.status == 405
        assert method in answer.headers["Allow"]
        assert "does not take this method" in answer.message

    def test_never_redirects(self, client: FlaskClient, machine: Machine, path: str, method: str) -> None:
        body = json.dumps({"token": machine.token, "system_id": machine.system_id}).encode()
        for asked in (f"/api/v4/{path}/", f"/api//v4/{path}", f"/api/v4//{path}", "/api/v4"):
            answer = through(client)(method, asked, body, JSON)
            assert answer.status in (404, 405), asked
            assert "Location" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/api/v4/runners/router/discovery",
        "/api/v4/pipelines",
        "/api/v4/pipelines/7",
        "/api/v4",
        "/api/v5/runners",
        "/api/",
        "/api/nothing-here",
        "/api/v4/" + "x/" * 500,
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
def test_an_unknown_path_is_404_in_json(client: FlaskClient, path: str, method: str) -> None:
    answer = through(client)(method, path, b"", {})
    assert answer.status == 404
    assert answer.message == "404 Not Found - There is no such API path here."


def test_the_host_header_is_in_no_answer(
    machine: Machine, stranger: Machine, box: Machine, office: Office, cast: Cast
) -> None:
    evil = {"Host": "evil.example"}
    machine.headers = stranger.headers = box.headers = evil
    office.turn_off(cast.acme)
    for answer in (stranger.poll(), stranger.reset_token(), stranger.register(), box.register(), machine.verify()):
        assert b"evil.example" not in answer.body
        assert "evil.example" not in str(dict(answer.headers))


def test_a_failure_of_ours_is_never_a_403(
    app: Flask, machine: Machine, box: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = db.session().get_bind()

    def fail(*_: object) -> None:
        raise OperationalError("the database went away", None, Exception())

    event.listen(connection, "before_cursor_execute", fail)
    try:
        answers = [machine.poll(), machine.verify(), machine.reset_token(), machine.unregister(), box.register()]
    finally:
        event.remove(connection, "before_cursor_execute", fail)
    for answer in answers:
        assert answer.status == 500
        assert int(answer.headers["Retry-After"]) > 0
        assert "not your fault" in answer.message
        assert "went away" not in answer.message
    assert machine.poll().status == 204
