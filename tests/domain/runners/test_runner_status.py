"""Online, offline, stale, never contacted: the edges, and that Python and SQL agree on them."""

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain import scopes
from portal.domain.runners import runner_settings, runner_status, runners
from portal.domain.runners.runner_status import Status, condition, of_manager, of_runner
from portal.models import CreationState, Runner, RunnerManager
from tests.cast import SYSTEM

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
HOURS, DAYS = timedelta(hours=2), timedelta(days=7)
EDGES = [edge + tick for edge in (timedelta(0), HOURS, DAYS) for tick in (-TICK, timedelta(0), TICK)]
AGES = [*EDGES, timedelta(days=400), -timedelta(days=1)]


@pytest.mark.parametrize(
    ("created", "contacted", "status"),
    [
        (timedelta(0), None, Status.NEVER_CONTACTED),
        (DAYS - TICK, None, Status.NEVER_CONTACTED),
        (DAYS, None, Status.STALE),
        (DAYS, timedelta(0), Status.ONLINE),
        (DAYS, HOURS - TICK, Status.ONLINE),
        (DAYS, HOURS, Status.OFFLINE),
        (2 * DAYS, DAYS - TICK, Status.OFFLINE),
        (2 * DAYS, DAYS, Status.STALE),
        (timedelta(0), DAYS, Status.OFFLINE),
    ],
)
def test_a_runner_has_the_status_of_its_age_and_last_contact(
    created: timedelta, contacted: timedelta | None, status: Status
) -> None:
    runner = Runner(created_at=AT - created, contacted_at=None if contacted is None else AT - contacted)
    assert of_runner(runner, AT) is status


def test_a_machine_that_only_verified_has_never_contacted() -> None:
    machine = RunnerManager(created_at=AT, contacted_at=AT, creation_state=CreationState.STARTED)
    assert of_manager(machine, AT) is Status.NEVER_CONTACTED
    machine.creation_state = CreationState.FINISHED
    assert of_manager(machine, AT) is Status.ONLINE


def test_python_and_sql_agree_on_every_edge_and_every_runner_has_one_status(session: Session) -> None:
    ages = list(product(AGES, [*AGES, None]))
    for created, contacted in ages:
        settings = runner_settings.RunnerSettings(run_untagged=True)
        made = runners.create_runner(session, SYSTEM, scopes.INSTANCE, settings).runner
        made.created_at, made.contacted_at = AT - created, None if contacted is None else AT - contacted
    session.flush()
    in_sql = {status: set(session.scalars(select(Runner.id).where(condition(status, AT)))) for status in Status}
    in_python: dict[Status, set[int]] = {status: set() for status in Status}
    for runner in session.scalars(select(Runner)):
        in_python[of_runner(runner, AT)].add(runner.id)
    assert in_sql == in_python
    assert sum(len(ids) for ids in in_sql.values()) == len(ages)
    assert all(in_python.values())


def test_the_windows_are_gitlabs() -> None:
    assert (runner_status.ONLINE_WINDOW, runner_status.STALE_AFTER) == (HOURS, DAYS)
