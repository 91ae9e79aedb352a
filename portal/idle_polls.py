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
from portal.domain.jobs.queue_news import LONGEST_VALUE
from portal.domain.machines.heartbeats import MOST_MACHINES
from portal.domain.machines.known_runners import REFUSAL
from portal.domain.machines.polls import Idle, Poll, Polls
from portal.domain.trail.refused_acts import Flood
from portal.request_logs import POLLS
from portal.requests import HUNG_UP, address_behind, harden_answer, label_api_answer, request_id_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LONGEST_BODY = 64 * 1024  # bytes of a poll that are read here; Flask says what is wrong with a longer one
LONGEST_KEPT = 8 * 1024  # bytes of a body that is remembered; gitlab-runner's have 1,000 to 2,000
MOST_REFUSED = 10_000  # bodies that are remembered of those who were refused: anybody can send them
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
        self._logged = Flood(each=1, most=600)
        with app.test_request_context(POLLS, method="POST"):
            g.request_id = ""
            self.of_idle = _headers(Response(status=204))
            refusal = app.make_response(app.handle_user_exception(TokenUnknown(REFUSAL)))
            self.refusal: bytes = refusal.get_data()
            self.of_refusal = _headers(refusal)

    def hear(self, body: bytes, content_type: str, address: str) -> tuple[bytes, Idle] | None:
        """Take the poll for a sign of life. Returns its token's digest and what it gets; None when Flask answers.

        Raises TokenUnknown for a token that is mistyped, or that was unknown a moment ago.
        """
        if content_type.startswith(FORMS):
            return None
        key = hashlib.sha256(body).digest()
        said = self._said.find(key)
        if said is not None:
            idle = self.polls.idle(said, address)
            return (said.digest, idle) if idle is not None else None
        self._refuse_again(key)
        poll = _read(body)
        if poll is None:
            return None
        try:
            idle = self.polls.idle(poll, address)
        except TokenUnknown:
            self._said.refuse(key, poll.token)
            raise
        if idle is None:
            return None
        poll = poll._replace(token=None, digest=tokens.digest(poll.token))
        if len(body) <= LONGEST_KEPT:
            self._said.keep((idle.known.runner_id, idle.system_xid), key, poll)
        return poll.digest, idle

    def _refuse_again(self, key: bytes) -> None:
        """Raise TokenUnknown for a body that was refused, unless its token has become somebody's meanwhile."""
        digest = self._said.refused(key)
        if digest is None:
            return
        if not digest:  # a text that can be no token's
            raise TokenUnknown(REFUSAL)
        self.polls.known.recall_digest(digest)

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
        unlogged = self._logged.take(address, monotonic())
        if unlogged is not None:  # not a line for each: a machine with an old token may ask a hundred times a second
            request_logs.tell_poll(given, 403, None, address, unlogged=unlogged)
        return [("x-request-id", given)]


class _SaidBefore:
    """What each machine said last, by the digest of the body: it often says the same again.

    Only of machines whose token was good, and of each of them only the last: nobody else can fill the memory. Of
    those that were refused the token's digest alone, and not of many. No token is kept.
    """

    def __init__(self) -> None:
        self._polls: dict[bytes, Poll] = {}
        self._last: dict[tuple[int, str], bytes] = {}
        self._refused: dict[bytes, bytes] = {}
        self._lock = threading.Lock()

    def find(self, key: bytes) -> Poll | None:
        return self._polls.get(key)

    def keep(self, machine: tuple[int, str], key: bytes, poll: Poll) -> None:
        with self._lock:
            if len(self._last) >= MOST_MACHINES:
                self._polls.clear()
                self._last.clear()
            self._polls.pop(self._last.get(machine, b""), None)
            self._last[machine] = key
            self._polls[key] = poll

    def refused(self, key: bytes) -> bytes | None:
        """The digest of the token for which the body was refused, empty for one that nobody can have."""
        return self._refused.get(key)

    def refuse(self, key: bytes, token: str) -> None:
        impossible = len(token) > tokens.LONGEST or tokens.is_mistyped(token)
        with self._lock:
            if len(self._refused) >= MOST_REFUSED:
                self._refused.clear()
            self._refused[key] = b"" if impossible else tokens.digest(token)


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
    value = told("last_update")
    if not isinstance(value, str) or len(value) > LONGEST_VALUE:
        value = None  # it says nothing, and is not to be kept
    return Poll(told("token"), told("system_id"), told("info"), value)


def _headers(response: Response) -> Headers:
    """What every answer has, without what is another in each."""
    headers = harden_answer(label_api_answer(response)).headers
    return [(name.lower(), value) for name, value in headers if name != "X-Request-Id"]
