"""The door of the REST API, whatever is sent to it: odd methods, bodies, paths and headers are answered in JSON."""

import logging
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from portal.api.for_users.operations import OPERATIONS
from tests.api.for_users.conftest import ScriptOf
from tests.api.for_users.scripts import Script
from tests.cast import Cast

JSON = "application/json"


@pytest.fixture
def script(script_of: ScriptOf, cast: Cast) -> Script:
    return script_of(cast.dana)


def test_a_head_is_answered_as_a_get_without_the_body(script: Script) -> None:
    got, head = script.ask("GET", "/user"), script.ask("HEAD", "/user")
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == got.headers["Content-Length"]
    assert head.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(("method", "path"), [("PATCH", "/user"), ("DELETE", "/version"), ("POST", "/runners/7")])
def test_a_wrong_method_is_told_the_right_ones(script: Script, method: str, path: str) -> None:
    answer = script.ask(method, path)
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]
    assert answer.get_json() == {"message": "405 Method Not Allowed - This path does not take this method."}


@pytest.mark.parametrize(
    "path", ["/nowhere", "/runners/x", "/runners/-1", "/runners/1.5", "/runners/7/", "//user", "/../user"]
)
def test_an_unknown_path_is_not_found_in_json(script: Script, path: str) -> None:
    answer = script.ask("GET", path)
    assert answer.status_code == 404
    assert answer.is_json


@pytest.mark.parametrize("number", ["0", str(2**63), str(2**64), "9" * 400])
def test_a_number_that_nothing_has_is_not_found(script: Script, number: str) -> None:
    for method in ("GET", "DELETE"):
        assert script.ask(method, f"/runners/{number}").status_code == 404
    assert script.ask("PUT", f"/runners/{number}", paused=True).status_code == 404


@pytest.mark.parametrize(
    "path", ["/groups/a%00b", "/groups/%ff%fe", "/projects/%ED%A0%80", "/groups/%2e%2e", "/groups/" + "a" * 5000]
)
def test_a_path_of_odd_characters_is_not_found(script: Script, path: str) -> None:
    assert script.ask("GET", path).status_code == 404


BODIES: list[tuple[bytes, str]] = [
    (b"{", "application/json"),
    (b"[1]", "application/json"),
    (b"\xff\xfe{}", "application/json"),
    ('{"description": "ä"}'.encode("utf-16"), "application/json; charset=utf-16"),
    (b'{"description": "\\ud800"}', "application/json"),
    (b'{"description": "\\u0000"}', "application/json"),
    (b"description=%00", "application/x-www-form-urlencoded"),
    (b"[" * 200_000, "application/json"),
    (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "application/json"),
    (b'{"maximum_timeout": 1e999}', "application/json"),
    (b'{"maximum_timeout": 99999999999999999999999999}', "application/json"),
    (b'--a\r\nContent-Disposition: form-data; name="description"\r\n\r\n', "multipart/form-data; boundary=a"),
    (b"<xml/>", "text/xml"),
]


@pytest.mark.parametrize(("body", "kind"), BODIES, ids=[f"{kind} {body[:20]!r}" for body, kind in BODIES])
def test_a_body_that_cannot_be_read_is_a_bad_request(
    app: Flask, cast: Cast, script: Script, body: bytes, kind: str
) -> None:
    path = f"/api/v4/runners/{cast.runner().runner.id}"
    answer = app.test_client().put(path, data=body, content_type=kind, headers={"PRIVATE-TOKEN": script.token})
    assert answer.status_code == 400
    assert set(answer.get_json()) & {"error", "message"}


def test_a_body_that_is_too_large_is_refused_as_such(app: Flask, cast: Cast, script: Script) -> None:
    path, headers = f"/api/v4/runners/{cast.runner().runner.id}", {"PRIVATE-TOKEN": script.token}
    for kind in ("application/json", "application/x-www-form-urlencoded"):
        answer = app.test_client().put(path, data=b"a" * 1_048_577, content_type=kind, headers=headers)
        assert answer.status_code == 413
        assert "RateLimit-Remaining" in answer.headers


@pytest.mark.parametrize("shown", ["ä" * 5, "glpat-\t", "Bearer", " ", "glpat-" + "x" * 60_000, "a\x7fb"])
def test_an_odd_token_is_no_credential(app: Flask, shown: str) -> None:
    for header in ({"PRIVATE-TOKEN": shown}, {"Authorization": f"Bearer {shown}"}, {"Authorization": shown}):
        assert app.test_client().get("/api/v4/user", headers=header).status_code == 401


def test_every_operation_asks_who_it_is_before_anything_else(app: Flask) -> None:
    """Also before it reads the body: what is wrong with it is nobody's business."""
    with app.test_request_context():
        urls = app.create_url_adapter(None) or app.url_map.bind("portal.example.com")
        for number, each in enumerate(OPERATIONS.values()):
            if not each.routed:
                continue
            places: dict[str, Any] = dict.fromkeys(each.places, 7)
            path = urls.build(f"user_api.{each.name}", places, method=each.method)
            elsewhere = {"REMOTE_ADDR": f"192.0.2.{number}"}  # refused credentials are counted by address
            client = app.test_client()
            answer = client.open(path, method=each.method, data=b"{", content_type=JSON, environ_base=elsewhere)
            assert (each.name, answer.status_code) == (each.name, 401)


def test_no_token_reaches_the_log(app: Flask, cast: Cast, caplog: pytest.LogCaptureFixture) -> None:
    token = cast.access_token(cast.alice)
    with caplog.at_level(logging.DEBUG):
        Script(app.test_client(), token).get("/user")
        app.test_client().get(f"/api/v4/user?private_token={token}", headers={"Authorization": f"Bearer {token}x"})
    assert token not in caplog.text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    path=some.text(max_size=40),
    query=some.binary(max_size=40),
    method=some.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"]),
    body=some.binary(max_size=60),
)
def test_nothing_that_is_sent_makes_the_portal_fail(
    app: Flask, script: Script, path: str, query: bytes, method: str, body: bytes
) -> None:
    answer = app.test_client().open(
        "/api/v4/" + path.replace("?", ""),
        method=method,
        query_string=query.decode("latin-1"),
        data=body,
        headers={"PRIVATE-TOKEN": script.token},
    )
    assert answer.status_code < 500
