"""Bodies that come in pieces, slowly, or not to their end, and answers to clients that still talk or have left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from werkzeug.exceptions import ClientDisconnected

from portal import connections
from portal.connections import Connection
from tests import loops

LEFT = {"type": "http.disconnect"}
Told = list[dict[str, Any]]


def piece(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def talk(do: Callable[[Connection], Awaitable[Any]], *says: dict[str, Any] | float) -> tuple[Any, Told]:
    """What comes of it with a client that says this, numbers being pauses in seconds, and then nothing."""
    incoming, told = iter(says), Told()

    async def receive() -> dict[str, Any]:
        said = next(incoming, None)
        while isinstance(said, float):
            await asyncio.sleep(said)
            said = next(incoming, None)
        if said is None:
            await asyncio.sleep(60)
        return said or LEFT

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    async def both() -> Any:
        return await do(Connection(receive, send))

    return loops.run(both()), told


def test_small_pieces_are_handed_on_together() -> None:
    got, _ = talk(lambda it: it.receive(), piece(b"one"), piece(b"two"), piece(b"", more=False))
    assert got == piece(b"onetwo", more=False)


def test_a_body_that_is_cut_off_is_not_taken_for_the_whole() -> None:
    with pytest.raises(ClientDisconnected):
        talk(lambda it: it.receive(), piece(b"half of it"), LEFT)


def test_a_client_that_says_nothing_for_long_is_taken_for_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALLED", 0.05)
    with pytest.raises(ClientDisconnected):
        talk(lambda it: it.receive(), piece(b"half of it"), 30.0)

    async def read(it: Connection) -> tuple[bytes | None, bool]:
        return await it.read_ahead(100), it.left

    assert talk(read, piece(b"half of it"), 30.0)[0] == (None, True)


def test_what_was_read_ahead_comes_again_and_the_rest_after_it() -> None:
    async def read(it: Connection) -> list[Any]:
        found: list[Any] = [await it.read_ahead(4)]
        for _ in range(2):
            again = it.again()
            found.append(await again())
        found.append(await again())
        return found

    got, _ = talk(read, piece(b"123"), piece(b"456"), piece(b"789", more=False))
    assert got == [None, piece(b"123456"), piece(b"123456"), piece(b"789", more=False)]


def test_it_is_told_when_the_client_leaves() -> None:
    async def wait(it: Connection) -> bool:
        await it.read_ahead(100)
        left = asyncio.Event()
        it.when_left(left.set)
        assert not it.has_left()
        await asyncio.wait_for(left.wait(), 5)
        return it.has_left()

    assert talk(wait, piece(b"poll", more=False), 0.05, LEFT)[0] is True


async def refuse(it: Connection) -> None:
    await it.send({"type": "http.response.start", "status": 413, "headers": []})
    await it.send({"type": "http.response.body", "body": b"too large", "more_body": True})
    await it.send({"type": "http.response.body", "body": b""})


def test_who_is_refused_while_it_talks_is_heard_out() -> None:
    """The answer goes out at once but for its last byte, with which the server would hang up."""
    said = [piece(b"x" * 1000) for _ in range(50)]
    _, told = talk(refuse, *said, piece(b"", more=False))
    assert [each.get("body", b"") for each in told[1:]] == [b"too larg", b"e"]
    assert told[1]["more_body"]
    assert not told[2].get("more_body")


def test_who_waits_for_the_refusal_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "PAUSE", 0.05)
    _, told = talk(refuse, piece(b"x"), 30.0)
    assert b"".join(each.get("body", b"") for each in told[1:]) == b"too large"


def test_nothing_is_sent_to_who_left() -> None:
    async def answer(it: Connection) -> None:
        assert await it.read_ahead(100) is None
        await it.send({"type": "http.response.start", "status": 200, "headers": []})

    assert talk(answer, LEFT)[1] == []


def described(number: int) -> dict[str, Any]:
    """A request as the server describes it, every part of it new."""
    headers = {"user-agent": "gitlab-runner 18.6.6", "x-request-id": f"id-{number}"}
    return {
        "path": "/api/v4/jobs/request"[:-1] + "t",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("192.0.2.7", str(number)),
    }


def test_of_what_requests_have_in_common_one_copy_is_kept() -> None:
    first, second = described(1), described(2)
    for each in (first, second):
        connections.share_alike(each)
    assert (first, second) == (described(1), described(2))
    assert first["path"] is second["path"]
    (agent, own), (same_agent, others) = first["headers"], second["headers"]
    assert agent is same_agent
    assert own[0] is others[0]
    assert own[1] != others[1]
