"""`/namespaces`: groups as the places of projects, which Ansible and others look up before they make one."""

from __future__ import annotations

from portal.api import credentials
from portal.api.for_users import places, scope_shapes
from portal.api.for_users.door import looking_for, operation
from portal.api.for_users.paging import Page, Paged
from portal.api.for_users.parameters import Flag, Text
from portal.api.for_users.scope_parameters import OneGroup
from portal.api.for_users.scope_shapes import Namespace
from portal.database import db
from portal.domain.groups import scope_lists
from portal.domain.groups.scope_lists import ScopeFilter

ROOM = "Groups"


class NamespacesListed(Paged):
    """Which groups."""

    search: Text = ""
    top_level_only: Flag = False


@operation("GET", "/namespaces", room=ROOM)
def index(given: NamespacesListed) -> Page[Namespace]:
    """The groups that who asks may see, by name. People have no namespace of their own here."""
    wanted = ScopeFilter(words=given.search, top_level=given.top_level_only)
    found = scope_lists.groups_seen(
        db.session(), credentials.actor(), wanted, offset=given.offset, limit=given.per_page
    )
    return Page(scope_shapes.namespaces_in_list(found.rows), given, found.total, found.more)


@operation("GET", "/namespaces/<path:group>", room=ROOM, refuses=(404,))
def show(given: OneGroup) -> Namespace:
    """One group."""
    with looking_for("Namespace"):
        scope = places.group(given.group)
    assert scope.group is not None  # noqa: S101  (for the type checker)
    return scope_shapes.namespaces_in_list([scope.group])[0]
