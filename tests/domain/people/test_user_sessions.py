"""Sessions on the server: what is stored of them, when they are over, and who may end them."""

from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.errors import NotFound
from portal.domain.last_uses import LastUses
from portal.domain.people import user_sessions
from portal.domain.people.user_sessions import Limits
from portal.models import AuditEvent, User, UserSession
from tests.cast import Cast

LIMITS = Limits(idle=timedelta(hours=12), longest=timedelta(days=7))
EDGE = timedelta(seconds=5)


def begin(session: Session, cast: Cast, user: User) -> tuple[UserSession, str]:
    return user_sessions.begin(session, cast.as_(user), method="password", user_agent="x" * 600)


def newest_event(session: Session) -> AuditEvent:
    return session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc()).limit(1)).one()


def test_the_key_is_new_each_time_and_stored_nowhere(session: Session, cast: Cast) -> None:
    keys = {begin(session, cast, cast.alice)[1] for _ in range(20)}
    assert len(keys) == 20
    assert all(len(key) == 43 for key in keys)  # 32 random bytes
    stored = str([vars(each) for each in session.scalars(select(UserSession))])
    assert not [key for key in keys if key in stored or key in str(newest_event(session).changes)]


def test_a_session_is_found_by_its_key_only(session: Session, cast: Cast) -> None:
    begun, key = begin(session, cast, cast.alice)
    assert user_sessions.find(session, key, LIMITS) is begun
    for wrong in ("", key[:-1], key + "A", key.lower(), begun.digest.hex(), str(begun.id)):
        assert user_sessions.find(session, wrong, LIMITS) is None


@pytest.mark.parametrize(("field", "limit"), [("last_used_at", LIMITS.idle), ("created_at", LIMITS.longest)])
def test_a_session_ends_by_itself_at_its_limit(session: Session, cast: Cast, field: str, limit: timedelta) -> None:
    begun, key = begin(session, cast, cast.alice)
    setattr(begun, field, now() - limit + EDGE)
    assert user_sessions.find(session, key, LIMITS) is begun
    assert list(user_sessions.of_person(session, cast.alice, LIMITS)) == [begun]
    assert user_sessions.prune(session, LIMITS, now()) == 0
    setattr(begun, field, now() - limit)
    session.flush()
    assert user_sessions.find(session, key, LIMITS) is None
    assert list(user_sessions.of_person(session, cast.alice, LIMITS)) == []
    assert user_sessions.prune(session, LIMITS, now()) == 1


def test_use_keeps_a_session_alive_before_it_is_written_but_not_beyond_the_longest(
    session: Session, cast: Cast
) -> None:
    begun, key = begin(session, cast, cast.alice)
    uses = LastUses()
    begun.last_used_at = now() - LIMITS.idle
    uses.note(begun.id, now(), "192.0.2.1")
    assert user_sessions.find(session, key, LIMITS, last_used=uses) is begun
    begun.created_at = now() - LIMITS.longest
    assert user_sessions.find(session, key, LIMITS, last_used=uses) is None


def test_who_is_blocked_has_no_session(session: Session, cast: Cast) -> None:
    _, key = begin(session, cast, cast.alice)
    cast.alice.blocked_at = now()
    assert user_sessions.find(session, key, LIMITS) is None


def test_a_person_ends_their_own_sessions_and_nobody_elses(session: Session, cast: Cast) -> None:
    alices, _ = begin(session, cast, cast.alice)
    with pytest.raises(NotFound):
        user_sessions.own(session, cast.bob, alices.id)
    with pytest.raises(NotFound):
        user_sessions.own(session, cast.alice, alices.id + 1)
    with pytest.raises(NotFound):
        user_sessions.end(session, cast.as_(cast.bob), alices)
    user_sessions.end(session, cast.as_(cast.alice), user_sessions.own(session, cast.alice, alices.id))
    session.flush()
    assert list(user_sessions.of_person(session, cast.alice, LIMITS)) == []
    event = newest_event(session)
    assert (event.action, event.actor_id, event.target_id) == ("session_ended", cast.alice.id, cast.alice.id)


def test_all_others_end_and_the_trail_says_how_many(session: Session, cast: Cast) -> None:
    here, *_ = (begin(session, cast, cast.alice)[0] for _ in range(3))
    begin(session, cast, cast.alice), begin(session, cast, cast.alice)
    bobs, _ = begin(session, cast, cast.bob)
    assert user_sessions.end_others(session, cast.as_(cast.alice), here) == 4
    session.flush()
    assert list(user_sessions.of_person(session, cast.alice, LIMITS)) == [here]
    assert list(user_sessions.of_person(session, cast.bob, LIMITS)) == [bobs]
    assert (newest_event(session).action, newest_event(session).changes) == (
        "other_sessions_ended",
        {"sessions": [4, 0]},
    )
    assert user_sessions.end_others(session, cast.as_(cast.alice), here) == 0
