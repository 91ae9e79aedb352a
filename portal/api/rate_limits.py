"""How often a script may ask: counted by token and by address, told in headers, refused with 429."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from time import time

from flask import Response, current_app, g
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from portal.config import Settings
from portal.domain.errors import TooMany
from portal.requests import client_address

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Window:
    """What is left of one limit: how many requests of how many, until when (seconds since 1970)."""

    name: str
    limit: int
    remaining: int
    reset: int

    @property
    def wait(self) -> int:
        """Seconds until a request is let through again."""
        return max(1, self.reset - math.floor(time()))


class RateLimits:
    """The counters of one server process, in memory; what nobody asks for any more is forgotten by itself."""

    def __init__(self, settings: Settings) -> None:
        self.log_only = settings.rate_limit_log_only
        self._limits: dict[str, RateLimitItem] = {
            name: RateLimitItemPerMinute(most)
            for name, most in (
                ("token", settings.rate_limit_token),
                ("address", settings.rate_limit_address),
                ("refused", settings.rate_limit_refused),
            )
            if most
        }
        self._counters = SlidingWindowCounterRateLimiter(MemoryStorage())

    def take(self, name: str, key: str) -> Window | None:
        """Count one request. Raises TooMany when there was none left; None where no limit is set."""
        limit = self._limits.get(name)
        if limit is None:
            return None
        passed = self._counters.hit(limit, name, key)
        window = self._window(name, limit, key)
        if not passed:
            self._refuse(window, key)
        return window

    def require_left(self, name: str, key: str) -> None:
        """Raise TooMany when there is none left, without counting one."""
        limit = self._limits.get(name)
        if limit is not None and not self._counters.test(limit, name, key):
            self._refuse(self._window(name, limit, key), key)

    def _window(self, name: str, limit: RateLimitItem, key: str) -> Window:
        stats = self._counters.get_window_stats(limit, name, key)
        return Window(name, limit.amount, max(0, stats.remaining), math.ceil(stats.reset_time))

    def _refuse(self, window: Window, key: str) -> None:
        log.warning("rate limit %s of %s a minute is used up by %s", window.name, window.limit, key)
        if not self.log_only:
            g.rate_limit = window
            raise TooMany(window.wait)


def of_process() -> RateLimits:
    """The limits of this process."""
    found: RateLimits = current_app.extensions["rate_limits"]
    return found


def count_address() -> None:
    """Count the request for its address, before anything is looked up. Raises TooMany."""
    address = client_address()
    of_process().require_left("refused", address)
    g.rate_limit = of_process().take("address", address)


def count_refused() -> None:
    """Count a request whose credential was no good. Raises TooMany."""
    of_process().take("refused", client_address())


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
