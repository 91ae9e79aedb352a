"""Thousands of machines and their runners in a database, as rows like those that the product has made once."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Computed, Table, insert, select
from sqlalchemy.orm import Session

from bench.load_clients import Machine
from portal.database import now
from portal.domain import tokens
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import CreationState, Runner, RunnerManager, RunnerToken
from tests.cast import Cast

ANYTHING = RunnerSettings(description="Build fleet", run_untagged=True)


@dataclass(frozen=True)
class Fleet:
    """Runners of one group, and their machines with the tokens in clear."""

    runner_ids: tuple[int, ...]
    machines: tuple[Machine, ...]


def make(cast: Cast, *, runners: int, each: int = 1, settings: RunnerSettings = ANYTHING) -> Fleet:
    """Commit so many runners of the group acme with so many machines each, which have polled before.

    One runner is created by the product; the others are copies of its row with tokens of their own.
    """
    session = cast.session
    first = cast.runner(settings=settings).runner
    ids = [first.id, *_copies(session, first.id, runners - 1)]
    clear = [tokens.make(first.runner_type) for _ in ids]
    token_ids = _give_tokens(session, ids, clear)
    names = [f"r_{secrets.token_hex(6)}" for _ in range(runners * each)]
    owners = [(place, names[place * each + number]) for place in range(runners) for number in range(each)]
    _add_machines(session, [(ids[place], token_ids[place], name) for place, name in owners])
    session.commit()
    return Fleet(tuple(ids), tuple(Machine(clear[place], name) for place, name in owners))


def mistyped(fleet: Fleet) -> tuple[Machine, ...]:
    """The same machines with a wrong last letter in each token."""
    return tuple(
        Machine(token[:-1] + ("0" if token[-1] != "0" else "1"), system_id) for token, system_id in fleet.machines
    )


def unknown(fleet: Fleet, *, different: int) -> tuple[Machine, ...]:
    """The same machines with so many well-formed tokens that belong to nobody, as a fleet whose runners are gone."""
    nobody = [tokens.make(2) for _ in range(different)]
    return tuple(Machine(nobody[at % different], each.system_id) for at, each in enumerate(fleet.machines))


def _table(model: type[Any]) -> Table:
    found: Table = model.__table__
    return found


def _row_of(session: Session, table: Table, which: Any) -> dict[str, Any]:
    row = session.execute(select(table).where(which)).mappings().one()
    made_here = {column.name for column in table.columns if isinstance(column.computed, Computed)} | {"id"}
    return {name: value for name, value in row.items() if name not in made_here}


def _copies(session: Session, runner_id: int, number: int) -> list[int]:
    if not number:
        return []
    table = _table(Runner)
    row = _row_of(session, table, table.c.id == runner_id)
    rows = [{**row, "description": f"{row['description']} {at}"} for at in range(number)]
    return list(session.scalars(insert(table).returning(table.c.id), rows))


def _give_tokens(session: Session, runner_ids: list[int], clear: list[str]) -> list[int]:
    table = _table(RunnerToken)
    row = _row_of(session, table, table.c.runner_id == runner_ids[0])
    own = [
        {"runner_id": runner_id, "digest": tokens.digest(token), "short": tokens.shorten(token), "request_key": None}
        for runner_id, token in zip(runner_ids, clear, strict=True)
    ]
    statement = insert(table).returning(table.c.id, sort_by_parameter_order=True)
    return list(session.scalars(statement, [{**row, **each, "first_used_at": now()} for each in own]))


def _add_machines(session: Session, rows: list[tuple[int, int, str]]) -> None:
    since = now() - timedelta(days=1)
    session.execute(
        insert(RunnerManager),
        [
            {
                "runner_id": runner_id,
                "token_id": token_id,
                "system_xid": system_id,
                "creation_state": CreationState.FINISHED,
                "created_at": since,
                "contacted_at": since,
            }
            for runner_id, token_id, system_id in rows
        ],
    )
