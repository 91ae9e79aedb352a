"""The chain of the trail: it is made whole under any race, and whatever is done to it afterwards is found."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from portal.domain import audit
from portal.domain.runners import runners
from portal.domain.scopes import INSTANCE
from portal.domain.trail import audit_chain
from portal.domain.trail.audit_chain import COLUMNS, Checked, Head
from portal.models import AuditEvent, AuditLink, Runner
from tests.api.processes import Process
from tests.cast import SYSTEM, TAGGED, Cast

OTHER = "f" * 64


@pytest.fixture
def engine(own_database: str) -> Iterator[Engine]:
    engine = create_engine(own_database)
    yield engine
    engine.dispose()


def record(engine: Engine, number: int = 1, **changes: Any) -> None:
    """Commit events one by one, as requests do."""
    for each in range(number):
        with Session(engine) as session:
            audit.record(
                session, SYSTEM, f"change_{each + 1}", INSTANCE, INSTANCE, {"n": (each, each + 1), **changes}
            )
            session.commit()


def check(engine: Engine, noted: Head | None = None) -> Checked:
    with Session(engine) as session:
        return audit_chain.verify(session, noted=noted)


def tamper(engine: Engine, *statements: str) -> None:
    """Change the tables past their triggers, as somebody can who owns the database."""
    with engine.begin() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        for statement in statements:
            connection.execute(text(statement))
        connection.execute(text("SET session_replication_role = DEFAULT"))


def problem(engine: Engine, noted: Head | None = None) -> str:
    broken = check(engine, noted).broken
    assert broken is not None, "nothing was found"
    return str(broken)


# What is found


def test_a_changed_value_is_found_with_event_time_author_and_act(engine: Engine) -> None:
    record(engine, 5)
    tamper(engine, "UPDATE audit_events SET actor_name = 'Mallory' WHERE action = 'change_3'")
    found = check(engine)
    assert found.broken is not None
    assert (found.broken.position, found.count) == (3, 2)
    assert "Mallory: change_3 the instance" in found.broken.event
    assert found.broken.problem == "its values are not those that were written."


@pytest.mark.parametrize("column", COLUMNS)
def test_a_change_of_any_column_is_found(engine: Engine, column: str) -> None:
    record(engine, 3)
    value = {
        "id": "900",
        "created_at": "created_at + interval '1 microsecond'",
        "actor_id": "7",
        "target_id": "7",
        "group_ids": "'{7}'",
        "project_id": "7",
        "changes": "'{\"n\": [1, 1]}'",
    }.get(column, "'x'")
    follow = ["UPDATE audit_links SET event_id = 900 WHERE position = 2"] if column == "id" else []
    tamper(engine, f"UPDATE audit_events SET {column} = {value} WHERE action = 'change_2'", *follow)  # noqa: S608
    broken = check(engine).broken
    assert broken is not None
    assert broken.position == 2


def test_a_deleted_event_is_found(engine: Engine) -> None:
    record(engine, 5)
    tamper(engine, "DELETE FROM audit_events WHERE action = 'change_2'")
    assert "at position 2 (event 2): the event is gone; only its hash is left" in problem(engine)


def test_a_deleted_event_is_found_when_its_link_went_with_it(engine: Engine) -> None:
    record(engine, 5)
    tamper(
        engine,
        "DELETE FROM audit_links WHERE position IN (2, 3)",
        "DELETE FROM audit_events WHERE action IN ('change_2', 'change_3')",
    )
    assert "at position 2: position 2 to 3 is missing; the next event is event 4" in problem(engine)


def test_a_deleted_event_is_found_when_the_others_moved_up(engine: Engine) -> None:
    record(engine, 4)
    tamper(
        engine,
        "DELETE FROM audit_links WHERE position = 2",
        "DELETE FROM audit_events WHERE action = 'change_2'",
        "UPDATE audit_links SET position = 2 WHERE position = 3",
        "UPDATE audit_links SET position = 3 WHERE position = 4",
    )
    assert "does not follow the event before it" in problem(engine)


def test_a_cut_off_end_is_found_with_a_head_that_was_noted(engine: Engine) -> None:
    record(engine, 5)
    noted = check(engine).head
    cut = ("DELETE FROM audit_links WHERE position > 3", "DELETE FROM audit_events WHERE id > 3")
    tamper(engine, *cut)
    assert check(engine).broken is None, "without a note the rest is a chain"
    assert "at position 5: the chain ends at position 3" in problem(engine, noted)
    record(engine, 3)
    assert "the noted head had another hash" in problem(engine, noted)


def test_an_emptied_trail_is_found_with_a_head_that_was_noted(engine: Engine) -> None:
    record(engine, 2)
    noted = check(engine).head
    tamper(engine, "DELETE FROM audit_links", "DELETE FROM audit_events")
    assert "the chain is empty" in problem(engine, noted)


def test_a_swapped_order_is_found(engine: Engine) -> None:
    record(engine, 4)
    tamper(
        engine,
        "UPDATE audit_links SET position = 99 WHERE position = 2",
        "UPDATE audit_links SET position = 2 WHERE position = 3",
        "UPDATE audit_links SET position = 3 WHERE position = 99",
    )
    assert "at position 2" in problem(engine)
    assert "swapped or put in" in problem(engine)


def test_two_events_that_changed_places_are_found(engine: Engine) -> None:
    record(engine, 4)
    tamper(
        engine,
        "UPDATE audit_links SET event_id = 99 WHERE position = 2",
        "UPDATE audit_links SET event_id = 2 WHERE position = 3",
        "UPDATE audit_links SET event_id = 3 WHERE position = 2",
    )
    assert "at position 2" in problem(engine)


COPY = (
    "INSERT INTO audit_events (created_at, actor_kind, actor_name, action, target_kind, target_name, scope_kind, "
    "scope_path, group_ids, address, request_id, changes) SELECT created_at, actor_kind, 'Mallory', action, "
    "target_kind, target_name, scope_kind, scope_path, group_ids, address, request_id, changes FROM audit_events "
    "WHERE id = 2"
)


def test_an_event_put_in_past_the_trigger_is_found(engine: Engine) -> None:
    record(engine, 3)
    tamper(engine, COPY)
    assert "beside the chain" in problem(engine)
    assert "Mallory: change_2" in problem(engine)


def test_an_event_put_in_with_a_link_made_for_it_is_found(engine: Engine) -> None:
    record(engine, 4)
    tamper(
        engine,
        COPY,
        "UPDATE audit_links SET position = position + 100 WHERE position > 2",
        "UPDATE audit_links SET position = position - 99 WHERE position > 100",
        "INSERT INTO audit_links SELECT 3, e.id, l.hash, sha256(l.hash || convert_to(audit_event_text(e), 'UTF8')) "
        "FROM audit_events e, audit_links l WHERE e.id = 5 AND l.position = 2",
    )
    found = check(engine).broken
    assert found is not None
    assert (found.position, "does not follow" in found.problem) == (4, True)


def test_a_beginning_that_somebody_deleted_by_hand_is_found(engine: Engine) -> None:
    record(engine, 5)
    tamper(engine, "DELETE FROM audit_links WHERE position < 3", "DELETE FROM audit_events WHERE id < 3")
    assert "position 1 to 2 is missing" in problem(engine)


def test_a_whole_chain_is_told_with_its_head(engine: Engine) -> None:
    assert check(engine) == Checked(0, None, None)
    record(engine, 3)
    found = check(engine)
    assert (found.count, found.first, found.broken) == (3, 1, None)
    with Session(engine) as session:
        last = session.scalars(select(AuditLink).where(AuditLink.position == 3)).one()
        assert found.head == Head(3, last.hash)
    noted = Head.read(str(found.head))
    record(engine, 2)
    assert check(engine, noted).broken is None


@pytest.mark.parametrize("note", ["3", "x:" + OTHER, "3:abc", f"3:{'g' * 64}", f"-1:{OTHER}", f"٣:{OTHER}"])
def test_a_text_that_is_no_head_is_refused(note: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(note)):
        Head.read(note)


# The database itself


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET actor_name = 'x'",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events CASCADE",
        "TRUNCATE audit_links",
        "UPDATE audit_links SET position = position + 1",
        "DELETE FROM audit_links",
        "INSERT INTO audit_links VALUES (99, 1, '', '')",
    ],
)
def test_the_database_refuses_to_change_what_stands(engine: Engine, statement: str) -> None:
    record(engine, 2)
    with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(text(statement))
    assert check(engine).count == 2


TEXT = some.text(some.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=40)
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers(-(10**30), 10**30) | TEXT,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
NUMBERS = some.integers(-(2**63), 2**63 - 1)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=TEXT,
    changes=some.dictionaries(TEXT, some.tuples(VALUES, VALUES), max_size=4),
    numbers=some.lists(NUMBERS, max_size=4),
    moment=some.datetimes(timezones=some.just(UTC)),
)
def test_the_text_of_an_event_is_the_same_here_as_in_the_database(
    session: Session, name: str, changes: Any, numbers: list[int], moment: Any
) -> None:
    event = audit.record(session, SYSTEM, "change", INSTANCE, INSTANCE, changes)
    event.actor_name, event.group_ids, event.created_at = name, numbers, moment
    event.actor_id = numbers[0] if numbers else None
    session.flush()
    row = session.execute(
        text("SELECT e.*, audit_event_text(e) AS told FROM audit_events e WHERE id = :id"), {"id": event.id}
    ).mappings()
    found = row.one()
    assert audit_chain.event_text(found) == found["told"]
    session.rollback()


def test_a_number_with_a_fraction_becomes_text_and_is_never_read_two_ways(engine: Engine) -> None:
    record(engine, 1, share=(0.1, {"a": [1e20, 2.50]}))
    with Session(engine) as session:
        event = session.scalars(select(AuditEvent)).one()
        assert event.changes["share"] == ["0.1", {"a": ["1e+20", "2.5"]}]
    assert check(engine).broken is None


def test_numbers_with_fractions_that_came_another_way_are_read_digit_by_digit(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO audit_events (created_at, actor_kind, actor_name, action, target_kind, target_name, "
                "scope_kind, scope_path, group_ids, address, request_id, changes) VALUES (now(), 's', 's', 'a', 't', "
                "'t', 'instance', '', '{}', '', '', '{\"x\": [1.50, 1e30]}')"
            )
        )
    assert check(engine).broken is None


# Races


def test_fifty_commits_at_once_that_share_no_other_lock_give_one_unbroken_chain(
    own_database: str, process: Process
) -> None:
    second = Process(own_database)
    ready, failures = threading.Barrier(50), []

    def change(number: int) -> None:
        with Session((process, second)[number % 2].engine) as session:
            try:
                audit.record(session, SYSTEM, "tried", INSTANCE, INSTANCE, {"number": (None, number)})
                session.flush()
                ready.wait(timeout=60)
                session.commit()
            except Exception as failure:
                failures.append(failure)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(50)]
    _widen(process, second)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    second.close()
    assert not failures
    with process.session() as session:
        found = audit_chain.verify(session)
    assert (found.broken, found.count) == (None, 50)


def test_fifty_changes_at_once_from_two_processes_give_one_unbroken_chain(
    own_database: str, process: Process
) -> None:
    second = Process(own_database)
    with process.session() as session:
        cast = Cast(session)
        actor, acme = cast.as_(cast.dana), cast.acme
        before = session.scalars(select(AuditLink.position).order_by(AuditLink.position.desc()).limit(1)).one()
        group_id, dana_id = acme.id, cast.dana.id
    assert group_id
    ready, failures = threading.Barrier(50), []

    def change(number: int) -> None:
        from portal.domain import scopes
        from portal.domain.actors import person
        from portal.models import Group, User

        with Session((process, second)[number % 2].engine) as session:
            try:
                group, dana = session.get_one(Group, group_id), session.get_one(User, dana_id)
                ready.wait(timeout=60)
                runners.create_runner(session, person(dana), scopes.of_group(group), TAGGED)
                session.commit()
            except Exception as failure:
                failures.append(failure)

    del actor
    threads = [threading.Thread(target=change, args=(number,)) for number in range(50)]
    _widen(process, second)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert failures == []
    with process.session() as session:
        assert len(session.scalars(select(Runner.id)).all()) == 50
        found = audit_chain.verify(session)
    assert (found.broken, found.count) == (None, before + 50)
    second.close()


def _widen(*processes: Process) -> None:
    """Room for 25 connections each."""
    for process in processes:
        process.engine.pool._max_overflow = 30  # type: ignore[attr-defined]


def test_changes_that_are_rolled_back_leave_no_gap(engine: Engine) -> None:
    record(engine, 1)
    with Session(engine) as session:
        audit.record(session, SYSTEM, "never", INSTANCE, INSTANCE)
        session.flush()
        session.rollback()
    record(engine, 1)
    assert check(engine) == Checked(2, 1, check(engine).head)


def test_the_order_of_the_chain_is_the_order_of_the_commits(engine: Engine) -> None:
    with Session(engine) as first, Session(engine) as second:
        audit.record(first, SYSTEM, "began_first", INSTANCE, INSTANCE)
        first.flush()
        audit.record(second, SYSTEM, "committed_first", INSTANCE, INSTANCE)
        second.commit()
        first.commit()
        order = first.scalars(select(AuditEvent.action).join(AuditLink).order_by(AuditLink.position)).all()
    assert order == ["committed_first", "began_first"]
    assert check(engine).broken is None


def test_the_text_is_a_json_array_of_the_columns_in_their_order(engine: Engine) -> None:
    record(engine, 1)
    with Session(engine) as session:
        told = session.scalar(text("SELECT audit_event_text(e) FROM audit_events e"))
    values = json.loads(told)
    assert len(values) == len(COLUMNS)
    assert dict(zip(COLUMNS, values, strict=True))["action"] == "change_1"
