"""Access tokens: what may be chosen, when they end, whose they are, and that one form makes one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import actors
from portal.domain.errors import AlreadyMade, BadRequest, CredentialRefused, Invalid, NotFound, Refusal
from portal.domain.people import access_token_lists, access_tokens, people, person_deletion
from portal.domain.people.access_token_lists import State, TokenQuery
from portal.domain.people.access_tokens import IssuedAccessToken, NewAccessToken
from portal.domain.people.person_deletion import Runners
from portal.models import AccessToken, AuditEvent, User
from tests.api.machines import until
from tests.cast import SYSTEM, Cast
from tests.domain.queries import asked

LONGEST = timedelta(days=365)


def today() -> date:
    """Asked each time: a run of all tests may go past midnight."""
    return now().date()


def wanted(days: int = 30, *, name: str = "nightly", scopes: tuple[str, ...] = ("api",)) -> NewAccessToken:
    return NewAccessToken(name, scopes, today() + timedelta(days=days))


def make(session: Session, user: User, days: int = 30, **chosen: object) -> IssuedAccessToken:
    return access_tokens.create(session, Cast.as_(user), user, wanted(days, **chosen), longest=LONGEST)  # type: ignore[arg-type]


def events(session: Session, action: str) -> list[AuditEvent]:
    session.flush()
    return list(session.scalars(select(AuditEvent).where(AuditEvent.action == action).order_by(AuditEvent.id)))


class TestChoosing:
    def test_nothing_is_wrong_with_a_name_a_scope_and_a_day(self) -> None:
        assert wanted().problems(today(), LONGEST) == {}

    @pytest.mark.parametrize("days", [1, 365])
    def test_tomorrow_is_the_first_day_and_the_longest_life_the_last(self, days: int) -> None:
        assert wanted(days).problems(today(), LONGEST) == {}

    @pytest.mark.parametrize("days", [-1, 0, 366])
    def test_today_is_too_early_and_a_day_more_too_late(self, days: int) -> None:
        first, last = today() + timedelta(days=1), today() + LONGEST
        said = wanted(days).problems(today(), LONGEST)
        assert said == {"expires_at": [f"Choose a day from {first} to {last}."]}

    def test_a_day_is_needed(self) -> None:
        assert "expires_at" in NewAccessToken("a", ("api",), None).problems(today(), LONGEST)

    @pytest.mark.parametrize("name", ["", "  ", "x" * 256, "two\nlines", "a\tb"])
    def test_a_name_stands_in_one_line(self, name: str) -> None:
        assert list(wanted(name=name).problems(today(), LONGEST)) == ["name"]

    @pytest.mark.parametrize("scopes", [(), ("sudo",), ("api", "API")])
    def test_scopes_are_those_that_there_are(self, scopes: tuple[str, ...]) -> None:
        assert list(wanted(scopes=scopes).problems(today(), LONGEST)) == ["scopes"]

    def test_a_description_is_not_endless(self) -> None:
        long = NewAccessToken("a", ("api",), today() + timedelta(days=1), "x" * 1025)
        assert list(long.problems(today(), LONGEST)) == ["description"]


class TestMaking:
    def test_the_row_has_a_digest_and_four_characters_and_the_event_no_more(
        self, session: Session, cast: Cast
    ) -> None:
        issued = make(session, cast.alice, scopes=("read_api", "api", "api"))
        secret = issued.token.partition("-")[2][4:]
        row = session.scalars(select(AccessToken)).one()
        assert row.short == issued.token[6:10]
        assert row.scopes == ["api", "read_api"]
        (event,) = events(session, "access_token_created")
        assert secret not in str(event.changes)
        assert event.changes == {
            "access_token": [None, "nightly"],
            "token": [None, f"{row.short}…"],
            "scopes": [None, ["api", "read_api"]],
            "expires_on": [None, str(today() + timedelta(days=30))],
        }
        assert (event.target_kind, event.target_id) == ("person", cast.alice.id)
        assert secret not in repr(issued)

    def test_a_token_is_good_until_the_day_begins(self, session: Session, cast: Cast) -> None:
        record = make(session, cast.alice).record
        midnight = datetime.combine(record.expires_at, datetime.min.time(), UTC)
        assert record.is_live(midnight - timedelta(microseconds=1))
        assert not record.is_live(midnight)
        assert record.ends_at == midnight
        for moment, live in ((midnight - timedelta(seconds=1), 1), (midnight, 0)):
            assert access_token_lists.count_good(session, cast.alice, moment) == live

    def test_it_is_found_by_its_text_only(self, session: Session, cast: Cast) -> None:
        issued = make(session, cast.alice)
        assert access_tokens.find(session, issued.token) is issued.record
        other = issued.token[:-1] + ("a" if issued.token[-1] != "a" else "b")
        with asked(session) as statements, pytest.raises(CredentialRefused, match="mistyped"):
            access_tokens.find(session, other)
        assert statements == []

    def test_nobody_makes_one_for_somebody_else_but_administrators_and_the_command_line(
        self, session: Session, cast: Cast
    ) -> None:
        for actor in (cast.as_(cast.bob), actors.visitor()):
            with pytest.raises(NotFound):
                access_tokens.create(session, actor, cast.alice, wanted(), longest=LONGEST)
        for actor in (cast.as_(cast.dana), SYSTEM):
            assert (
                access_tokens.create(session, actor, cast.alice, wanted(), longest=LONGEST).record.user is cast.alice
            )

    def test_of_somebody_blocked_none_is_made(self, session: Session, cast: Cast) -> None:
        people.block(session, cast.as_(cast.dana), cast.alice)
        with pytest.raises(Invalid, match="blocked"):
            access_tokens.create(session, cast.as_(cast.dana), cast.alice, wanted(), longest=LONGEST)

    def test_the_same_form_makes_one_whatever_is_written_in_it(self, session: Session, cast: Cast) -> None:
        key = uuid4()
        alice = cast.as_(cast.alice)
        access_tokens.create(session, alice, cast.alice, wanted(), longest=LONGEST, request_key=key)
        for again in (wanted(), wanted(name=""), wanted(5)):
            with pytest.raises(AlreadyMade):
                access_tokens.create(session, alice, cast.alice, again, longest=LONGEST, request_key=key)
        assert session.scalar(select(func.count()).select_from(AccessToken)) == 1
        assert len(events(session, "access_token_created")) == 1


class TestRevoking:
    def test_ends_it_once_and_says_so_once(self, session: Session, cast: Cast) -> None:
        issued = make(session, cast.alice)
        assert access_tokens.revoke(session, cast.as_(cast.alice), issued.record)
        assert not access_tokens.revoke(session, cast.as_(cast.dana), issued.record)
        with pytest.raises(CredentialRefused, match="revoked"):
            access_tokens.find(session, issued.token)
        (event,) = events(session, "access_token_revoked")
        assert event.changes["access_token"] == ["nightly", None]

    def test_is_ones_own_affair_and_that_of_administrators(self, session: Session, cast: Cast) -> None:
        issued = make(session, cast.alice)
        with pytest.raises(NotFound):
            access_tokens.get(session, cast.as_(cast.bob), issued.record.id)
        with pytest.raises(NotFound):
            access_tokens.revoke(session, cast.as_(cast.bob), issued.record)
        with pytest.raises(NotFound):
            access_tokens.rotate(session, cast.as_(cast.bob), issued.record, longest=LONGEST)
        assert access_tokens.get(session, cast.as_(cast.dana), issued.record.id) is issued.record


class TestRotating:
    def test_puts_a_new_one_in_its_place_for_a_week(self, session: Session, cast: Cast) -> None:
        old = make(session, cast.alice, scopes=("read_api",))
        new = access_tokens.rotate(session, cast.as_(cast.alice), old.record, longest=LONGEST)
        assert new.token != old.token
        assert (new.record.name, new.record.scopes) == (old.record.name, old.record.scopes)
        assert new.record.expires_at == today() + timedelta(days=7)
        assert old.record.revoked_at == new.record.created_at
        (event,) = events(session, "access_token_rotated")
        assert event.changes["token"] == [f"{old.record.short}…", f"{new.record.short}…"]
        assert new.token[10:] not in str(event.changes)

    def test_for_less_where_tokens_live_less(self, session: Session, cast: Cast) -> None:
        new = access_tokens.rotate(
            session, cast.as_(cast.alice), make(session, cast.alice).record, longest=timedelta(days=2)
        )
        assert new.record.expires_at == today() + timedelta(days=2)

    def test_a_day_too_late_leaves_the_old_one_as_it_is(self, session: Session, cast: Cast) -> None:
        old = make(session, cast.alice)
        late = today() + timedelta(days=366)
        with pytest.raises(Invalid):
            access_tokens.rotate(session, cast.as_(cast.alice), old.record, longest=LONGEST, expires_at=late)
        assert access_tokens.find(session, old.token)

    def test_an_expired_one_can_be_and_a_revoked_one_not(self, session: Session, cast: Cast) -> None:
        old = make(session, cast.alice).record
        old.expires_at = today()
        session.flush()
        access_tokens.rotate(session, cast.as_(cast.alice), old, longest=LONGEST)
        with pytest.raises(BadRequest, match="already revoked"):
            access_tokens.rotate(session, cast.as_(cast.alice), old, longest=LONGEST)


class TestLists:
    def test_each_token_is_in_one_state(self, session: Session, cast: Cast) -> None:
        soon, good = make(session, cast.alice, 7).record, make(session, cast.alice, 9).record
        expired, revoked = make(session, cast.alice).record, make(session, cast.alice, 3).record
        expired.expires_at = today()
        access_tokens.revoke(session, cast.as_(cast.alice), revoked)
        session.flush()
        found = [State.of(each, now()) for each in (soon, good, expired, revoked)]
        assert found == [State.EXPIRES_SOON, State.GOOD, State.EXPIRED, State.REVOKED]
        assert list(access_token_lists.due(session, cast.alice, now())) == [soon]

    def test_what_is_due_is_what_expires_soon_to_the_second(self, session: Session, cast: Cast) -> None:
        record = make(session, cast.alice).record
        edge = record.ends_at - timedelta(days=7)
        for moment in (edge - timedelta(seconds=1), edge):
            due = bool(access_token_lists.due(session, cast.alice, moment))
            assert due == (State.of(record, moment) is State.EXPIRES_SOON) == (moment == edge)

    def test_filters_keep_what_fits(self, session: Session, cast: Cast) -> None:
        old, new = make(session, cast.alice, 5, name="Nightly build").record, make(session, cast.bob, 50).record
        old.created_at, old.last_used_at = now() - timedelta(days=9), now() - timedelta(days=2)
        session.flush()
        yesterday = now() - timedelta(days=1)
        for query, found in (
            (TokenQuery(), [new, old]),
            (TokenQuery(user_id=cast.alice.id), [old]),
            (TokenQuery(words="BUILD"), [old]),
            (TokenQuery(words="%"), []),
            (TokenQuery(created_after=yesterday), [new]),
            (TokenQuery(created_before=yesterday), [old]),
            (TokenQuery(used_before=yesterday), [old]),
            (TokenQuery(used_after=yesterday), []),
            (TokenQuery(expires_after=today() + timedelta(days=5)), [new]),
            (TokenQuery(expires_before=today() + timedelta(days=6)), [old]),
            (TokenQuery(revoked=True), []),
            (TokenQuery(live=True), [new, old]),
        ):
            assert list(access_token_lists.page(session, query, now(), limit=10)) == found
            assert access_token_lists.count(session, query, now()) == len(found)

    def test_a_list_is_ones_own_but_for_administrators(self, session: Session, cast: Cast) -> None:
        see = access_token_lists.visible_to
        assert see(session, cast.as_(cast.alice), None) == cast.alice.id
        assert see(session, cast.as_(cast.alice), cast.alice.id) == cast.alice.id
        assert see(session, cast.as_(cast.dana), None) is None
        assert see(session, cast.as_(cast.dana), cast.alice.id) == cast.alice.id
        for actor, whose in ((cast.alice, cast.bob.id), (cast.alice, 999_999), (cast.dana, 999_999)):
            with pytest.raises(NotFound):
                see(session, cast.as_(actor), whose)

    def test_a_longer_page_asks_no_more_often(self, session: Session, cast: Cast) -> None:
        for user in (cast.alice, cast.bob, cast.dana, cast.erin):
            make(session, user)
        session.flush()
        session.expire_all()
        with asked(session) as statements:
            assert {each.user.name for each in access_token_lists.page(session, TokenQuery(), now(), limit=9)}
        assert len(statements) == 1


class TestAfterwards:
    def test_deleting_a_person_says_how_many_good_ones_went(self, session: Session, cast: Cast) -> None:
        make(session, cast.erin)
        access_tokens.revoke(session, cast.as_(cast.erin), make(session, cast.erin).record)
        session.flush()
        person_deletion.delete_person(session, cast.as_(cast.dana), cast.erin, created=Runners.KEEP)
        (event,) = events(session, "person_deleted")
        assert event.changes["access_tokens"] == [1, 0]
        assert session.scalar(select(func.count()).select_from(AccessToken)) == 0

    def test_a_year_after_its_end_a_token_is_forgotten(self, session: Session, cast: Cast) -> None:
        live, expired, revoked = (make(session, cast.alice).record for _ in range(3))
        expired.expires_at = today()
        revoked.revoked_at = now()
        revoked.expires_at = today() + timedelta(days=300)
        session.flush()
        year = access_tokens.KEPT_FOR
        assert access_tokens.prune(session, now() + year - timedelta(days=1)) == 0
        assert access_tokens.prune(session, now() + year) == 2
        session.expire_all()
        assert session.scalars(select(AccessToken.id)).all() == [live.id]
        (event,) = events(session, "ended_tokens_deleted")
        assert event.changes == {"access_tokens": [None, 2]}


@pytest.fixture
def engine(own_database: str) -> Iterator[Engine]:
    made = create_engine(own_database, pool_size=8)
    yield made
    made.dispose()


def at_once(engine: Engine, act: object, number: int) -> list[str]:
    """What became of the same act, done at once by so many threads: "done", or the refusal's name."""
    start, ended = threading.Barrier(number), list[str]()

    def do() -> None:
        with Session(engine) as session:
            start.wait()
            try:
                act(session)  # type: ignore[operator]
                session.commit()
                ended.append("done")
            except Refusal as refusal:
                ended.append(type(refusal).__name__)

    threads = [threading.Thread(target=do) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(ended)


def test_the_same_form_sent_by_several_at_once_makes_one(engine: Engine) -> None:
    with Session(engine) as session:
        user_id = Cast(session).alice.id
    key = uuid4()

    def create(session: Session) -> None:
        alice = session.get_one(User, user_id)
        access_tokens.create(session, Cast.as_(alice), alice, wanted(), longest=LONGEST, request_key=key)

    assert at_once(engine, create, 4) == ["AlreadyMade"] * 3 + ["done"]
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(AccessToken)) == 1


def waiting(engine: Engine) -> bool:
    """Whether somebody waits for somebody else in the database."""
    with engine.connect() as connection:
        return bool(connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))


def test_who_waits_for_the_same_form_of_another_is_told_that_it_was_sent(engine: Engine) -> None:
    key, refused = uuid4(), list[Refusal]()
    with Session(engine) as first:
        alice = Cast(first).alice
        user_id = alice.id
        access_tokens.create(first, Cast.as_(alice), alice, wanted(), longest=LONGEST, request_key=key)

        def second() -> None:
            with Session(engine) as session:
                alice = session.get_one(User, user_id)
                try:
                    access_tokens.create(session, Cast.as_(alice), alice, wanted(), longest=LONGEST, request_key=key)
                except Refusal as refusal:
                    refused.append(refusal)

        thread = threading.Thread(target=second)
        thread.start()
        until(lambda: waiting(engine))
        first.commit()
        thread.join()
    assert [type(each) for each in refused] == [AlreadyMade]


def test_of_several_who_rotate_the_same_token_at_once_one_does(engine: Engine) -> None:
    with Session(engine) as session:
        cast = Cast(session)
        token_id = make(session, cast.alice).record.id
        session.commit()

    def rotate(session: Session) -> None:
        token = session.get_one(AccessToken, token_id)
        access_tokens.rotate(session, Cast.as_(token.user), token, longest=LONGEST)

    assert at_once(engine, rotate, 4) == ["BadRequest"] * 3 + ["done"]
    with Session(engine) as session:
        live = select(func.count()).where(AccessToken.lives(now()))
        assert session.scalar(live) == 1
