"""Accounts at a provider: whom they belong to, who gets one here, and what their groups give."""

import threading

import pytest
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session

from portal.config import MappedRole
from portal.database import now
from portal.domain.actors import visitor
from portal.domain.errors import IdentityRefused, Invalid, NotFound
from portal.domain.groups import groups, memberships
from portal.domain.people import accounts, openid_accounts, people
from portal.domain.people.openid_accounts import Identity, Rules
from portal.models import AuditEvent, Membership, Role, User, UserIdentity
from tests.cast import PASSWORD, SYSTEM, Cast

ISSUER = "https://sso.example.com"
VISITOR = visitor(address="192.0.2.9", request_id="request-of-a-test")
MAPPING = (
    MappedRole("ops", "", "administrator"),
    MappedRole("developers", "acme", "developer"),
    MappedRole("leads", "ACME", "maintainer"),
    MappedRole("testers", "acme/web", "maintainer"),
    MappedRole("gone", "acme/gone", "owner"),
)
OPEN = Rules(create=True, roles=MAPPING)


def identity(subject: str = "7", *groups: str, **more: object) -> Identity:
    told = {"username": "frank", "name": "Frank Lee", "email": "frank@example.com", **more}
    return Identity(ISSUER, subject, groups=frozenset(groups), **told)  # type: ignore[arg-type]


def enter(session: Session, *groups: str, subject: str = "7", rules: Rules = OPEN, **more: object) -> User:
    return openid_accounts.signed_in(session, VISITOR, identity(subject, *groups, **more), rules)


def given(session: Session, user: User) -> dict[str, Role]:
    """Role by kind of scope of what was given to somebody, and whether by hand."""
    session.flush()
    rows = session.scalars(select(Membership).where(Membership.user_id == user.id))
    return {
        f"{'project' if row.project_id else 'group'}{'' if row.from_openid else ' by hand'}": row.role for row in rows
    }


def actions(session: Session) -> list[str]:
    session.flush()
    return list(session.scalars(select(AuditEvent.action).order_by(AuditEvent.id)))


# Refusals


@pytest.mark.parametrize(
    ("rules", "more", "reason"),
    [
        (Rules(), {}, "no account"),
        (Rules(passwords=False), {}, "no account"),
        (OPEN, {"email": ""}, "no e-mail address"),
        (OPEN, {"email": "not an address"}, "no account could be made"),
        (OPEN, {"email_refuted": True}, "e-mail address not verified"),
        (OPEN, {"email": "Alice@ACME.example"}, "e-mail address taken"),
    ],
)
def test_who_gets_no_account_is_told_why(
    session: Session, cast: Cast, rules: Rules, more: dict[str, object], reason: str
) -> None:
    before = session.scalar(select(func.count()).select_from(User))
    with pytest.raises(IdentityRefused) as refused:
        enter(session, rules=rules, **more)
    assert refused.value.reason == reason
    assert str(refused.value).endswith(".")
    assert session.scalar(select(func.count()).select_from(User)) == before
    assert session.scalars(select(UserIdentity)).all() == []


def test_the_same_subject_at_another_issuer_is_somebody_else(session: Session, cast: Cast) -> None:
    enter(session)
    with pytest.raises(IdentityRefused):
        openid_accounts.signed_in(session, VISITOR, Identity("https://evil.example", "7"), Rules())


def test_who_is_blocked_does_not_come_in_and_loses_and_gains_nothing(session: Session, cast: Cast) -> None:
    user = enter(session, "developers")
    people.block(session, cast.as_(cast.dana), user)
    with pytest.raises(IdentityRefused, match="blocked"):
        enter(session, "ops")
    assert (user.admin, given(session, user)) == (False, {"group": Role.DEVELOPER})


def test_a_refusal_stands_on_the_trail_with_issuer_and_subject(session: Session, cast: Cast) -> None:
    refusal = IdentityRefused("No.", reason="no account")
    openid_accounts.record_refusal(session, VISITOR, identity(), refusal)
    session.flush()
    event = session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc())).first()
    assert event is not None
    assert (event.action, event.actor_kind, event.address) == ("sign_in_refused", "visitor", "192.0.2.9")
    assert event.changes["subject"] == [None, "7"]


# First use


def test_a_new_person_has_no_password_and_nothing_to_change(session: Session, cast: Cast) -> None:
    user = enter(session)
    assert (user.username, user.name, user.email) == ("frank", "Frank Lee", "frank@example.com")
    assert (user.password_digest, user.must_change_password, user.admin) == (None, False, False)
    assert accounts.signed_in(session, "frank", "") is None
    assert actions(session)[-2:] == ["person_created", "identity_connected"]


@pytest.mark.parametrize(
    ("more", "username"),
    [
        ({"username": "alice"}, "alice-2"),
        ({"username": "ALICE"}, "ALICE-2"),
        ({"username": "frank@corp.example"}, "frank"),
        ({"username": "Frank Lee/ops"}, "Frank-Lee-ops"),
        ({"username": "", "email": "f.lee@example.com"}, "f.lee"),
        ({"username": "日本", "email": "日本@example.com", "name": "日本"}, "person"),
        ({"username": "admin"}, "frank"),  # reserved: the address helps out
        ({"username": "x" * 400}, "x" * 200),
        ({"username": "...", "email": "a@example.com"}, "a"),
    ],
)
def test_a_user_name_is_made_that_is_valid_and_nobodys(
    session: Session, cast: Cast, more: dict[str, str], username: str
) -> None:
    assert enter(session, **more).username == username


def test_the_number_goes_up_until_the_name_is_free(session: Session, cast: Cast) -> None:
    names = [enter(session, subject=str(n), email=f"f{n}@example.com").username for n in range(3)]
    assert names == ["frank", "frank-2", "frank-3"]


def test_what_changes_at_the_provider_changes_nobodys_account(session: Session, cast: Cast) -> None:
    user = enter(session)
    again = enter(session, username="alice", name="Alice", email="alice@acme.example", rules=Rules())
    assert again is user
    assert (user.username, user.email) == ("frank", "frank@example.com")


def test_two_first_sign_ins_at_once_make_one_account(own_database: str) -> None:
    engine = create_engine(own_database)
    gate, found, failed = threading.Barrier(4), [], []

    def go() -> None:
        try:
            with Session(engine) as session:
                gate.wait(30)
                found.append(enter(session, rules=Rules(create=True)).id)
                session.commit()
        except Exception as problem:
            failed.append(problem)

    racers = [threading.Thread(target=go) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(User)) == 1
        assert session.scalar(select(func.count()).select_from(UserIdentity)) == 1
    engine.dispose()
    assert failed == []
    assert len(set(found)) == 1


# Roles


def test_the_highest_role_of_several_groups_counts_whatever_the_case_of_the_path(
    session: Session, cast: Cast
) -> None:
    user = enter(session, "developers", "leads", "testers", "strangers")
    assert given(session, user) == {"group": Role.MAINTAINER, "project": Role.MAINTAINER}


def test_a_path_that_does_not_exist_gives_nothing(session: Session, cast: Cast) -> None:
    assert given(session, enter(session, "gone")) == {}


def test_a_role_is_raised_and_lowered_with_the_groups(session: Session, cast: Cast) -> None:
    user = enter(session, "developers")
    enter(session, "leads")
    assert given(session, user) == {"group": Role.MAINTAINER}
    enter(session, "developers")
    assert given(session, user) == {"group": Role.DEVELOPER}
    enter(session)
    assert given(session, user) == {}
    told = [each for each in actions(session) if each.startswith("member_")]
    assert told[-4:] == ["member_added", "member_role_changed", "member_role_changed", "member_removed"]


def test_nothing_changed_leaves_no_event(session: Session, cast: Cast) -> None:
    enter(session, "developers", "ops")
    before = actions(session)
    enter(session, "developers", "ops")
    assert actions(session) == before


def test_a_role_that_was_given_by_hand_stays_as_it_is(session: Session, cast: Cast) -> None:
    user = enter(session)
    cast.member(user, cast.acme, Role.REPORTER)
    enter(session, "leads")
    assert given(session, user) == {"group by hand": Role.REPORTER}
    enter(session)
    assert given(session, user) == {"group by hand": Role.REPORTER}


def test_groups_that_the_provider_did_not_list_change_nothing(session: Session, cast: Cast) -> None:
    user = enter(session, "developers", "ops")
    told = Identity(ISSUER, "7", groups=None)
    openid_accounts.signed_in(session, VISITOR, told, OPEN)
    assert (user.admin, given(session, user)) == (True, {"group": Role.DEVELOPER})


def test_a_mapping_that_is_gone_gives_nothing_any_more(session: Session, cast: Cast) -> None:
    user = enter(session, "developers", "ops")
    enter(session, "developers", "ops", rules=Rules())
    assert (user.admin, given(session, user)) == (False, {})


def test_who_was_made_an_administrator_by_hand_stays_one(session: Session, cast: Cast) -> None:
    user = enter(session)
    people.set_administrator(session, cast.as_(cast.dana), user, True)
    enter(session, "ops")
    enter(session)
    assert user.admin


def test_an_administrators_word_takes_over_from_the_mapping(session: Session, cast: Cast) -> None:
    user = enter(session, "ops")
    people.set_administrator(session, cast.as_(cast.dana), user, False)
    people.set_administrator(session, cast.as_(cast.dana), user, True)
    enter(session)
    assert user.admin


def test_the_last_administrator_stays_one(session: Session, cast: Cast) -> None:
    user = enter(session, "ops")
    people.set_administrator(session, SYSTEM, cast.dana, False)
    enter(session)
    assert user.admin
    people.set_administrator(session, SYSTEM, cast.dana, True)
    enter(session)
    assert not user.admin


def test_only_administrators_change_by_hand_what_single_sign_on_gave(session: Session, cast: Cast) -> None:
    user = enter(session, "developers")
    for act in (
        lambda who: memberships.change_role(session, who, cast.acme, user.id, Role.OWNER),
        lambda who: memberships.remove(session, who, cast.acme, user.id),
    ):
        with pytest.raises(Invalid, match="Single sign-on gives Frank Lee this role"):
            act(cast.as_(cast.alice))
    memberships.change_role(session, cast.as_(cast.dana), cast.acme, user.id, Role.REPORTER)
    enter(session)
    assert given(session, user) == {"group by hand": Role.REPORTER}


def test_people_may_leave_by_themselves(session: Session, cast: Cast) -> None:
    user = enter(session, "developers")
    memberships.remove(session, cast.as_(user), cast.acme, user.id)
    assert given(session, user) == {}


def test_a_deleted_place_is_passed_over_and_keeps_the_role_for_its_return(session: Session, cast: Cast) -> None:
    user = enter(session, "testers")
    groups.delete(session, cast.as_(cast.dana), cast.web)
    enter(session)
    enter(session, "testers")
    assert given(session, user) == {"project": Role.MAINTAINER}


# Connecting and disconnecting


def test_alice_connects_once_and_comes_in_as_herself(session: Session, cast: Cast) -> None:
    alice = cast.as_(cast.alice)
    made = openid_accounts.connect(session, alice, identity())
    assert openid_accounts.connect(session, alice, identity()) is made
    assert enter(session, rules=Rules()) is cast.alice
    assert actions(session).count("identity_connected") == 1


def test_nobody_connects_what_is_somebody_elses(session: Session, cast: Cast) -> None:
    openid_accounts.connect(session, cast.as_(cast.alice), identity())
    with pytest.raises(IdentityRefused):
        openid_accounts.connect(session, cast.as_(cast.bob), identity())
    with pytest.raises(NotFound):
        openid_accounts.connect(session, VISITOR, identity("8"))


def test_the_only_way_in_stays(session: Session, cast: Cast) -> None:
    user = enter(session)
    only = openid_accounts.of_person(session, user)[0]
    with pytest.raises(Invalid, match="only way"):
        openid_accounts.disconnect(session, cast.as_(user), only.id, OPEN)
    second = openid_accounts.connect(session, cast.as_(user), identity("8"))
    openid_accounts.disconnect(session, cast.as_(user), only.id, OPEN)
    assert openid_accounts.of_person(session, user) == [second]


def test_a_password_is_a_way_in_only_where_passwords_count(session: Session, cast: Cast) -> None:
    mine = openid_accounts.connect(session, cast.as_(cast.alice), identity())
    with pytest.raises(Invalid):
        openid_accounts.disconnect(session, cast.as_(cast.alice), mine.id, Rules(passwords=False))
    openid_accounts.disconnect(session, cast.as_(cast.alice), mine.id, Rules())
    assert accounts.signed_in(session, "alice", PASSWORD) is cast.alice


def test_nobody_disconnects_what_is_somebody_elses(session: Session, cast: Cast) -> None:
    mine = openid_accounts.connect(session, cast.as_(cast.alice), identity())
    for who in (cast.bob, cast.dana):
        with pytest.raises(NotFound):
            openid_accounts.disconnect(session, cast.as_(who), mine.id, OPEN)


def test_with_the_last_identity_go_the_roles_that_its_groups_gave(session: Session, cast: Cast) -> None:
    mine = openid_accounts.connect(session, cast.as_(cast.charlie), identity())
    enter(session, "developers", "ops")
    openid_accounts.disconnect(session, cast.as_(cast.charlie), mine.id, OPEN)
    assert (cast.charlie.admin, given(session, cast.charlie)) == (False, {})


def test_only_ones_own_identity_confirms(session: Session, cast: Cast) -> None:
    openid_accounts.connect(session, cast.as_(cast.alice), identity())
    openid_accounts.confirmed(session, cast.as_(cast.alice), identity())
    for who, what in ((cast.bob, identity()), (cast.alice, identity("8"))):
        with pytest.raises(IdentityRefused):
            openid_accounts.confirmed(session, cast.as_(who), what)


def test_the_last_use_is_kept(session: Session, cast: Cast) -> None:
    user = enter(session)
    used = openid_accounts.of_person(session, user)[0].last_used_at
    assert used is not None
    assert used <= now()
