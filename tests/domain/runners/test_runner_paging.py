"""The order of lists for scripts, their pages, and counts that stop."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from portal.domain.errors import BadRequest
from portal.domain.runners import runner_paging, runner_queries, runner_tokens
from portal.domain.runners.runner_paging import Order
from tests.cast import Cast
from tests.domain.runners.test_runner_queries import NOW, PROPERTY, RUNNERS, fleet

ORDERS = list(Order)


@PROPERTY
@given(ages=RUNNERS, order=st.sampled_from(ORDERS), size=st.integers(1, 4))
def test_paging_by_cursor_visits_each_runner_once_in_every_order_and_both_directions(
    session: Session, cast: Cast, ages: list[tuple[timedelta, timedelta | None, bool]], order: Order, size: int
) -> None:
    with session.begin_nested() as forgotten:
        everything = {runner.id for runner in fleet(cast, ages)}
        whole = runner_paging.page_by_cursor(session, runner_queries.everywhere(), order, first=100)
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
        part = runner_paging.page_by_cursor(session, runner_queries.everywhere(), order, **place)  # type: ignore[arg-type]
        ids = [runner.id for runner in part.runners]
        found = found + ids if forwards else ids + found
        assert (part.has_previous if forwards else part.has_next) == (cursor is not None)
        if not (part.has_next if forwards else part.has_previous):
            return found
        cursor = part.cursors[-1 if forwards else 0]


def ordered(session: Session, order: Order) -> list[int]:
    part = runner_paging.page_by_cursor(session, runner_queries.everywhere(), order, first=100)
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
    assert runner_paging.token_expiries(session, [issued.runner.id]) == {issued.runner.id: NOW}
    runner_tokens.reset_token(session, cast.as_(cast.dana), issued.runner, seen_token_id=None)
    session.flush()
    assert runner_paging.token_expiries(session, [issued.runner.id]) == {}


def test_both_cursors_together_leave_what_lies_between(session: Session, cast: Cast) -> None:
    ids = [cast.runner().runner.id for _ in range(5)]
    everywhere = runner_queries.everywhere()
    cursors = runner_paging.page_by_cursor(session, everywhere, Order.ID_ASC, first=5).cursors
    between = runner_paging.page_by_cursor(
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
        assert runner_paging.page_by_cursor(session, everywhere, order, first=1, after="").runners == []
        return
    with pytest.raises(BadRequest, match="no cursor"):
        runner_paging.page_by_cursor(session, everywhere, order, first=1, after=cursor)


def test_a_count_stops_where_it_is_told_to(session: Session, cast: Cast) -> None:
    for _ in range(3):
        cast.runner()
    everywhere = runner_queries.everywhere()
    assert runner_paging.count(session, everywhere) == runner_paging.count(session, everywhere, most=3) == 3
    assert runner_paging.count(session, everywhere, most=2) is None
