"""How often a script may ask: counted by token and by network, told in headers, refused with 429."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from time import time

from flask import Response, current_app, g

from portal.config import Settings
from portal.domain.errors import TooMany
from portal.domain.sign_in_throttle import network_of
from portal.requests import client_address

log = logging.getLogger(__name__)
MINUTE = 60  # seconds
TINY = 1e-9  # what floating point adds
MOST_KEYS = 50_000  # counted in one minute; a flood from more networks than that no limit per network holds back


@dataclass(frozen=True, slots=True)
class Window:
    """What is left of one limit: how many requests of how many, and when more are (seconds since 1970).

    `wait` is how many seconds to wait until the next one is let through; 0 when it is at once.
    """

    name: str
    limit: int
    remaining: int
    reset: int
    wait: int = 0


class Counter:
    """Requests of the last sixty seconds by whom they are of, as near as two numbers for each can say it.

    Of the minute before, as much counts as still lies within the last sixty seconds. What is refused is not counted.
    Counts are forgotten when two minutes are over, and there are never more than MOST_KEYS for each.
    """

    def __init__(self, name: str, limit: int, clock: Callable[[], float] = time) -> None:
        self.name, self.limit, self._clock = name, limit, clock
        self._lock = Lock()
        self._minute = 0
        self._counts: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._told: set[str] = set()

    def look(self, key: str, *, take: bool = True) -> Window:
        """Count one request, if there is one left; without `take` only look."""
        at = self._clock()
        with self._lock:
            self._turn(int(at // MINUTE))
            counted, earlier = self._counts.get(key, 0), self._before.get(key, 0)
            into = at % MINUTE
            used = counted + earlier * (1 - into / MINUTE)
            wait = _wait(counted, earlier, into, self.limit) if used + 1 > self.limit + TINY else 0
            if take and not wait and (key in self._counts or len(self._counts) < MOST_KEYS):
                self._counts[key] = counted + 1
                used += 1
        left = max(0, self.limit - math.ceil(used))
        until = at + wait if wait else at - into + MINUTE
        return Window(self.name, self.limit, left, math.ceil(until), wait)

    def tell_once(self, key: str) -> bool:
        """Whether nobody was told yet in this minute that this one asks too often."""
        with self._lock:
            new = key not in self._told
            self._told.add(key)
        return new

    def _turn(self, minute: int) -> None:
        if minute != self._minute:
            self._before = self._counts if minute == self._minute + 1 else {}
            self._counts, self._told, self._minute = {}, set(), minute


def _wait(counted: int, earlier: int, into: float, limit: int) -> int:
    """Seconds until one more is let through, if nothing is asked until then."""
    if counted + 1 <= limit:  # as the minute before moves out of sight
        free_at = MINUTE * (1 - (limit - counted - 1) / earlier)
    else:
        free_at = MINUTE + MINUTE * (1 - (limit - 1) / counted)
    return max(1, math.ceil(free_at - into))


class RateLimits:
    """The counters of one server process, in its memory."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time) -> None:
        self.log_only = settings.rate_limit_log_only
        limits = {
            "token": settings.rate_limit_token,
            "address": settings.rate_limit_address,
            "refused": settings.rate_limit_refused,
        }
        self._counters = {name: Counter(name, limit, clock) for name, limit in limits.items() if limit}

    def take(self, name: str, key: str) -> Window | None:
        """Count one request. Raises TooMany when there was none left; None where no limit is set."""
        return self._look(name, key, take=True)

    def require_left(self, name: str, key: str) -> None:
        """Raise TooMany when there is none left, without counting one."""
        self._look(name, key, take=False)

    def _look(self, name: str, key: str, *, take: bool) -> Window | None:
        counter = self._counters.get(name)
        if counter is None:
            return None
        window = counter.look(key, take=take)
        if window.wait:
            self._refuse(counter, window, key)
        return window

    def _refuse(self, counter: Counter, window: Window, key: str) -> None:
        if counter.tell_once(key):
            log.warning("rate limit %s of %s a minute is used up by %s", window.name, window.limit, key)
        if not self.log_only:
            g.rate_limit = window
            raise TooMany(window.wait)


def of_process() -> RateLimits:
    """The limits of this process."""
    found: RateLimits = current_app.extensions["rate_limits"]
    return found


def count_address() -> None:
    """Count the request for its network, before anything is looked up. Raises TooMany."""
    network = network_of(client_address())
    of_process().require_left("refused", network)
    g.rate_limit = of_process().take("address", network)


def count_refused() -> None:
    """Count a request whose credential was no good; the headers tell of that limit then. Raises TooMany."""
    g.rate_limit = of_process().take("refused", network_of(client_address())) or g.get("rate_limit")


def count_credential(key: str) -> None:
    """Count the request for its token, whose limit is then the one that the headers tell of. Raises TooMany."""
    g.rate_limit = of_process().take("token", key) or g.get("rate_limit")


def tell(response: Response) -> Response:
    """Say in headers how much is left, in GitLab's names."""
    window: Window | None = g.get("rate_limit")
    if window is not None:
        headers = response.headers
        headers["RateLimit-Name"] = f"api_{window.name}"
        headers["RateLimit-Limit"] = str(window.limit)
        headers["RateLimit-Observed"] = str(window.limit - window.remaining)
        headers["RateLimit-Remaining"] = str(window.remaining)
        headers["RateLimit-Reset"] = str(window.reset)
    return response
