"""Reading the trail by pages: the same events whether they are among the newest or found through an index."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Select, select, text
from sqlalchemy.orm import Session

from portal.domain import actors, audit
from portal.domain.scopes import INSTANCE, of_group
from portal.domain.trail import trail, trail_filters, trail_pages
from portal.domain.trail.trail_filters import TrailFilter
from portal.models import AccessToken, AuditEvent, Group
from tests.cast import Cast
from tests.domain.queries import asked

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NAMES = ("clean-up", "command line", "Sinéad O'Hara", "runner Xq7Lm2PdT")


@pytest.fixture
def told(session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> list[AuditEvent]:
    """Forty events, one each hour, of which only the newest five are looked through one by one."""
    monkeypatch.setattr(trail_pages, "LOOKED_THROUGH", 5)
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
    options = {"before": more.get("before"), "limit": more.get("limit", 50)}
    return list(trail_pages.page(session, query, wanted, **options).events)  # type: ignore[arg-type]


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
    whole = list(session.scalars(trail_filters.fitting(session, ours, wanted)))
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
    query = trail_filters.fitting(session, select(AuditEvent), wanted).compile(session.connection())
    plan = session.connection().exec_driver_sql(f"EXPLAIN {query}", query.params).scalars().all()
    assert any(index in line for line in plan)


def test_events_stand_in_the_order_of_time_whatever_their_numbers(session: Session, told: list[AuditEvent]) -> None:
    late = audit.record(session, actors.system("a host whose clock is late"), "act", INSTANCE, INSTANCE)
    late.created_at = NOON + timedelta(hours=20, minutes=30)
    session.flush()
    here = [event.id for event in page(session, TrailFilter(), audit.of_scope(INSTANCE), limit=60)]
    assert here.index(late.id) == here.index(told[20].id) - 1
    older = page(session, TrailFilter(), audit.of_scope(INSTANCE), before=told[21].id, limit=2)
    assert older == [late, told[20]]
    assert page(session, TrailFilter(), audit.of_scope(INSTANCE), before=late.id, limit=1) == [told[20]]


def search(session: Session, wanted: TrailFilter, **more: int | None) -> trail_pages.Page:
    options = {"before": more.get("before"), "limit": more.get("limit", 50)}
    return trail_pages.page(session, audit.of_scope(INSTANCE), wanted, **options)  # type: ignore[arg-type]


def test_a_page_that_would_take_long_says_how_far_it_looked_and_the_next_goes_on_there(
    session: Session, told: list[AuditEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail_pages, "RARE", 6)
    # Of ten each, and never together: neither is rare enough to look at all of them.
    wanted = TrailFilter(action="act_1", who="clean-up")
    pages = [search(session, wanted)]
    while pages[-1].older is not None:
        pages.append(search(session, wanted, before=pages[-1].older))
    assert [page.looked_to is None for page in pages[:-1]] == [False] * (len(pages) - 1)
    assert len(pages) > 1
    assert pages[0].looked_to == session.get_one(AuditEvent, pages[0].older).created_at
    found = [event for page in pages for event in page.events]
    whole = trail_filters.fitting(session, audit.of_scope(INSTANCE), wanted)
    assert found == list(session.scalars(whole))
    assert found


def test_the_last_page_is_known_to_be_the_last(session: Session, told: list[AuditEvent]) -> None:
    wanted = TrailFilter(action="act_1")
    assert search(session, wanted, limit=13) == trail_pages.Page(list(reversed(told[1::3])))
    assert search(session, wanted, limit=12) == trail_pages.Page(list(reversed(told[1::3]))[:12], older=told[4].id)


@pytest.mark.parametrize(
    "wanted",
    [
        TrailFilter(),
        TrailFilter(who="clean-up"),
        TrailFilter(who="nobody", action="act_1", path="acme/platform", kind="system"),
        TrailFilter(path="gone/away", since=date(2026, 1, 1), until=date(2026, 1, 2)),
    ],
    ids=str,
)
def test_a_page_asks_the_database_a_few_times_however_long_the_trail_is(
    session: Session, told: list[AuditEvent], wanted: TrailFilter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail_pages, "RARE", 6)
    first = search(session, TrailFilter(), limit=3).older
    session.expire_all()
    with asked(session) as statements:
        search(session, wanted, before=first)
    # Where to begin, whose name and path that is, twice along an index, a count for each filter, the events.
    assert len(statements) <= 12


def test_a_group_deeper_than_the_indexes_has_its_own_events_alone(session: Session, cast: Cast) -> None:
    scope, made = cast.acme, []
    for number in range(audit.LEVELS + 2):
        scope = cast.group(f"level-{number}", inside=scope)
        made.append(scope)
    for place in made[-3:]:
        found = page(session, TrailFilter(action="group_created"), audit.of_scope(place))
        assert {event.target_id for event in found} == {each.id for each in made[made.index(place) :]}


@pytest.mark.parametrize("level", range(1, 7))
def test_a_group_of_any_level_is_found_through_an_index_in_the_order_of_time(session: Session, level: int) -> None:
    group = Group(name="Deep", path="deep", traversal_ids=list(range(1, level + 1)))
    query = audit.of_scope(of_group(group)).limit(50).compile(session.connection())
    session.execute(text("SET LOCAL enable_seqscan = off"))
    session.execute(text("SET LOCAL enable_bitmapscan = off"))
    plan = session.connection().exec_driver_sql(f"EXPLAIN {query}", query.params).scalars().all()
    assert any(f"ix_audit_events_group_{min(level, audit.LEVELS)}" in line for line in plan)
    assert not any("Sort" in line for line in plan)


def test_a_persons_events_by_them_and_about_them_come_once_each(session: Session, cast: Cast) -> None:
    bob, dana = cast.bob, actors.person(cast.dana)
    audit.record(session, actors.person(bob), "signed_out", bob, INSTANCE)
    audit.record(session, dana, "person_changed", bob, INSTANCE)
    audit.record(session, dana, "signed_out", cast.dana, INSTANCE)
    session.flush()
    shown = trail_pages.page(
        session, trail.of_person(bob), TrailFilter(), before=None, limit=200, either=trail.by_or_about(bob)
    )
    assert list(shown.events) == list(session.scalars(trail.of_person(bob)))
    assert [event.action for event in shown.events[:2]] == ["person_changed", "signed_out"]


def test_of_a_busy_persons_events_only_so_many_are_looked_at_for_a_rarely_used_token(
    session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail_pages, "LOOKED_THROUGH", 2)
    monkeypatch.setattr(trail_pages, "RARE", 3)
    cast.access_token(cast.alice)
    cast.access_token(cast.alice)
    rare, busy = session.scalars(select(AccessToken).where(AccessToken.user_id == cast.alice.id).order_by("id")).all()
    for token, times in ((rare, 1), (busy, 9)):
        actor = actors.by_token(token)
        for _ in range(times):
            audit.record(session, actor, "signed_out", cast.alice, INSTANCE)
    session.flush()
    whole, found, pages = trail.of_access_token(rare), [], []
    before = None
    while not pages or before is not None:
        either = trail.around(rare)
        page_ = trail_pages.page(session, whole, TrailFilter(), before=before, limit=5, either=either)
        found += page_.events
        pages.append(page_.looked_to is not None)
        before = page_.older
    assert found == list(session.scalars(whole))
    assert [event.action for event in found] == ["signed_out", "access_token_created"]
    assert pages[0]
    assert not pages[-1]
