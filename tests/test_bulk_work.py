"""Bulk acts go on beside the requests: in every server process, over a kill, each runner once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.bulk import bulk_acts
from portal.domain.bulk.bulk_changes import Act, Wanted
from portal.domain.runners.runner_lists import RunnerFilter
from portal.domain.trail import audit_chain
from portal.models import AuditEvent, BulkAct, Runner, RunnerType
from tests.api.machines import until
from tests.api.processes import Process
from tests.cast import Cast
from tests.portals import RunningPortal


def started(process: Process, many: int, wanted: Wanted | None = None) -> int:
    """The id of a started act of Alice's on so many runners of acme."""
    with process.session() as session:
        cast = Cast(session)
        row = {
            "runner_type": RunnerType.GROUP,
            "group_id": cast.acme.id,
            "registration_type": 1,
            "tag_list": ["a"],
        }
        session.execute(insert(Runner), [{**row, "description": f"Build {number}"} for number in range(many)])
        act = bulk_acts.draft(session, cast.as_(cast.alice), cast.acme, wanted or Wanted(Act.PAUSE), RunnerFilter())
        bulk_acts.start(session, cast.as_(cast.alice), act.id)
        session.commit()
        return act.id


def state(process: Process, act_id: int) -> tuple[int, int, int]:
    """(done, changed, refused) of an act."""
    with process.session() as session:
        act = session.get_one(BulkAct, act_id)
        return act.done, act.changed, act.refusals


def over(process: Process, act_id: int) -> bool:
    with process.session() as session:
        return act_id not in bulk_acts.unfinished(session)


def count_paused(session: Session) -> Counter[int]:
    """How many events each paused runner has; their runners are those that are paused."""
    events = Counter(session.scalars(select(AuditEvent.target_id).where(AuditEvent.action == "runner_paused")))
    assert set(session.scalars(select(Runner.id).where(~Runner.active))) == set(events)
    return events  # type: ignore[return-value]


def test_an_act_is_finished_by_whichever_process_runs(own_database: str) -> None:
    with Process(own_database) as process, Process(own_database):
        act_id = started(process, 450)
        until(lambda: over(process, act_id), seconds=30, why="the act is over")
        assert state(process, act_id) == (450, 450, 0)
        with process.session() as session:
            assert set(count_paused(session).values()) == {1}


def test_an_act_whose_batch_fails_does_not_stop_the_others_and_is_tried_again(
    process: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad = started(process, 3)
    with process.session() as session:
        user = session.get_one(BulkAct, bad).user
        actor = Cast.as_(user)
        good = bulk_acts.draft(
            session, actor, bulk_acts.scope_of(session.get_one(BulkAct, bad)), Wanted(Act.DELETE), RunnerFilter()
        )
        bulk_acts.start(session, actor, good.id)
        session.commit()
        good_id = good.id
    take_batch = bulk_acts.take_batch

    def fail(session: Session, act_id: int, **more: Any) -> bool:
        if act_id == bad:
            raise OperationalError("deadlock detected", None, Exception())
        return take_batch(session, act_id, **more)

    with monkeypatch.context() as patched:
        patched.setattr(bulk_acts, "take_batch", fail)
        assert process.background.work_on_bulk_acts() == 1
    assert "it is tried again" in caplog.text
    assert (over(process, good_id), over(process, bad)) == (True, False)
    process.background.work_on_bulk_acts()
    assert state(process, bad) == (3, 0, 3)


def test_old_drafts_are_forgotten_beside_the_requests(process: Process) -> None:
    act_id = started(process, 1)
    process.background.work_on_bulk_acts()
    with process.session() as session:
        session.get_one(BulkAct, act_id).finished_at = now() - bulk_acts.REPORTS_KEPT
        session.commit()
    assert process.background.housekeeping.forget_bulk_acts() == 1


def test_kill_9_in_the_middle_of_2000_runners_loses_none_and_does_none_twice(
    process: Process, own_database: str
) -> None:
    """After the kill: as many events as changes. After the next start: the rest, and an unbroken chain."""
    act_id = started(process, 2000)
    portal = RunningPortal(own_database)
    with portal:
        until(lambda: state(process, act_id)[0] >= 200, seconds=30, why="it is in the middle")
        portal.kill()
        done, changed, refused = state(process, act_id)
        assert 200 <= done < 2000
        assert (changed, refused) == (done, 0)
        with process.session() as session:
            events = count_paused(session)
            assert (len(events), set(events.values())) == (done, {1})
        portal.start()
        until(lambda: over(process, act_id), seconds=60, why="the act is over")
    assert state(process, act_id) == (2000, 2000, 0)
    with process.session() as session:
        events = count_paused(session)
        assert (len(events), set(events.values())) == (2000, {1})
        assert len(list(session.scalars(select(AuditEvent).where(AuditEvent.action == "bulk_act_finished")))) == 1
        assert audit_chain.verify(session).broken is None
