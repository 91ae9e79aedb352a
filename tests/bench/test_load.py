"""The load generator beside a running portal: it counts every answer, holds, hears what comes, and hangs up."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from bench import machine_rows
from bench.load_clients import HeldPolls, Machine, poll
from bench.machine_rows import Fleet
from bench.running_servers import from_file
from portal.models import RunnerManager
from tests.cast import Cast
from tests.portals import RunningPortal

pytestmark = pytest.mark.skipif(shutil.which("go") is None, reason="the load generator is built with Go")


class Stage:
    """A running portal and a small fleet."""

    def __init__(self, session: Session, portal: RunningPortal) -> None:
        self.session = session
        self.cast = Cast(session)
        self.fleet: Fleet = machine_rows.make(self.cast, runners=4, each=2)
        self.portal = portal


@pytest.fixture
def stage(own_database: str) -> Iterator[Stage]:
    engine = create_engine(own_database)
    with RunningPortal(own_database, PORTAL_WORKERS="1") as portal, Session(engine) as session:
        yield Stage(session, portal)
    engine.dispose()


def test_every_machine_is_polled_and_every_answer_counted(stage: Stage, tmp_path: Path) -> None:
    fleet = stage.fleet
    good = poll(stage.portal.url, tmp_path, fleet.machines, {"rounds": "3"}, connections=3, echo=False).only(204)
    assert good.requests == 24
    assert poll(stage.portal.url, tmp_path, fleet.machines, {"time": "200ms"}, echo=False).only(204).seconds == 0.2
    assert stage.session.query(RunnerManager).count() == 8  # the fleet's rows are those that the portal knows
    for wrong in (machine_rows.mistyped(fleet), machine_rows.unknown(fleet, different=2)):
        refused = poll(stage.portal.url, tmp_path, wrong, {"rounds": "1"})
        assert refused.statuses == {"403": 8}
        with pytest.raises(ValueError, match="403"):
            refused.only(204)


def test_machines_are_held_and_hear_of_a_job_and_of_the_stop(stage: Stage, tmp_path: Path) -> None:
    asked = {"hold": "50s", "pause": "0s", "report": "true"}
    with HeldPolls(stage.portal.url, tmp_path, stage.fleet.machines, **asked) as held:
        held.wait_until_held(seconds=30)
        began = time.time_ns()
        job = stage.cast.job()
        deadline = time.monotonic() + 20
        heard = []
        while not heard and time.monotonic() < deadline:
            heard = [each for each in held.drain() if each.status == 201]
        assert [each.job for each in heard] == [job.id]
        assert began < heard[0].at < time.time_ns()
        held.wait_until_held(seconds=30)
        assert len(held.hang_up(3)) == 3
        held.wait_until_held(seconds=30)
        assert held.counts()["open"] == 5
        assert held.counts()["reported"] == 1
        held.drain()
        stage.portal.stop()
        assert len({each.machine for each in held.drain()}) == 5
        assert held.counts()["waiting"] == 0


def test_a_file_of_tokens_is_a_fleet(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("glrt-first s_one\n\nglrt-second\n")
    assert from_file(tokens) == (Machine("glrt-first", "s_one"), Machine("glrt-second", "r_bench0000001"))
