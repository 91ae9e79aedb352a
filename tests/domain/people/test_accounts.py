"""Local accounts: passwords, new people, and the first administrator."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from argon2 import PasswordHasher, extract_parameters
from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.orm import Session

from portal.domain.errors import Invalid, NotAllowed, NotFound, Refusal
from portal.domain.people import accounts, passwords, user_sessions
from portal.domain.people.user_sessions import Limits
from portal.models import AuditEvent, User
from tests.cast import PASSWORD, SYSTEM, Cast

NEW = "a longer horse battery"
LIMITS = Limits(idle=timedelta(hours=12), longest=timedelta(days=7))


def person(session: Session, actor: Any = SYSTEM, **changes: Any) -> User:
    given = {"username": "fred", "name": "Fred Orr", "email": "fred@acme.example", "password": PASSWORD}
    return accounts.create_person(session, actor, **{**given, **changes})


def newest_event(session: Session) -> AuditEvent:
    return session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc()).limit(1)).one()


def test_a_generated_password_is_long_enough_and_never_the_same() -> None:
    several = {accounts.generated_password() for _ in range(100)}
    assert len(several) == 100
    assert not any(passwords.problems(each) for each in several)


def test_the_real_hash_is_argon2id_of_at_least_the_recommended_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the cheap one of these tests
    used = extract_parameters(accounts._hasher.hash(PASSWORD))
    assert used.type.name == "ID"
    assert (used.time_cost, used.memory_cost) >= (2, 19_456)


@pytest.mark.parametrize("login", ["alice", "ALICE", " alice ", "alice@acme.example", "Alice@ACME.example"])
def test_alice_is_known_by_user_name_and_address_whatever_the_case(session: Session, cast: Cast, login: str) -> None:
    assert accounts.find(session, login) == cast.alice
    assert accounts.signed_in(session, login, PASSWORD) == cast.alice


@pytest.mark.parametrize(
    ("login", "password"),
    [("alice", PASSWORD + "!"), ("alice", ""), ("nobody", PASSWORD), ("", ""), ("alice", "x" * 100_000)],
)
def test_wrong_words_sign_nobody_in(session: Session, cast: Cast, login: str, password: str) -> None:
    assert accounts.signed_in(session, login, password) is None


def test_a_weaker_hash_is_renewed_at_the_next_sign_in(
    session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    stronger = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    monkeypatch.setattr(accounts, "_hasher", stronger)
    before = cast.alice.password_digest
    accounts.signed_in(session, "alice", "wrong")
    assert cast.alice.password_digest == before
    assert accounts.signed_in(session, "alice", PASSWORD)
    assert cast.alice.password_digest != before
    assert not stronger.check_needs_rehash(cast.alice.password_digest)


def test_a_password_is_kept_as_a_digest_only(session: Session, cast: Cast) -> None:
    assert cast.alice.password_digest.startswith("$argon2id$")
    assert PASSWORD not in cast.alice.password_digest
    assert cast.alice.password_digest != cast.bob.password_digest


def test_a_new_person_chooses_a_password_at_the_first_sign_in(session: Session, cast: Cast) -> None:
    made = person(session, cast.as_(cast.dana), username=" fred ", name=" Fred Orr ")
    assert (made.username, made.name, made.admin, made.must_change_password) == ("fred", "Fred Orr", False, True)
    event = newest_event(session)
    assert (event.action, event.actor_name, event.target_name) == ("person_created", "Dana Kay", "Fred Orr")
    assert event.changes == {"username": [None, "fred"], "admin": [None, False]}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"username": ""}, "username"),
        ({"username": "a b"}, "username"),
        ({"username": "admin"}, "username"),
        ({"username": "ALICE"}, "username"),
        ({"name": "  "}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"email": "fred"}, "email"),
        ({"email": ""}, "email"),
        ({"email": "Alice@Acme.Example"}, "email"),
        ({"password": "short"}, "password"),
    ],
)
def test_what_is_wrong_with_a_new_person_is_told_beside_its_field(
    session: Session, cast: Cast, changes: dict[str, str], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        person(session, **changes)
    assert list(refused.value.problems) == [field]
    assert accounts.find(session, "fred") is None


@pytest.mark.parametrize("who", ["alice", "charlie"])
def test_only_administrators_manage_people(session: Session, cast: Cast, who: str) -> None:
    actor = cast.as_(getattr(cast, who))
    with pytest.raises((NotAllowed, NotFound)):
        person(session, actor)
    with pytest.raises((NotAllowed, NotFound)):
        accounts.reset_password(session, actor, cast.bob, NEW)
    assert accounts.signed_in(session, "bob", PASSWORD)


def test_changing_ones_password_ends_ones_other_sessions(session: Session, cast: Cast) -> None:
    alice = cast.as_(cast.alice)
    here, _ = user_sessions.begin(session, alice, method="password")
    user_sessions.begin(session, alice, method="password")
    accounts.change_password(session, alice, old=PASSWORD, new=NEW, again=NEW, here=here)
    assert [each.id for each in user_sessions.of_person(session, cast.alice, LIMITS)] == [here.id]
    assert accounts.signed_in(session, "alice", NEW)
    assert not accounts.signed_in(session, "alice", PASSWORD)
    assert (newest_event(session).action, newest_event(session).changes) == (
        "password_changed",
        {"other_sessions": [1, 0]},
    )


@pytest.mark.parametrize(
    ("old", "new", "again", "fields"),
    [
        ("not it at all", NEW, NEW, {"old"}),
        (PASSWORD, "short", "short", {"new"}),
        (PASSWORD, PASSWORD, PASSWORD, {"new"}),
        (PASSWORD, NEW, NEW + "!", {"again"}),
        ("", "", "x", {"old", "new", "again"}),
    ],
)
def test_a_change_that_is_refused_changes_nothing(
    session: Session, cast: Cast, old: str, new: str, again: str, fields: set[str]
) -> None:
    user_sessions.begin(session, cast.as_(cast.alice), method="password")
    with pytest.raises(Invalid) as refused:
        accounts.change_password(session, cast.as_(cast.alice), old=old, new=new, again=again)
    assert set(refused.value.problems) == fields
    assert len(user_sessions.of_person(session, cast.alice, LIMITS)) == 1
    assert accounts.signed_in(session, "alice", PASSWORD)


def test_a_reset_password_ends_all_sessions_and_must_be_changed(session: Session, cast: Cast) -> None:
    user_sessions.begin(session, cast.as_(cast.bob), method="password")
    accounts.reset_password(session, cast.as_(cast.dana), cast.bob, NEW)
    assert user_sessions.of_person(session, cast.bob, LIMITS) == []
    assert cast.bob.must_change_password
    assert newest_event(session).action == "password_reset"
    accounts.change_password(session, cast.as_(cast.bob), old=NEW, new=PASSWORD, again=PASSWORD)
    assert not cast.bob.must_change_password
    with pytest.raises(Refusal):
        accounts.reset_password(session, cast.as_(cast.dana), cast.bob, "short")


def waits(engine: Engine) -> bool:
    """Whether somebody waits for a row that somebody else holds."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with engine.connect() as connection:
        return bool(connection.scalar(text(query)))


@pytest.mark.parametrize("act", ["sign in", "change it"])
def test_a_password_that_is_replaced_while_it_is_looked_at_is_good_for_nothing(own_database: str, act: str) -> None:
    engine = create_engine(own_database)
    with Session(engine) as session:
        bob_id = Cast(session).bob.id

    def come() -> object:
        with Session(engine) as session:
            if act == "sign in":
                return accounts.signed_in(session, "bob", PASSWORD)
            bob = Cast.as_(session.get_one(User, bob_id))
            try:
                return accounts.change_password(session, bob, old=PASSWORD, new=NEW + "!", again=NEW + "!")
            except Invalid as refused:
                return refused.problems.get("old")

    with Session(engine) as session, ThreadPoolExecutor(1) as threads:
        accounts.reset_password(session, SYSTEM, session.get_one(User, bob_id), NEW)
        session.flush()
        came = threads.submit(come)
        while not waits(engine):
            assert not came.done(), "nobody waited"
        session.commit()
        assert came.result(30) in (None, ["This is not your present password."])
        assert accounts.signed_in(session, "bob", NEW)
    engine.dispose()


def test_the_first_administrator_is_made_once_with_a_generated_password(session: Session) -> None:
    generated = accounts.ensure_first_administrator(session, "")
    assert generated is not None
    root = accounts.signed_in(session, "root", generated)
    assert root is not None
    assert root.admin
    assert accounts.ensure_first_administrator(session, "") is None
    assert session.scalar(select(func.count()).select_from(User)) == 1


def test_a_given_password_of_the_first_administrator_is_used_and_not_handed_back(session: Session) -> None:
    assert accounts.ensure_first_administrator(session, PASSWORD) is None
    assert accounts.signed_in(session, "root", PASSWORD)


def test_no_administrator_is_made_where_there_is_one(session: Session, cast: Cast) -> None:
    assert accounts.ensure_first_administrator(session, "") is None
    assert accounts.find(session, "root") is None
