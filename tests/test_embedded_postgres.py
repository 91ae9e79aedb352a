"""The PostgreSQL that the portal starts for itself: data that stay, a server that goes and comes with the portal."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.api.machines import Machine, over_http, until
from tests.api.people import Person, token_on
from tests.portals import RunningPortal


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder, in memory where the system has a place for that."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK | os.X_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="portal-data-", dir=place))
    yield folder
    with suppress(OSError, ValueError):
        os.kill(postmaster(folder), signal.SIGQUIT)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def portal(folder: Path) -> Iterator[RunningPortal]:
    with RunningPortal("", PORTAL_DATA_DIR=str(folder)) as portal:
        yield portal


def postmaster(folder: Path) -> int:
    """The process id of the database server whose data are here."""
    return int((folder / "postgres" / "postmaster.pid").read_text().split()[0])


def lives(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def new_token(portal: RunningPortal) -> str:
    token = token_on(Person(portal.url).sign_in().create_runner().body.decode())
    assert token
    return token


def test_a_clean_stop_ends_with_0_and_leaves_no_database_server(portal: RunningPortal, folder: Path) -> None:
    server = postmaster(folder)
    assert lives(server)
    assert portal.stop() == 0
    until(lambda: not lives(server), why="the database server is gone")
    assert not (folder / "postgres" / "postmaster.pid").exists()
    assert "Traceback" not in portal.output


def test_a_second_start_finds_the_data(portal: RunningPortal) -> None:
    token = new_token(portal)
    portal.stop()
    portal.start()
    assert Machine(over_http(portal.url), token).poll().status == 204


def test_kill_9_of_the_portal_loses_nothing_and_its_database_server_is_found_again(
    portal: RunningPortal, folder: Path
) -> None:
    token, server = new_token(portal), postmaster(folder)
    portal.kill()
    assert lives(server), "the database server outlives a kill of the portal"
    portal.start()
    assert postmaster(folder) == server
    assert Machine(over_http(portal.url), token).poll().status == 204
    assert portal.stop() == 0
    until(lambda: not lives(server), why="a clean stop ends the server that was found")


def test_kill_9_of_the_database_server_too_loses_nothing(portal: RunningPortal, folder: Path) -> None:
    token, server = new_token(portal), postmaster(folder)
    portal.kill()
    os.kill(server, signal.SIGKILL)
    until(lambda: not lives(server))
    portal.start()
    assert postmaster(folder) != server
    assert Machine(over_http(portal.url), token).poll().status == 204


def test_the_secret_key_is_made_once_for_its_owner_only(folder: Path) -> None:
    with RunningPortal("", PORTAL_DATA_DIR=str(folder), SECRET_KEY="") as portal:
        key = folder / "secret-key"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        before = key.read_text()
        root = Person(portal.url).sign_in()
        portal.stop()
        portal.start()
        assert key.read_text() == before
        assert "Sign out" in root.page("/")
