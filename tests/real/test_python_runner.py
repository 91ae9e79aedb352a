"""gitlab-python-runner, another maker's client: it registers the old way, polls, and is shown as `<legacy>`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from portal.database import now
from portal.domain.jobs.job_definitions import JobVariable, Repository
from portal.models import LEGACY, JobStatus, RegistrationType, RunnerManager
from tests.api.machines import until
from tests.api.people import Person, runner_id_on, token_on
from tests.api.processes import Process
from tests.portals import RunningPortal
from tests.real.job_stage import Stage, repository
from tests.real.old_way import managers, registration_token, runners, turn_off, turn_on

MODULE = "GitlabPyRunner"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(MODULE) is None, reason="gitlab-python-runner is not installed"
)


def run(folder: Path, *words: str) -> tuple[int, str]:
    """One command of the client to its end; its exit status and what it printed."""
    ended = subprocess.run(
        [sys.executable, "-m", MODULE, *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stdout


def register(folder: Path, portal: RunningPortal, token: str) -> tuple[int, str]:
    said = ("--regtoken", token, "--desc", "box1", "--tag", "docker", "--tag", "linux")
    return run(folder, "--register", portal.url, "--type", "shell", "--shell", "/bin/sh", *said)


@contextmanager
def started(folder: Path, url: str = "", token: str = "") -> Iterator[Path]:
    """The client polls until the end of the block; what it prints stands in the file."""
    config, log = folder / "gitlab-runner.yml", folder / "log"
    if token:  # what its `--register` writes
        words = f'server: "{url}"\ntoken: "{token}"\nexecutor: "shell"\nshell: "/bin/sh"\ndir: "{folder}"\n'
        config.write_text(words, encoding="utf-8")
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


def test_it_registers_the_old_way_polls_and_unregisters(
    running_portal: RunningPortal, root: Person, process: Process, tmp_path: Path
) -> None:
    status, told = register(tmp_path, running_portal, registration_token(root))
    assert status == 0, told
    (runner,) = runners(process)
    assert runner.registration_type == RegistrationType.REGISTRATION_TOKEN
    assert (runner.description, runner.tag_list, runner.run_untagged) == ("box1", ["docker", "linux"], False)
    with started(tmp_path):
        until(lambda: [manager.has_polled for manager in managers(process)] == [True], why="it has polled")
    assert [manager.system_xid for manager in managers(process)] == [LEGACY]
    assert "Online" in root.page(f"/admin/runners/{runner.id}")
    status, told = run(tmp_path, "--unregister")
    assert status == 0, told
    assert runners(process) == []


def test_turned_off_it_neither_registers_nor_polls_and_turned_on_again_it_does(
    running_portal: RunningPortal, root: Person, process: Process, tmp_path: Path
) -> None:
    token = registration_token(root)
    assert register(tmp_path, running_portal, token)[0] == 0
    with started(tmp_path):
        until(lambda: managers(process), why="it has polled")
    turn_off(root)
    status, told = register(tmp_path, running_portal, token)
    assert status == 1
    assert "410 Client Error: Gone" in told
    assert len(runners(process)) == 1
    with started(tmp_path) as log:
        until(lambda: "410 Client Error: Gone" in log.read_text(), why="it prints the refusal")
    turn_on(root)
    moment = now()
    with started(tmp_path):
        until(lambda: all(manager.contacted_at > moment for manager in managers(process)), why="it polls again")


def test_it_runs_jobs(stage: Stage, tmp_path: Path) -> None:
    bare, first, _ = repository(tmp_path)
    # What it finds in every job of GitLab's, and where a project here has nothing to say.
    asked = {
        "repository": Repository(f"file://{bare}", first),
        "variables": (JobVariable("CI_CONFIG_PATH", ".gitlab-ci.yml"), JobVariable("WORD", "hello")),
    }
    good = stage.submit("cat file", 'echo "$WORD from $CI_PROJECT_PATH"', **asked)
    bad = stage.submit("echo before", "exit 3", **asked)
    with started(tmp_path, stage.portal.url, stage.token) as log:
        assert stage.ended(good).state is JobStatus.SUCCESS, stage.log(good).decode() + log.read_text()
        assert stage.ended(bad).state is JobStatus.FAILED
    assert b"main 1\n" in stage.log(good)
    assert b"hello from acme/web\n" in stage.log(good)
    assert b"before\n" in stage.log(bad)
    assert stage.job(bad).failure_reason == "unknown_failure"  # it does not say
