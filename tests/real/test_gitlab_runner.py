"""A real gitlab-runner (15.11 or newer) does what the created page says, and the portal sees it."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select

from portal.database import now
from portal.domain.deletions import restores
from portal.domain.runners import runners
from portal.models import Runner, RunnerManager, RunnerToken
from tests.api.machines import until
from tests.api.people import Person, block_on, runner_id_on, token_on
from tests.api.processes import Process
from tests.cast import SYSTEM
from tests.portals import RunningPortal
from tests.real import clients
from tests.real.clients import Home

every_client = clients.each(since=(15, 11))
REGISTERED = "Runner registered successfully"


def managers(process: Process) -> list[RunnerManager]:
    with process.session() as session:
        return list(session.scalars(select(RunnerManager).order_by(RunnerManager.system_xid)))


def connection(root: Person, page: str) -> str:
    """The live line of the token page, as it is refreshed."""
    runner_id = runner_id_on(page)
    return root.open(f"/admin/runners/{runner_id}/connection").body.decode()


def register(home: Home, page: str) -> None:
    pasted = home.paste(block_on(page, "linux"))
    assert pasted.returncode == 0, pasted.stdout
    assert REGISTERED in pasted.stdout
    home.hurry()


def config(home: Home, token: str, portal: RunningPortal, **more: str) -> None:
    """A configuration with this token that nobody has registered."""
    lines = [f'url = "{portal.url}"', f'token = "{token}"', 'name = "by hand"', 'executor = "shell"']
    lines += [f"{name} = {value}" for name, value in more.items()]
    home.config.write_text("check_interval = 1\n[[runners]]\n" + "\n".join(f"  {line}" for line in lines) + "\n")


@every_client
def test_the_pasted_block_registers_run_comes_online_and_unregister_leaves_the_runner(
    root: Person, process: Process, home: Home
) -> None:
    page = root.create_runner().body.decode()
    assert "Waiting for a machine to register" in connection(root, page)

    register(home, page)
    line = connection(root, page)
    assert "Machine registered" in line
    assert "Waiting for its first poll" in line
    assert home.system_id in line

    with home.running():
        until(lambda: "Online" in connection(root, page) and "it asks for jobs" in connection(root, page))
    line = connection(root, page)
    assert home.system_id in line
    assert home.client.version in line
    (manager,) = managers(process)
    assert (manager.executor_name, manager.platform) == ("shell", "linux")
    assert manager.architecture
    assert manager.runtime_features["variables"] is True
    shown = root.page(f"/admin/runners/{runner_id_on(page)}")
    assert home.system_id in shown
    assert home.client.version in shown

    gone = home.run("unregister", "--config", str(home.config), "--all-runners")
    assert gone.returncode == 0, gone.stdout
    assert managers(process) == []
    assert token_on(page) not in home.config.read_text()
    with process.session() as session:
        assert session.get(Runner, runner_id_on(page)) is not None


@every_client
def test_verify_says_valid_and_after_a_reset_by_a_person_it_fails(root: Person, home: Home) -> None:
    page = root.create_runner().body.decode()
    register(home, page)
    good = home.run("verify", "--config", str(home.config))
    assert good.returncode == 0, good.stdout
    assert "is valid" in good.stdout
    root.send(f"/admin/runners/{runner_id_on(page)}/reset-token")
    bad = home.run("verify", "--config", str(home.config))
    assert bad.returncode == 1, bad.stdout
    removed = home.run("verify", "--config", str(home.config), "--delete")
    assert removed.returncode == 0, removed.stdout
    assert token_on(page) not in home.config.read_text()


@every_client
def test_two_homes_with_the_same_token_are_two_machines(
    root: Person, process: Process, home: Home, second_home: Home
) -> None:
    page = root.create_runner().body.decode()
    home.call_it("r_machine00001")
    second_home.call_it("r_machine00002")
    register(home, page)
    register(second_home, page)
    with home.running(), second_home.running():
        until(lambda: [manager.has_polled for manager in managers(process)] == [True, True])
    assert [manager.system_xid for manager in managers(process)] == ["r_machine00001", "r_machine00002"]


@every_client
def test_a_token_that_nobody_has_is_not_valid_and_registers_nothing(
    running_portal: RunningPortal, process: Process, home: Home
) -> None:
    words = ("register", "--non-interactive", "--url", running_portal.url, "--executor", "shell")
    ended = home.run(*words, "--token", "glrt-nobody-has-this-token", "--description", "box")
    assert ended.returncode == 1
    assert "is not valid" in ended.stdout  # the client's own words: for this 403 it prints no message of ours
    assert "Failed to verify the runner" in ended.stdout
    assert not home.config.exists() or "glrt-" not in home.config.read_text()
    assert managers(process) == []


@every_client
def test_a_paused_runner_stays_healthy_and_a_deleted_one_is_forbidden(
    root: Person, process: Process, home: Home
) -> None:
    page = root.create_runner(paused="y").body.decode()
    register(home, page)
    with home.running():
        until(lambda: any(manager.has_polled for manager in managers(process)))
        assert "ERROR" not in home.log.read_text()
        answer = root.send(f"/admin/runners/{runner_id_on(page)}/delete")
        assert answer.status == 200
        until(lambda: "forbidden" in home.log.read_text().lower(), seconds=60)


def at_the_end_of_its_life() -> dict[str, str]:
    """A token that is at the end of its life as the client sees it: it renews it at once."""
    return {
        "token_obtained_at": (now() - timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "token_expires_at": (now() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


@every_client
def test_run_renews_its_token_by_itself_and_polls_with_the_new_one(
    running_portal: RunningPortal, root: Person, process: Process, home: Home
) -> None:
    page = root.create_runner().body.decode()
    config(home, token_on(page), running_portal, id=str(runner_id_on(page)), **at_the_end_of_its_life())
    with home.running():
        until(lambda: token_on(page) not in home.config.read_text(), why="the configuration has a new token")
        until(lambda: [manager.token_id for manager in managers(process)] == [newest(process).id])
    assert home.config.read_text().count('token = "glrt-') == 1
    with process.session() as session:
        first = session.get(RunnerToken, newest(process).minted_from_id)
        assert first is not None
        assert first.ends_at is not None
        assert session.scalars(select(Runner)).one().contacted_at is not None
    assert newest(process).ends_at is None


def newest(process: Process) -> RunnerToken:
    with process.session() as session:
        return session.scalars(select(RunnerToken).order_by(RunnerToken.id.desc()).limit(1)).one()


# Older ones ignore Retry-After. Newer ones obey it five times over before they log a word of it.
@clients.each(since=(16, 1), before=(18, 3))
def test_a_renewal_that_cannot_succeed_is_no_hot_loop(
    running_portal: RunningPortal, root: Person, home: Home
) -> None:
    page = root.create_runner().body.decode()
    root.send(f"/admin/runners/{runner_id_on(page)}/reset-token")
    config(home, token_on(page), running_portal, id=str(runner_id_on(page)), **at_the_end_of_its_life())
    with home.running() as process:
        until(lambda: "Too Many Requests" in home.log.read_text(), seconds=150)
        assert process.poll() is None
        assert home.log.read_text().count("Too Many Requests") <= 2


@every_client
def test_a_restart_of_the_portal_is_survived(
    running_portal: RunningPortal, root: Person, process: Process, home: Home
) -> None:
    page = root.create_runner().body.decode()
    register(home, page)
    with home.running():
        until(lambda: any(manager.has_polled for manager in managers(process)))
        running_portal.stop()
        running_portal.start()
        back = now()
        until(lambda: all(manager.contacted_at > back for manager in managers(process)), seconds=90)


@every_client
def test_a_deleted_runners_machine_says_so_in_its_log_and_works_again_when_it_is_restored(
    root: Person, process: Process, home: Home
) -> None:
    page = root.create_runner().body.decode()
    register(home, page)
    with process.session() as session:
        deletion = runners.delete_runner(session, SYSTEM, session.get_one(Runner, runner_id_on(page)))
        deletion_id = deletion.id
        session.commit()
    with home.running():
        until(lambda: "forbidden" in home.log.read_text().lower(), seconds=60, why="it is refused")
    if home.client.number >= (17, 11):  # older ones may print the status alone
        assert "those who look after it can restore it: " in home.log.read_text()
    with process.session() as session:
        restores.restore(session, SYSTEM, deletion_id, timedelta(days=7))
        session.commit()
    with home.running():
        until(lambda: "Online" in connection(root, page), seconds=60, why="it works again after a restart")
    assert [manager.system_xid for manager in managers(process)] == [home.system_id]
