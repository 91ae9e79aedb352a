"""A part of a list, and how long it is."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain import slices
from portal.models import User
from tests.cast import Cast
from tests.domain.queries import asked

QUERY = select(User).order_by(User.id)


def test_a_slice_has_its_rows_the_number_of_all_and_whether_more_follow(session: Session, cast: Cast) -> None:
    first = slices.cut(session, QUERY, User.id, offset=0, limit=2)
    assert ([each.username for each in first.rows], first.total, first.more) == (["alice", "bob"], 5, True)
    last = slices.cut(session, QUERY, User.id, offset=4, limit=2)
    assert ([each.username for each in last.rows], last.total, last.more) == (["dana"], 5, False)
    assert slices.cut(session, QUERY, User.id, offset=50, limit=2).rows == []


def test_of_a_very_long_list_nobody_counts_all(session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "MOST_COUNTED", 4)
    found = slices.cut(session, QUERY, User.id, offset=0, limit=2)
    assert (found.total, found.more) == (None, True)
    monkeypatch.setattr(slices, "MOST_COUNTED", 5)
    assert slices.cut(session, QUERY, User.id, offset=0, limit=2).total == 5


def test_two_statements_are_enough(session: Session, cast: Cast) -> None:
    with asked(session) as statements:
        slices.cut(session, QUERY, User.id, offset=0, limit=2)
    assert len(statements) == 2
