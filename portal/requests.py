"""What every request gets, whichever door it comes to: an id, and its path without the portal's prefix."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask import Response, current_app, g, request

from portal.config import Settings
from portal.domain.registration import Configured
from portal.domain.user_sessions import Limits, SessionUses

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

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


def assign_request_id() -> None:
    """Keep the client's X-Request-Id when it is one (runners repeat it when they retry), else make one."""
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def label_api_answer(response: Response) -> Response:
    """What every answer below /api/ has, refusals of unknown paths and methods included."""
    if request.path.startswith("/api/"):
        response.headers["X-Request-Id"] = g.request_id
        response.headers["Cache-Control"] = "no-store"
        if response.status_code == 204:
            del response.headers["Content-Type"]  # there is no content to have one
    return response


def client_address() -> str:
    """The address the request came from."""
    return request.remote_addr or ""


def settings() -> Settings:
    """The settings of this process."""
    found: Settings = current_app.config["PORTAL"]
    return found


def registration_configured() -> Configured:
    """What this process's configuration says of registration tokens."""
    found: Configured = current_app.extensions["registration"]
    return found


def session_limits() -> Limits:
    """How long people's sessions last in this process's configuration."""
    return Limits(settings().session_idle, settings().session_longest)


def session_uses() -> SessionUses:
    """Where this process collects when sessions were used."""
    found: SessionUses = current_app.extensions["session_uses"]
    return found


def portal_url(path: str = "") -> str:
    """An absolute address below PORTAL_URL; never from the request's Host header, which anybody can write."""
    return settings().url + path
