"""The machines of many runners at once: one query for all, each status in its list, facts told together."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.machines import machine_lists
from portal.domain.machines.machine_lists import MachineQuery
from portal.domain.runners import runner_status
from portal.domain.runners.runner_status import Status
from portal.models import CreationState, Executor, Runner, RunnerManager
from tests.cast import Cast
from tests.domain.queries import asked

ANY = MachineQuery().condition(now())


@pytest.fixture
def runners(cast: Cast) -> list[Runner]:
    return [cast.runner(cast.acme).runner for _ in range(3)]


def machine(session: Session, runner: Runner, system_id: str, **facts: object) -> RunnerManager:
    made = RunnerManager(runner_id=runner.id, system_xid=system_id, **facts)
    session.add(made)
    session.flush()
    return made


def test_a_page_of_each_is_one_query(session: Session, runners: list[Runner]) -> None:
    for number in range(4):
        for runner in runners[:2]:
            machine(session, runner, f"s_{number}")
    ids = [each.id for each in runners]
    with asked(session) as statements:
        found = machine_lists.of_each(session, ids, ANY, limit=2)
        counts = machine_lists.counts(session, ids, ANY)
    assert len(statements) == 2
    names = {runner_id: [each.system_xid for each in machines] for runner_id, machines in found.items()}
    assert names == {ids[0]: ["s_3", "s_2"], ids[1]: ["s_3", "s_2"], ids[2]: []}
    assert counts == {ids[0]: 4, ids[1]: 4}
    below = found[ids[0]][-1].id
    older = machine_lists.of_each(session, ids[:1], ANY, limit=9, below=below)
    assert [each.system_xid for each in older[ids[0]]] == ["s_1", "s_0"]
    oldest = machine_lists.of_each(session, ids[:1], ANY, limit=1, oldest=True)
    assert [each.system_xid for each in oldest[ids[0]]] == ["s_0"]
    assert machine_lists.of_each(session, [], ANY, limit=1) == {}


MOMENTS = [timedelta(0), timedelta(minutes=119), timedelta(hours=2), timedelta(days=7), timedelta(days=8)]


@pytest.mark.parametrize("created", MOMENTS)
@pytest.mark.parametrize("contacted", [None, *MOMENTS])
@pytest.mark.parametrize("polled", [True, False])
def test_a_machine_is_in_the_list_of_its_status(
    session: Session, runners: list[Runner], created: timedelta, contacted: timedelta | None, polled: bool
) -> None:
    at = now()
    state = CreationState.FINISHED if polled else CreationState.STARTED
    row = machine(session, runners[0], "s_1", created_at=at - created, creation_state=state)
    row.contacted_at = at - contacted if contacted is not None else None
    session.flush()
    status = runner_status.of_manager(row, at)
    lists = {each for each in Status if is_listed(session, runners[0], each, at)}
    assert status in lists
    assert len(lists - {Status.STALE}) == 1  # every machine is online, offline or never contacted
    assert (Status.STALE in lists) == (status is Status.STALE)


def is_listed(session: Session, runner: Runner, status: Status, at: datetime) -> bool:
    return bool(machine_lists.counts(session, [runner.id], MachineQuery(status=status).condition(at)))


def test_what_machines_tell_is_told_together_in_one_query(session: Session, runners: list[Runner]) -> None:
    machine(session, runners[0], "s_1", version="17.5.0", executor_type=Executor.SHELL, ip_address="192.0.2.1")
    machine(session, runners[0], "s_2", version="16.0.0", executor_type=Executor.DOCKER, ip_address="192.0.2.1")
    machine(session, runners[0], "s_3")
    runners[0].revision, runners[1].version, runners[1].executor_type = "own", "15.0.0", Executor.UNKNOWN
    session.flush()
    session.refresh(runners[2])
    with asked(session) as statements:
        told = machine_lists.told_together(session, runners)
    assert len(statements) == 1
    nothing = dict.fromkeys(machine_lists.FACTS)
    assert told[runners[0].id] == {
        **nothing,
        "version": "16.0.0,17.5.0",
        "ip_address": "192.0.2.1",
        "revision": "own",
        "executor_name": "docker,shell",
    }
    assert told[runners[1].id] == {**nothing, "version": "15.0.0", "executor_name": "unknown"}
    assert told[runners[2].id] == nothing
