"""How long tokens live: the shortest of the chain, who decided it, and which tokens are due."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Select, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.groups import scope_settings
from portal.domain.runners import runner_tokens, token_life
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.token_life import Life
from portal.domain.scopes import INSTANCE, Scope
from portal.models import Runner, RunnerManager, RunnerToken
from tests.cast import Cast
from tests.domain.queries import asked

HOUR, DAY = 3600, 86_400
OWN, GROUPS, SUBGROUPS, PROJECTS = (
    f"{kind}runner_token_expiration_interval" for kind in ("", "group_", "subgroup_", "project_")
)
SECOND, INSTANT = timedelta(seconds=1), timedelta(microseconds=1)


def settle(session: Session, scope: Scope, **intervals: int | None) -> None:
    row = scope_settings.own_for_update(session, scope)
    for column, seconds in intervals.items():
        setattr(row, column, seconds)
    session.flush()


def decided(session: Session, scope: Scope) -> tuple[int, str] | None:
    """The seconds, and who decided."""
    life = token_life.of_new_runners(session, scope)
    return (life.seconds, life.by.title if life.by else "the runner") if life else None


# The chain


def test_nothing_expires_while_nobody_says_so(session: Session, cast: Cast) -> None:
    for scope in (INSTANCE, cast.acme, cast.platform, cast.web):
        assert decided(session, scope) is None
        assert cast.runner(scope).record.expires_at is None


def test_the_instance_says_a_life_for_each_kind_of_runner(session: Session, cast: Cast) -> None:
    settle(session, INSTANCE, **{OWN: 2 * DAY, GROUPS: 3 * DAY, PROJECTS: 4 * DAY})
    assert decided(session, INSTANCE) == (2 * DAY, "the instance")
    assert decided(session, cast.acme) == decided(session, cast.platform) == (3 * DAY, "the instance")
    assert decided(session, cast.web) == (4 * DAY, "the instance")


def test_a_groups_own_life_does_not_come_down_and_the_one_for_subgroups_does(session: Session, cast: Cast) -> None:
    deep = cast.group("deep", inside=cast.platform)
    settle(session, cast.acme, **{OWN: 2 * DAY, SUBGROUPS: 3 * DAY, PROJECTS: 4 * DAY})
    assert decided(session, cast.acme) == (2 * DAY, "acme")
    assert decided(session, cast.platform) == decided(session, deep) == (3 * DAY, "acme")
    assert decided(session, cast.web) == (4 * DAY, "acme")
    assert decided(session, cast.other) is None


def test_a_subgroup_may_be_shorter_and_never_longer(session: Session, cast: Cast) -> None:
    settle(session, cast.acme, **{SUBGROUPS: 3 * DAY})
    settle(session, cast.platform, **{OWN: 9 * DAY})
    assert decided(session, cast.platform) == (3 * DAY, "acme")
    settle(session, cast.platform, **{OWN: DAY})
    assert decided(session, cast.platform) == (DAY, "acme/platform")


def test_a_project_gets_the_shortest_of_all_above_it_and_its_own(session: Session, cast: Cast) -> None:
    api = cast.project("api", cast.platform)
    settle(session, INSTANCE, **{PROJECTS: 9 * DAY})
    settle(session, cast.platform, **{PROJECTS: 5 * DAY, OWN: HOUR * 2, SUBGROUPS: HOUR * 2})
    settle(session, api, **{OWN: 7 * DAY})
    assert decided(session, api) == (5 * DAY, "acme/platform")
    settle(session, api, **{OWN: 4 * DAY})
    assert decided(session, api) == (4 * DAY, "acme/platform/api")


interval = st.none() | st.integers(2 * HOUR, 400 * DAY)
levels = st.lists(st.fixed_dictionaries({OWN: interval, SUBGROUPS: interval, PROJECTS: interval}), max_size=4)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    top=st.fixed_dictionaries({OWN: interval, GROUPS: interval, PROJECTS: interval}),
    groups=levels,
    project=st.fixed_dictionaries({OWN: interval}),
    kind=st.sampled_from(["instance", "group", "project"]),
)
def test_whatever_a_chain_says_the_shortest_counts_and_its_scope_is_named(
    session: Session,
    cast: Cast,
    top: dict[str, int | None],
    groups: list[dict[str, int | None]],
    project: dict[str, int | None],
    kind: str,
) -> None:
    with session.begin_nested() as story:
        settle(session, INSTANCE, **top)
        chain, groups = [], groups or [{}]
        for number, said in enumerate(groups):
            chain.append(cast.group(f"level{number}", inside=chain[-1] if chain else INSTANCE))
            settle(session, chain[-1], **said)
        web = cast.project("leaf", chain[-1])
        settle(session, web, **project)
        scope = {"instance": INSTANCE, "group": chain[-1], "project": web}[kind]
        if kind == "instance":
            said_of_it = [(top[OWN], "the instance")]
        elif kind == "group":
            said_of_it = [(top[GROUPS], "the instance"), (groups[-1].get(OWN), chain[-1].title)]
            said_of_it += [(s.get(SUBGROUPS), g.title) for s, g in zip(groups[:-1], chain[:-1], strict=True)]
        else:
            said_of_it = [(top[PROJECTS], "the instance"), (project[OWN], web.title)]
            said_of_it += [(s.get(PROJECTS), g.title) for s, g in zip(groups, chain, strict=True)]
        spoken = [(seconds, who) for seconds, who in said_of_it if seconds is not None]
        found = decided(session, scope)
        if not spoken:
            assert found is None
        else:
            assert found in spoken
            assert found[0] == min(seconds for seconds, _ in spoken)
        story.rollback()
    session.expire_all()


# One runner


@pytest.mark.parametrize(
    ("own", "scopes", "counts"),
    [
        (None, None, None),
        (HOUR, None, (HOUR, None)),
        (None, DAY, (DAY, "acme")),
        (HOUR, DAY, (HOUR, None)),
        (2 * DAY, DAY, (DAY, "acme")),
        (DAY, DAY, (DAY, "acme")),
    ],
)
def test_a_runner_may_have_a_shorter_life_and_a_longer_one_does_not_count(
    session: Session, cast: Cast, own: int | None, scopes: int | None, counts: tuple[int, str | None] | None
) -> None:
    settle(session, cast.acme, **{OWN: scopes})
    runner = cast.runner(settings=RunnerSettings(tags=("docker",), token_expiration_interval=own)).runner
    life = token_life.of_runner_tokens(session, runner)
    assert (life and (life.seconds, life.by.title if life.by else None)) == counts
    expires = session.scalars(select(RunnerToken)).one().expires_at
    assert (expires is None) == (counts is None)


# Due


def with_token(session: Session, cast: Cast, life: timedelta = timedelta(hours=4)) -> RunnerToken:
    record = cast.runner().record
    record.expires_at = record.created_at + life
    session.flush()
    return record


def due(session: Session, at: datetime) -> list[int]:
    return list(session.scalars(select(Runner.id).where(token_life.due(at))))


def machine(session: Session, token: RunnerToken, **columns: Any) -> RunnerManager:
    made = RunnerManager(runner_id=token.runner_id, token_id=token.id, **{"system_xid": "s_1", **columns})
    session.add(made)
    session.flush()
    return made


@pytest.mark.parametrize("life", [timedelta(hours=2), timedelta(hours=4), timedelta(days=30), timedelta(days=1825)])
def test_a_token_is_due_from_exactly_three_quarters_of_its_life_on(
    session: Session, cast: Cast, life: timedelta
) -> None:
    token = with_token(session, cast, life)
    edge = token.created_at + life * 0.75
    assert not token_life.is_due(token, edge - INSTANT)
    assert due(session, edge - INSTANT) == []
    assert token_life.is_due(token, edge)
    assert due(session, edge) == [token.runner_id]


def test_an_expired_token_is_over_from_exactly_its_expiry_on(session: Session, cast: Cast) -> None:
    token = with_token(session, cast)
    end = token.expires_at
    assert end is not None
    assert token.is_live(end - INSTANT)
    assert token_life.is_due(token, end - INSTANT)
    assert not token.is_live(end)
    assert not token_life.is_due(token, end)  # no longer due: over
    assert due(session, end) == due(session, end + timedelta(days=900)) == [token.runner_id]


def test_the_door_takes_a_token_until_a_moment_before_it_expires(
    session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = cast.runner()
    end = issued.record.expires_at = issued.record.created_at + timedelta(hours=4)
    session.flush()
    monkeypatch.setattr(runner_tokens, "now", lambda: end - SECOND)
    assert runner_tokens.token_row(session, issued.token).id == issued.record.id
    monkeypatch.setattr(runner_tokens, "now", lambda: end)
    with pytest.raises(runner_tokens.TokenUnknown):
        runner_tokens.token_row(session, issued.token)


def test_a_token_that_never_expires_is_never_due(session: Session, cast: Cast) -> None:
    record = cast.runner().record
    assert not token_life.is_due(record, record.created_at + timedelta(days=9999))
    assert due(session, record.created_at + timedelta(days=9999)) == []


def test_a_replaced_token_is_due_only_while_a_machine_still_uses_it(session: Session, cast: Cast) -> None:
    old = with_token(session, cast)
    at = old.created_at + timedelta(hours=3, minutes=30)
    newer = RunnerToken(
        runner_id=old.runner_id, digest=bytes(32), short="newer", origin=2, created_at=at - timedelta(minutes=5)
    )
    newer.expires_at = newer.created_at + timedelta(hours=4)
    session.add(newer)
    session.flush()
    assert due(session, at) == []
    left_behind = machine(session, old)
    assert due(session, at) == [old.runner_id]
    left_behind.token_id = newer.id
    session.flush()
    assert due(session, at) == []


def test_a_token_that_somebody_ended_is_nobodys_business(session: Session, cast: Cast) -> None:
    token = with_token(session, cast)
    machine(session, token)
    token.ends_at = token.created_at + timedelta(hours=3)
    session.flush()
    assert due(session, token.created_at + timedelta(hours=3) - INSTANT) == []
    assert due(session, token.created_at + timedelta(hours=3)) == []


def test_the_due_are_counted_by_runner_and_within_a_scope(session: Session, cast: Cast) -> None:
    token = with_token(session, cast)
    token.created_at -= timedelta(days=1)
    assert token.expires_at is not None
    token.expires_at -= timedelta(days=1)
    session.flush()
    cast.runner(cast.web)
    assert token_life.count_due(session, Runner.group_id == cast.acme.id) == 1
    assert token_life.count_due(session, Runner.group_id == cast.other.id) == 0


def test_a_due_token_comes_with_the_machines_that_use_it(session: Session, cast: Cast) -> None:
    token = with_token(session, cast)
    token.created_at -= timedelta(hours=3)
    assert token.expires_at is not None
    token.expires_at -= timedelta(hours=3)
    for number in range(12):
        contact = token.created_at + timedelta(minutes=number)
        machine(session, token, system_xid=f"s_{number}", contacted_at=contact)
    (found,) = token_life.due_of_runner(session, session.get_one(Runner, token.runner_id)).first
    assert (found.token.id, found.expired, found.total) == (token.id, False, 12)
    assert [each.system_xid for each in found.machines] == [f"s_{number}" for number in range(11, 1, -1)]


def old_tokens(session: Session, runner_id: int, number: int, **columns: Any) -> list[RunnerToken]:
    """Tokens of the runner that expired an hour ago, each with two machines."""
    moment = now()
    made = []
    for each in range(number):
        dates = {"created_at": moment - timedelta(days=1), "expires_at": moment - timedelta(hours=1)}
        given = {"runner_id": runner_id, "short": f"t{each}", "origin": 2, **dates, **columns}
        made.append(RunnerToken(digest=bytes([each]) * 32, **given))
    session.add_all(made)
    session.flush()
    for token in made:
        for name in "ab":
            machine(session, token, system_xid=f"s_{token.id}_{name}", contacted_at=moment - timedelta(hours=2))
    session.expire_all()
    return made


def test_of_many_due_tokens_the_first_ten_are_read_in_two_queries(session: Session, cast: Cast) -> None:
    runner = cast.runner().runner
    made = [token.id for token in old_tokens(session, runner.id, 25)]
    assert runner.id
    with asked(session) as statements:
        found = token_life.due_of_runner(session, runner)
        assert [len(due.machines) for due in found.first] == [due.total for due in found.first] == [2] * 10
    assert len(statements) == 2
    assert found.total == 25
    assert [due.token.id for due in found] == made[:10]
    assert all(due.expired for due in found)


@pytest.mark.parametrize(("live", "found"), [(True, 0), (False, 20)])
def test_the_work_of_finding_the_due_grows_with_the_tokens_and_not_with_their_square(
    session: Session, cast: Cast, live: bool, found: int
) -> None:
    """Twenty runners, each with 200 tokens that expired one after the other and perhaps one that works."""
    ids = [cast.runner().runner.id for _ in range(20)]
    session.execute(text("UPDATE ci_runner_tokens SET cut = true"))
    session.execute(
        text(
            "INSERT INTO ci_runner_tokens (runner_id, digest, short, origin, created_at, expires_at) "
            "SELECT r, sha256(CAST(r || '-' || n AS bytea)), 'x' || n, 2, "
            "now() - n * interval '1 day', now() - (n - 2) * interval '1 day' "
            "FROM unnest(CAST(:ids AS bigint[])) r, generate_series(CAST(:first AS int), 201) n ORDER BY n DESC"
        ),
        {"ids": ids, "first": 1 if live else 2},
    )
    session.execute(text("ANALYZE ci_runners, ci_runner_tokens"))  # the plan follows from what is there
    query = select(Runner.id).where(token_life.due(now()))
    assert len(session.scalars(query).all()) == found
    assert rows_handled(session, query) < 10 * 20 * 201


def rows_handled(session: Session, query: Select[int]) -> int:
    """How many rows the steps of the query's plan gave on or threw away, together."""
    compiled = query.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})
    plan = session.scalar(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled}".replace(":", r"\:")))

    def handled(step: dict[str, Any]) -> int:
        removed = sum(number for name, number in step.items() if name.startswith("Rows Removed"))
        return int((step["Actual Rows"] + removed) * step["Actual Loops"]) + sum(map(handled, step.get("Plans", [])))

    return handled(plan[0]["Plan"])


def test_a_life_is_a_span_of_time() -> None:
    assert Life(90, None).time == timedelta(seconds=90)
