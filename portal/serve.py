"""Running the whole portal: database, migrations, first administrator, server processes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
import sys
from multiprocessing.util import Finalize

from flask import Flask
from flask_migrate import upgrade
from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from sqlalchemy.exc import OperationalError

from portal import create_app, embedded_postgres, request_logs
from portal.background import Background
from portal.config import SettingError, Settings
from portal.database import db, now
from portal.domain.errors import Invalid
from portal.domain.jobs import job_partitions
from portal.domain.people import accounts
from portal.gate import Gate

FEW_CONNECTIONS = 10_000  # open files; with fewer, a large fleet finds no place
SWITCH = 0.0005  # seconds; Python's own 0.005 are many times the price of most steps
NO_LIMIT = 1_048_576  # in place of no limit at all
MOST_CONNECTIONS = 1_000_000  # requests at the same time in one server process; open files end it sooner


def main() -> int:
    """Start everything and serve until stopped. Returns the exit status."""
    try:
        return _run(Settings.from_environment())
    except SettingError as wrong:
        print(f"The portal cannot start: {wrong}", file=sys.stderr)  # noqa: T201
        return 2


def _run(settings: Settings) -> int:
    address = _listening_address(settings)
    server = None
    if not settings.database_url:
        database_url, server = embedded_postgres.start(settings.data_dir)
        # The server processes use the database that this process keeps running.
        os.environ["DATABASE_URL"] = database_url
        settings = Settings.from_environment()
    os.environ["SECRET_KEY"] = settings.secret_key
    try:
        password = prepare(create_app(settings))
    except Invalid as problem:
        raise SettingError(f"PORTAL_ROOT_PASSWORD cannot be the first administrator's. {problem}") from None
    except OperationalError as problem:
        raise SettingError(f"the database of DATABASE_URL does not answer. {problem.orig}") from None
    _greet(settings, password, embedded=server is not None, connections=allow_connections())
    try:
        _serve(settings, address)
    finally:
        if server is not None:
            server.cleanup()
    print("  Stopped.", flush=True)  # noqa: T201
    return 0


def _listening_address(settings: Settings) -> str:
    """The IP address to listen on, once it is sure that somebody can.

    Raises SettingError otherwise: better than greeting people to a closed door.
    """
    try:
        family, kind, _, _, place = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as problem:
        raise SettingError(
            f"nobody can listen on {settings.host}, port {settings.port} ({problem.strerror}). "
            "Another portal may run there already. Set PORTAL_PORT, or PORTAL_HOST, to another one."
        ) from None
    return str(place[0])


def prepare(app: Flask) -> str | None:
    """Bring the database up to date and make the first administrator; returns the generated password, if any."""
    with app.app_context():
        upgrade()
        job_partitions.make_ahead(db.session(), now())
        password = accounts.ensure_first_administrator(db.session(), app.config["PORTAL"].root_password)
        db.session.commit()
        db.session.remove()
        db.engine.dispose()
    return password


def _greet(settings: Settings, password: str | None, *, embedded: bool, connections: int | None) -> None:
    lines = ["", f"  Runner Portal is at {settings.url}"]
    if password:
        lines += [
            "",
            "  Sign in as  root",
            f"  Password    {password}",
            "  This password is printed once. Keep it, or choose another on your account page.",
        ]
    else:
        lines += [
            "  Sign in with your account; the first administrator is root.",
            "  Password lost?  .venv/bin/flask --app app user reset-password root",
        ]
    if connections is not None and connections < FEW_CONNECTIONS:
        lines += [
            "",
            f"  The system allows {connections} open files: no more machines than that can wait for jobs here.",
            "  Allow more with  ulimit -n",
        ]
    if embedded:
        lines += ["", f"  Data is in  {settings.data_dir}"]
        if os.name == "posix" and os.geteuid() == 0:
            lines += [
                "  Running as root: the embedded PostgreSQL opened the folders above its data to other users.",
                "  Prefer an ordinary user.",
            ]
    print("\n".join([*lines, "  Stop with   Ctrl-C", ""]), flush=True)  # noqa: T201


def allow_connections() -> int | None:
    """Let this process and those that it starts have as many files open as the system lets them: each machine that
    waits for a job is one. Returns how many, or None where the system has no such limit."""
    try:
        import resource
    except ImportError:  # no POSIX system
        return None
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        most = NO_LIMIT
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    except (OSError, ValueError):  # more than the system's own limit
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return int(most)


def _serve(settings: Settings, address: str) -> None:
    # Spawned, not forked: a server process starts clean, without this one's connections and locks.
    multiprocessing.set_start_method("spawn", force=True)
    Granian(
        "portal.serve:worker",
        factory=True,
        address=address,
        port=settings.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,  # over HTTP/2 it is not told for each request that its client left
        workers=settings.workers,
        backlog=4096,
        backpressure=MOST_CONNECTIONS,  # a held poll costs a few kilobytes, no thread
        websockets=False,
        respawn_failed_workers=True,
        workers_kill_timeout=30,
        # Its start and stop are told by us; what goes wrong still shows.
        log_level=LogLevels(settings.log_level if settings.log_level in ("debug", "error") else "warning"),
    ).serve()


def worker() -> Gate:
    """The application of one server process, with its background work running until the process ends."""
    settings = Settings.from_environment()
    request_logs.configure(settings.log_level, settings.log_format)
    app = create_app(settings)
    gate = Gate(app, hold=settings.poll_hold.total_seconds(), threads=settings.threads)
    background = Background(app, gate)
    background.start()
    # What is there now stays, and polls that are held are many small things, but in no circles: looking through all
    # of them for such, as often as a process without them would, stops everybody for a moment each time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    # Each step from Flask's threads to the loop may have to wait for a thread that computes: so long at most.
    sys.setswitchinterval(SWITCH)
    # A multiprocessing child leaves without atexit handlers, but runs its finalizers.
    Finalize(None, background.stop, exitpriority=10)
    return gate
