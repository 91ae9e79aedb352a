"""Finding bulk acts again: one's own, those that matter now, and nobody else's."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.bulk import bulk_acts, bulk_lists
from portal.domain.bulk.bulk_changes import Act, Wanted
from portal.domain.groups import groups, memberships
from portal.domain.scopes import INSTANCE, Scope
from portal.models import BulkAct, Role, User
from tests.cast import Cast
from tests.domain.queries import asked


def begun(session: Session, cast: Cast, who: User, scope: Scope, *, ended: timedelta | None = None) -> BulkAct:
    """An act of this person that is under way, or that ended so long ago."""
    chosen = {cast.runner(scope).runner.id}
    act = bulk_acts.draft(session, cast.as_(who), scope, Wanted(Act.PAUSE), chosen)
    bulk_acts.start(session, cast.as_(who), act.id)
    if ended is not None:
        bulk_acts.take_batch(session, act.id)
        act.started_at = act.finished_at = now() - ended
    session.flush()
    return act


def listed(session: Session, cast: Cast, who: User) -> list[BulkAct]:
    return list(bulk_lists.page(session, cast.as_(who)).acts)


def recent(session: Session, cast: Cast, who: User, scope: Scope) -> list[BulkAct]:
    return list(bulk_lists.recent_in(session, cast.as_(who), scope))


def test_nobody_but_an_administrator_finds_the_acts_of_others(session: Session, cast: Cast) -> None:
    cast.member(cast.charlie, cast.acme, Role.OWNER)
    act = begun(session, cast, cast.alice, cast.acme)
    ended = begun(session, cast, cast.alice, cast.acme, ended=timedelta(hours=1))
    assert listed(session, cast, cast.charlie) == recent(session, cast, cast.charlie, cast.acme) == []
    assert listed(session, cast, cast.alice) == recent(session, cast, cast.alice, cast.acme) == [ended, act]
    assert listed(session, cast, cast.dana) == [ended, act]
    assert recent(session, cast, cast.dana, cast.acme) == [act]  # what is over is told to who began it


def test_drafts_are_in_no_list(session: Session, cast: Cast) -> None:
    chosen = {cast.runner().runner.id}
    bulk_acts.draft(session, cast.as_(cast.alice), cast.acme, Wanted(Act.PAUSE), chosen)
    assert listed(session, cast, cast.alice) == recent(session, cast, cast.alice, cast.acme) == []


def test_acts_on_runners_that_one_may_not_see_any_more_are_left_out(session: Session, cast: Cast) -> None:
    begun(session, cast, cast.bob, cast.web)
    memberships.remove(session, cast.as_(cast.alice), cast.web, cast.bob.id)
    assert listed(session, cast, cast.bob) == []


def test_acts_in_what_is_deleted_are_left_out(session: Session, cast: Cast) -> None:
    begun(session, cast, cast.dana, cast.web)
    kept = begun(session, cast, cast.dana, INSTANCE)
    groups.delete(session, cast.as_(cast.dana), cast.acme)
    session.expire_all()
    assert listed(session, cast, cast.dana) == [kept]


def test_an_act_stands_above_the_list_that_it_was_chosen_on_and_no_other(session: Session, cast: Cast) -> None:
    acts = {scope.id: begun(session, cast, cast.dana, scope) for scope in (INSTANCE, cast.acme, cast.web)}
    for scope in (INSTANCE, cast.acme, cast.web):
        assert recent(session, cast, cast.dana, scope) == [acts[scope.id]]


@pytest.mark.parametrize(
    ("ended", "above_the_list", "on_the_page"),
    [
        (timedelta(hours=23), True, True),
        (timedelta(hours=25), False, True),
        (timedelta(days=29), False, True),
        (timedelta(days=31), False, False),
    ],
)
def test_what_is_over_is_told_for_a_day_above_the_list_and_for_thirty_on_the_page(
    session: Session, cast: Cast, ended: timedelta, above_the_list: bool, on_the_page: bool
) -> None:
    act = begun(session, cast, cast.alice, cast.acme, ended=ended)
    assert (act in recent(session, cast, cast.alice, cast.acme)) is above_the_list
    assert (act in listed(session, cast, cast.alice)) is on_the_page


def test_many_acts_are_shown_by_pages_and_only_a_few_above_the_list(session: Session, cast: Cast) -> None:
    acts = [begun(session, cast, cast.alice, cast.acme) for _ in range(7)]
    first = bulk_lists.page(session, cast.as_(cast.alice), size=5)
    second = bulk_lists.page(session, cast.as_(cast.alice), after=first.after, size=5)
    assert [*first.acts, *second.acts] == acts[::-1]
    assert (len(first.acts), second.after) == (5, None)
    assert recent(session, cast, cast.alice, cast.acme) == acts[: -bulk_lists.SHOWN - 1 : -1]


def test_one_query_finds_those_above_the_list_however_many_they_are(session: Session, cast: Cast) -> None:
    for _ in range(3):
        begun(session, cast, cast.alice, cast.acme)
    session.expire_all()
    alice, acme, _ = cast.as_(cast.alice), cast.acme, (cast.acme.id, cast.alice.id)
    with asked(session) as statements:
        found = bulk_lists.recent_in(session, alice, acme)
        assert {(act.total, act.user.name) for act in found} == {(1, "Alice Lam")}
    assert len(statements) == 1
