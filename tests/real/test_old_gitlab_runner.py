"""A real gitlab-runner before 15.8, which sends no system ID, works and is shown as `<legacy>`."""

from __future__ import annotations

from sqlalchemy import select

from portal.models import LEGACY, Runner, RunnerManager
from tests.api.machines import until
from tests.api.people import Person, runner_id_on, token_on
from tests.api.processes import Process
from tests.portals import RunningPortal
from tests.real import clients
from tests.real.clients import Home

every_old_client = clients.each(before=(15, 8))


def managers(process: Process) -> list[RunnerManager]:
    with process.session() as session:
        return list(session.scalars(select(RunnerManager)))


def register(home: Home, portal: RunningPortal, *credential: str) -> tuple[int, str]:
    words = ("register", "--non-interactive", "--config", str(home.config), "--url", portal.url)
    ended = home.run(*words, "--executor", "shell", "--description", "box1", *credential)
    return ended.returncode, ended.stdout


@every_old_client
def test_it_registers_with_a_token_runs_and_unregisters(
    running_portal: RunningPortal, root: Person, process: Process, home: Home
) -> None:
    page = root.create_runner().body.decode()
    status, told = register(home, running_portal, "--token", token_on(page))
    assert status == 0, told
    assert [(manager.system_xid, manager.has_polled) for manager in managers(process)] == [(LEGACY, False)]

    home.hurry()
    with home.running():
        until(lambda: [manager.has_polled for manager in managers(process)] == [True])
    (manager,) = managers(process)
    assert (manager.system_xid, manager.version, manager.executor_name) == (LEGACY, home.client.version, "shell")
    assert "&lt;legacy&gt;" in root.page(f"/admin/runners/{runner_id_on(page)}")

    gone = home.run("unregister", "--config", str(home.config), "--name", "box1")
    assert gone.returncode == 0, gone.stdout
    assert managers(process) == []
    with process.session() as session:
        assert session.get(Runner, runner_id_on(page)) is not None


@every_old_client
def test_run_single_polls_without_any_registration(
    running_portal: RunningPortal, root: Person, process: Process, home: Home
) -> None:
    token = token_on(root.create_runner().body.decode())
    place = ("--url", running_portal.url, "--token", token, "--executor", "shell")
    with home.running("run-single", *place, "--builds-dir", str(home.folder), "--cache-dir", str(home.folder)):
        until(lambda: [(m.system_xid, m.has_polled) for m in managers(process)] == [(LEGACY, True)])


@every_old_client
def test_a_token_that_nobody_has_registers_nothing(running_portal: RunningPortal, home: Home) -> None:
    status, told = register(home, running_portal, "--token", "glrt-nobody-has-this-token")
    assert status == 1, told
    assert not home.config.exists() or "glrt-" not in home.config.read_text()
