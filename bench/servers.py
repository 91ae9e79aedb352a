"""Servers to compare with: a bare Flask route, and the portal's Flask app without its gate."""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.util import Finalize

import psutil
from flask import Flask, Response
from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

from portal import create_app, request_logs
from portal.background import Background
from portal.config import Settings
from tests.portals import RunningPortal


class BareServer(RunningPortal):
    """The least that Flask can do for a poll."""

    command = ("-m", "bench.servers", "bare")


class FlaskServer(RunningPortal):
    """The portal without its gate. The database is migrated already."""

    command = ("-m", "bench.servers", "flask_alone")


def bare() -> Flask:
    """One route that reads nothing, asks nothing and answers 204."""
    app = Flask("bare")

    @app.post("/api/v4/jobs/request")
    def nothing() -> Response:
        return Response(status=204)

    @app.get("/readyz")
    def ready() -> Response:
        return Response(status=204)

    return app


def flask_alone() -> Flask:
    """The portal's app with its background work, served as WSGI."""
    settings = Settings.from_environment()
    request_logs.configure(settings.log_level, settings.log_format)
    app = create_app(settings)
    background = Background(app)
    background.start()
    Finalize(None, background.stop, exitpriority=10)
    return app


def worker_of(server: RunningPortal) -> psutil.Process:
    """The process that answers: of the server's children, the one with most memory."""
    assert server.process is not None
    children = psutil.Process(server.process.pid).children(recursive=True)
    return max(children, key=lambda child: child.memory_info().rss)


def cpu_of(server: RunningPortal) -> float:
    """CPU seconds that the process which answers has used, in user and system mode."""
    times = worker_of(server).cpu_times()
    return float(times.user + times.system)


def main(name: str) -> None:
    """Serve with the portal's own numbers of threads and connections."""
    settings = Settings.from_environment()
    multiprocessing.set_start_method("spawn", force=True)
    Granian(
        f"bench.servers:{name}",
        factory=True,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.WSGI,
        workers=settings.workers,
        blocking_threads=settings.threads,
        backlog=4096,
        backpressure=max(128, settings.threads * 16),
        websockets=False,
        workers_kill_timeout=30,
        log_level=LogLevels("warning"),
    ).serve()


if __name__ == "__main__":
    main(sys.argv[1])
