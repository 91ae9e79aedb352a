"""Reading the trail by pages: the same events whether they are among the newest or found through an index."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Select, select, text
from sqlalchemy.orm import Session

from portal.domain import actors, audit
from portal.domain.scopes import INSTANCE
from portal.domain.trail import trail
from portal.domain.trail.trail import TrailFilter
from portal.models import AuditEvent
from tests.cast import Cast

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NAMES = ("clean-up", "command line", "Sinéad O'Hara", "runner Xq7Lm2PdT")


@pytest.fixture
def told(session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> list[AuditEvent]:
    """Forty events, one each hour, of which only the newest five are looked through one by one."""
    monkeypatch.setattr(trail, "LOOKED_THROUGH", 5)
    events = []
    for number in range(40):
        where = (INSTANCE, cast.acme, cast.platform, cast.web)[number % 4]
        actor = actors.system(NAMES[number // 10])
        event = audit.record(session, actor, f"act_{number % 3}", where, where)
        event.created_at = NOON + timedelta(hours=number)
        events.append(event)
        session.flush()
    return events


def page(session: Session, wanted: TrailFilter, query: Select[AuditEvent], **more: int) -> list[AuditEvent]:
    options = {"before": more.get("before"), "limit": more.get("limit", 50), "ordered": False}
    return list(trail.page(session, query, wanted, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wanted",
    [
        TrailFilter(),
        TrailFilter(who="clean-up"),
        TrailFilter(who="line"),
        TrailFilter(action="act_1"),
        TrailFilter(path="acme/platform"),
        TrailFilter(since=date(2026, 1, 3)),
        TrailFilter(until=date(2026, 1, 1)),
        TrailFilter(since=date(2026, 1, 1), until=date(2026, 1, 1), action="act_2"),
        TrailFilter(since=date.min, until=date.max),
    ],
    ids=str,
)
def test_pages_together_have_every_event_once_and_the_newest_first(
    session: Session, told: list[AuditEvent], wanted: TrailFilter
) -> None:
    ours = select(AuditEvent).where(AuditEvent.id >= told[0].id).order_by(AuditEvent.id.desc())
    whole = list(session.scalars(trail.fitting(session, ours, wanted)))
    assert whole
    read: list[AuditEvent] = []
    while part := page(session, wanted, ours, limit=4, before=read[-1].id if read else 2**62):
        read += part
    assert read == whole


def test_days_are_those_of_the_event_whatever_its_place(session: Session, told: list[AuditEvent]) -> None:
    late = audit.record(session, actors.system("a host whose clock is late"), "act", INSTANCE, INSTANCE)
    late.created_at = NOON - timedelta(hours=13)
    session.flush()
    assert page(session, TrailFilter(until=date(2025, 12, 31)), audit.of_scope(INSTANCE)) == [late]


@pytest.mark.parametrize(
    ("who", "name"),
    [
        ("clean", "clean-up"),
        ("COMMAND li", "command line"),
        ("!'clean-up' &", "clean-up"),
        ("sinéad", "Sinéad O'Hara"),
        ("o'hara", "Sinéad O'Hara"),
        ("xq7lm", "runner Xq7Lm2PdT"),
    ],
)
def test_a_name_is_found_by_the_beginnings_of_its_words(
    session: Session, told: list[AuditEvent], who: str, name: str
) -> None:
    assert {event.actor_name for event in page(session, TrailFilter(who=who), audit.of_scope(INSTANCE))} == {name}


@pytest.mark.parametrize("who", ["nobody", "' | 'zz", "\\", "'", "%", "!nobody", "(", ":*", "&", "🦊"])
def test_no_sign_in_a_name_is_taken_for_more(session: Session, told: list[AuditEvent], who: str) -> None:
    assert page(session, TrailFilter(who=who), audit.of_scope(INSTANCE)) == []


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (TrailFilter(who="nobody"), "ix_audit_events_actor_words"),
        (TrailFilter(path="gone/away"), "ix_audit_events_scope_path"),
    ],
)
def test_an_index_answers(session: Session, cast: Cast, wanted: TrailFilter, index: str) -> None:
    session.execute(text("SET LOCAL enable_seqscan = off"))
    query = trail.fitting(session, select(AuditEvent), wanted).compile(session.connection())
    plan = session.connection().exec_driver_sql(f"EXPLAIN {query}", query.params).scalars().all()
    assert any(index in line for line in plan)
