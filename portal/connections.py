"""One HTTP request as the server hands it over (ASGI), and whether its client still waits for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from typing import Any

from werkzeug.exceptions import ClientDisconnected

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

STALLED = 120.0  # seconds in which a client neither sends nor takes a byte: it is taken for gone
HEARD_OUT = 20.0  # seconds for which somebody who was refused may go on talking
PAUSE = 1.0  # seconds without a word after which somebody who was refused waits for the answer
GATHERED = 256 * 1024  # bytes of a body that are handed on at once
_LEFT: Message = {"type": "http.disconnect"}
_SAID_ALIKE = {b"host", b"user-agent", b"accept", b"accept-encoding", b"content-type", b"content-length"}
_TOLD_ALIKE = ("type", "http_version", "scheme", "method", "path", "raw_path", "server")


class Connection:
    """The request's body on its way in, the answer on its way out. All of it happens on the loop but `has_left`."""

    __slots__ = ("_body", "_more", "_receive", "_refusal", "_send", "_watch", "_when_left", "left")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._body = b""  # what was read ahead
        self._more = True  # the client has more of the body to send
        self._watch: asyncio.Task[None] | None = None
        self._when_left: Callable[[], None] | None = None
        self._refusal: list[Message] | None = None
        self.left = False

    def has_left(self) -> bool:
        """Whether nobody waits for the answer any more. From any thread."""
        return self.left

    async def read_ahead(self, most: int) -> bytes | None:
        """The whole body; None when it is longer, or its client left or stalled. `again` gives out what was read."""
        try:
            async with asyncio.timeout(STALLED):
                return await self.read_whole(most)
        except TimeoutError:
            self._leave()
            return None

    async def read_whole(self, most: int, length: int = 0) -> bytes | None:
        """The same for as long as it takes. `length` is what the client said of it, if it did.

        To be told that nothing follows what is complete would cost as much as all the rest of an idle poll.
        """
        while self._more and not self.left and len(self._body) <= most:
            self._body += self._taken(await self._receive()).get("body", b"")
            if length and len(self._body) == length:
                self._more = False
        return None if self._more or self.left else self._body

    def again(self) -> Receive:
        """A way to receive the body from its beginning, after `read_ahead`; each time it is asked for once more."""
        return _replay(self._body, self._more, self.receive)

    async def receive(self) -> Message:
        """The next piece of the body; once all of it came, that the client left. Raises ClientDisconnected before."""
        if self._more:
            return await self._gathered()
        self.watch()
        if self._watch is not None:
            await self._watch
        return _LEFT

    async def _gathered(self) -> Message:
        """Several pieces as one, for each costs a change of threads."""
        loop, pieces, size = asyncio.get_running_loop(), [], 0
        try:
            async with asyncio.timeout(STALLED) as limit:
                while self._more and not self.left and size < GATHERED:
                    pieces.append(self._taken(await self._receive()).get("body", b""))
                    size += len(pieces[-1])
                    limit.reschedule(loop.time() + STALLED)
        except TimeoutError:
            self._leave()
        if self.left:  # else what came so far would be taken for the whole
            raise ClientDisconnected
        return {"type": "http.request", "body": b"".join(pieces), "more_body": self._more}

    def _taken(self, message: Message) -> Message:
        if message["type"] != "http.request":
            self._leave()
            return _LEFT
        self._more = message.get("more_body", False)
        return message

    def watch(self) -> None:
        """Notice from now on when the client leaves; while it sends its body, that is noticed anyway."""
        if self._watch is None and not self._more and not self.left:
            self._watch = asyncio.create_task(self._until_left())

    async def _until_left(self) -> None:
        # The server says so too when the answer is out; and before, that nothing follows the body.
        while (await self._receive())["type"] == "http.request":
            pass
        self._leave()

    def _leave(self) -> None:
        self.left = True
        if self._when_left is not None:
            self._when_left()

    def when_left(self, tell: Callable[[], None] | None) -> None:
        """Call this once the client has left, at once if it has."""
        self.watch()
        self._when_left = tell
        if self.left and tell is not None:
            tell()

    async def send(self, message: Message) -> None:
        """Send a part of the answer; to one who left, nothing."""
        if message["type"] == "http.response.start" and message["status"] >= 400 and self._more:
            self._refusal = []
        if self._refusal is None:
            await self._sent(message)
            return
        self._refusal.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            await self._hear_out(self._refusal)

    async def _sent(self, message: Message) -> None:
        if self.left:
            return
        try:
            async with asyncio.timeout(STALLED):
                await self._send(message)
        except TimeoutError:
            self._leave()

    async def _hear_out(self, refusal: list[Message]) -> None:
        """Refuse who has not said all, and go on reading for a while what it sends.

        A connection that is closed while the client still writes is an error to it: it never reads the answer, and
        tries again what was refused for good. So the answer goes out first, and the rest is read and thrown away
        meanwhile. Its last byte is held back until then: with it, the server ends the conversation.
        """
        told = b"".join(each.get("body", b"") for each in refusal)
        await self._sent(refusal[0])
        await self._sent({"type": "http.response.body", "body": told[:-1], "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARD_OUT):
                while self._more and not self.left:
                    async with asyncio.timeout(PAUSE):
                        self._taken(await self._receive())
        await self._sent({"type": "http.response.body", "body": told[-1:]})

    async def answer(self, status: int, headers: list[Header], body: bytes = b"") -> None:
        """The whole answer."""
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def share_alike(scope: dict[str, Any]) -> None:
    """Put one copy in the place of what the server's descriptions of many requests have in common, headers too."""
    scope["headers"] = [
        _one((name, value)) if name in _SAID_ALIKE else (_one(name), value) for name, value in scope["headers"]
    ]
    for key in _TOLD_ALIKE:
        if key in scope:
            scope[key] = _one(scope[key])


@lru_cache(maxsize=4096)
def _one(value: Any) -> Any:
    return value


def _replay(body: bytes, more: bool, rest: Receive) -> Receive:
    given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            return await rest()
        given = True
        return {"type": "http.request", "body": body, "more_body": more}

    return receive


class Kept:
    """An answer that is looked at before it is sent: whole, if its status is one of those to keep."""

    def __init__(self, send: Send, keep: Iterable[int]) -> None:
        self._send, self._keep = send, frozenset(keep)
        self.status = 0
        self.headers: list[Header] = []
        self.kept = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], message["headers"]
            self.kept = self.status in self._keep
        if not self.kept:
            await self._send(message)
