"""Lists of groups and projects: never more than somebody may see, and the same as the table of permissions says."""

from sqlalchemy.orm import Session

from portal.domain import permissions
from portal.domain.groups import full_names, groups, scope_lists
from portal.domain.groups.scope_lists import Order, ScopeFilter
from portal.domain.permissions import Action
from portal.domain.scopes import Scope
from portal.models import Role, User
from tests.cast import SYSTEM, Cast
from tests.domain.queries import asked

EVERYTHING = ScopeFilter()


def groups_of(session: Session, user: User, wanted: ScopeFilter = EVERYTHING) -> list[str]:
    found = scope_lists.groups_seen(session, Cast.as_(user), wanted, offset=0, limit=100)
    return [each.full_path for each in found.rows]


def projects_of(session: Session, user: User, wanted: ScopeFilter = EVERYTHING) -> list[str]:
    found = scope_lists.projects_seen(session, Cast.as_(user), wanted, offset=0, limit=100)
    return [each.full_path for each in found.rows]


def test_a_list_holds_what_somebody_may_see_and_nothing_else(session: Session, cast: Cast) -> None:
    cli = cast.project("cli", cast.platform)
    everything: list[Scope] = [cast.acme, cast.platform, cast.other, cast.web, cli]
    for user in (cast.alice, cast.bob, cast.charlie, cast.dana, cast.erin):
        actor = cast.as_(user)
        seen = [each.full_path for each in everything if permissions.may(session, actor, Action.SEE, each)]
        assert sorted(groups_of(session, user) + projects_of(session, user)) == sorted(seen)


def test_a_role_counts_where_it_holds(session: Session, cast: Cast) -> None:
    cast.member(cast.erin, cast.web, Role.MAINTAINER)
    assert groups_of(session, cast.erin, ScopeFilter(role=Role.DEVELOPER)) == ["acme", "acme/platform"]
    assert groups_of(session, cast.erin, ScopeFilter(role=Role.MAINTAINER)) == []
    assert projects_of(session, cast.erin, ScopeFilter(role=Role.MAINTAINER)) == ["acme/web"]
    assert groups_of(session, cast.dana, ScopeFilter(role=Role.GUEST)) == []  # she administers, and is no member


def test_children_and_everything_below(session: Session, cast: Cast) -> None:
    deep = cast.group("deep", inside=cast.platform)
    cast.project("cli", deep)
    inside, below = ScopeFilter(inside=cast.acme), ScopeFilter(inside=cast.acme, deep=True, order=Order.PATH)
    assert groups_of(session, cast.alice, inside) == ["acme/platform"]
    assert groups_of(session, cast.alice, below) == ["acme/platform", "acme/platform/deep"]
    assert projects_of(session, cast.alice, inside) == ["acme/web"]
    assert projects_of(session, cast.alice, below) == ["acme/platform/deep/cli", "acme/web"]


def test_what_was_deleted_is_in_no_list(session: Session, cast: Cast) -> None:
    groups.delete(session, SYSTEM, cast.acme)
    assert groups_of(session, cast.dana) == ["other"]
    assert projects_of(session, cast.dana) == []
    assert groups_of(session, cast.alice, ScopeFilter(role=Role.OWNER)) == []


def test_words_are_words_and_not_a_pattern(session: Session, cast: Cast) -> None:
    for words in ("%", "_", "acme%", "\\"):
        assert groups_of(session, cast.dana, ScopeFilter(words=words)) == []
    assert groups_of(session, cast.dana, ScopeFilter(words=" ACM ")) == ["acme"]


def test_equals_are_sorted_by_their_number(session: Session, cast: Cast) -> None:
    for parent in (cast.other, cast.platform, cast.acme):
        cast.project("same", parent)
    wanted = ScopeFilter(words="same", order=Order.NAME, descending=True)
    assert projects_of(session, cast.dana, wanted) == ["acme/same", "acme/platform/same", "other/same"]


def test_a_full_name_says_only_what_its_reader_may_see(session: Session, cast: Cast) -> None:
    assert cast.platform.group is not None
    cast.platform.group.name = "The Platform"
    cli = cast.project("cli", cast.platform)
    cast.member(cast.charlie, cast.platform, Role.GUEST)
    session.flush()
    expected = {
        cast.dana: "Acme / The Platform / Cli",
        cast.charlie: "acme / The Platform / Cli",
        cast.bob: "acme / platform / Cli",
    }
    for user, name in expected.items():
        actor = cast.as_(user)
        session.refresh(user)
        with asked(session) as statements:
            names = full_names.of_scopes(session, actor, [cli, cast.platform, cast.acme])
        assert names.of(cli) == name
        assert len(statements) <= 2
