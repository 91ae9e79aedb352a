"""Polls that get nothing, answered before Flask looks at them: what the gate and the WSGI application share."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterable
from io import BytesIO
from time import monotonic
from typing import TYPE_CHECKING

import orjson
from flask import Flask, Response, g

from portal import request_logs
from portal.domain import tokens
from portal.domain.errors import TokenUnknown
from portal.domain.machines.heartbeats import MOST_MACHINES
from portal.domain.machines.known_runners import REFUSAL
from portal.domain.machines.polls import Idle, Poll, Polls
from portal.domain.trail.refused_acts import Flood
from portal.request_logs import POLLS
from portal.requests import HUNG_UP, address_behind, harden_answer, label_api_answer, request_id_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LONGEST_BODY = 64 * 1024  # bytes of a poll that are read here; Flask says what is wrong with a longer one
MOST_REFUSED = 10_000  # bodies
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
Headers = list[tuple[str, str]]


class PollDoor:
    """Reads polls and words their answers, which Flask has made at the start, so that they are what it would say."""

    def __init__(self, app: Flask) -> None:
        settings = app.config["PORTAL"]
        self.polls: Polls = app.extensions["polls"]
        self.paths = frozenset({POLLS, settings.path_prefix + POLLS})
        self._proxies: int = settings.trusted_proxies
        self._said = _SaidBefore()
        self._refused = Flood(each=1, most=600)
        with app.test_request_context(POLLS, method="POST"):
            g.request_id = ""
            self.of_idle = _headers(Response(status=204))
            refusal = app.make_response(app.handle_user_exception(TokenUnknown(REFUSAL)))
            self.refusal: bytes = refusal.get_data()
            self.of_refusal = _headers(refusal)

    def hear(self, body: bytes, content_type: str, address: str) -> tuple[str, Idle] | None:
        """Take the poll for a sign of life: its token, and that it gets nothing. None when Flask has to say.

        Raises TokenUnknown for a token that is mistyped, or that was unknown a moment ago.
        """
        if content_type.startswith(FORMS):
            return None
        digest = hashlib.sha256(body).digest()
        said = self._said.find(digest)
        if said is None and (token := self._said.refused.get(digest)):
            self.polls.known.recall(token)  # raises, unless there is such a runner by now
        poll = said or _read(body)
        try:
            idle = self.polls.idle(poll, address) if poll is not None else None
        except TokenUnknown:
            if poll is not None:
                self._said.refuse(digest, poll.token)
            raise
        if poll is None or idle is None:
            return None
        if said is None:
            # What a machine tells of itself is kept once, by the heartbeats.
            info = self.polls.heartbeats.info_of(idle.known.runner_id, idle.system_xid)
            self._said.keep((idle.known.runner_id, idle.system_xid), digest, poll._replace(info=info))
        return poll.token, idle

    def address(self, peer: str, forwarded: str) -> str:
        """The client's address."""
        return address_behind(self._proxies, peer, forwarded)

    def nothing(self, address: str, request_id: str, runner_id: int, value: str) -> Headers:
        """The headers of 204 besides those in `of_idle`: the request's id and the queue's value."""
        given = request_id_of(request_id)
        if request_logs.log.isEnabledFor(logging.DEBUG):
            request_logs.tell_poll(given, 204, runner_id, address)
        return [("x-request-id", given), ("x-gitlab-last-update", value)]

    def refused(self, address: str, request_id: str) -> Headers:
        """The headers of 403 besides those in `of_refusal`; its body is `refusal`."""
        given = request_id_of(request_id)
        unlogged = self._refused.take(address, monotonic())
        if unlogged is not None:  # not a line for each: a machine with an old token may ask a hundred times a second
            request_logs.tell_poll(given, 403, None, address, unlogged=unlogged)
        return [("x-request-id", given)]


class _SaidBefore:
    """What each machine said last, by the digest of the body: it says the same again every few seconds.

    Only of machines whose token was good, and of each of them only the last: nobody else can fill the memory. Of
    those that were refused the token alone, and not of many.
    """

    def __init__(self) -> None:
        self.refused: dict[bytes, str] = {}
        self._polls: dict[bytes, Poll] = {}
        self._last: dict[tuple[int, str], bytes] = {}
        self._lock = threading.Lock()

    def find(self, digest: bytes) -> Poll | None:
        return self._polls.get(digest)

    def keep(self, machine: tuple[int, str], digest: bytes, poll: Poll) -> None:
        with self._lock:
            if len(self._last) >= MOST_MACHINES:
                self._polls.clear()
                self._last.clear()
            self._polls.pop(self._last.get(machine, b""), None)
            self._last[machine] = digest
            self._polls[digest] = poll

    def refuse(self, digest: bytes, token: str) -> None:
        if len(self.refused) >= MOST_REFUSED:
            self.refused.clear()
        if len(token) <= tokens.LONGEST:
            self.refused[digest] = token


class IdlePollsFirst:
    """The same before Flask's own routing, for whoever serves the portal by WSGI, without the gate."""

    def __init__(self, app: WSGIApplication, door: PollDoor) -> None:
        self.app = app
        self.door = door

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "POST" or environ["PATH_INFO"] not in self.door.paths or HUNG_UP in environ:
            return self.app(environ, start_response)
        length = environ.get("CONTENT_LENGTH") or ""
        if not length.isdecimal() or int(length) > LONGEST_BODY:
            return self.app(environ, start_response)
        body = environ["wsgi.input"].read(int(length))
        environ["wsgi.input"] = BytesIO(body)
        address = self.door.address(environ.get("REMOTE_ADDR", ""), environ.get("HTTP_X_FORWARDED_FOR", ""))
        request_id = environ.get("HTTP_X_REQUEST_ID", "")
        try:
            heard = self.door.hear(body, environ.get("CONTENT_TYPE", ""), address)
        except TokenUnknown:
            start_response("403 FORBIDDEN", self.door.of_refusal + self.door.refused(address, request_id))
            return [self.door.refusal]
        if heard is None:
            return self.app(environ, start_response)
        _, idle = heard
        told = self.door.nothing(address, request_id, idle.known.runner_id, idle.value)
        start_response("204 NO CONTENT", self.door.of_idle + told)
        return []


def _read(body: bytes) -> Poll | None:
    """The poll in a body; None for what is no JSON object."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(given, dict):
        return None
    told = given.get
    return Poll(told("token"), told("system_id"), told("info"), told("last_update"))


def _headers(response: Response) -> Headers:
    """What every answer has, without what is another in each."""
    headers = harden_answer(label_api_answer(response)).headers
    return [(name.lower(), value) for name, value in headers if name != "X-Request-Id"]
