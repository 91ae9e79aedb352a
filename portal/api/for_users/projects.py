"""`/projects`: projects, and what they settle for their runners."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from portal.api import credentials
from portal.api.for_users import places, scope_settings
from portal.api.for_users.door import looking_for, operation
from portal.api.for_users.paging import Page
from portal.api.for_users.parameters import Flag, Id, at_least_one_of
from portal.api.for_users.scope_changes import ScopeChange, change
from portal.api.for_users.scope_parameters import Listed, Named, OneProject
from portal.api.for_users.scope_settings import JobRulesChange, ProjectRules, SwitchChange, SwitchShape
from portal.api.for_users.scope_shapes import (
    ACCEPTED,
    Accepted,
    ProjectShape,
    SimpleProject,
    project_attributes,
    projects_in_list,
)
from portal.api.for_users.shapes import names_for
from portal.database import db
from portal.domain import scopes
from portal.domain.groups import groups, scope_lists
from portal.domain.groups.groups import Naming
from portal.domain.groups.scope_lists import Order, ScopeFilter
from portal.domain.jobs import job_rules
from portal.domain.names import path_from
from portal.domain.scopes import Scope
from portal.models import Role

ROOM = "Projects"
ORDERS = {
    "id": Order.ID,
    "name": Order.NAME,
    "path": Order.PATH,
    "created_at": Order.CREATED_AT,
    "updated_at": Order.CREATED_AT,  # nothing here is touched later, and clients sort by these unasked
    "last_activity_at": Order.CREATED_AT,
    "similarity": Order.NAME,
}


class ProjectDetails(SwitchShape, ProjectShape):
    """One project, for its members."""


class ProjectWithRules(ProjectDetails):
    """One project, for those who read its runners."""

    runner_token_expiration_interval: int | None
    build_timeout: int
    protected_refs: list[str]


class ProjectsListed(Listed):
    """Which projects, in which order; the newest first unless told otherwise."""

    order_by: Literal["id", "name", "path", "created_at", "updated_at", "last_activity_at", "similarity"] = (
        "created_at"
    )
    simple: Flag = False


class MyProjectsListed(ProjectsListed):
    """The same, of all that who asks may see."""

    membership: Flag = False

    @property
    def role(self) -> Role | None:
        """The lowest role, as a member, that is asked for."""
        return super().role or (Role.GUEST if self.membership else None)


class ProjectMade(Named, SwitchChange, ProjectRules, JobRulesChange):
    """A new project in a group, by the group's id. Of name and path one will do."""

    namespace_id: Id

    @model_validator(mode="after")
    def _called_something(self) -> ProjectMade:
        at_least_one_of(self, "name", "path")
        return self


class ProjectChange(OneProject, ScopeChange, ProjectRules, JobRulesChange):
    """What to change; nothing is changed when something of it may not be, or cannot."""


@operation("GET", "/projects", room=ROOM)
def index(given: MyProjectsListed) -> Page[ProjectShape | SimpleProject]:
    """The projects that who asks may see; with `membership` only those that they are a member of, here or above."""
    return projects_page(given)


@operation("GET", "/projects/<path:project>", room=ROOM, refuses=(404,))
def show(given: OneProject) -> ProjectWithRules | ProjectDetails:
    """One project. What it settles for its runners is shown to those who read them."""
    return details(places.project(given.project))


@operation("POST", "/projects", room=ROOM, status=201, refuses=(404,))
def create(given: ProjectMade) -> ProjectWithRules | ProjectDetails:
    """A new project."""
    parent = places.group(given.namespace_id)
    name, path = (given.name or "").strip(), (given.path or "").strip()
    naming = Naming(name or path, path or path_from(name), (given.description or "").strip())
    made = scopes.of_project(groups.create_project(db.session(), credentials.actor(), parent, naming))
    scope_settings.change(made, given)
    answer = details(made)
    db.session.commit()
    return answer


@operation("PUT", "/projects/<path:project>", room=ROOM, refuses=(404,))
def update(given: ProjectChange) -> ProjectWithRules | ProjectDetails:
    """Change a project: what it is called, and what it settles for its runners. All of it, or nothing."""
    scope = places.project(given.project)
    change(scope, given)
    answer = details(scope)
    db.session.commit()
    return answer


@operation("DELETE", "/projects/<path:project>", room=ROOM, status=202, refuses=(404,))
def delete(given: OneProject) -> Accepted:
    """Delete a project. It is gone at once, and can be restored in the browser for a while."""
    with looking_for("Project"):
        groups.delete(db.session(), credentials.actor(), places.project(given.project))
    db.session.commit()
    return Accepted(message=ACCEPTED)


def details(scope: Scope) -> ProjectWithRules | ProjectDetails:
    """All that who asks may know of the project."""
    assert scope.project is not None  # noqa: S101  (for the type checker)
    rules = job_rules.of_project(db.session(), scope)
    attributes = project_attributes(scope.project, names_for([scope]), rules)
    attributes |= scope_settings.switch_attributes(scope)
    if scope_settings.shows_rules(scope):
        return ProjectWithRules(**attributes, **scope_settings.rules_attributes(scope))
    return ProjectDetails(**attributes)


def projects_page(
    given: ProjectsListed, *, inside: Scope | None = None, deep: bool = False
) -> Page[ProjectShape | SimpleProject]:
    """One page of the projects that are asked for."""
    wanted = ScopeFilter(
        words=given.search,
        inside=inside,
        deep=deep,
        role=given.role,
        order=ORDERS[given.order_by],
        descending=given.sort != "asc",
    )
    found = scope_lists.projects_seen(
        db.session(), credentials.actor(), wanted, offset=given.offset, limit=given.per_page
    )
    return Page(projects_in_list(found.rows, simple=given.simple), given, found.total, found.more)
