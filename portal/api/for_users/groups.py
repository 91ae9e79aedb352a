"""`/groups`: groups, their subgroups and projects, and what they settle for their runners."""

from __future__ import annotations

from typing import Literal

from portal.api import credentials
from portal.api.for_users import places, scope_settings
from portal.api.for_users.door import looking_for, operation
from portal.api.for_users.paging import Page
from portal.api.for_users.parameters import Flag, OptionalId, Text
from portal.api.for_users.projects import ProjectsListed, projects_page
from portal.api.for_users.scope_changes import ScopeChange, change
from portal.api.for_users.scope_parameters import Ids, Listed, Named, OneGroup
from portal.api.for_users.scope_settings import GroupRules, SwitchChange, SwitchShape
from portal.api.for_users.scope_shapes import (
    ACCEPTED,
    Accepted,
    GroupShape,
    ProjectShape,
    SimpleProject,
    group_attributes,
    groups_in_list,
)
from portal.api.for_users.shapes import names_for
from portal.database import db
from portal.domain import permissions, scopes
from portal.domain.groups import groups, scope_lists
from portal.domain.groups.groups import Naming
from portal.domain.groups.scope_lists import Order, ScopeFilter
from portal.domain.permissions import Action
from portal.domain.scopes import Scope

ROOM = "Groups"
ORDERS = {"name": Order.NAME, "path": Order.PATH, "id": Order.ID, "similarity": Order.NAME}


class GroupDetails(SwitchShape, GroupShape):
    """One group, for its members."""


class GroupWithRules(GroupDetails):
    """One group, for those who read its runners."""

    runner_token_expiration_interval: int | None
    subgroup_runner_token_expiration_interval: int | None
    project_runner_token_expiration_interval: int | None
    runner_registration_enabled: bool
    ci_registered_group_runners: int | None
    ci_registered_project_runners: int | None
    stale_runner_cleanup_days: int | None
    stale_runner_cleanup_legacy_only: bool


class GroupsListed(Listed):
    """Which groups, in which order."""

    order_by: Literal["name", "path", "id", "similarity"] = "name"
    top_level_only: Flag = False
    skip_groups: Ids = ()


class GroupsBelow(GroupsListed):
    """Which groups below this one."""

    group: Text


class GroupMade(Named, SwitchChange, GroupRules):
    """A new group: at the top, which administrators may, or in another one."""

    name: Text
    path: Text
    parent_id: OptionalId = None


class GroupChange(OneGroup, ScopeChange, GroupRules):
    """What to change; nothing is changed when something of it may not be, or cannot."""


class ProjectsBelow(ProjectsListed):
    """Which projects of this group."""

    group: Text
    include_subgroups: Flag = False


@operation("GET", "/groups", room=ROOM)
def index(given: GroupsListed) -> Page[GroupShape]:
    """The groups that who asks may see. `owned` and `min_access_level` count roles that they have as a member."""
    return _page(given, _filter(given))


@operation("GET", "/groups/<path:group>", room=ROOM, refuses=(404,))
def show(given: OneGroup) -> GroupWithRules | GroupDetails:
    """One group. What it settles for its runners is shown to those who read them."""
    return details(places.group(given.group))


@operation("POST", "/groups", room=ROOM, status=201, refuses=(404,))
def create(given: GroupMade) -> GroupWithRules | GroupDetails:
    """A new group."""
    session, actor = db.session(), credentials.actor()
    if given.parent_id is None:
        permissions.require_openly(session, actor, Action.CREATE_GROUP)
        parent = scopes.INSTANCE
    else:
        parent = places.group(given.parent_id)
    naming = Naming(given.name.strip(), given.path.strip(), (given.description or "").strip())
    made = scopes.of_group(groups.create_group(session, actor, parent, naming))
    actor.roles.clear()  # who makes a group at the top owns it
    scope_settings.change(made, given)
    answer = details(made)
    db.session.commit()
    return answer


@operation("PUT", "/groups/<path:group>", room=ROOM, refuses=(404,))
def update(given: GroupChange) -> GroupWithRules | GroupDetails:
    """Change a group: what it is called, and what it settles for its runners. All of it, or nothing."""
    scope = places.group(given.group)
    change(scope, given)
    answer = details(scope)
    db.session.commit()
    return answer


@operation("DELETE", "/groups/<path:group>", room=ROOM, status=202, refuses=(404,))
def delete(given: OneGroup) -> Accepted:
    """Delete a group with all that lies below. It is gone at once, and can be restored in the browser for a while."""
    with looking_for("Group"):
        groups.delete(db.session(), credentials.actor(), places.group(given.group))
    db.session.commit()
    return Accepted(message=ACCEPTED)


@operation("GET", "/groups/<path:group>/subgroups", room=ROOM, refuses=(404,))
def subgroups(given: GroupsBelow) -> Page[GroupShape]:
    """The groups right below this one."""
    return _page(given, _filter(given, inside=places.group(given.group)))


@operation("GET", "/groups/<path:group>/descendant_groups", room=ROOM, refuses=(404,))
def descendant_groups(given: GroupsBelow) -> Page[GroupShape]:
    """All groups below this one, however deep."""
    return _page(given, _filter(given, inside=places.group(given.group), deep=True))


@operation("GET", "/groups/<path:group>/projects", room=ROOM, refuses=(404,))
def projects(given: ProjectsBelow) -> Page[ProjectShape | SimpleProject]:
    """The projects of this group; with `include_subgroups` also those of the groups below."""
    return projects_page(given, inside=places.group(given.group), deep=given.include_subgroups)


def details(scope: Scope) -> GroupWithRules | GroupDetails:
    """All that who asks may know of the group."""
    assert scope.group is not None  # noqa: S101  (for the type checker)
    attributes = group_attributes(scope.group, names_for([scope])) | scope_settings.switch_attributes(scope)
    if scope_settings.shows_rules(scope):
        return GroupWithRules(**attributes, **scope_settings.rules_attributes(scope))
    return GroupDetails(**attributes)


def _filter(given: GroupsListed, *, inside: Scope | None = None, deep: bool = False) -> ScopeFilter:
    return ScopeFilter(
        words=given.search,
        inside=inside,
        deep=deep,
        top_level=given.top_level_only,
        role=given.role,
        without=given.skip_groups,
        order=ORDERS[given.order_by],
        descending=given.sort == "desc",
    )


def _page(given: GroupsListed, wanted: ScopeFilter) -> Page[GroupShape]:
    found = scope_lists.groups_seen(
        db.session(), credentials.actor(), wanted, offset=given.offset, limit=given.per_page
    )
    return Page(groups_in_list(found.rows), given, found.total, found.more)
