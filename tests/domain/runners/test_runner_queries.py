"""Lists for scripts: which runners, in which order, page by page, and what that costs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from portal.domain.deletions import deletions
from portal.domain.runners import runner_paging, runner_projects, runner_queries, runner_tokens, runners
from portal.domain.runners.runner_paging import Order
from portal.domain.runners.runner_queries import RunnerQuery
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE, Scope
from portal.models import Runner, RunnerManager, RunnerType
from tests.cast import TAGGED, Cast
from tests.domain.queries import asked

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
AGES = st.sampled_from(
    [timedelta(0), timedelta(hours=1), timedelta(hours=2), timedelta(hours=3), timedelta(days=7), timedelta(days=9)]
)
RUNNERS = st.lists(st.tuples(AGES, st.none() | AGES, st.booleans()), min_size=1, max_size=9)
PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def found(session: Session, query: RunnerQuery, which: object = None) -> set[int]:
    """The ids of the runners that fit the query."""
    condition = runner_queries.narrowed(session, runner_queries.everywhere() if which is None else which, query, NOW)  # type: ignore[arg-type]
    return {each.id for each in runner_paging.page_by_number(session, condition, offset=0, limit=100)}


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
    assert runner_paging.count(session, runner_queries.everywhere()) == 1
    part = runner_paging.page_by_cursor(session, runner_queries.everywhere(), Order.CREATED_DESC, first=100)
    assert [runner.id for runner in part.runners] == [kept.id]


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
