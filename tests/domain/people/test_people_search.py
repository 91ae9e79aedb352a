"""Who finds whom: what the members pages show or could show, and nothing beyond."""

import pytest
from sqlalchemy.orm import Session

from portal.domain.errors import NotAllowed, NotFound
from portal.domain.groups import memberships
from portal.domain.people import people_search
from portal.domain.people.people_search import PeopleAsked
from portal.models import Role, User
from tests.cast import SYSTEM, Cast


def found(session: Session, user: User, **asked: object) -> list[str]:
    page = people_search.found(session, Cast.as_(user), PeopleAsked(**asked), offset=0, limit=100)  # type: ignore[arg-type]
    return sorted(each.username for each in page.rows)


def test_one_finds_exactly_those_whom_some_members_page_shows(session: Session, cast: Cast) -> None:
    cast.member(cast.charlie, cast.platform, Role.GUEST)
    visible = {
        cast.alice: (cast.acme, cast.platform, cast.web),
        cast.bob: (cast.web,),
        cast.charlie: (cast.platform,),
        cast.erin: (cast.acme, cast.platform, cast.web),
    }
    for user, scopes in visible.items():
        shown = {
            each.membership.user.username for scope in scopes for each in memberships.listed(session, scope).members
        }
        assert found(session, user) == sorted(shown | {user.username})
        for other in (cast.alice, cast.bob, cast.charlie, cast.dana, cast.erin):
            known = other.username in shown | {user.username}
            if known:
                assert people_search.known(session, cast.as_(user), other.id) is other
            else:
                with pytest.raises(NotFound):
                    people_search.known(session, cast.as_(user), other.id)


def test_who_may_add_members_finds_whom_the_form_would_take(session: Session, cast: Cast) -> None:
    for user in (cast.alice, cast.bob):  # an owner of a group, a maintainer of a project
        assert found(session, user, username="DANA") == ["dana"]
        assert found(session, user, words="dana@acme.example") == ["dana"]
        assert found(session, user, words="dana@acme.exampl") == []
    assert found(session, cast.erin, username="dana") == []
    memberships.change_role(session, SYSTEM, cast.web, cast.bob.id, Role.DEVELOPER)
    assert found(session, cast.bob, username="dana") == []


def test_an_address_is_not_found_out_letter_by_letter(session: Session, cast: Cast) -> None:
    assert found(session, cast.bob, words="alice@") == []
    assert found(session, cast.bob, words="lice") == ["alice"]
    assert found(session, cast.dana, words="alice@") == ["alice"]


def test_only_administrators_ask_who_administers(session: Session, cast: Cast) -> None:
    assert found(session, cast.dana, administrators=True) == ["dana"]
    with pytest.raises(NotAllowed):
        found(session, cast.alice, administrators=True)
