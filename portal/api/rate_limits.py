"""How often a script may ask: counted by token and by network, told in headers, refused with 429."""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
from dataclasses import dataclass
from time import time

from flask import Response, current_app, g
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from portal.config import Settings
from portal.domain.errors import TooMany
from portal.domain.people.sign_in_throttle import network_of
from portal.requests import client_address

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Window:
    """What is left of one limit: how many requests of how many, and when there are all again (seconds since 1970)."""

    name: str
    limit: int
    remaining: int
    reset: int


class RateLimits:
    """The counters of one server process, in its memory. `period` is what the settings' numbers are for."""

    def __init__(self, settings: Settings, period: type[RateLimitItem] = RateLimitItemPerMinute) -> None:
        self.log_only = settings.rate_limit_log_only
        limits = {
            "token": settings.rate_limit_token,
            "address": settings.rate_limit_address,
            "refused": settings.rate_limit_refused,
        }
        self._limits = {name: period(most) for name, most in limits.items() if most}
        self._storage = MemoryStorage()
        self._counters = FixedWindowRateLimiter(self._storage)
        self._hash_key = secrets.token_bytes(16)

    def take(self, name: str, key: str) -> Window | None:
        """Count one request. Raises TooMany when there was none left; None where no limit is set."""
        limit = self._limits.get(name)
        if limit is None:
            return None
        counted = key if name == "token" else self.bucket(key)
        passed = self._counters.hit(limit, name, counted)
        stats = self._counters.get_window_stats(limit, name, counted)
        window = Window(name, limit.amount, max(0, stats.remaining), math.ceil(stats.reset_time))
        if not passed:
            first = self._storage.get(limit.key_for(name, counted)) == limit.amount + 1
            self._refuse(window, key, log_it=first)  # one line; the rest would be many
        return window

    def bucket(self, network: str) -> str:
        """One of 65,536 names for a network: a flood from more of them than that takes no more memory.

        The hash has a key of its own, so that nobody finds networks that share another's.
        """
        return hashlib.blake2b(network.encode(), digest_size=2, key=self._hash_key).hexdigest()

    def _refuse(self, window: Window, key: str, *, log_it: bool) -> None:
        if log_it:
            log.warning("rate limit %s of %s a minute is used up by %s", window.name, window.limit, key)
        if not self.log_only:
            g.rate_limit = window
            raise TooMany(max(1, math.ceil(window.reset - time())))


def of_process() -> RateLimits:
    """The limits of this process."""
    found: RateLimits = current_app.extensions["rate_limits"]
    return found


def count_address() -> None:
    """Count the request for its network, before anything is looked up. Raises TooMany."""
    g.rate_limit = of_process().take("address", network_of(client_address()))


def count_refused() -> None:
    """Count a request whose credential was no good; the headers tell of that limit then. Raises TooMany.

    Good ones from the same network pass: nobody keeps a neighbour's scripts out by guessing.
    """
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
