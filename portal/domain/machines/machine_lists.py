"""The machines of many runners at once: pages of them, how many there are, and what they tell together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, any_, func, or_, select, true
from sqlalchemy.orm import Session

from portal.database import as_array
from portal.domain.runners.runner_status import ONLINE_WINDOW, STALE_AFTER, Status
from portal.models import CreationState, Executor, Runner, RunnerManager

FACTS = ("ip_address", "version", "revision", "platform", "architecture", "executor_name")


@dataclass(frozen=True, slots=True)
class MachineQuery:
    """Which machines are asked for: with this system ID, of this status; None asks for nothing."""

    system_id: str | None = None
    status: Status | None = None

    def condition(self, at: datetime) -> ColumnElement[bool]:
        """The condition for these machines at this moment.

        As with runners, offline and never contacted include those that are stale (reference/rest.md section 5).
        """
        parts: list[ColumnElement[bool]] = []
        if self.system_id is not None:
            parts.append(RunnerManager.system_xid == self.system_id)
        if self.status is not None:
            parts.append(_has(self.status, at))
        return and_(true(), *parts)


def _has(status: Status, at: datetime) -> ColumnElement[bool]:
    polled = and_(RunnerManager.contacted_at.is_not(None), RunnerManager.creation_state == CreationState.FINISHED)
    fresh, deadline = at - ONLINE_WINDOW, at - STALE_AFTER
    if status is Status.ONLINE:
        return and_(polled, RunnerManager.contacted_at > fresh)
    if status is Status.OFFLINE:
        return and_(polled, RunnerManager.contacted_at <= fresh)
    if status is Status.NEVER_CONTACTED:
        return ~polled
    silent = or_(RunnerManager.contacted_at.is_(None), RunnerManager.contacted_at <= deadline)
    return and_(RunnerManager.created_at <= deadline, silent)


def of_each(
    session: Session,
    runner_ids: Sequence[int],
    which: ColumnElement[bool],
    *,
    limit: int,
    below: int | None = None,
    above: int | None = None,
    oldest: bool = False,
) -> dict[int, list[RunnerManager]]:
    """The newest machines of each of these runners that fit, the newest first; by runner id. One query.

    At most `limit` of each, with ids between `above` and `below`; with `oldest`, the oldest of them instead.
    """
    found: dict[int, list[RunnerManager]] = {runner_id: [] for runner_id in runner_ids}
    if not found:
        return found
    asked = func.unnest(as_array(runner_ids)).table_valued("id").render_derived()
    order = RunnerManager.id.asc() if oldest else RunnerManager.id.desc()
    its = select(RunnerManager.id).where(RunnerManager.runner_id == asked.c.id, which)
    if below is not None:
        its = its.where(RunnerManager.id < below)
    if above is not None:
        its = its.where(RunnerManager.id > above)
    its_first = its.order_by(order).limit(limit).lateral()
    chosen = select(its_first.c.id).select_from(asked.join(its_first, true()))
    rows = select(RunnerManager).where(RunnerManager.id.in_(chosen)).order_by(RunnerManager.id.desc())
    for manager in session.scalars(rows):
        found[manager.runner_id].append(manager)
    return found


def counts(session: Session, runner_ids: Sequence[int], which: ColumnElement[bool]) -> dict[int, int]:
    """How many machines of each of these runners fit, by runner id; those without are left out. One query."""
    query = select(RunnerManager.runner_id, func.count()).where(_of(runner_ids), which)
    return {row[0]: row[1] for row in session.execute(query.group_by(RunnerManager.runner_id))}


def told_together(session: Session, runners: Sequence[Runner]) -> dict[int, dict[str, str | None]]:
    """What the machines of each runner tell, by runner id and by FACTS. One query.

    Each value once, in the order of the alphabet, comma separated; the runner's own where no machine tells any, and
    None where that is empty too (design/product.md, "Runner managers and heartbeats").
    """
    columns = ("ip_address", "version", "revision", "platform", "architecture", "executor_type")
    told = [_distinct(getattr(RunnerManager, name)).label(name) for name in columns]
    query = select(RunnerManager.runner_id, *told).where(_of([runner.id for runner in runners]))
    rows = {row.runner_id: row for row in session.execute(query.group_by(RunnerManager.runner_id))}
    return {runner.id: _facts(runner, rows.get(runner.id)) for runner in runners}


def _facts(runner: Runner, row: Any) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in FACTS:
        column = "executor_type" if name == "executor_name" else name
        own = getattr(runner, column)
        values = (getattr(row, column) if row is not None else None) or ([own] if own not in (None, "") else [])
        words = [Executor(each).wire_name if name == "executor_name" else each for each in values]
        found[name] = ",".join(sorted(words)) or None
    return found


def _distinct(column: Any) -> Any:
    return func.array_agg(column.distinct()).filter(column.is_not(None))


def _of(runner_ids: Sequence[int]) -> ColumnElement[bool]:
    return RunnerManager.runner_id == any_(as_array(runner_ids))
