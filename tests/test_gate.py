"""What the gate and the WSGI application answer without Flask is what Flask would answer; the rest they hand on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from sqlalchemy import select, update

from portal import idle_polls
from portal.domain import tokens
from portal.domain.runners import runners
from portal.gate import Gate
from portal.models import Runner, RunnerManager, RunnerToken
from tests import loops
from tests.api.machines import Answer, Machine, info_of, until
from tests.api.processes import Process
from tests.cast import SYSTEM, Cast

PATH = "/api/v4/jobs/request"
OWN = {"x-request-id", "x-gitlab-last-update"}


def asked(gate: Gate, body: bytes, *pieces: bytes, path: str = PATH, **headers: str) -> Answer:
    """One request through the gate, its body in these pieces."""
    incoming = iter((body, *pieces))
    left = len(pieces) + 1
    told: list[Mapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        nonlocal left
        if not left:
            await asyncio.sleep(60)
        left -= 1
        return {"type": "http.request", "body": next(incoming), "more_body": left > 0}

    async def send(message: Mapping[str, Any]) -> None:
        told.append(message)

    named = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        "client": ("192.0.2.7", 4711),
        "server": ("127.0.0.1", 80),
    }
    loops.run(gate(scope, receive, send))  # type: ignore[arg-type]
    found = {name.decode(): value.decode() for name, value in told[0]["headers"]}
    return Answer(told[0]["status"], found, b"".join(each.get("body", b"") for each in told[1:]))


class Stage:
    def __init__(self, process: Process, token: str) -> None:
        self.process, self.token = process, token
        self.gate = Gate(process.app, hold=0, threads=2)
        self.machine: Machine = process.machine(token)
        for _ in range(3):  # the first polls are told to the database
            self.value = self.machine.poll().headers["X-GitLab-Last-Update"]

    def body(self, **said: Any) -> bytes:
        told = {
            "token": self.token,
            "system_id": "r_machine00001",
            "info": info_of("18.6.6"),
            "last_update": self.value,
        }
        return json.dumps({**told, **said}).encode()


@pytest.fixture
def stage(own_database: str) -> Iterator[Stage]:
    with Process(own_database) as process, process.session() as session:
        yield Stage(process, Cast(session).runner().token)


def of_flask(stage: Stage, body: bytes) -> Answer:
    """Flask's own answer, for which nothing is recalled."""
    client = stage.process.app.test_client()
    answer = client.post(
        PATH, data=body, content_type="application/json", environ_base={"portal.hung_up": lambda: False}
    )
    return Answer(answer.status_code, {name.lower(): value for name, value in answer.headers}, answer.get_data())


def without_own(answer: Answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in OWN | {"vary", "content-length"}}


@pytest.mark.parametrize("token", [None, "glrt-t1_nobodynobodynobodynobody0.0r0000000", "unknown"])
def test_an_answer_of_the_gate_is_flasks(stage: Stage, token: str | None) -> None:
    body = stage.body() if token is None else stage.body(token=token)
    flask = of_flask(stage, body)
    with stage.process.statements() as statements:
        gate = asked(stage.gate, body)
    assert statements == []
    assert (gate.status, gate.body) == (flask.status, flask.body) == (204 if token is None else 403, gate.body)
    assert without_own(gate) == without_own(flask)
    assert gate.headers.get("x-gitlab-last-update") == flask.headers.get("x-gitlab-last-update")


def test_the_clients_request_id_comes_back_where_it_is_one(stage: Stage) -> None:
    assert asked(stage.gate, stage.body(), x_request_id="abc-1").headers["x-request-id"] == "abc-1"
    assert asked(stage.gate, stage.body(), x_request_id="<script>").headers["x-request-id"] != "<script>"


def test_a_body_in_pieces_is_read_whole(stage: Stage) -> None:
    body = stage.body()
    assert asked(stage.gate, body[:10], body[10:500], body[500:], b"").status == 204


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[]", 400), (b"{", 400), (b'{"token": 7}', 400), (b"null", 400), (b'{"token": ""}', 400)],
)
def test_what_is_no_poll_is_told_by_flask(stage: Stage, body: bytes, status: int) -> None:
    answer = asked(stage.gate, body, content_length=str(len(body)))
    assert (answer.status, json.loads(answer.body)["message"][:3]) == (status, str(status))


def test_what_is_nested_too_deep_is_told_by_flask(stage: Stage) -> None:
    deep: dict[str, Any] = {}
    for _ in range(400):
        deep = {"deeper": deep}
    body = stage.body(info=deep)
    answer = asked(stage.gate, body, content_length=str(len(body)))
    assert answer.status == of_flask(stage, body).status < 500


def test_a_form_is_flasks(stage: Stage) -> None:
    body = f"token={stage.token}&system_id=r_machine00001".encode()
    form = "application/x-www-form-urlencoded"
    assert asked(stage.gate, body, content_type=form, content_length=str(len(body))).status == 204


def test_a_long_body_is_flasks_and_arrives_whole(stage: Stage) -> None:
    body = stage.body(filler="x" * 200_000)
    pieces = [body[start : start + 30_000] for start in range(0, len(body), 30_000)]
    assert asked(stage.gate, *pieces, content_length=str(len(body))).status == 204


def test_a_sign_of_life_is_kept_with_its_address(stage: Stage) -> None:
    stage.process.heartbeats.take()
    asked(stage.gate, stage.body())
    (contact,) = stage.process.heartbeats.take()
    assert (contact.system_xid, contact.address, contact.polled) == ("r_machine00001", "192.0.2.7", True)


def version_stored(stage: Stage) -> str | None:
    stage.process.background.write_heartbeats()
    with stage.process.session() as session:
        return session.scalar(select(RunnerManager.version))


def test_a_machine_that_says_what_it_said_before_is_what_it_says(stage: Stage) -> None:
    said = {version: stage.body(info=info_of(version)) for version in ("18.6.6", "19.1.0")}
    for version in ("19.1.0", "19.1.0", "18.6.6", "18.6.6", "19.1.0"):
        assert asked(stage.gate, said[version]).status == 204
        until(lambda expected=version: version_stored(stage) == expected)


def test_a_machine_that_tells_nothing_of_itself_stays_what_it_was(stage: Stage) -> None:
    silent = stage.body(info=None)
    for version in ("18.6.6", "19.1.0"):
        asked(stage.gate, silent)
        assert stage.machine.poll(info=info_of(version), last_update=stage.value).status == 204  # of Flask
        until(lambda expected=version: version_stored(stage) == expected)
        asked(stage.gate, silent)
        assert version_stored(stage) == version


def test_who_says_the_same_again_is_refused_once_its_runner_is_gone(stage: Stage) -> None:
    body = stage.body()
    assert [asked(stage.gate, body).status for _ in range(2)] == [204, 204]
    with stage.process.session() as session:
        runners.delete_runner(session, SYSTEM, session.scalars(select(Runner)).one())
        session.commit()
    until(lambda: asked(stage.gate, body).status == 403)


def test_of_each_machine_only_what_it_said_last_is_remembered(stage: Stage) -> None:
    for number in range(20):
        assert asked(stage.gate, stage.body(filler=number)).status == 204
        assert asked(stage.gate, stage.body(token="unknown", filler=number)).status == 403
    assert len(stage.gate.door._said._polls) == 1


def test_of_those_who_are_refused_not_many_are_remembered(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_polls, "MOST_REFUSED", 5)
    for number in range(20):
        assert asked(stage.gate, stage.body(token="glrt-nobody", filler=number)).status == 403
    assert 0 < len(stage.gate.door._said._refused) <= 5


def test_who_was_refused_and_says_the_same_again_is_heard_once_its_token_is_there(stage: Stage) -> None:
    token = "glrt-imported-0123456789"
    body = stage.body(token=token)
    assert [asked(stage.gate, body).status for _ in range(2)] == [403, 403]
    with stage.process.session() as session:
        digest = tokens.digest(token)
        session.execute(update(RunnerToken).values(digest=digest))
        session.commit()
    stage.process.known.forget_all()  # as the announcement of a change does
    until(lambda: asked(stage.gate, body).status == 204)
