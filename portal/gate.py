"""The gate in front of Flask: it answers polls that get nothing, holds those that may wait, and hands on the rest.

It owns no rule. Who polls, whether anything waits for them and whom an announcement concerns say the domain's rooms
`machines` and `jobs`; what a poll gets that is no idle one, Flask answers. Decision 0032.
"""

from __future__ import annotations

import asyncio
import enum
import random
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from a2wsgi import WSGIMiddleware
from flask import Flask

from portal.connections import GATHERED, STALLED, Connection, Header, Kept, Receive, Send, share_alike
from portal.domain.errors import TokenUnknown
from portal.domain.jobs.job_claims import Claimed
from portal.domain.jobs.job_classes import KnownClasses
from portal.domain.jobs.queue_news import Announcement
from portal.domain.machines.held_polls import HeldPoll, HeldPolls, Scope
from portal.domain.machines.known_runners import KnownRunner
from portal.domain.machines.polls import Idle
from portal.idle_polls import LONGEST_BODY, Headers, PollDoor
from portal.requests import CLAIMED, HUNG_UP

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

CHANGED = "changed"  # in place of a queue value: whoever echoes it is looked for work at once
MOST_ASKED = 5  # times that a poll which was woken asks, before it is told to come again
ASK_AGAIN = 0.1  # seconds until it does, when others were just taking what it found
UNHEEDED_FOR = 30.0  # seconds for which it is tried to wake somebody for what was passed on in vain
MOST_UNHEEDED = 100
ASGIScope = dict[str, Any]


class Why(enum.Enum):
    """Why a held poll waits no longer."""

    WORK = enum.auto()
    CHANGED = enum.auto()
    OVER = enum.auto()
    LEFT = enum.auto()


class Waiting(HeldPoll):
    """A held poll, and what it is told. `news` is what it was woken for; who cannot use it passes it on."""

    __slots__ = ("news", "told")

    def __init__(self, known: KnownRunner, system_xid: str, told: asyncio.Future[Why]) -> None:
        super().__init__(known, system_xid)
        self.told = told
        self.news: Announcement | None = None

    def tell(self, why: Why) -> None:
        if not self.told.done():
            self.told.set_result(why)


class Gate:
    """The ASGI application of one server process. `hold` is in seconds, 0 for never; `threads` are Flask's.

    What is called from other threads says so; everything else happens on the loop.
    """

    def __init__(self, app: Flask, *, hold: float, threads: int) -> None:
        self.hold = hold
        self.door: PollDoor = app.extensions["poll_door"]
        self._of_idle, self._of_refusal = _raw(self.door.of_idle), _raw(self.door.of_refusal)
        self.polls = self.door.polls
        self.classes: KnownClasses = app.extensions["known_classes"]
        self.held: HeldPolls[Waiting] = HeldPolls()
        self._behind: Any = WSGIMiddleware(_Behind(app), workers=threads)  # type: ignore[arg-type]
        # Polls never take the last thread: pages are answered however many machines ask.
        self._lanes = asyncio.Semaphore(max(1, threads - 1))
        # And those that nobody woke leave one to those who were, of whom it is known that there is work for them.
        self._unwoken = asyncio.Semaphore(max(1, threads - 2))
        self._loop: asyncio.AbstractEventLoop | None = None
        self.stopping = False
        self._unheeded: deque[tuple[float, Announcement]] = deque(maxlen=MOST_UNHEEDED)
        self._reading: dict[asyncio.Task[Any], float] = {}  # since when the bodies of these polls are waited for
        self.told_of = 0  # the mark up to which those who are held were woken for what was announced

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self.door.paths:
            held = await self._poll(scope, receive, send)
            if held is not None:
                await held.wait()
        elif scope["type"] == "http":
            await self._hand_on(scope, Connection(receive, send))
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    async def _hand_on(self, scope: ASGIScope, connection: Connection) -> None:
        """Everything that is no poll is Flask's."""
        receive: Receive = connection.receive
        if _is_short(scope):  # no thread waits for a slow body, and it is seen when the client leaves
            await connection.read_ahead(GATHERED)
            connection.watch()
            receive = connection.again()
        if not connection.left:
            await self._behind(_with(scope, connection), receive, connection.send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Hear of the stop as early as the server does, which waits for the polls that are held."""
        await receive()
        self._loop = asyncio.get_running_loop()
        self._give_up_stalled()
        for each in (signal.SIGINT, signal.SIGTERM):
            # The loop's own handler, which the server has set, is woken by the signal in any case.
            signal.signal(each, lambda *_: self._from_outside(self.stop))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    def _give_up_stalled(self) -> None:
        """End the polls whose body does not come, all at once: a timer for each would cost more than the poll."""
        for task, since in list(self._reading.items()):
            if monotonic() - since > STALLED:
                task.cancel()
        if self._loop is not None:
            self._loop.call_later(STALLED / 4, self._give_up_stalled)

    # What is heard

    def queued(self, said: Announcement) -> None:
        """Jobs were announced. From any thread."""
        self._from_outside(lambda: self._wake_for(said))

    def changed(self, runner_id: int | None) -> None:
        """A runner changed; None for all of them. From any thread."""
        self._from_outside(lambda: self._wake_changed(runner_id))

    def held_scopes(self) -> list[Scope]:
        """Where jobs would have to appear to wake anybody. From any other thread; it waits for the loop."""
        if self._loop is None or self._loop.is_closed():
            return []

        async def ask() -> list[Scope]:
            return self.held.scopes()

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result(timeout=10)

    def stop(self) -> None:
        """Answer everybody who is held, and hold nobody any more."""
        self.stopping = True
        for waiting in self.held.take_all():
            waiting.tell(Why.OVER)

    def _from_outside(self, do: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(do)

    def _wake_for(self, said: Announcement) -> None:
        self.told_of = max(self.told_of, said.mark if said.last else said.mark - 1)
        self._give(said)

    def _give(self, said: Announcement) -> bool:
        """Wake those who are to look for it. False when there is nobody."""
        woken = self.held.take_for(said, self.classes.may_take)
        for waiting in woken:
            waiting.news = said
            waiting.tell(Why.WORK)
        return bool(woken)

    def _wake_changed(self, runner_id: int | None) -> None:
        for waiting in self.held.take_all() if runner_id is None else self.held.take_of(runner_id):
            waiting.tell(Why.CHANGED)

    def pass_on(self, said: Announcement | None) -> None:
        """One who was woken for a job did not take it: let another do so, now or when the next one comes to wait."""
        if said is not None and not self._give(one := replace(said, jobs=1)):
            self._unheeded.append((monotonic(), one))

    def offer_unheeded(self) -> None:
        """Somebody has come to wait: try again what nobody could be woken for."""
        if self._unheeded:
            since = monotonic() - UNHEEDED_FOR
            kept = [each for each in self._unheeded if each[0] > since and not self._give(each[1])]
            self._unheeded = deque(kept, MOST_UNHEEDED)

    # Polls

    async def _poll(self, scope: ASGIScope, receive: Receive, send: Send) -> _Hold | None:
        """Answer the poll, now or by Flask, or say how it is held."""
        connection = Connection(receive, send)
        content_type, length, request_id, forwarded = _told(scope)
        reading = asyncio.current_task()
        if reading is not None:
            self._reading[reading] = monotonic()
        try:
            body = await connection.read_whole(LONGEST_BODY, length)
        finally:
            self._reading.pop(reading, None)  # type: ignore[arg-type]
        address = self.door.address(scope["client"][0] if scope["client"] else "", forwarded)
        try:
            heard = self.door.hear(body, content_type, address) if body is not None else None
        except TokenUnknown:
            headers = self._of_refusal + _raw(self.door.refused(address, request_id))
            await connection.answer(403, headers, self.door.refusal)
            return None
        if heard is None:
            connection.watch()
            async with self._unwoken:
                await self.ask(scope, connection)
            return None
        digest, idle = heard
        if idle.echoed and self.hold and not self.stopping and self._loop is not None:
            share_alike(scope)  # there are many that wait
            return _Hold(self, scope, connection, digest, address, idle, request_id)
        await self.answer_idle(connection, address, request_id, idle, idle.value)
        return None

    async def answer_idle(
        self, connection: Connection, address: str, request_id: str, idle: Idle, value: str
    ) -> None:
        """204 with this value of the queue."""
        told = self.door.nothing(address, request_id, idle.known.runner_id, value)
        await connection.answer(204, self._of_idle + _raw(told))

    async def ask(
        self,
        scope: ASGIScope,
        connection: Connection,
        keep: Iterable[int] = (),
        claimed: list[Claimed] | None = None,
    ) -> Kept | None:
        """Let Flask answer the poll, unless its client is gone: None then. An answer to keep is not sent.

        What the machine was given is put into `claimed`.
        """
        async with self._lanes:
            connection.watch()
            if connection.left:
                return None
            answer = Kept(connection.send, keep)
            handed = {**_with(scope, connection), CLAIMED: claimed}
            await self._behind(handed, connection.again(), answer.send)
        return answer


class _Hold:
    """One poll while it is held, until there is work for it, its runner changes, the time is over or it leaves."""

    __slots__ = ("address", "asked", "connection", "digest", "gate", "idle", "loop", "request_id", "scope", "until")

    def __init__(
        self,
        gate: Gate,
        scope: ASGIScope,
        connection: Connection,
        digest: bytes,
        address: str,
        idle: Idle,
        request_id: str,
    ) -> None:
        self.gate, self.scope, self.connection = gate, scope, connection
        self.digest, self.address = digest, address
        self.idle, self.request_id = idle, request_id
        self.loop = asyncio.get_running_loop()
        self.until = self.loop.time() + gate.hold
        self.asked = 0

    async def wait(self) -> None:
        """Hold it and answer it; whoever is woken for work and finds none waits on."""
        while True:
            waiting = Waiting(self.idle.known, self.idle.system_xid, self.loop.create_future())
            why = await self._held(waiting)
            if why is Why.WORK and not self.connection.left:
                if not await self._look_for_work(waiting):
                    return
                continue
            self.gate.pass_on(waiting.news)
            if not self.connection.left:
                missed = why is Why.CHANGED or waiting.news is not None
                await self._answer(CHANGED if missed else self._value())
            return

    def _value(self) -> str:
        """The queue's value at the end of a wait: whatever was announced meanwhile, others were woken for."""
        since = max(self.idle.since, min(self.gate.told_of, self.gate.polls.news.mark))
        return self.idle._replace(since=since).value

    async def _held(self, waiting: Waiting) -> Why:
        self.gate.held.add(waiting)
        timer = self.loop.call_at(self.until, waiting.tell, Why.OVER)
        self.connection.when_left(lambda: waiting.tell(Why.LEFT))
        # What was announced before it could be found was not told to it.
        if self.gate.polls.idle_again(self.digest, self.idle.system_xid, self.idle.value) is None:
            waiting.tell(Why.WORK)
        elif self.gate.stopping:
            waiting.tell(Why.OVER)
        else:
            self.gate.offer_unheeded()
        try:
            return await waiting.told
        finally:
            timer.cancel()
            self.connection.when_left(None)
            self.gate.held.remove(waiting)

    async def _look_for_work(self, waiting: Waiting) -> bool:
        """Let Flask look for what it was woken for. True when there was nothing and it is to wait on."""
        self.asked += 1
        claimed: list[Claimed] = []
        answer = await self._asked(claimed, last=self.asked >= MOST_ASKED)
        if claimed and waiting.news is not None and not claimed[0].is_of(waiting.news, self.gate.classes):
            self.gate.pass_on(waiting.news)  # it took an older one: what it was woken for still waits
        if answer is None or not answer.kept or self.connection.left:
            if not claimed and (answer is None or answer.status != 204 or self.connection.left):
                self.gate.pass_on(waiting.news)
            return False
        value = dict(answer.headers).get(b"x-gitlab-last-update", b"").decode()
        idle = self.gate.polls.idle_again(self.digest, self.idle.system_xid, value) if value else None
        if idle is None:
            await self._answer(value or CHANGED)
            return False
        self.idle = idle
        return True

    async def _asked(self, claimed: list[Claimed], *, last: bool) -> Kept | None:
        """Flask's answer. Where others are just taking what there was, it is asked again: one may be killed."""
        answer = None
        for _ in range(MOST_ASKED):
            answer = await self.gate.ask(self.scope, self.connection, () if last else (204, 409), claimed)
            if answer is None or answer.status != 409 or last:
                break
            await asyncio.sleep(ASK_AGAIN * (0.5 + random.random()))  # noqa: S311  # not all at the same time
        return answer

    async def _answer(self, value: str) -> None:
        await self.gate.answer_idle(self.connection, self.address, self.request_id, self.idle, value)


def _told(scope: ASGIScope) -> tuple[str, int, str, str]:
    """What a poll's headers say: its type and length, the request's id, and the addresses that proxies have seen."""
    content_type = request_id = forwarded = ""
    length = 0
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value.decode("latin-1")
        elif name == b"content-length":
            length = int(value) if value.isdigit() else 0
        elif name == b"x-request-id":
            request_id = value.decode("latin-1")
        elif name == b"x-forwarded-for":
            forwarded += ("," if forwarded else "") + value.decode("latin-1")
    return content_type, length, request_id, forwarded


def _raw(headers: Headers) -> list[Header]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _with(scope: ASGIScope, connection: Connection) -> Any:
    """The scope as Flask's side gets it.

    A header with an underscore in its name would pass for the one with a hyphen there: nobody sends such in earnest.
    """
    headers = [each for each in scope["headers"] if b"_" not in each[0]]
    query = scope["query_string"]
    if not query.isascii():
        query = b"".join(b"%%%02X" % each if each > 127 else bytes((each,)) for each in query)
    return {**scope, "headers": headers, "query_string": query, HUNG_UP: connection.has_left}


def _is_short(scope: ASGIScope) -> bool:
    """Whether there is no body, or one that is read before Flask is asked; not one whose client asks first."""
    named = dict(scope["headers"])
    length = named.get(b"content-length", b"")
    if b"expect" in named or b"transfer-encoding" in named:
        return False
    return scope["method"] in ("GET", "HEAD") or (length.isdigit() and int(length) <= GATHERED)


class _Behind:
    """Flask as the adapter calls it: told what ASGI knows, and stopped when nobody waits for its answer."""

    def __init__(self, app: Flask) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        scope = environ["asgi.scope"]
        has_left = scope[HUNG_UP]
        # The body ends where the server says so; without this, one of unknown length would be taken for none.
        environ |= {"wsgi.input_terminated": True, "wsgi.errors": sys.stderr}
        environ |= {HUNG_UP: has_left, CLAIMED: scope.get(CLAIMED)}
        pieces = self.app(environ, start_response)
        try:
            for piece in pieces:
                yield piece
                if has_left():
                    break
        finally:
            getattr(pieces, "close", lambda: None)()
