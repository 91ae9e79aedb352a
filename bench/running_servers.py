"""Machines for servers that run already: from a file of tokens, or from runners that are made for the run."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import requests

from bench.load_clients import Machine
from bench.runs import Run

ACCESS_TOKENS = "BENCH_ACCESS_TOKEN"  # an administrator's, for each server of --url, with commas between
RUNNERS, MACHINES_EACH = 20, 500  # a runner may get a thousand new machines in ten minutes


def fleets_of(run: Run, stack: ExitStack) -> dict[str, tuple[Machine, ...]]:
    """The machines for each server of --url. What is made for them is deleted when the stack ends.

    Raises ValueError where neither a file nor an access token was given.
    """
    given = [each for each in os.environ.get(ACCESS_TOKENS, "").split(",") if each]
    if not run.tokens and not given:
        raise ValueError(f"--url needs --tokens, or an administrator's access token in {ACCESS_TOKENS}")
    found = {}
    for at, url in enumerate(run.urls):
        if run.tokens:
            found[url] = from_file(run.tokens[min(at, len(run.tokens) - 1)])
        else:
            found[url] = _made(url, given[min(at, len(given) - 1)], stack)
    return found


def from_file(path: Path) -> tuple[Machine, ...]:
    """A machine for each line: its token and, where the line has one, its system ID."""
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    return tuple(
        Machine(words[0], words[1] if len(words) > 1 else f"r_bench{at:07}") for at, words in enumerate(lines)
    )


def _made(url: str, access_token: str, stack: ExitStack) -> tuple[Machine, ...]:
    session = stack.enter_context(requests.Session())
    session.headers["Authorization"] = f"Bearer {access_token}"
    machines: list[Machine] = []
    for number in range(RUNNERS):
        asked = {"runner_type": "instance_type", "description": f"benchmark {number}", "tag_list": "benchmark"}
        answer = session.post(f"{url}/api/v4/user/runners", data=asked, timeout=30)
        answer.raise_for_status()
        made = answer.json()
        stack.callback(session.delete, f"{url}/api/v4/runners/{made['id']}", timeout=30)
        machines += [Machine(made["token"], f"r_bench{number:02}{at:05}") for at in range(MACHINES_EACH)]
    return tuple(machines)
