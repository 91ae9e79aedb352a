"""Letting old events go: as many as the setting says, from the beginning, and the rest can still be verified."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from portal.background import Background
from portal.database import now
from portal.domain import audit
from portal.domain.scopes import INSTANCE
from portal.domain.trail import audit_chain, audit_retention
from portal.domain.trail.audit_chain import Checked, Head
from portal.models import AuditEvent
from tests.api.processes import Process
from tests.cast import SYSTEM

KEPT = timedelta(days=30)
LATER = timedelta(days=31)


@pytest.fixture
def engine(own_database: str) -> Iterator[Engine]:
    engine = create_engine(own_database)
    yield engine
    engine.dispose()


def record(engine: Engine, number: int, at: datetime | None = None) -> None:
    with Session(engine) as session:
        for each in range(number):
            event = audit.record(session, SYSTEM, f"change_{each + 1}", INSTANCE, INSTANCE)
            event.created_at = at or now()
            session.commit()


def shorten(engine: Engine, at: datetime | None = None, batch: int = 100) -> int:
    with Session(engine) as session:
        gone = audit_retention.shorten(session, KEPT, at or now(), batch=batch)
        session.commit()
    return gone


def check(engine: Engine, noted: Head | None = None) -> Checked:
    with Session(engine) as session:
        return audit_chain.verify(session, noted=noted)


def number(engine: Engine) -> int:
    with Session(engine) as session:
        return session.scalar(select(func.count()).select_from(AuditEvent)) or 0


def test_nothing_younger_than_the_setting_goes(engine: Engine) -> None:
    record(engine, 3, now() - KEPT + timedelta(minutes=1))
    assert shorten(engine) == 0
    assert number(engine) == 3


def test_the_oldest_go_and_the_rest_is_still_a_chain(engine: Engine) -> None:
    record(engine, 4, now() - LATER)
    record(engine, 2)
    noted = check(engine).head
    assert shorten(engine) == 4
    found = check(engine)
    assert (found.count, found.first, found.broken) == (3, 5, None)
    assert check(engine, noted).broken is None


def test_it_is_told_how_many_went_and_up_to_where(engine: Engine) -> None:
    record(engine, 4, now() - LATER)
    last = check(engine).head
    record(engine, 1)
    shorten(engine)
    with Session(engine) as session:
        event = session.scalars(select(AuditEvent).where(AuditEvent.action == "trail_shortened")).one()
        assert event.actor_name == "clean-up"
        assert event.changes["events"] == [4, 0]
        assert f"{event.changes['last_position'][1]}:{event.changes['last_hash'][1]}" == str(last)


def test_an_old_event_after_a_younger_one_waits_for_it(engine: Engine) -> None:
    record(engine, 1, now() - LATER)
    record(engine, 1)
    record(engine, 2, now() - LATER)
    record(engine, 1)
    assert shorten(engine) == 1
    assert shorten(engine) == 0
    assert check(engine).broken is None


def test_the_newest_event_stays_so_that_the_chain_goes_on_from_it(engine: Engine) -> None:
    record(engine, 3, now() - LATER)
    assert shorten(engine) == 2
    record(engine, 1)
    found = check(engine)
    assert (found.first, found.broken, found.head and found.head.position) == (3, None, 5)


def test_it_goes_on_batch_by_batch_and_again_years_later(engine: Engine) -> None:
    record(engine, 7, now() - LATER)
    assert [shorten(engine, batch=3) for _ in range(4)] == [3, 3, 1, 0]
    assert check(engine).broken is None
    record(engine, 2)
    assert shorten(engine, at=now() + LATER) == 4  # what told of the shortening before goes too
    found = check(engine)
    assert (found.count, found.broken) == (2, None)


def test_a_beginning_deleted_by_hand_after_a_shortening_is_found(engine: Engine) -> None:
    record(engine, 2, now() - LATER)
    record(engine, 4)
    shorten(engine)
    with engine.begin() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        connection.execute(text("DELETE FROM audit_links WHERE position <= 4"))
        connection.execute(text("DELETE FROM audit_events WHERE id <= 4"))
    assert "position 3 to 4 is missing" in str(check(engine).broken)


def test_a_head_from_before_the_beginning_cannot_be_compared(engine: Engine) -> None:
    record(engine, 3, now() - LATER)
    noted = check(engine).head
    record(engine, 3, now() - LATER)
    record(engine, 1)
    shorten(engine)
    assert "older than the first event that retention has left" in str(check(engine, noted).broken)


def test_the_door_is_open_in_its_own_transaction_only(engine: Engine) -> None:
    record(engine, 2, now() - LATER)
    record(engine, 1)
    with Session(engine) as session:
        audit_retention.shorten(session, KEPT, now())
        with pytest.raises(DBAPIError, match="append-only"):
            session.execute(text("DELETE FROM audit_links"))
    with engine.connect() as connection, pytest.raises(DBAPIError, match="append-only"):
        connection.execute(text("DELETE FROM audit_links"))
    assert check(engine).count == 3


def test_what_cannot_be_told_does_not_happen(engine: Engine) -> None:
    record(engine, 2, now() - LATER)
    record(engine, 1)
    with Session(engine) as session:
        audit_retention.shorten(session, KEPT, now())
        session.rollback()
    assert check(engine).count == 3


def test_the_server_does_it_by_itself_and_one_process_alone(process: Process) -> None:
    record(process.engine, 3, now() - LATER)
    record(process.engine, 1)
    assert process.background.housekeeping.shorten_trail() == 0, "for ever, unless the setting says otherwise"
    process.background.housekeeping.trail_kept = KEPT
    other = Background(process.app).housekeeping
    other.trail_kept = KEPT
    with process.background.housekeeping._alone() as alone:
        assert alone
        assert other.shorten_trail() == 0
    assert other.shorten_trail() == 3
    with process.session() as session:
        assert audit_chain.verify(session).broken is None


def test_two_at_once_do_not_tell_of_the_same_events_twice(engine: Engine) -> None:
    record(engine, 4, now() - LATER)
    record(engine, 1)
    with Session(engine) as first, Session(engine) as second:
        assert audit_retention.shorten(first, KEPT, now()) == 4
        second.execute(text("SET lock_timeout = '100ms'"))
        with pytest.raises(DBAPIError, match="lock timeout"):
            audit_retention.shorten(second, KEPT, now())
        first.commit()
        second.rollback()
        assert audit_retention.shorten(second, KEPT, now()) == 0
