"""Machines that nobody has heard of for long: which they are, and how they are forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy import (
    BigInteger,
    Integer,
    Interval,
    Select,
    column,
    delete,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    update,
    values,
)
from sqlalchemy.orm import Session, joinedload

from portal.database import now
from portal.domain import audit
from portal.domain.actors import CLEAN_UP
from portal.domain.runners import runner_changes
from portal.domain.runners.runner_status import STALE_AFTER
from portal.domain.scopes import of_runner
from portal.models import Runner, RunnerManager

BATCH = 1000
_SECOND = literal_column("interval '1 second'", Interval)


def prune(
    session: Session, *, at: datetime | None = None, silent_for: timedelta = STALE_AFTER, batch: int = BATCH
) -> int:
    """Delete at most `batch` managers that were silent for that long at this moment; their runners stay.

    A runner may say for itself how long its managers are remembered (`machines_forgotten_after`). A manager is as old
    as the later of its making and its last contact, and goes exactly at its deadline, as `runner_status` has it.
    Returns how many went. Each runner counts its own, and the trail tells of them by runner.

    Rows that others hold are left for the next round, so that a prune never waits for heartbeats: two that write
    runners in different orders would otherwise stop each other.
    """
    moment = at or now()
    silent: dict[int, int] = {}
    for query in _silent(moment, silent_for, batch):
        if len(silent) < batch:
            silent |= {row.id: row.runner_id for row in session.execute(query.limit(batch - len(silent)))}
    held = select(Runner.id).where(Runner.id.in_(set(silent.values())))
    runner_ids = set(session.scalars(held.with_for_update(key_share=True, skip_locked=True))) if silent else set()
    taken = [manager_id for manager_id, runner_id in silent.items() if runner_id in runner_ids]
    gone = Counter(silent[manager_id] for manager_id in taken)
    if gone:
        session.execute(delete(RunnerManager).where(RunnerManager.id.in_(taken)))
        _note_forgotten(session, gone, moment)
    return len(taken)


def _silent(at: datetime, silent_for: timedelta, batch: int) -> Iterator[Select[int, int]]:
    """The managers to delete (id, runner id), held, in three queries that share no row and have an index each.

    One query for all would read the whole table each time, because a row's deadline stands in another table.
    """
    manager, own = RunnerManager, Runner.machines_forgotten_after
    usual, special = at - silent_for, literal(at) - own * _SECOND
    found = select(manager.id, manager.runner_id)
    of_runners = found.join(Runner, Runner.id == manager.runner_id)
    old = manager.contacted_at <= usual, manager.created_at <= usual
    deadline = func.coalesce(special, usual)
    # Deleted runners are hidden here; one that was restored could not hear of its machines meanwhile.
    back = or_(Runner.restored_at.is_(None), Runner.restored_at <= deadline)
    yield _held(of_runners.where(own.is_(None), back, *old).order_by(manager.contacted_at))
    never = manager.contacted_at.is_(None), manager.created_at <= deadline
    yield _held(of_runners.where(back, *never))
    # Lateral, so that each such runner's managers are looked up by its id and deadline.
    its = manager.runner_id == Runner.id, manager.contacted_at <= special, manager.created_at <= special
    each = _held(found.where(*its).correlate(Runner).limit(batch)).lateral("each")
    yield select(each.c.id, each.c.runner_id).select_from(Runner).join(each, true()).where(own.is_not(None), back)


def _held(query: Select[int, int]) -> Select[int, int]:
    return query.with_for_update(of=RunnerManager, skip_locked=True)


def _note_forgotten(session: Session, gone: Counter[int], at: datetime) -> None:
    names = column("runner_id", BigInteger), column("machines", Integer)
    forgotten = values(*names, name="forgotten").data(list(gone.items()))
    session.execute(
        update(Runner)
        .where(Runner.id == forgotten.c.runner_id)
        .values(machines_forgotten=Runner.machines_forgotten + forgotten.c.machines, machines_forgotten_at=at)
        .execution_options(synchronize_session=False)
    )
    whose = select(Runner).where(Runner.id.in_(gone)).order_by(Runner.id).execution_options(populate_existing=True)
    for runner in session.scalars(whose.options(joinedload(Runner.group), joinedload(Runner.project))):
        told = {"machines": (None, gone[runner.id])}
        audit.record(session, CLEAN_UP, "machines_forgotten", runner, of_runner(runner), told)
        runner_changes.announce(session, runner.id, managers_gone=True)
