"""People, as administrators look after them; and that there is always somebody who can sign in and do so."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, func, insert, select, update
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import actors
from portal.domain.actors import Actor
from portal.domain.bulk import bulk_acts
from portal.domain.bulk.bulk_changes import Act as BulkDeed
from portal.domain.bulk.bulk_changes import Wanted
from portal.domain.deletions import restores
from portal.domain.errors import Hidden, Invalid, LastAdministrator, NotAllowed, NotFound, Refusal, Stale
from portal.domain.groups import memberships
from portal.domain.people import access_tokens, accounts, people, people_lists, person_deletion, person_facts
from portal.domain.people import user_sessions as sessions
from portal.domain.people.access_tokens import NewAccessToken
from portal.domain.people.people_lists import PeopleFilter, Standing
from portal.domain.people.person_deletion import Runners
from portal.domain.runners.runner_lists import RunnerFilter
from portal.domain.scopes import find_group
from portal.models import (
    AccessToken,
    AuditEvent,
    Deletion,
    Membership,
    Role,
    Runner,
    SecondFactor,
    User,
    UserIdentity,
    UserSession,
)
from tests.cast import PASSWORD, SYSTEM, Cast

Act = Callable[[Session, Actor, User], object]
ACTS: dict[str, Act] = {
    "edit": lambda s, a, u: people.edit(s, a, u, username="fred", name="Fred", email="fred@acme.example"),
    "block": people.block,
    "unblock": people.unblock,
    "make administrator": lambda s, a, u: people.set_administrator(s, a, u, True),
    "demote": lambda s, a, u: people.set_administrator(s, a, u, False),
    "end sessions": people.end_sessions,
    "new password": people.new_password,
    "delete": lambda s, a, u: person_deletion.delete_person(s, a, u, created=Runners.KEEP),
}
TAKING = {name: ACTS[name] for name in ("block", "demote", "delete")}


def newest(session: Session) -> AuditEvent:
    return session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc()).limit(1)).one()


def actions(session: Session) -> list[str]:
    return list(session.scalars(select(AuditEvent.action).order_by(AuditEvent.id)))


def signed_in(session: Session, cast: Cast, user: User, number: int = 1) -> None:
    for _ in range(number):
        sessions.begin(session, cast.as_(user), method="password")


# Who may not


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("who", ["alice", "charlie"])
def test_nobody_but_an_administrator_does_anything_with_people(
    session: Session, cast: Cast, who: str, act: str
) -> None:
    before = len(actions(session))
    with pytest.raises((NotFound, NotAllowed)):
        ACTS[act](session, cast.as_(getattr(cast, who)), cast.bob)
    assert len(actions(session)) == before
    assert (cast.bob.admin, cast.bob.blocked_at, cast.bob.username) == (False, None, "bob")


@pytest.mark.parametrize("act", TAKING)
def test_the_last_administrator_stays(session: Session, cast: Cast, act: str) -> None:
    with pytest.raises(LastAdministrator) as refused:
        TAKING[act](session, SYSTEM, cast.dana)
    assert "Make somebody else an administrator first" in str(refused.value)
    assert (cast.dana.admin, cast.dana.blocked_at) == (True, None)


@pytest.mark.parametrize("act", TAKING)
@pytest.mark.parametrize("other", ["blocked", "without a way to sign in"])
def test_an_administrator_who_cannot_sign_in_does_not_count(
    session: Session, cast: Cast, act: str, other: str
) -> None:
    cast.alice.admin = True
    if other == "blocked":
        cast.alice.blocked_at = now()
    else:
        cast.alice.password_digest = None
    session.flush()
    with pytest.raises(LastAdministrator):
        TAKING[act](session, SYSTEM, cast.dana)


def test_an_administrator_who_signs_in_at_a_provider_counts(session: Session, cast: Cast) -> None:
    cast.alice.admin, cast.alice.password_digest = True, None
    session.add(UserIdentity(user=cast.alice, issuer="https://id.example", subject="1"))
    session.flush()
    assert people.set_administrator(session, SYSTEM, cast.dana, False)


@pytest.mark.parametrize("act", ["block", "delete"])
def test_nobody_shuts_themselves_out(session: Session, cast: Cast, act: str) -> None:
    people.set_administrator(session, SYSTEM, cast.alice, True)
    with pytest.raises(Invalid, match="Ask another administrator"):
        ACTS[act](session, cast.as_(cast.dana), cast.dana)


def test_an_administrator_may_step_back_while_another_stays(session: Session, cast: Cast) -> None:
    people.set_administrator(session, SYSTEM, cast.alice, True)
    dana = cast.as_(cast.dana)
    assert people.set_administrator(session, dana, cast.dana, False)
    with pytest.raises(NotFound):
        people.block(session, dana, cast.bob)


# Blocking


def test_a_blocked_person_is_signed_out_everywhere_and_the_runners_go_on(session: Session, cast: Cast) -> None:
    runner = cast.runner().runner
    people.set_administrator(session, SYSTEM, cast.alice, True)
    signed_in(session, cast, cast.dana, 3)
    assert people.block(session, cast.as_(cast.alice), cast.dana) == 3
    assert session.scalar(select(func.count()).where(UserSession.user_id == cast.dana.id)) == 0
    assert (newest(session).action, newest(session).changes) == ("person_blocked", {"sessions": [3, 0]})
    assert (runner.active, runner.creator_id) == (True, cast.dana.id)
    assert people.block(session, cast.as_(cast.alice), cast.dana) == 0
    assert actions(session).count("person_blocked") == 1


def test_a_session_that_began_while_its_person_was_being_blocked_never_comes_to_life(
    session: Session, cast: Cast
) -> None:
    dana = cast.as_(cast.dana)
    people.block(session, dana, cast.bob)
    signed_in(session, cast, cast.bob)
    assert people.unblock(session, dana, cast.bob)
    assert session.scalar(select(func.count()).where(UserSession.user_id == cast.bob.id)) == 0
    assert newest(session).action == "person_unblocked"
    assert not people.unblock(session, dana, cast.bob)
    assert actions(session).count("person_unblocked") == 1


# Editing and passwords


def test_an_edit_leaves_old_and_new_values(session: Session, cast: Cast) -> None:
    changed = {"username": " robert ", "name": "Robert Ray", "email": cast.bob.email}
    assert people.edit(session, cast.as_(cast.dana), cast.bob, **changed)
    assert (cast.bob.username, cast.bob.name) == ("robert", "Robert Ray")
    event = newest(session)
    assert (event.action, event.target_id) == ("person_changed", cast.bob.id)
    assert event.changes == {"username": ["bob", "robert"], "name": ["Bob Ray", "Robert Ray"]}


def test_an_edit_that_changes_nothing_leaves_nothing(session: Session, cast: Cast) -> None:
    before = len(actions(session))
    same = {"username": "bob", "name": "Bob Ray", "email": "bob@acme.example"}
    assert not people.edit(session, cast.as_(cast.dana), cast.bob, **same)
    assert len(actions(session)) == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("username", ""),
        ("username", "ALICE"),
        ("username", "admin"),
        ("name", " "),
        ("email", "x"),
        ("email", "Alice@acme.example"),
    ],
)
def test_an_edit_is_checked_as_a_new_person_is(session: Session, cast: Cast, field: str, value: str) -> None:
    given = {"username": "bob", "name": "Bob Ray", "email": "bob@acme.example", field: value}
    with pytest.raises(Invalid) as refused:
        people.edit(session, cast.as_(cast.dana), cast.bob, **given)
    assert list(refused.value.problems) == [field]
    assert (cast.bob.username, cast.bob.email) == ("bob", "bob@acme.example")


def test_a_change_of_case_is_no_clash_with_oneself(session: Session, cast: Cast) -> None:
    assert people.edit(session, cast.as_(cast.dana), cast.bob, username="Bob", name="Bob", email="Bob@acme.example")


def test_an_edit_of_what_somebody_else_changed_meanwhile_is_refused(session: Session, cast: Cast) -> None:
    dana, seen = cast.as_(cast.dana), people.version(cast.bob)
    people.edit(session, dana, cast.bob, username="bob", name="Bobby", email=cast.bob.email)
    with pytest.raises(Stale):
        people.edit(session, dana, cast.bob, username="bob", name="Bert", email=cast.bob.email, seen=seen)
    assert cast.bob.name == "Bobby"


def test_the_same_reset_sent_twice_makes_one_password(session: Session, cast: Cast) -> None:
    dana, seen = cast.as_(cast.dana), people.password_version(cast.bob)
    password = people.new_password(session, dana, cast.bob, seen=seen)
    with pytest.raises(Stale):
        people.new_password(session, dana, cast.bob, seen=seen)
    assert accounts.signed_in(session, "bob", password) == cast.bob
    assert actions(session).count("password_reset") == 1


def test_ending_sessions_leaves_a_trace_only_when_there_were_some(session: Session, cast: Cast) -> None:
    dana = cast.as_(cast.dana)
    signed_in(session, cast, cast.bob, 2)
    assert people.end_sessions(session, dana, cast.bob) == 2
    assert newest(session).changes == {"sessions": [2, 0]}
    assert people.end_sessions(session, dana, cast.bob) == 0
    assert actions(session).count("sessions_ended") == 1


# Deleting


def creator(session: Session, cast: Cast, runners: int = 2) -> list[int]:
    """Bob, as the creator of runners of acme and acme/web."""
    ids = [cast.runner(cast.web if number % 2 else cast.acme).runner.id for number in range(runners)]
    session.execute(update(Runner).where(Runner.id.in_(ids)).values(creator_id=cast.bob.id))
    session.commit()
    return ids


@pytest.mark.parametrize(("choice", "left", "active"), [("keep", 2, True), ("pause", 2, False), ("delete", 0, None)])
def test_what_becomes_of_the_runners_is_chosen(
    session: Session, cast: Cast, choice: str, left: int, active: bool | None
) -> None:
    ids = creator(session, cast)
    gone = person_deletion.delete_person(session, cast.as_(cast.dana), cast.bob, created=Runners(choice))
    assert (gone.roles, gone.runners) == (1, 2)
    session.expire_all()
    found = session.scalars(select(Runner).where(Runner.id.in_(ids))).all()
    assert len(found) == left
    assert {(each.creator_id, each.active) for each in found} == ({(None, active)} if left else set())
    event = newest(session)
    done = {"keep": "kept", "pause": "paused", "delete": "deleted"}[choice]
    assert (event.action, event.target_name) == ("person_deleted", "Bob Ray")
    assert event.changes == {
        "username": ["bob", None],
        "roles": [1, 0],
        "sessions": [0, 0],
        "runners_created": [2, done],
    }
    assert accounts.find(session, "bob") is None


def test_runners_that_go_with_a_person_go_by_one_act(session: Session, cast: Cast) -> None:
    ids = creator(session, cast)
    person_deletion.delete_person(session, cast.as_(cast.dana), cast.bob, created=Runners.DELETE)
    query = select(Runner.deletion_id).where(Runner.id.in_(ids)).execution_options(with_deleted=True)
    assert len(set(session.scalars(query))) == 1
    assert None not in set(session.scalars(query))


def test_a_single_runner_that_goes_with_a_person_says_where_it_was(session: Session, cast: Cast) -> None:
    creator(session, cast, 1)
    person_deletion.delete_person(session, cast.as_(cast.dana), cast.bob, created=Runners.DELETE)
    deletion = session.scalars(select(Deletion)).one()
    assert (deletion.kind, deletion.path, deletion.actor_name) == ("runner", "acme", "Dana Kay")


def test_what_a_deleted_person_had_started_is_stopped_and_the_trail_says_how_far_it_came(
    session: Session, cast: Cast
) -> None:
    for _ in range(3):
        cast.runner(cast.web)
    bob = cast.as_(cast.bob)
    act = bulk_acts.draft(session, bob, cast.web, Wanted(BulkDeed.DELETE), RunnerFilter())
    bulk_acts.start(session, bob, act.id)
    bulk_acts.take_batch(session, act.id, size=2)
    deletion_id = act.deletion_id or 0
    person_deletion.delete_person(session, cast.as_(cast.dana), cast.bob, created=Runners.KEEP)
    stopped = session.scalars(select(AuditEvent).where(AuditEvent.action == "bulk_act_stopped")).one()
    assert (stopped.actor_name, stopped.changes["changed"], stopped.changes["not_done"]) == (
        "Dana Kay", [None, 2], [None, 1],
    )  # fmt: skip
    assert bulk_acts.unfinished(session) == []
    back = restores.restore(session, cast.as_(cast.alice), deletion_id, timedelta(days=7))
    assert len(back.runners) == 2


def test_too_many_runners_are_not_paused_in_one_answer(
    session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(person_deletion, "AT_ONCE", 1)
    creator(session, cast)
    with pytest.raises(Invalid) as refused:
        person_deletion.delete_person(session, cast.as_(cast.dana), cast.bob, created=Runners.PAUSE)
    assert list(refused.value.problems) == ["created"]
    assert session.scalar(select(func.count()).where(Membership.user_id == cast.bob.id)) == 1
    assert person_deletion.delete_person(session, cast.as_(cast.dana), cast.bob, created=Runners.KEEP).runners == 2


def test_a_group_is_not_left_without_an_owner_unless_that_is_said(session: Session, cast: Cast) -> None:
    dana, alice_id = cast.as_(cast.dana), cast.alice.id
    assert [group.full_path for group in person_facts.last_owner_of(session, cast.alice)] == ["acme"]
    before = len(actions(session))
    with pytest.raises(Invalid) as refused:
        person_deletion.delete_person(session, dana, cast.alice, created=Runners.KEEP)
    assert "Nobody else owns acme" in str(refused.value)
    assert len(actions(session)) == before
    assert session.scalar(select(func.count()).where(Membership.user_id == alice_id)) == 1
    person_deletion.delete_person(session, dana, cast.alice, created=Runners.KEEP, leave_groups=True)
    assert session.get(User, alice_id) is None
    assert "member_removed" in actions(session)


def test_a_group_with_another_owner_asks_nothing(session: Session, cast: Cast) -> None:
    cast.member(cast.charlie, cast.acme, Role.OWNER)
    assert not person_facts.last_owner_of(session, cast.alice)
    person_deletion.delete_person(session, cast.as_(cast.dana), cast.alice, created=Runners.KEEP)


def test_all_that_was_theirs_goes_and_the_trail_stays(session: Session, cast: Cast) -> None:
    signed_in(session, cast, cast.bob)
    session.add(UserIdentity(user=cast.bob, issuer="https://id.example", subject="1"))
    session.commit()
    bob_id = cast.bob.id
    person_deletion.delete_person(session, cast.as_(cast.dana), cast.bob, created=Runners.KEEP)
    for table in (UserSession, UserIdentity, Membership):
        assert session.scalar(select(func.count()).where(table.user_id == bob_id)) == 0
    assert session.scalar(select(func.count()).where(AuditEvent.actor_id == bob_id, AuditEvent.action == "signed_in"))


# The list


def test_the_list_goes_on_page_by_page_and_back(session: Session, cast: Cast) -> None:
    def names(page: people_lists.Page) -> list[str]:
        return [row.user.username for row in page.rows]

    first = people_lists.page(session, PeopleFilter(), size=2)
    assert (names(first), first.before) == (["alice", "bob"], None)
    second = people_lists.page(session, PeopleFilter(), after=first.after or "", size=2)
    assert names(second) == ["charlie", "dana"]
    third = people_lists.page(session, PeopleFilter(), after=second.after or "", size=2)
    assert (names(third), third.after) == (["erin"], None)
    back = people_lists.page(session, PeopleFilter(), before=third.before or "", size=2)
    assert names(back) == ["charlie", "dana"]
    assert names(people_lists.page(session, PeopleFilter(), before=back.before or "", size=2)) == ["alice", "bob"]


def test_each_filter_finds_its_people_and_the_counts_say_how_many(session: Session, cast: Cast) -> None:
    cast.alice.blocked_at = now()
    cast.bob.last_signed_in_at = now()
    session.add(SecondFactor(user_id=cast.dana.id, ciphertext=b"x", last_step=0, confirmed_at=now()))
    session.flush()

    def found(**wanted: Any) -> list[str]:
        return [row.user.username for row in people_lists.page(session, PeopleFilter(**wanted)).rows]

    assert found(standing=Standing.BLOCKED) == ["alice"]
    assert found(standing=Standing.ACTIVE) == ["bob"]
    assert found(standing=Standing.NEVER) == ["charlie", "dana", "erin"]
    assert found(administrators=True) == ["dana"]
    assert found(without_second_factor=True) == ["alice", "bob", "charlie", "erin"]
    assert found(words="LAM", standing=Standing.BLOCKED) == ["alice"]
    assert found(words="ray", standing=Standing.BLOCKED) == []
    counts = people_lists.counts(session, PeopleFilter(words="a", standing=Standing.NEVER))
    assert dict(counts) == {
        "total": 3, "administrators": 1, "blocked": 1, "never_signed_in": 3, "without_second_factor": 2,
    }  # fmt: skip


def test_a_page_among_ten_thousand_people_is_one_look_into_the_index(session: Session, cast: Cast) -> None:
    session.execute(
        insert(User),
        [{"username": f"p{n:05}", "name": f"P {n}", "email": f"p{n}@acme.example"} for n in range(10_000)],
    )
    session.connection().exec_driver_sql("ANALYZE users")
    begun = time.perf_counter()
    page = people_lists.page(session, PeopleFilter(), after="p05000")
    people_lists.counts(session, PeopleFilter(words="p 77"))
    assert time.perf_counter() - begun < 1
    assert page.rows[0].user.username == "p05001"
    plan = session.connection().exec_driver_sql(
        "EXPLAIN SELECT * FROM users WHERE lower(username) > 'p05000' ORDER BY lower(username) LIMIT 51"
    )
    assert "uq_users_username_lower" in " ".join(row[0] for row in plan)


# Races


@pytest.fixture
def engine(own_database: str) -> Iterator[Engine]:
    made = create_engine(own_database, pool_size=12)
    yield made
    made.dispose()


class Court:
    """Administrators who do things to each other, each act in a thread and a session of its own."""

    def __init__(self, engine: Engine, number: int) -> None:
        self.engine = engine
        self.refused: list[Refusal] = []
        self.failures: list[Exception] = []
        with Session(engine) as session:
            made = [
                accounts.create_person(
                    session, SYSTEM, username=f"admin{n}", name=f"Admin {n}", email=f"a{n}@acme.example",
                    password=PASSWORD, admin=True,
                )
                for n in range(number)
            ]  # fmt: skip
            session.commit()
            self.ids = [each.id for each in made]

    def do(self, act: Act, who: int, whom: int, start: threading.Barrier) -> None:
        with Session(self.engine) as session:
            # Everybody has opened the page, and was an administrator then.
            actor, target = actors.person(session.get_one(User, who)), session.get_one(User, whom)
            start.wait()
            try:
                act(session, actor, target)
                session.commit()
            except Refusal as refusal:
                self.refused.append(refusal)
            except Exception as failure:
                self.failures.append(failure)

    def at_once(self, *deeds: tuple[Act, int, int]) -> None:
        start = threading.Barrier(len(deeds))
        threads = [threading.Thread(target=self.do, args=(*deed, start)) for deed in deeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert self.failures == []

    def left(self) -> list[int]:
        with Session(self.engine) as session:
            query = select(User.id).where(User.admin, User.blocked_at.is_(None)).order_by(User.id)
            return list(session.scalars(query))


@pytest.mark.parametrize("first", TAKING)
@pytest.mark.parametrize("second", TAKING)
def test_of_two_administrators_who_act_against_each_other_at_once_one_stays(
    engine: Engine, first: str, second: str
) -> None:
    court = Court(engine, 2)
    one, two = court.ids
    court.at_once((TAKING[first], one, two), (TAKING[second], two, one))
    assert len(court.left()) == 1
    assert len(court.refused) == 1


def test_of_many_who_act_against_each_other_at_once_somebody_stays(engine: Engine) -> None:
    court = Court(engine, 6)
    chance, acts = random.Random(4), list(TAKING.values())  # noqa: S311
    deeds = [(chance.choice(acts), *chance.sample(court.ids, 2)) for _ in range(10)]
    court.at_once(*deeds)
    assert court.left()


def test_all_who_step_back_at_once_do_but_one(engine: Engine) -> None:
    court = Court(engine, 5)
    court.at_once(*[(TAKING["demote"], each, each) for each in court.ids])
    assert len(court.left()) == 1
    assert [type(each) for each in court.refused] == [LastAdministrator]


def test_the_last_two_owners_who_go_at_once_do_not_leave_their_group_alone(engine: Engine) -> None:
    """One is deleted while the other's role is taken away: whoever comes second is told."""
    with Session(engine) as session:
        cast = Cast(session)
        cast.member(cast.charlie, cast.acme, Role.OWNER)
        session.commit()
        dana, alice, charlie, path = cast.dana.id, cast.alice.id, cast.charlie.id, "acme"
    refused: list[Refusal] = []
    start = threading.Barrier(2)

    def run(act: Callable[[Session, Actor], object]) -> None:
        with Session(engine) as session:
            actor = actors.person(session.get_one(User, dana))
            start.wait()
            try:
                act(session, actor)
                session.commit()
            except Refusal as refusal:
                refused.append(refusal)

    def delete(session: Session, actor: Actor) -> None:
        person_deletion.delete_person(session, actor, session.get_one(User, alice), created=Runners.KEEP)

    def remove(session: Session, actor: Actor) -> None:
        memberships.remove(session, actor, find_group(session, path), charlie)

    threads = [threading.Thread(target=run, args=(each,)) for each in (delete, remove)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    with Session(engine) as session:
        assert session.scalar(select(func.count()).where(Membership.access_level == Role.OWNER)) == 1


@pytest.mark.parametrize("deed", ["a new administrator", "a token of the other", "the other's token in a new form"])
def test_who_is_demoted_meanwhile_leaves_nobody_and_nothing_that_outlives_it(engine: Engine, deed: str) -> None:
    """The look at who asks is taken when everybody else's acts on administrators are over."""
    court = Court(engine, 2)
    one, two = court.ids
    longest, wanted = timedelta(days=30), NewAccessToken("a", ("api",), now().date() + timedelta(days=9))
    with Session(engine) as session:
        owner = session.get_one(User, one)
        token_id = access_tokens.create(session, actors.person(owner), owner, wanted, longest=longest).record.id
        session.commit()

    def act(session: Session, actor: Actor, target: User) -> object:
        if deed == "a new administrator":
            return people.create(
                session, actor, username="eve", name="Eve", email="eve@acme.example", password=PASSWORD, admin=True
            )
        if deed == "a token of the other":
            return access_tokens.create(session, actor, target, wanted, longest=longest)
        return access_tokens.rotate(session, actor, session.get_one(AccessToken, token_id), longest=longest)

    with Session(engine) as first:
        people.set_administrator(first, SYSTEM, first.get_one(User, two), False)
        start = threading.Barrier(2)
        thread = threading.Thread(target=court.do, args=(act, two, one, start))
        thread.start()
        start.wait()
        time.sleep(0.3)
        first.commit()
        thread.join()
    assert court.failures == []
    assert [type(each) for each in court.refused] == [Hidden]
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(User)) == 2
        assert session.scalars(select(AccessToken.id)).all() == [token_id]


def test_two_who_change_different_things_of_a_person_at_once_keep_both(engine: Engine) -> None:
    court = Court(engine, 2)
    one, two = court.ids
    court.at_once(
        (lambda s, a, u: people.edit(s, a, u, name="Renamed"), one, two),
        (lambda s, a, u: people.edit(s, a, u, email="new@acme.example"), one, two),
    )
    with Session(engine) as session:
        person = session.get_one(User, two)
        assert (person.name, person.email, person.username) == ("Renamed", "new@acme.example", "admin1")
