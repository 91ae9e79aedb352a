"""The memory of tokens: an idle poll costs no query, and no change is overlooked."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import tokens
from portal.domain.errors import TokenUnknown
from portal.domain.machines import known_runners as module
from portal.domain.machines.known_runners import KnownRunners
from portal.domain.runners import runner_tokens, runners
from tests.cast import Cast
from tests.domain.queries import asked

UNKNOWN = "glrt-moved_here_from_gitlab"


@pytest.fixture
def known() -> KnownRunners:
    """A memory in a process that hears of changes."""
    made = KnownRunners()
    made.forget_all(listening=True)
    return made


def test_a_token_finds_its_runner(session: Session, cast: Cast, known: KnownRunners) -> None:
    issued = cast.runner()
    found = known.find(lambda: session, issued.token)
    assert (found.runner_id, found.token_id, found.short) == (
        issued.runner.id,
        issued.record.id,
        tokens.shorten(issued.token),
    )
    assert found.created_by_person
    assert found.ends_at is None


def test_a_known_token_costs_no_query(session: Session, cast: Cast, known: KnownRunners) -> None:
    token = cast.runner().token
    with asked(session) as statements:
        known.find(lambda: session, token)
    assert len(statements) == 1
    with asked(session) as statements:
        for _ in range(3):
            known.find(lambda: session, token)
    assert statements == []


@pytest.mark.parametrize("broken", ["mistyped", "empty", "far too long"])
def test_a_token_that_cannot_exist_costs_no_query(
    session: Session, cast: Cast, known: KnownRunners, broken: str
) -> None:
    good = cast.runner().token
    swapped = good[:10] + ("A" if good[10] != "A" else "B") + good[11:]
    token = {"mistyped": swapped, "empty": "", "far too long": "glrt-" + "x" * tokens.LONGEST}[broken]
    with asked(session) as statements, pytest.raises(TokenUnknown):
        known.find(lambda: session, token)
    assert statements == []


def test_an_unknown_token_is_looked_up_once_and_again_after_a_while(
    session: Session, cast: Cast, known: KnownRunners, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lookups(session, known, UNKNOWN, UNKNOWN) == 1
    monkeypatch.setattr(module, "UNKNOWN_FOR", -1.0)
    known.forget_all()
    assert lookups(session, known, UNKNOWN, UNKNOWN) == 2


def lookups(session: Session, known: KnownRunners, *unknown: str) -> int:
    with asked(session) as statements:
        for token in unknown:
            with pytest.raises(TokenUnknown):
                known.find(lambda: session, token)
    return len(statements)


def test_the_memory_of_unknown_tokens_is_bounded(
    session: Session, cast: Cast, known: KnownRunners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_UNKNOWN", 5)
    several = [f"glrt-{n}" for n in range(12)]
    assert lookups(session, known, *several) == 12
    assert len(known._unknown) <= 5
    assert lookups(session, known, several[-1]) == 0


def test_the_memory_of_known_tokens_is_bounded(
    session: Session, cast: Cast, known: KnownRunners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_KNOWN", 2)
    several = [cast.runner() for _ in range(5)]
    for issued in several:
        assert known.find(lambda: session, issued.token).runner_id == issued.runner.id
    assert len(known._known) <= 2
    assert len(known._by_runner) <= 2


def test_a_change_that_was_heard_of_is_seen(session: Session, cast: Cast, known: KnownRunners) -> None:
    issued, neighbour = cast.runner(), cast.runner()
    for each in (issued, neighbour):
        known.find(lambda: session, each.token)
    runner_tokens.reset_token(session, cast.as_(cast.alice), issued.runner, seen_token_id=None)
    known.forget(issued.runner.id)
    with pytest.raises(TokenUnknown):
        known.find(lambda: session, issued.token)
    with asked(session) as statements:
        known.find(lambda: session, neighbour.token)
    assert statements == []


def test_an_update_changes_the_queue_value(session: Session, cast: Cast, known: KnownRunners) -> None:
    issued = cast.runner()
    before = known.find(lambda: session, issued.token).queue_version
    runners.set_paused(session, cast.as_(cast.alice), issued.runner, True)
    known.forget(issued.runner.id)
    assert known.find(lambda: session, issued.token).queue_version != before


def test_a_token_that_was_unknown_is_found_as_soon_as_something_changed(
    session: Session, cast: Cast, known: KnownRunners
) -> None:
    issued = cast.runner()
    digest, issued.record.digest = issued.record.digest, b"\0" * 32
    session.flush()
    assert lookups(session, known, issued.token, issued.token) == 1
    issued.record.digest = digest
    session.flush()
    known.forget(issued.runner.id)
    assert known.find(lambda: session, issued.token).runner_id == issued.runner.id


@contextmanager
def during_the_query(session: Session, what: Any) -> Iterator[None]:
    """Do `what` after the database has answered and before anybody has read the answer."""
    connection = session.connection()

    def happen(*_rest: Any) -> None:
        what()

    event.listen(connection, "after_cursor_execute", happen)
    try:
        yield
    finally:
        event.remove(connection, "after_cursor_execute", happen)


@pytest.mark.parametrize("change", ["of the runner", "of everything"])
def test_an_answer_that_a_change_overtook_is_used_and_not_remembered(
    session: Session, cast: Cast, known: KnownRunners, change: str
) -> None:
    issued = cast.runner()
    number = issued.runner.id
    heard = {"of the runner": lambda: known.forget(number), "of everything": known.forget_all}[change]
    with during_the_query(session, heard):
        assert known.find(lambda: session, issued.token).runner_id == number
        assert lookups(session, known, UNKNOWN) == 1
    with asked(session) as statements:
        known.find(lambda: session, issued.token)
    assert len(statements) == 1
    assert lookups(session, known, UNKNOWN) == 1


def test_while_nobody_listens_every_look_up_asks_the_database(
    session: Session, cast: Cast, known: KnownRunners
) -> None:
    issued = cast.runner()
    known.find(lambda: session, issued.token)
    known.forget_all(listening=False)
    with asked(session) as statements:
        for _ in range(3):
            known.find(lambda: session, issued.token)
    assert len(statements) == 3
    assert lookups(session, known, UNKNOWN, UNKNOWN) == 2


def test_a_remembered_token_ends_when_its_time_is_over_without_any_news(
    session: Session, cast: Cast, known: KnownRunners, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = cast.runner()
    runner_tokens.reset_token_by_machine(session, issued.token, grace=timedelta(hours=1))
    ends_at = known.find(lambda: session, issued.token).ends_at
    assert ends_at is not None
    monkeypatch.setattr(module, "now", lambda: ends_at)
    with pytest.raises(TokenUnknown), asked(session) as statements:
        known.find(lambda: session, issued.token)
    assert statements == []


def test_the_earlier_of_two_ends_counts(session: Session, cast: Cast, known: KnownRunners) -> None:
    issued, soon = cast.runner(), now() + timedelta(hours=1)
    issued.record.expires_at, issued.record.ends_at = soon, soon + timedelta(hours=1)
    session.flush()
    found = known.find(lambda: session, issued.token)
    assert (found.ends_at, found.expires_at) == (soon, soon)
