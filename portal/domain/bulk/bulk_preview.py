"""What a bulk act would do to which runners, and why not to others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload, load_only

from portal.domain import actors
from portal.domain.bulk import bulk_acts
from portal.domain.bulk.bulk_changes import Act, Rules
from portal.domain.errors import Refusal
from portal.domain.scopes import of_runner
from portal.models import BulkAct, Runner, RunnerManager

LOOKED_AT = 1000  # runners that are read at a time
SHOWN = 100  # of each kind
_READ = (
    Runner.runner_type,
    Runner.description,
    Runner.maintenance_note,
    Runner.tag_list,
    Runner.run_untagged,
    Runner.active,
    Runner.access_level,
    Runner.locked,
    Runner.maximum_timeout,
    Runner.token_expiration_interval,
    Runner.machines_forgotten_after,
)


@dataclass(frozen=True, slots=True)
class Line:
    """One runner. `becomes` are its tags afterwards, `sentence` says why it is refused."""

    id: int
    name: str
    owner: str = ""
    tags: tuple[str, ...] = ()
    becomes: tuple[str, ...] = ()
    sentence: str = ""


@dataclass(slots=True)
class Lines:
    """The first of some runners, and how many there are."""

    first: list[Line] = field(default_factory=list)
    total: int = 0

    def add(self, line: Line) -> None:
        """Count it, and keep it if it is among the first."""
        self.total += 1
        if len(self.first) < SHOWN:
            self.first.append(line)


@dataclass(slots=True)
class Preview:
    """What would happen to which runners at this moment. `machines` are those that a deletion stops."""

    changes: Lines = field(default_factory=Lines)
    unchanged: Lines = field(default_factory=Lines)
    refused: Lines = field(default_factory=Lines)
    reasons: Counter[str] = field(default_factory=Counter)
    machines: int = 0


def preview(session: Session, act: BulkAct) -> Preview:
    """What the act would do if it were started now, by the rules and its person's roles of this moment.

    The database is asked a few questions for each LOOKED_AT runners, never one for each.
    """
    found, ids = Preview(), act.runner_ids
    for start in range(0, len(ids), LOOKED_AT):
        going = _look(session, act, ids[start : start + LOOKED_AT], found)
        if act.act == Act.DELETE:
            found.machines += _machines(session, going)
    return found


def _look(session: Session, act: BulkAct, ids: list[int], found: Preview) -> list[int]:
    """Sort these runners into what was found; returns the ids of those that change."""
    query = select(Runner).where(Runner.id.in_(ids))
    query = query.options(load_only(*_READ), joinedload(Runner.group), joinedload(Runner.project))
    there = {runner.id: runner for runner in session.scalars(query)}
    rules = Rules(session, actors.person(act.user), bulk_acts.wanted_by(act), there.values())
    going = []
    for runner_id in ids:
        runner = there.get(runner_id)
        try:
            if runner is None:
                raise bulk_acts.gone()
            changed, line = _line(rules, runner)
            (found.changes if changed else found.unchanged).add(line)
            if changed:
                going.append(runner_id)
        except Refusal as refusal:
            name, owner = (bulk_acts.name_of(runner), of_runner(runner).title) if runner else (f"#{runner_id}", "")
            found.refused.add(Line(runner_id, name, owner, sentence=str(refusal)))
            found.reasons[str(refusal)] += 1
    return going


def _line(rules: Rules, runner: Runner) -> tuple[bool, Line]:
    old, new = rules.allow(runner)
    line = Line(runner.id, bulk_acts.name_of(runner), of_runner(runner).title, old.tags, new.tags)
    return rules.wanted.act is Act.DELETE or old != new, line


def _machines(session: Session, ids: Collection[int]) -> int:
    query = select(func.count()).select_from(RunnerManager).where(RunnerManager.runner_id.in_(ids))
    return (session.scalar(query) or 0) if ids else 0
