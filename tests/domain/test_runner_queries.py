"""Lists for scripts: which runners, in which order, page by page, and what that costs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from portal.domain import deletions, runner_projects, runner_queries, runner_tokens, runners
from portal.domain.errors import BadRequest
from portal.domain.runner_queries import Order, RunnerQuery
from portal.domain.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE, Scope
from portal.models import Runner, RunnerManager, RunnerType
from tests.cast import TAGGED, Cast
from tests.domain.queries import asked

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
ORDERS = list(Order)
AGES = st.sampled_from(
    [timedelta(0), timedelta(hours=1), timedelta(hours=2), timedelta(hours=3), timedelta(days=7), timedelta(days=9)]
)
RUNNERS = st.lists(st.tuples(AGES, st.none() | AGES, st.booleans()), min_size=1, max_size=9)
PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def found(session: Session, query: RunnerQuery, which: object = None) -> set[int]:
    """The ids of the runners that fit the query."""
    condition = runner_queries.narrowed(runner_queries.everywhere() if which is None else which, query, NOW)  # type: ignore[arg-type]
    return {each.id for each in runner_queries.page_by_number(session, condition, offset=0, limit=100)}


def fleet(cast: Cast, ages: list[tuple[timedelta, timedelta | None, bool]]) -> list[Runner]:
    """Runners created and heard of that long ago; every other one has a token that expires as long after NOW."""
    made = []
    for number, (created, contacted, active) in enumerate(ages):
        issued = runners.create_runner(cast.session, cast.as_(cast.dana), cast.acme, TAGGED)
        issued.runner.created_at, issued.runner.active = NOW - created, active
        issued.runner.contacted_at = None if contacted is None else NOW - contacted
        issued.record.expires_at = NOW + created if number % 2 else None
        made.append(issued.runner)
    cast.session.flush()
    return made


@PROPERTY
@given(ages=RUNNERS)
def test_every_runner_is_online_offline_or_never_contacted_and_stale_ones_are_among_the_last_two(
    session: Session, cast: Cast, ages: list[tuple[timedelta, timedelta | None, bool]]
) -> None:
    with session.begin_nested() as forgotten:
        everything = {runner.id for runner in fleet(cast, ages)}
        by = {status: found(session, RunnerQuery(status=status)) for status in runner_queries.STATUSES}
        parts = [by["online"], by["offline"], by["never_contacted"]]
        assert set.union(*parts) == everything
        assert sum(len(part) for part in parts) == len(everything)
        assert by["stale"] <= by["offline"] | by["never_contacted"]
        assert by["active"] | by["paused"] == everything
        assert not by["active"] & by["paused"]
        forgotten.rollback()


@PROPERTY
@given(ages=RUNNERS, order=st.sampled_from(ORDERS), size=st.integers(1, 4))
def test_paging_by_cursor_visits_each_runner_once_in_every_order_and_both_directions(
    session: Session, cast: Cast, ages: list[tuple[timedelta, timedelta | None, bool]], order: Order, size: int
) -> None:
    with session.begin_nested() as forgotten:
        everything = {runner.id for runner in fleet(cast, ages)}
        whole = runner_queries.page_by_cursor(session, runner_queries.everywhere(), order, first=100)
        ids = [runner.id for runner in whole.runners]
        assert set(ids) == everything
        assert len(ids) == len(everything)
        assert walked(session, order, size, forwards=True) == ids
        assert walked(session, order, size, forwards=False) == ids
        forgotten.rollback()


def walked(session: Session, order: Order, size: int, *, forwards: bool) -> list[int]:
    """The ids of the whole list, page by page, from the first on or from the last on."""
    found: list[int] = []
    cursor: str | None = None
    while True:
        place = {"first": size, "after": cursor} if forwards else {"last": size, "before": cursor}
        part = runner_queries.page_by_cursor(session, runner_queries.everywhere(), order, **place)  # type: ignore[arg-type]
        ids = [runner.id for runner in part.runners]
        expiries = runner_queries.token_expiries(session, ids)
        told = [
            runner_queries.cursor_of(each, order, token_expires_at=expiries.get(each.id)) for each in part.runners
        ]
        assert told == part.cursors
        found = found + ids if forwards else ids + found
        assert (part.has_previous if forwards else part.has_next) == (cursor is not None)
        if not (part.has_next if forwards else part.has_previous):
            return found
        cursor = part.cursors[-1 if forwards else 0]


def ordered(session: Session, order: Order) -> list[int]:
    part = runner_queries.page_by_cursor(session, runner_queries.everywhere(), order, first=100)
    return [runner.id for runner in part.runners]


def test_each_order_goes_by_what_it_says_and_then_by_number(session: Session, cast: Cast) -> None:
    day = timedelta(days=1)
    old, new, silent, twin = (
        runner.id for runner in fleet(cast, [(3 * day, day, True), (day, 2 * day, True), (2 * day, None, True)])
        + fleet(cast, [(3 * day, day, True)])
    )  # fmt: skip
    assert ordered(session, Order.CREATED_ASC) == [old, twin, silent, new]
    assert ordered(session, Order.CREATED_DESC) == [new, silent, twin, old]
    assert ordered(session, Order.CONTACTED_ASC) == [silent, new, old, twin]
    assert ordered(session, Order.CONTACTED_DESC) == [twin, old, new, silent]
    assert ordered(session, Order.TOKEN_EXPIRES_AT_ASC) == [new, old, silent, twin]
    assert ordered(session, Order.TOKEN_EXPIRES_AT_DESC) == [twin, silent, old, new]
    assert ordered(session, Order.ID_DESC) == ordered(session, Order.ID_ASC)[::-1] == [twin, silent, new, old]


def test_the_newest_token_says_when_a_runners_token_expires(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    issued.record.expires_at = NOW
    session.flush()
    assert runner_queries.token_expiries(session, [issued.runner.id]) == {issued.runner.id: NOW}
    runner_tokens.reset_token(session, cast.as_(cast.dana), issued.runner, seen_token_id=None)
    session.flush()
    assert runner_queries.token_expiries(session, [issued.runner.id]) == {}


def test_both_cursors_together_leave_what_lies_between(session: Session, cast: Cast) -> None:
    ids = [cast.runner().runner.id for _ in range(5)]
    everywhere = runner_queries.everywhere()
    cursors = runner_queries.page_by_cursor(session, everywhere, Order.ID_ASC, first=5).cursors
    between = runner_queries.page_by_cursor(
        session, everywhere, Order.ID_ASC, first=9, after=cursors[0], before=cursors[4]
    )
    assert [runner.id for runner in between.runners] == ids[1:4]


@pytest.mark.parametrize(
    "cursor", ["", "x", "é", "a" * 9999, "aWR-MX4x", "Y29udGFjdGVkfn4x", "Y3JlYXRlZH5pbmZpbml0eX4x"]
)
@pytest.mark.parametrize("order", [Order.CREATED_ASC, Order.CONTACTED_DESC, Order.TOKEN_EXPIRES_AT_ASC])
def test_a_cursor_that_is_none_or_of_another_order_is_refused(session: Session, cursor: str, order: Order) -> None:
    everywhere = runner_queries.everywhere()
    if not cursor:
        assert runner_queries.page_by_cursor(session, everywhere, order, first=1, after="").runners == []
        return
    with pytest.raises(BadRequest, match="no cursor"):
        runner_queries.page_by_cursor(session, everywhere, order, first=1, after=cursor)


def test_a_count_stops_where_it_is_told_to(session: Session, cast: Cast) -> None:
    for _ in range(3):
        cast.runner()
    everywhere = runner_queries.everywhere()
    assert runner_queries.count(session, everywhere) == runner_queries.count(session, everywhere, most=3) == 3
    assert runner_queries.count(session, everywhere, most=2) is None


def test_a_whole_token_that_works_finds_its_runner_and_a_part_or_one_that_is_over_does_not(
    session: Session, cast: Cast
) -> None:
    issued, other = cast.runner(), cast.runner()
    assert found(session, RunnerQuery(search=issued.token)) == {issued.runner.id}
    assert found(session, RunnerQuery(search=issued.token[:-1])) == set()
    assert found(session, RunnerQuery(search="LINUX build")) == {issued.runner.id, other.runner.id}
    runner_tokens.reset_token(session, cast.as_(cast.dana), issued.runner, seen_token_id=None)
    session.flush()
    assert found(session, RunnerQuery(search=issued.token)) == set()


@pytest.mark.parametrize("words", ["%", "_", "\\", "'; --", "x" * 5000, "İ", "🙂"])
def test_no_search_means_more_than_it_says(session: Session, cast: Cast, words: str) -> None:
    cast.runner()
    assert found(session, RunnerQuery(search=words)) == set()
    assert found(session, RunnerQuery(version_prefix=words)) == set()


def test_an_owner_and_a_creator_are_exactly_those(session: Session, cast: Cast) -> None:
    by = {scope.title: cast.runner(scope).runner.id for scope in (INSTANCE, cast.acme, cast.platform, cast.web)}
    for scope in (INSTANCE, cast.acme, cast.platform, cast.web):
        assert found(session, RunnerQuery(owner=scope)) == {by[scope.title]}
    assert found(session, RunnerQuery(owned_by_administrators=True)) == {by["the instance"]}
    assert found(session, RunnerQuery(creator_id=cast.dana.id)) == set(by.values())
    assert found(session, RunnerQuery(creator_id=cast.alice.id)) == set()
    assert found(session, RunnerQuery(creator_username="Dana")) == set(by.values())
    assert found(session, RunnerQuery(creator_username="nobody")) == set()
    assert found(session, RunnerQuery(type=RunnerType.GROUP)) == {by["acme"], by["acme/platform"]}


def test_a_group_has_its_own_runners_all_below_or_all_that_it_can_use(session: Session, cast: Cast) -> None:
    by = {
        scope.title: cast.runner(scope).runner.id
        for scope in (INSTANCE, cast.acme, cast.platform, cast.web, cast.other)
    }
    everything = RunnerQuery()

    def of(scope: Scope, membership: str) -> set[int]:
        return found(session, everything, runner_queries.in_group(scope, membership))

    assert of(cast.acme, "direct") == {by["acme"]}
    assert of(cast.acme, "descendants") == {by["acme"], by["acme/platform"], by["acme/web"]}
    assert of(cast.platform, "all_available") == {by["the instance"], by["acme"], by["acme/platform"]}


def test_deleted_runners_are_in_no_list(session: Session, cast: Cast) -> None:
    gone, kept = cast.runner().runner, cast.runner().runner
    deletion = deletions.begin(session, cast.as_(cast.dana), "runners", "one runner")
    runners.delete_runner(session, cast.as_(cast.dana), gone, deletion=deletion)
    session.flush()
    assert found(session, RunnerQuery()) == {kept.id}
    assert runner_queries.count(session, runner_queries.everywhere()) == 1
    assert ordered(session, Order.CREATED_DESC) == [kept.id]


def test_the_newest_managers_of_many_runners_come_with_one_query(session: Session, cast: Cast) -> None:
    ids = [cast.runner().runner.id for _ in range(3)]
    for number in range(4):
        at = NOW - timedelta(hours=number) if number else None
        session.add(RunnerManager(runner_id=ids[0], system_xid=f"s_{number}", contacted_at=at))
    session.add(RunnerManager(runner_id=ids[1], system_xid="s_other"))
    session.flush()
    with asked(session) as statements:
        managers = runner_queries.newest_managers(session, ids, each=3)
    assert len(statements) == 1
    assert {each: [one.system_xid for one in its] for each, its in managers.items()} == {
        ids[0]: ["s_1", "s_2", "s_3"], ids[1]: ["s_other"], ids[2]: []
    }  # fmt: skip


def test_a_project_runner_is_available_to_maintainers_of_every_project_that_it_serves(
    session: Session, cast: Cast
) -> None:
    elsewhere = cast.project("elsewhere", cast.other)
    shared = cast.runner(elsewhere, RunnerSettings("shared", run_untagged=True)).runner
    bob = cast.as_(cast.bob)
    assert found(session, RunnerQuery(), runner_queries.available_to(session, bob)) == set()
    runner_projects.assign(session, cast.as_(cast.dana), shared, cast.web)
    assert found(session, RunnerQuery(), runner_queries.available_to(session, bob)) == {shared.id}
