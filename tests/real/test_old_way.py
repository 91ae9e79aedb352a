"""Real gitlab-runner binaries, old and new, register the old way, and are told when that is turned off."""

from __future__ import annotations

import pytest

from portal.database import now
from portal.domain.groups import groups
from portal.domain.groups.groups import Naming
from portal.domain.scopes import INSTANCE as THE_INSTANCE
from portal.models import LEGACY, RegistrationType, RunnerManager
from tests.api.machines import until
from tests.api.people import Person, block_on, runner_id_on, token_on
from tests.api.processes import Process
from tests.cast import SYSTEM
from tests.portals import RunningPortal
from tests.real import clients
from tests.real.clients import Home
from tests.real.old_way import (
    ACME,
    INSTANCE,
    INSTEAD,
    managers,
    register,
    registration_token,
    runners,
    turn_off,
    turn_on,
)

every_client = clients.each()
LIMITS = ("--tag-list", "docker,linux", "--run-untagged=false", "--locked=false", "--maximum-timeout", "3600")
SENDS_A_SYSTEM_ID = (15, 8)
TELLS_OUR_MESSAGE = (15, 0)
TAKES_GLRT = (15, 10)


@pytest.fixture
def acme(process: Process) -> None:
    """A group in which root, being an administrator, may do everything."""
    with process.session() as session:
        groups.create_group(session, SYSTEM, THE_INSTANCE, Naming("Acme", "acme"))
        session.commit()


def has_polled(process: Process) -> bool:
    return [manager.has_polled for manager in managers(process)] == [True]


def hears_of_it(process: Process) -> RunnerManager:
    """The only machine there is, once it was heard of after now."""
    moment = now()

    def fresh() -> RunnerManager | None:
        (manager,) = managers(process)
        return manager if manager.contacted_at > moment else None

    return until(fresh, seconds=90, why="it polls again")


@every_client
def test_it_registers_polls_is_online_and_unregistering_deletes_the_runner(
    running_portal: RunningPortal, root: Person, process: Process, home: Home
) -> None:
    status, told = register(home, running_portal, registration_token(root), *LIMITS)
    assert status == 0, told
    (runner,) = runners(process)
    assert (runner.registration_type, runner.creator_id) == (RegistrationType.REGISTRATION_TOKEN, None)
    assert (runner.description, runner.tag_list, runner.run_untagged) == ("box1", ["docker", "linux"], False)
    assert (runner.maximum_timeout, runner.paused, runner.protected) == (3600, False, False)
    assert (runner.version, runner.platform) == (home.client.version, "linux")
    assert managers(process) == []
    assert 'token = "glrtr-t1_' in home.config.read_text()

    home.hurry()
    with home.running():
        until(lambda: has_polled(process), why="it asks for jobs")
        page = root.page(f"/admin/runners/{runner.id}")
    (manager,) = managers(process)
    old = home.client.number < SENDS_A_SYSTEM_ID
    assert manager.system_xid == (LEGACY if old else home.system_id)
    assert "Online" in page
    assert home.client.version in page
    verified = home.run("verify", "--config", str(home.config))
    assert verified.returncode == 0, verified.stdout
    assert "is alive" in verified.stdout

    gone = home.run("unregister", "--config", str(home.config), "--name", "box1")
    assert gone.returncode == 0, gone.stdout
    assert runners(process) == []
    assert "glrtr-" not in home.config.read_text()


@every_client
def test_the_pasted_block_registers_with_each_client_as_it_stands(root: Person, process: Process, home: Home) -> None:
    registration_token(root)
    pasted = home.paste(block_on(root.page(INSTANCE), "linux"))
    assert pasted.returncode == 0, pasted.stdout
    (runner,) = runners(process)
    assert (runner.tag_list, runner.run_untagged) == (["docker", "linux"], False)
    assert runner.description
    home.hurry()
    with home.running():
        until(lambda: has_polled(process), why="it asks for jobs")


@every_client
@pytest.mark.parametrize("place", [INSTANCE, ACME])
@pytest.mark.usefixtures("acme")
def test_turned_off_through_the_page_the_next_registration_fails_with_our_sentence(
    running_portal: RunningPortal, root: Person, process: Process, home: Home, place: str
) -> None:
    token = registration_token(root, place)
    turn_off(root, place)
    status, told = register(home, running_portal, token, *LIMITS)
    assert status == 1, told
    assert "410 Gone" in told
    assert runners(process) == []
    assert not home.config.exists() or "glrtr-" not in home.config.read_text()
    if home.client.number >= TELLS_OUR_MESSAGE:
        what = "the whole portal" if place == INSTANCE else "the group acme"
        where = "/" if place == INSTANCE else "/groups/acme/-/runners/new"
        assert f"runner registration disallowed: An administrator turned registration tokens off for {what}." in told
        assert INSTEAD in told
        assert f"{running_portal.url}{where}" in told
    turn_on(root, place)
    status, told = register(home, running_portal, token, *LIMITS)
    assert status == 0, told
    assert len(runners(process)) == 1


@every_client
def test_a_token_that_nobody_has_registers_nothing(
    running_portal: RunningPortal, process: Process, home: Home
) -> None:
    status, told = register(home, running_portal, "GR1348941abcdefghijklmnopqrst")
    assert status == 1, told
    assert "forbidden" in told.lower()
    assert runners(process) == []


@clients.each(before=SENDS_A_SYSTEM_ID)
@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("place", [INSTANCE, ACME])
def test_one_that_sends_no_system_id_is_gone_from_then_on_and_back_after_turning_on(
    running_portal: RunningPortal, root: Person, process: Process, home: Home, place: str
) -> None:
    status, told = register(home, running_portal, registration_token(root, place))
    assert status == 0, told
    home.hurry()
    with home.running():
        until(lambda: has_polled(process), why="it asks for jobs")
        assert "410 Gone" not in home.log.read_text()
        turn_off(root, place)
        until(lambda: "410 Gone" in home.log.read_text(), seconds=60, why="it is refused")
        turn_on(root, place)
        hears_of_it(process)
    assert "forbidden" not in home.log.read_text().lower()


@clients.each(since=SENDS_A_SYSTEM_ID)
@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("place", [INSTANCE, ACME])
def test_one_that_sends_its_system_id_goes_on_as_if_nothing_had_happened(
    running_portal: RunningPortal, root: Person, process: Process, home: Home, place: str
) -> None:
    status, told = register(home, running_portal, registration_token(root, place))
    assert status == 0, told
    home.hurry()
    with home.running():
        until(lambda: has_polled(process), why="it asks for jobs")
        turn_off(root, place)
        for _ in range(3):
            assert hears_of_it(process).system_xid == home.system_id
        verified = home.run("verify", "--config", str(home.config))
        logged = home.log.read_text().lower()  # stopped, it says that it gave up a poll which was held
    assert verified.returncode == 0, verified.stdout
    for word in ("gone", "forbidden", "failed"):
        assert word not in logged


@clients.each(before=TAKES_GLRT)
@pytest.mark.parametrize("off", [False, True])
def test_an_old_one_with_an_authentication_token_for_a_registration_token_makes_nothing(
    running_portal: RunningPortal, root: Person, process: Process, home: Home, off: bool
) -> None:
    token = token_on(root.create_runner().body.decode())
    if off:
        turn_off(root)
    status, told = register(home, running_portal, token)
    assert status == 1, told
    assert ("410 Gone" if off else "forbidden") in told
    assert len(runners(process)) == 1
    assert managers(process) == []
    assert not home.config.exists() or "glrt" not in home.config.read_text()


@clients.each(since=TAKES_GLRT)
@pytest.mark.parametrize("off", [False, True])
def test_a_newer_one_with_an_authentication_token_for_a_registration_token_verifies_it(
    running_portal: RunningPortal, root: Person, process: Process, home: Home, off: bool
) -> None:
    page = root.create_runner().body.decode()
    if off:
        turn_off(root)
    status, told = register(home, running_portal, token_on(page))
    assert status == 0, told
    assert [runner.id for runner in runners(process)] == [runner_id_on(page)]
    assert [manager.system_xid for manager in managers(process)] == [home.system_id]


@clients.each(since=TAKES_GLRT, before=(16, 0))
def test_unregistering_the_whole_runner_leaves_a_created_one_and_deletes_a_registered_one(
    running_portal: RunningPortal, root: Person, process: Process, home: Home, second_home: Home
) -> None:
    created = root.create_runner().body.decode()
    status, told = register(home, running_portal, token_on(created))
    assert status == 0, told
    status, told = register(second_home, running_portal, registration_token(root))
    assert status == 0, told
    assert len(runners(process)) == 2
    for each in (home, second_home):
        gone = each.run("unregister", "--config", str(each.config), "--all-runners")
        assert gone.returncode == 0, gone.stdout
    assert [runner.id for runner in runners(process)] == [runner_id_on(created)]
    assert managers(process) == []
