"""The table of who may do what, seen from outside: every action, every role, every kind of scope."""

import pytest
from sqlalchemy.orm import Session

from portal.domain import actors, permissions
from portal.domain.actors import Actor
from portal.domain.errors import NotAllowed, NotFound
from portal.domain.permissions import Action, may, require, role_in
from portal.domain.scopes import INSTANCE, Scope, ScopeKind
from portal.models import Group, Project, Role, User
from tests.cast import Cast
from tests.domain.queries import asked

# The lowest role that suffices in a group and in a project, once more and by hand; None: administrators only.
NEEDED: dict[Action, tuple[Role | None, Role | None]] = {
    Action.SEE: (Role.GUEST, Role.GUEST),
    Action.READ_MEMBERS: (Role.GUEST, Role.GUEST),
    Action.READ_RUNNERS: (Role.MAINTAINER, Role.MAINTAINER),
    Action.WRITE_RUNNERS: (Role.OWNER, Role.MAINTAINER),
    Action.REGISTER_RUNNERS: (Role.OWNER, Role.MAINTAINER),
    Action.SWITCH_REGISTRATION: (Role.OWNER, Role.MAINTAINER),
    Action.SET_RUNNER_RULES: (Role.OWNER, Role.MAINTAINER),
    Action.CLEAN_UP_RUNNERS: (Role.OWNER, Role.MAINTAINER),
    Action.READ_TRAIL: (Role.MAINTAINER, Role.MAINTAINER),
    Action.WRITE_MEMBERS: (Role.OWNER, Role.MAINTAINER),
    Action.CREATE_GROUP: (Role.OWNER, None),
    Action.CREATE_PROJECT: (Role.MAINTAINER, None),
    Action.RENAME: (Role.OWNER, Role.MAINTAINER),
    Action.DELETE: (Role.OWNER, Role.OWNER),
    Action.WRITE_PEOPLE: (None, None),
    Action.LIMIT_RUNNERS: (None, None),
    Action.LOOK_UP_TOKENS: (None, None),
    Action.IMPORT_RUNNERS: (None, None),
    Action.READ_JOBS: (Role.REPORTER, Role.REPORTER),
    Action.WRITE_JOBS: (Role.DEVELOPER, Role.DEVELOPER),
    Action.WRITE_PROTECTED_JOBS: (Role.MAINTAINER, Role.MAINTAINER),
    Action.SET_JOB_RULES: (Role.MAINTAINER, Role.MAINTAINER),
    Action.CHECK_RUNNERS: (Role.OWNER, Role.MAINTAINER),
}
GROUP = Scope(ScopeKind.GROUP, group=Group(id=7, name="Acme", path="acme", traversal_ids=[7]))
PROJECT = Scope(ScopeKind.PROJECT, project=Project(id=8, name="Web", path="web", group=GROUP.group))


def with_role(role: Role, *, admin: bool = False) -> Actor:
    """Somebody whose role in GROUP and PROJECT has been looked up already."""
    known = {("group", 7): role, ("project", 8): role}
    return Actor("user", "Somebody", 1, User(id=1, admin=admin), roles=known)


def test_this_list_knows_every_action() -> None:
    assert set(NEEDED) == set(Action) == set(permissions.TABLE)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("scope", [GROUP, PROJECT], ids=["group", "project"])
def test_a_role_suffices_from_the_one_in_the_table_upwards(
    session: Session, scope: Scope, action: Action, role: Role
) -> None:
    lowest = NEEDED[action][0 if scope is GROUP else 1]
    assert may(session, with_role(role), action, scope) is (lowest is not None and role >= lowest)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("action", Action)
def test_no_role_of_a_group_or_project_allows_anything_in_the_instance(
    session: Session, action: Action, role: Role
) -> None:
    assert not may(session, with_role(role), action, INSTANCE)
    with pytest.raises(NotFound):
        require(session, with_role(role), action, INSTANCE)


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("scope", [INSTANCE, GROUP, PROJECT], ids=["instance", "group", "project"])
def test_an_administrator_may_do_everything_everywhere(session: Session, scope: Scope, action: Action) -> None:
    assert may(session, with_role(Role.NONE, admin=True), action, scope)


@pytest.mark.parametrize("action", Action)
def test_a_runner_may_do_nothing_a_person_may(session: Session, action: Action) -> None:
    machine = actors.runner(1, "Xq7Lm2PdT")
    assert not any(may(session, machine, action, scope) for scope in (INSTANCE, GROUP, PROJECT))


def test_a_role_reaches_down_and_not_up(session: Session, cast: Cast) -> None:
    deep = cast.project("api", cast.platform)
    assert role_in(session, cast.as_(cast.alice), deep) is Role.OWNER
    assert role_in(session, cast.as_(cast.bob), cast.web) is Role.MAINTAINER
    assert role_in(session, cast.as_(cast.bob), cast.acme) is Role.NONE
    assert role_in(session, cast.as_(cast.bob), deep) is Role.NONE
    assert role_in(session, cast.as_(cast.alice), cast.other) is Role.NONE


def test_the_higher_of_an_inherited_and_a_given_role_counts(session: Session, cast: Cast) -> None:
    cast.member(cast.erin, cast.web, Role.MAINTAINER)
    cast.member(cast.alice, cast.web, Role.GUEST)
    assert role_in(session, cast.as_(cast.erin), cast.web) is Role.MAINTAINER
    assert role_in(session, cast.as_(cast.erin), cast.acme) is Role.DEVELOPER
    assert role_in(session, cast.as_(cast.alice), cast.web) is Role.OWNER


def test_a_role_is_looked_up_once_for_each_scope_and_request(session: Session, cast: Cast) -> None:
    alice = cast.as_(cast.alice)
    with asked(session) as statements:
        for action in Action:
            may(session, alice, action, cast.acme)
    assert len([each for each in statements if "members" in each]) == 1


@pytest.mark.parametrize("action", Action)
def test_a_stranger_is_told_that_there_is_nothing(session: Session, cast: Cast, action: Action) -> None:
    for scope in (cast.acme, cast.web, INSTANCE):
        with pytest.raises(NotFound):
            require(session, cast.as_(cast.charlie), action, scope)


def test_who_sees_but_may_not_act_hears_who_may(session: Session, cast: Cast) -> None:
    with pytest.raises(NotAllowed, match=r"acme.*: owners may"):
        require(session, cast.as_(cast.erin), Action.WRITE_RUNNERS, cast.acme)
    with pytest.raises(NotAllowed, match=r"acme/web.*: maintainers and owners may"):
        require(session, cast.as_(cast.erin), Action.WRITE_RUNNERS, cast.web)
    with pytest.raises(NotAllowed, match="administrators may"):
        require(session, cast.as_(cast.alice), Action.WRITE_PEOPLE, cast.acme)
