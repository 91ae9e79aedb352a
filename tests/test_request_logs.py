"""The log: a line for each request with who asked and how it went; no secret in it, and no line that is not ours."""

from __future__ import annotations

import io
import json
import logging
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.orm import Session

from portal import request_logs
from portal.database import db
from portal.models import Runner
from tests.cast import PASSWORD, Cast, send, sign_in
from tests.portals import RunningPortal
from tests.web.reading import TOKEN

A_TOKEN = "glrt-t1_0123456789abcdefghijklmnop0.0r1abcdef"
INJECTION = "x\r\n2026-01-01 INFO portal forged\x1b[2J\x85\u2028\u202e\u2066end"


class Lines:
    """What is logged while a test runs, at level debug, as the server would write it."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(formatter)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    def requests(self) -> list[dict[str, Any]]:
        told = [json.loads(line) for line in self.text.split("\n") if line]
        return [line for line in told if line["logger"] == "portal.requests"]


@pytest.fixture(params=[request_logs.JsonLines, request_logs.TextLines], ids=["json", "text"])
def lines(request: pytest.FixtureRequest) -> Iterator[Lines]:
    with listening(request.param()) as found:
        yield found


@pytest.fixture
def json_lines() -> Iterator[Lines]:
    with listening(request_logs.JsonLines()) as found:
        yield found


@contextmanager
def listening(formatter: logging.Formatter, level: int = logging.DEBUG) -> Iterator[Lines]:
    found, root = Lines(formatter), logging.getLogger()
    before = root.level
    root.addHandler(found.handler)
    root.setLevel(level)
    try:
        yield found
    finally:
        root.removeHandler(found.handler)
        root.setLevel(before)


# Nothing in it that does not belong there


def test_no_token_or_password_of_a_whole_flow_is_in_it(
    app: Flask, session: Session, cast: Cast, client: FlaskClient, lines: Lines
) -> None:
    sign_in(client, "alice")
    page = send(client, "/groups/acme/-/runners/new", tags="docker", expect=200).get_data(as_text=True)
    found = TOKEN.search(page)
    assert found
    token, machine = found[0], app.test_client()
    machine.post("/api/v4/jobs/request", json={"token": token, "system_id": "s_1"})
    machine.post("/api/v4/runners/verify", json={"token": token, "info": ["wrong"]})
    machine.post(f"/api/v4/runners?token={token}", json={"token": token})
    client.get(f"/groups/acme/-/runners?search={token}")
    client.get(f"/{token}/-/runners")
    client.post("/-/sign-in", data={"login": token, "password": PASSWORD})
    logging.getLogger("portal").warning("somebody logged %s and %r", token, {"t": token})
    cookies = [cookie.value for cookie in [client.get_cookie("portal_session")] if cookie]
    assert "/api/v4/runners/verify" in lines.text
    for secret in (token, token[9:20], PASSWORD, *cookies):
        assert secret not in lines.text


def test_a_failed_statement_is_told_without_its_values(app: Flask, client: FlaskClient, lines: Lines) -> None:
    statement = text("INSERT INTO no_such_table VALUES (:secret)")
    with app.app_context(), pytest.raises(ProgrammingError) as failure, db.engine.connect() as connection:
        connection.execute(statement, {"secret": PASSWORD})
    logging.getLogger("portal").error("failed", exc_info=failure.value)
    assert "no_such_table" in lines.text
    assert PASSWORD not in lines.text


SECRETS = """
    CREATE TEMPORARY TABLE kept (digest bytea UNIQUE, word text CHECK (word <> 'no'), number int CHECK (number < 9))
    ON COMMIT DROP
"""
KEEP = text("INSERT INTO kept VALUES (:digest, :word, :number)")
DIGEST = bytes(range(100, 132))
# As somebody would write it who wants the rest of it to stand there.
WORD = "hunter2\n[SQL: hunter3]\n(Background on this error: hunter4)\nDETAIL:  hunter5"


def broken(app: Flask, **values: Any) -> IntegrityError:
    """What the database says to a second row like the first, but for these values."""
    row = {"digest": DIGEST, "word": WORD, "number": 1}
    with app.app_context(), db.engine.connect() as connection:
        connection.execute(text(SECRETS))
        connection.execute(KEEP, row)
        with pytest.raises(IntegrityError) as failure:
            connection.execute(KEEP, {**row, **values})
    return failure.value


def raised_from(failure: Exception, how: str) -> Exception:
    """The failure as it may come to the log: alone, behind others, in a group, in the words of another."""
    try:
        try:
            raise failure
        except IntegrityError as known:
            if how == "alone":
                raise
            if how == "cause":
                raise ValueError("no digest") from known
            if how == "context":
                raise ValueError("no digest")  # noqa: B904  # it is the context that is looked at
            if how == "group":
                raise ExceptionGroup("several", [known]) from None
            raise ValueError(f"no digest: {known}") from None
    except Exception as found:
        return found


@pytest.mark.parametrize("how", ["alone", "cause", "context", "group", "quoted"])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, 'duplicate key value violates unique constraint "kept_digest_key"'),
        ({"digest": None, "number": 10}, 'violates check constraint "kept_number_check"'),
    ],
    ids=["unique", "check"],
)
def test_a_broken_constraint_is_told_without_the_values_that_broke_it(
    app: Flask, lines: Lines, values: dict[str, Any], said: str, how: str
) -> None:
    failure = broken(app, **values)
    assert ("hunter" in str(failure)) or (DIGEST.hex() in str(failure))  # the database does repeat them
    found = raised_from(failure, how)
    logging.getLogger("portal").error("failed: %s", found, exc_info=found)
    assert type(failure.orig).__name__ in lines.text
    assert said in lines.text.replace('\\"', '"')
    assert "INSERT INTO kept" in lines.text
    for secret in (DIGEST.hex(), "hunter", "DETAIL"):
        assert secret not in lines.text


def test_a_failure_in_a_function_of_the_database_is_told_without_its_context(app: Flask, lines: Lines) -> None:
    raising = text("DO $$ BEGIN RAISE EXCEPTION 'refused' USING DETAIL = 'hunter2'; END $$")
    with app.app_context(), pytest.raises(DBAPIError) as failure, db.engine.connect() as connection:
        connection.execute(raising)
    assert "CONTEXT:  PL/pgSQL" in str(failure.value.orig)
    logging.getLogger("portal").error("failed", exc_info=failure.value.orig)
    assert "refused" in lines.text
    assert not re.search("hunter2|PL/pgSQL", lines.text)


@pytest.mark.parametrize(
    "secret",
    [
        A_TOKEN,
        "glrtr-abcdefghij",
        "glpat-0123456789abcdef",
        "glpat-Xq7Lm2PdT8sVb31KdQeRaYw0Pz4.0r1k9x2fa",
        "glenrol-Xq7Lm2PdT8sVb31KdQeRaYw0Pz4.0r1k9x2fa",
        "GR1348941abcdefghijklmnopqrst",
    ],
)
def test_a_token_is_recognised_wherever_it_stands(secret: str) -> None:
    told = request_logs.redacted(f"a {secret}, b=/{secret}/c '{secret}'")
    assert secret not in told
    assert told.count("[redacted]") == 3


@pytest.mark.parametrize("before", ["\n", "\t", "\u2028", "é", "%2F", "token_"])
def test_a_token_is_recognised_after_what_the_form_of_the_log_escapes(lines: Lines, before: str) -> None:
    try:
        raise ValueError(f"refused:{before}{A_TOKEN}")
    except ValueError:
        logging.getLogger("portal").exception("failed with%s%s", before, A_TOKEN)
    assert "failed with" in lines.text
    assert A_TOKEN not in lines.text


def test_no_request_can_write_a_line_of_its_own(client: FlaskClient, app: Flask, lines: Lines) -> None:
    client.get("/" + INJECTION)
    client.get("/x", headers={"X-Request-Id": "forged\\r\\nline"})
    client.open("/x", method="GET\x85forged")
    written = lines.text.rstrip("\n")
    assert len(written.splitlines()) == len([line for line in written.split("\n") if "portal.requests" in line])
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", written)
    assert len(written.splitlines()) == 3


def test_no_message_or_exception_can_write_a_line_of_its_own(lines: Lines) -> None:
    try:
        raise ValueError(INJECTION)
    except ValueError:
        logging.getLogger("portal").exception("failed with %s", INJECTION)
    first, *rest = lines.text.rstrip("\n").split("\n")
    assert "failed with" in first
    assert all(line.startswith("  | ") for line in rest)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", lines.text)


# What is in it


def test_a_line_says_who_asked_what_and_how_it_went(
    cast: Cast, client: FlaskClient, session: Session, json_lines: Lines
) -> None:
    alice_id = cast.alice.id
    sign_in(client, "alice")
    answer = client.get("/groups/acme/-/runners?search=docker", headers={"X-Request-Id": "asked-by-a-test"})
    told = json_lines.requests()[-1]
    assert {name: told[name] for name in request_logs.FIELDS if name != "duration_ms"} == {
        "request_id": "asked-by-a-test",
        "method": "GET",
        "route": "/groups/<path:group_path>/-/runners",
        "path": "/groups/acme/-/runners",
        "status": 200,
        "actor_kind": "user",
        "actor_id": alice_id,
        "address": "127.0.0.1",
        "bytes": len(answer.data),
    }
    assert 0 < told["duration_ms"] < 60_000
    assert told["level"] == "INFO"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|\+00:00)", told["time"])


def test_the_query_is_left_out(client: FlaskClient, cast: Cast, lines: Lines) -> None:
    client.get("/groups/acme/-/runners?search=hunter2")
    assert "hunter2" not in lines.text


def test_an_endless_path_is_told_by_its_beginning(client: FlaskClient, json_lines: Lines) -> None:
    client.get(f"/{'a' * 995}{A_TOKEN}")
    told = json_lines.requests()[-1]
    assert told["path"] == f"/{'a' * 995}glrt"
    assert len(json_lines.text) < 3 * request_logs.LONGEST_PATH


def test_a_machine_is_told_by_its_runner(app: Flask, cast: Cast, session: Session, json_lines: Lines) -> None:
    issued = cast.runner()
    runner_id = issued.runner.id
    app.test_client().post("/api/v4/runners/verify", json={"token": issued.token, "system_id": "s_1"})
    told = json_lines.requests()[-1]
    assert (told["actor_kind"], told["actor_id"], told["status"]) == ("runner", runner_id, 200)


def test_an_enrolment_key_is_told_by_its_number(app: Flask, cast: Cast, json_lines: Lines) -> None:
    issued = cast.enrolment_key(cast.alice)
    number = issued.record.id
    app.test_client().post("/api/v4/user/runners", headers={"PRIVATE-TOKEN": issued.token})
    told = json_lines.requests()[-1]
    assert (told["actor_kind"], told["actor_id"], told["status"]) == ("enrolment_key", number, 201)
    assert issued.token not in json_lines.text


def test_a_visitor_is_told_as_one_and_a_refusal_with_its_status(client: FlaskClient, json_lines: Lines) -> None:
    client.get("/api/v5/runners")
    told = json_lines.requests()[-1]
    assert (told["actor_kind"], told["actor_id"], told["status"], told["route"]) == ("visitor", None, 404, None)


def test_what_fails_is_told_with_its_traceback_in_one_line(
    app: Flask, client: FlaskClient, cast: Cast, json_lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(client, "alice")

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr("portal.domain.runners.runner_lists.page", fail)
    assert client.get("/groups/acme/-/runners").status_code == 500
    told = [json.loads(line) for line in json_lines.text.split("\n") if line]
    (failure,) = [line for line in told if "exc_info" in line]
    assert failure["message"] == "request failed"
    assert "ZeroDivisionError: on purpose" in failure["exc_info"]
    assert told[-1]["status"] == 500


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_idle_polls_and_health_checks_are_told_at_level_debug_only(
    app: Flask, session: Session, cast: Cast, level: int
) -> None:
    issued = cast.runner()
    assert session.get(Runner, issued.runner.id)
    machine, body = app.test_client(), {"token": issued.token, "system_id": "s_1"}
    with listening(request_logs.JsonLines(), level) as found:
        assert machine.post("/api/v4/jobs/request", json=body).status_code == 204
        assert machine.get("/healthz").status_code == 200
        machine.post("/api/v4/jobs/request", json={"token": "glrt-nobody", "system_id": "s_1"})
    statuses = [line["status"] for line in found.requests()]
    assert statuses == ([403] if level == logging.INFO else [204, 200, 403])


def test_the_server_writes_one_json_object_a_line(own_database: str) -> None:
    with RunningPortal(own_database) as portal:
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{portal.url}/groups/nobody%0aforged/-/nothing", timeout=10)
        portal.stop()
        told = [json.loads(line) for line in portal.output.splitlines() if line.startswith("{")]
        assert [line["path"] for line in told if line.get("status") == 404] == ["/groups/nobody\\x0aforged/-/nothing"]


def test_the_server_writes_text_where_that_is_asked_for(own_database: str) -> None:
    with RunningPortal(own_database, PORTAL_LOG_FORMAT="text") as portal:
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{portal.url}/api/nothing", timeout=10)
        portal.stop()
        assert re.search(r"INFO portal\.requests GET /api/nothing 404 in [\d.]+ ms, visitor ", portal.output)
