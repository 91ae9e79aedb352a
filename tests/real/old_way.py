"""Registering the old way with real clients, and the pages where people hold its token and turn it off and on."""

from __future__ import annotations

import html
import re

from sqlalchemy import select

from portal.models import Runner, RunnerManager
from tests.api.people import Person
from tests.api.processes import Process
from tests.portals import RunningPortal
from tests.real.clients import Home

INSTANCE = "/admin/registration"
ACME = "/groups/acme/-/registration"
INSTEAD = "Create a runner in the browser"


def registration_token(root: Person, place: str = INSTANCE) -> str:
    """The scope's registration token, made and shown by its page."""
    answer = root.open(f"{place}/token", root.filled_in(place))
    found = re.search(r'<code id="registration-token">([^<]+)</code>', answer.body.decode())
    assert found, answer
    return html.unescape(found[1])


def turn_off(root: Person, place: str = INSTANCE) -> None:
    answer = root.send(f"{place}/turn-off")
    assert "Registration tokens are turned off" in answer.body.decode(), answer


def turn_on(root: Person, place: str = INSTANCE) -> None:
    answer = root.open(f"{place}/turn-on", root.filled_in(place))
    assert "Registration tokens are allowed" in answer.body.decode(), answer


def register(home: Home, portal: RunningPortal, token: str, *options: str) -> tuple[int, str]:
    """`gitlab-runner register` with a registration token; its exit status and what it printed."""
    words = ("register", "--non-interactive", "--config", str(home.config), "--url", portal.url)
    ended = home.run(*words, "--registration-token", token, "--executor", "shell", "--description", "box1", *options)
    return ended.returncode, ended.stdout


def runners(process: Process) -> list[Runner]:
    with process.session() as session:
        return list(session.scalars(select(Runner).order_by(Runner.id)))


def managers(process: Process) -> list[RunnerManager]:
    with process.session() as session:
        return list(session.scalars(select(RunnerManager).order_by(RunnerManager.system_xid)))
