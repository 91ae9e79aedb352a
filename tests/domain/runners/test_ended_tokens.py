"""Tokens that are over for long go, but none that anything still refers to."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.runners import ended_tokens, runner_tokens
from portal.models import AuditEvent, Runner, RunnerManager, RunnerToken, TokenOrigin
from tests.cast import Cast
from tests.domain.queries import asked

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
AT = now()
LONG_AGO = AT - ended_tokens.KEPT_FOR - DAY


def token(session: Session, runner: Runner, **columns: Any) -> int:
    """One more token of the runner, got by a machine's reset and over for long unless told otherwise."""
    given: dict[str, Any] = {"origin": TokenOrigin.RESET_BY_MACHINE, "ends_at": LONG_AGO, **columns}
    number = session.scalar(select(func.count()).select_from(RunnerToken)) or 0
    made = RunnerToken(runner_id=runner.id, digest=number.to_bytes(32), short=f"t{number}", **given)
    session.add(made)
    session.flush()
    return made.id


def left(session: Session) -> list[int]:
    return list(session.scalars(select(RunnerToken.id).order_by(RunnerToken.id)))


@pytest.mark.parametrize("column", ["ends_at", "expires_at"])
@pytest.mark.parametrize(("tick", "gone"), [(-SECOND, 0), (timedelta(0), 1), (SECOND, 1)])
def test_a_token_goes_ninety_days_after_it_ended_or_expired(
    session: Session, cast: Cast, column: str, tick: timedelta, gone: int
) -> None:
    runner, over = cast.runner().runner, AT - timedelta(days=90)
    made = token(session, runner, **{"ends_at": None, column: over})
    newest = token(session, runner, ends_at=None)
    assert ended_tokens.prune(session, AT + tick).taken == gone
    assert (made in left(session)) is not bool(gone)
    assert newest in left(session)


def test_the_earlier_of_end_and_expiry_counts_and_a_living_token_never_goes(session: Session, cast: Cast) -> None:
    runner = cast.runner().runner
    both = token(session, runner, ends_at=LONG_AGO, expires_at=AT + DAY)
    living = [token(session, runner, ends_at=end) for end in (None, AT + DAY, AT - DAY)]
    assert ended_tokens.prune(session, AT).taken == 1
    assert set(living) < set(left(session))
    assert both not in left(session)


def test_a_token_that_a_machine_refers_to_stays(session: Session, cast: Cast) -> None:
    runner = cast.runner().runner
    used, unused, _ = token(session, runner), token(session, runner), token(session, runner)
    session.add(RunnerManager(runner_id=runner.id, system_xid="s_1", token_id=used))
    session.flush()
    assert ended_tokens.prune(session, AT).taken == 1
    assert used in left(session)
    assert unused not in left(session)


def test_the_newest_that_a_person_was_shown_and_the_newest_of_all_stay(session: Session, cast: Cast) -> None:
    runner = cast.runner().runner
    first = session.scalars(select(RunnerToken)).one()
    first.ends_at = LONG_AGO
    shown = token(session, runner, origin=TokenOrigin.RESET_BY_PERSON)
    _, newest = token(session, runner), token(session, runner)
    assert ended_tokens.prune(session, AT).taken == 2
    assert left(session) == [shown, newest]
    assert runner_tokens.last_issued(session, runner).id == shown
    assert ended_tokens.prune(session, AT).taken == 0


def test_one_that_was_minted_from_a_token_that_goes_stays(session: Session, cast: Cast) -> None:
    runner = cast.runner().runner
    old = token(session, runner)
    minted = token(session, runner, ends_at=None, minted_from_id=old)
    assert ended_tokens.prune(session, AT).taken == 1
    session.expire_all()
    assert session.get_one(RunnerToken, minted).minted_from_id is None


def test_batches_go_on_where_the_last_one_was_and_the_trail_tells_of_each(session: Session, cast: Cast) -> None:
    runner = cast.runner().runner
    for number in range(5):
        token(session, runner, ends_at=LONG_AGO + number * SECOND)
    taken, since = [], None
    while (batch := ended_tokens.prune(session, AT, since=since, batch=2)).taken:
        taken.append(batch.taken)
        since = batch.since
    assert taken == [2, 2]
    assert since == LONG_AGO + 3 * SECOND
    told = session.execute(
        select(AuditEvent.actor_name, AuditEvent.target_kind, AuditEvent.changes).where(
            AuditEvent.action == "ended_tokens_deleted"
        )
    ).all()
    assert [tuple(each) for each in told] == [("clean-up", "instance", {"tokens": [None, 2]})] * 2


def test_a_prune_of_nothing_is_one_question_and_leaves_no_trace(session: Session, cast: Cast) -> None:
    token(session, cast.runner().runner)
    with asked(session) as statements:
        assert ended_tokens.prune(session, AT).taken == 0
    assert [each.split()[0] for each in statements] == ["SELECT"]


def test_a_prune_finds_the_ended_by_an_index_and_reads_no_whole_table(session: Session, cast: Cast) -> None:
    session.execute(
        text(
            "INSERT INTO ci_runner_tokens (runner_id, digest, short, origin, created_at, ends_at) "
            "SELECT :runner_id, sha256(CAST(CAST(n AS text) AS bytea)), 'x' || n, 2, now(), now() "
            "FROM generate_series(1, 20000) n"
        ),
        {"runner_id": cast.runner().runner.id},
    )
    session.execute(text("ANALYZE ci_runner_tokens"))
    before = rows_read(session)
    ended_tokens.prune(session, AT)
    assert rows_read(session) == before
    session.execute(text("SELECT max(created_at) FROM ci_runner_tokens"))
    assert rows_read(session) >= before + 20_000, "such a reading would be seen"


def rows_read(session: Session) -> int:
    """How many tokens were read by going through the table from its beginning."""
    reading = "SELECT seq_tup_read FROM pg_stat_xact_all_tables WHERE relname = 'ci_runner_tokens'"
    return session.scalar(text(reading)) or 0
