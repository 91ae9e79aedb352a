"""What every request gets, whichever door it comes to: an id, and its path without the portal's prefix."""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import lru_cache
from typing import TYPE_CHECKING

from flask import Response, current_app, g, request
from werkzeug.wsgi import ClosingIterator

from portal.config import Settings
from portal.domain.last_uses import LastUses
from portal.domain.people.second_factor import Configured as SecondFactorConfigured
from portal.domain.people.sign_in_throttle import Throttle
from portal.domain.people.user_sessions import Limits
from portal.domain.registration.registration import Configured
from portal.domain.vault import Vault

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

CLAIMED = "portal.claimed"  # in a request's environment: a list that takes what was given to the machine
HUNG_UP = "portal.hung_up"  # in a request's environment: a function that says whether its client is gone
STRICT_TRANSPORT = "max-age=63072000"  # two years
NO_PAGE = "default-src 'none'; frame-ancestors 'none'"
_BRACKETED = re.compile(r"\[([^\]]+)\](?::\d{1,5})?")
_IPV4_AND_PORT = re.compile(r"([\d.]+):\d{1,5}", re.ASCII)
_REQUEST_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


class PathPrefix:
    """Serve below the path of PORTAL_URL, whether or not a proxy in front has taken it off already."""

    def __init__(self, app: WSGIApplication, prefix: str) -> None:
        self.app = app
        self.prefix = prefix

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self.prefix:
            path = environ.get("PATH_INFO", "")
            if path == self.prefix or path.startswith(self.prefix + "/"):
                environ["PATH_INFO"] = path[len(self.prefix) :] or "/"
            environ["SCRIPT_NAME"] = self.prefix
        return self.app(environ, start_response)


class HeadAsGet:
    """Answer HEAD as GET, without the body: a view that takes a form must not take HEAD for one."""

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "HEAD":
            return self.app(environ, start_response)
        environ["REQUEST_METHOD"] = "GET"
        with closing(ClosingIterator(self.app(environ, start_response))):
            return []


def has_hung_up() -> bool:
    """Whether nobody waits for the answer any more, as far as the server can tell."""
    ask: Callable[[], bool] | None = request.environ.get(HUNG_UP)
    return ask is not None and ask()


def note_claim(claimed: object) -> None:
    """Tell the server what was given to the machine, by what it may have been woken for."""
    told: list[object] | None = request.environ.get(CLAIMED)
    if told is not None:
        told.append(claimed)


def assign_request_id() -> None:
    """Keep the client's X-Request-Id when it is one (runners repeat it when they retry), else make one."""
    g.request_id = request_id_of(request.headers.get("X-Request-Id", ""))


def request_id_of(given: str) -> str:
    """The request's id: the client's, when it is one."""
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def label_api_answer(response: Response) -> Response:
    """What every answer below /api/ has, refusals of unknown paths and methods included."""
    if request.path.startswith("/api/"):
        response.headers["X-Request-Id"] = g.request_id
        response.headers.setdefault("Cache-Control", "no-store")  # answers may hold a token
        if response.status_code == 204:
            del response.headers["Content-Type"]  # there is no content to have one
    return response


def harden_answer(response: Response) -> Response:
    """What every answer has, whichever door it comes from: browsers guess no types, and come over HTTPS only.

    What is no page, such as an answer to a machine, loads nothing and is framed nowhere.
    """
    headers = response.headers
    headers["X-Content-Type-Options"] = "nosniff"
    headers.setdefault("Content-Security-Policy", NO_PAGE)
    headers.setdefault("Referrer-Policy", "same-origin")
    if settings().over_https:
        below = "; includeSubDomains" if settings().hsts_subdomains else ""
        headers["Strict-Transport-Security"] = STRICT_TRANSPORT + below
    return response


def client_address() -> str:
    """The address the request came from; behind trusted proxies the one that the outermost of them has seen."""
    return address_behind(
        settings().trusted_proxies, request.remote_addr or "", request.headers.get("X-Forwarded-For", "")
    )


def address_behind(proxies: int, peer: str, forwarded: str) -> str:
    """The client's address, when so many proxies have each added one to the right of `forwarded`.

    What stands further left the client wrote itself. Where the place holds no address, or the header is shorter than
    the way was long, the peer's address is all that is known.
    """
    seen = forwarded.rsplit(",", proxies)[-proxies:] if proxies else []
    return (_read_address(seen[0]) if len(seen) == proxies and seen else "") or _read_address(peer) or peer


@lru_cache(maxsize=16_384)  # the same machines ask again and again
def _read_address(text: str) -> str:
    """The IP address in one of the forms that proxies write, without its port and zone; nothing for anything else."""
    text = text.strip()
    if bracketed := _BRACKETED.fullmatch(text):
        text = bracketed[1]
    elif with_port := _IPV4_AND_PORT.fullmatch(text):
        text = with_port[1]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    return str(getattr(found, "ipv4_mapped", None) or found)


def settings() -> Settings:
    """The settings of this process."""
    found: Settings = current_app.config["PORTAL"]
    return found


def registration_configured() -> Configured:
    """What this process's configuration says of registration tokens."""
    found: Configured = current_app.extensions["registration"]
    return found


def second_factor_configured() -> SecondFactorConfigured:
    """What this process's configuration says of second factors."""
    found: SecondFactorConfigured = current_app.extensions["second_factor"]
    return found


def sign_in_throttle() -> Throttle:
    """What counts attempts to sign in; it keeps nothing in the process but the key."""
    return Throttle(settings().secret_key)


def session_limits() -> Limits:
    """How long people's sessions last in this process's configuration."""
    return Limits(settings().session_idle, settings().session_longest)


def session_uses() -> LastUses:
    """Where this process collects when sessions were used."""
    found: LastUses = current_app.extensions["session_uses"]
    return found


def job_vault() -> Vault:
    """What encrypts that which is secret in jobs."""
    found: Vault = current_app.extensions["job_vault"]
    return found


def portal_url(path: str = "") -> str:
    """An absolute address below PORTAL_URL; never from the request's Host header, which anybody can write."""
    return settings().url + path
