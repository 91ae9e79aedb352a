"""Members: giving, changing and taking roles, and how far one's own role reaches."""

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.domain import audit
from portal.domain.errors import Invalid, NotAllowed, NotFound, Refusal
from portal.domain.groups import memberships
from portal.domain.groups.memberships import MembersAsked
from portal.domain.scopes import Scope
from portal.models import AuditEvent, Membership, Role
from tests.cast import SYSTEM, Cast


def roles(session: Session, scope: Scope) -> dict[str, tuple[str, str | None]]:
    session.flush()
    return {
        each.membership.user.username: (each.membership.role.name.lower(), each.source.path if each.source else None)
        for each in memberships.listed(session, scope).members
    }


def last_change(session: Session, scope: Scope) -> tuple[str, str, list[str | None]]:
    event = session.scalars(audit.of_scope(scope).limit(1)).one()
    return event.action, event.target_name, event.changes["role"]


def test_a_role_given_here_stands_before_the_inherited_ones(session: Session, cast: Cast) -> None:
    assert list(roles(session, cast.web).items()) == [
        ("bob", ("maintainer", None)),
        ("alice", ("owner", "acme")),
        ("erin", ("developer", "acme")),
    ]
    assert list(roles(session, cast.acme)) == ["alice", "erin"]
    assert roles(session, cast.other) == {}


@pytest.mark.parametrize("login", ["charlie", " Charlie ", "charlie@acme.example", "CHARLIE@ACME.EXAMPLE"])
def test_somebody_is_added_by_user_name_or_address(session: Session, cast: Cast, login: str) -> None:
    memberships.add(session, cast.as_(cast.alice), cast.acme, login, Role.REPORTER)
    assert roles(session, cast.acme)["charlie"] == ("reporter", None)
    assert last_change(session, cast.acme) == ("member_added", "Charlie Fox", [None, "reporter"])


@pytest.mark.parametrize(("login", "sentence"), [("nobody", "nobody called 'nobody'"), ("erin", "member already")])
def test_a_wrong_login_is_told_beside_the_field(session: Session, cast: Cast, login: str, sentence: str) -> None:
    with pytest.raises(Invalid) as refused:
        memberships.add(session, cast.as_(cast.alice), cast.acme, login, Role.GUEST)
    assert sentence in refused.value.problems["login"][0]
    assert roles(session, cast.acme)["erin"] == ("developer", None)


def test_a_maintainer_gives_roles_up_to_their_own(session: Session, cast: Cast) -> None:
    bob = cast.as_(cast.bob)
    memberships.add(session, bob, cast.web, "charlie", Role.MAINTAINER)
    with pytest.raises(NotAllowed, match="above your own"):
        memberships.change_role(session, bob, cast.web, cast.charlie.id, Role.OWNER)
    with pytest.raises(NotAllowed, match="above your own"):
        memberships.add(session, bob, cast.web, "erin", Role.OWNER)
    assert roles(session, cast.web)["charlie"] == ("maintainer", None)


def test_a_maintainer_neither_lowers_nor_removes_an_owner(session: Session, cast: Cast) -> None:
    cast.member(cast.charlie, cast.web, Role.OWNER)
    for act in (
        lambda: memberships.change_role(session, cast.as_(cast.bob), cast.web, cast.charlie.id, Role.GUEST),
        lambda: memberships.remove(session, cast.as_(cast.bob), cast.web, cast.charlie.id),
    ):
        with pytest.raises(NotAllowed):
            act()
    assert roles(session, cast.web)["charlie"] == ("owner", None)


def test_nobody_raises_themselves(session: Session, cast: Cast) -> None:
    with pytest.raises(NotAllowed):
        memberships.change_role(session, cast.as_(cast.bob), cast.web, cast.bob.id, Role.OWNER)


@pytest.mark.parametrize(("who", "refusal"), [("erin", NotAllowed), ("bob", NotFound), ("charlie", NotFound)])
def test_only_owners_manage_the_groups_members(
    session: Session, cast: Cast, who: str, refusal: type[Refusal]
) -> None:
    actor = cast.as_(getattr(cast, who))
    for act in (
        lambda: memberships.add(session, actor, cast.acme, "dana", Role.GUEST),
        lambda: memberships.change_role(session, actor, cast.acme, cast.alice.id, Role.GUEST),
        lambda: memberships.remove(session, actor, cast.acme, cast.alice.id),
    ):
        with pytest.raises(refusal):
            act()
    assert roles(session, cast.acme) == {"alice": ("owner", None), "erin": ("developer", None)}


def test_a_changed_role_is_told_and_the_same_role_is_not(session: Session, cast: Cast) -> None:
    alice = cast.as_(cast.alice)
    memberships.change_role(session, alice, cast.acme, cast.erin.id, Role.MAINTAINER)
    assert last_change(session, cast.acme) == ("member_role_changed", "Erin Day", ["developer", "maintainer"])
    before = session.scalar(select(func.count()).select_from(AuditEvent))
    memberships.change_role(session, alice, cast.acme, cast.erin.id, Role.MAINTAINER)
    assert session.scalar(select(func.count()).select_from(AuditEvent)) == before


def test_an_inherited_role_is_neither_changed_nor_taken_here(session: Session, cast: Cast) -> None:
    with pytest.raises(NotFound):
        memberships.change_role(session, SYSTEM, cast.web, cast.erin.id, Role.OWNER)
    with pytest.raises(NotFound):
        memberships.remove(session, SYSTEM, cast.web, cast.erin.id)


def test_the_last_owner_of_a_top_group_neither_goes_nor_steps_down(session: Session, cast: Cast) -> None:
    for actor in (cast.as_(cast.alice), cast.as_(cast.dana)):
        with pytest.raises(Invalid, match="last owner"):
            memberships.remove(session, actor, cast.acme, cast.alice.id)
        with pytest.raises(Invalid, match="last owner"):
            memberships.change_role(session, actor, cast.acme, cast.alice.id, Role.MAINTAINER)
    assert roles(session, cast.acme)["alice"] == ("owner", None)


def test_an_owner_may_go_when_there_is_another(session: Session, cast: Cast) -> None:
    memberships.change_role(session, cast.as_(cast.alice), cast.acme, cast.erin.id, Role.OWNER)
    memberships.remove(session, cast.as_(cast.alice), cast.acme, cast.alice.id)
    assert roles(session, cast.acme) == {"erin": ("owner", None)}


def test_a_group_below_and_a_project_need_no_owner_of_their_own(session: Session, cast: Cast) -> None:
    for scope in (cast.platform, cast.web):
        cast.member(cast.charlie, scope, Role.OWNER)
        memberships.remove(session, cast.as_(cast.alice), scope, cast.charlie.id)
        assert "charlie" not in roles(session, scope)


def test_people_may_leave_by_themselves(session: Session, cast: Cast) -> None:
    memberships.remove(session, cast.as_(cast.erin), cast.acme, cast.erin.id)
    memberships.remove(session, cast.as_(cast.bob), cast.web, cast.bob.id)
    assert roles(session, cast.acme) == {"alice": ("owner", None)}
    assert roles(session, cast.web) == {"alice": ("owner", "acme")}
    assert last_change(session, cast.web) == ("member_removed", "Bob Ray", ["maintainer", None])


def test_the_database_holds_one_role_per_person_and_scope(session: Session, cast: Cast) -> None:
    given = select(func.count()).select_from(Membership).where(Membership.user_id == cast.erin.id)
    with pytest.raises(Invalid):
        memberships.add(session, SYSTEM, cast.acme, "erin", Role.GUEST)
    assert session.scalar(given) == 1
    memberships.add(session, SYSTEM, cast.platform, "erin", Role.GUEST)
    assert session.scalar(given) == 2


def page(session: Session, cast: Cast, scope: Scope, asked: MembersAsked) -> list[tuple[str, str]]:
    found = memberships.page(session, cast.as_(cast.dana), scope, asked, offset=0, limit=100)
    return [(each.user.username, each.role.name.lower()) for each in found.rows]


def test_a_page_has_everybody_once_with_the_highest_role(session: Session, cast: Cast) -> None:
    cast.member(cast.erin, cast.web, Role.MAINTAINER)
    cast.member(cast.alice, cast.web, Role.GUEST)
    everybody = [("alice", "owner"), ("bob", "maintainer"), ("erin", "maintainer")]
    assert page(session, cast, cast.web, MembersAsked(inherited=True)) == everybody
    assert page(session, cast, cast.web, MembersAsked())[0] == ("alice", "guest")
    assert page(session, cast, cast.web, MembersAsked(user_ids=(cast.bob.id,))) == [("bob", "maintainer")]
    assert page(session, cast, cast.web, MembersAsked(inherited=True, words="DAY")) == [("erin", "maintainer")]


def test_of_equal_roles_the_one_that_was_given_here_counts(session: Session, cast: Cast) -> None:
    cast.member(cast.erin, cast.web, Role.DEVELOPER)
    found = memberships.of_person(session, cast.as_(cast.erin), cast.web, cast.erin.id, inherited=True)
    assert found.project_id == cast.web.id


def test_a_stranger_is_shown_no_members(session: Session, cast: Cast) -> None:
    charlie = cast.as_(cast.charlie)
    with pytest.raises(NotFound):
        memberships.page(session, charlie, cast.acme, MembersAsked(), offset=0, limit=1)
    with pytest.raises(NotFound):
        memberships.of_person(session, charlie, cast.acme, cast.alice.id)


def test_who_may_not_add_members_does_not_learn_whose_a_number_is(session: Session, cast: Cast) -> None:
    for number in (cast.charlie.id, 999_999_999):
        with pytest.raises(NotAllowed):
            memberships.add_by_number(session, cast.as_(cast.erin), cast.acme, number, Role.GUEST)
    with pytest.raises(NotFound) as refused:
        memberships.add_by_number(session, cast.as_(cast.alice), cast.acme, 999_999_999, Role.GUEST)
    assert refused.value.what == "User"


def test_many_members_come_page_by_page_and_back_again(session: Session, cast: Cast) -> None:
    for number in range(5):
        cast.member(cast.person(f"member-{number}", f"Member {4 - number}"), cast.web, Role.GUEST)
    session.flush()
    everybody = [each.membership.id for each in memberships.listed(session, cast.web).members]
    assert len(everybody) == 8
    pages, page = [], memberships.listed(session, cast.web, size=3)
    assert page.before is None
    while True:
        pages.append(page)
        if page.after is None:
            break
        page = memberships.listed(session, cast.web, after=page.after, size=3)
    assert [each.membership.id for page in pages for each in page.members] == everybody
    back = memberships.listed(session, cast.web, before=pages[-1].before, size=3)
    assert [each.membership.id for each in back.members] == everybody[3:6]
    assert memberships.listed(session, cast.web, after=0, size=3) == pages[0]  # a role that has ended
