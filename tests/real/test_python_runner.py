"""gitlab-python-runner, another maker's client: it polls with a token and is shown as `<legacy>`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from portal.models import LEGACY, RunnerManager
from tests.api.machines import until
from tests.api.people import Person, runner_id_on, token_on
from tests.api.processes import Process
from tests.portals import RunningPortal

MODULE = "GitlabPyRunner"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(MODULE) is None, reason="gitlab-python-runner is not installed"
)


@contextmanager
def started(folder: Path, url: str, token: str) -> Iterator[Path]:
    """The client polls until the end of the block; what it prints stands in the file."""
    # What its `--register` writes.
    config, log = folder / "gitlab-runner.yml", folder / "log"
    config.write_text(
        f'server: "{url}"\ntoken: "{token}"\nexecutor: "shell"\nshell: "/bin/sh"\ndir: "{folder}"\n', encoding="utf-8"
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE, "--start", str(config)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield log
    finally:
        process.kill()
        process.wait(timeout=30)


def test_it_polls_and_is_online_as_legacy(
    running_portal: RunningPortal, root: Person, process: Process, tmp_path: Path
) -> None:
    page = root.create_runner().body.decode()

    def manager() -> RunnerManager | None:
        with process.session() as session:
            return session.scalars(select(RunnerManager)).one_or_none()

    with started(tmp_path, running_portal.url, token_on(page)):
        found = until(manager, why="it has polled")
    assert (found.system_xid, found.has_polled, found.executor_name) == (LEGACY, True, "shell")
    assert found.version
    assert "&lt;legacy&gt;" in root.page(f"/admin/runners/{runner_id_on(page)}")
    assert "it asks for jobs" in root.open(f"/admin/runners/{runner_id_on(page)}/connection").body.decode()


def test_it_is_refused_with_a_token_that_nobody_has(running_portal: RunningPortal, tmp_path: Path) -> None:
    with started(tmp_path, running_portal.url, "glrt-nobody-has-this-token") as log:
        until(lambda: "403" in log.read_text(), why="it prints the refusal")
