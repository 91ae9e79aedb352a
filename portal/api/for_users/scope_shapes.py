"""What the REST API answers about groups and projects, with GitLab's attribute names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from portal.addresses import absolute, scope_url
from portal.api.for_users.operations import Shape
from portal.api.for_users.shapes import Moment, names_for, project_basic
from portal.database import db
from portal.domain.groups.full_names import FullNames
from portal.domain.jobs import job_rules
from portal.domain.jobs.job_rules import JobRules
from portal.domain.scopes import of_group, of_project
from portal.models import Group, Project


class GroupShape(Shape):
    """A group in a list. Everything here is private: only members see it."""

    id: int
    web_url: str
    name: str
    path: str
    description: str
    visibility: Literal["private"]
    avatar_url: str | None
    full_name: str
    full_path: str
    created_at: Moment
    parent_id: int | None
    shared_runners_setting: str
    marked_for_deletion_on: str | None


class Namespace(Shape):
    """Where a project lives."""

    id: int
    name: str
    path: str
    kind: Literal["group"]
    full_path: str
    parent_id: int | None
    avatar_url: str | None
    web_url: str


class SimpleProject(Shape):
    """A project in a list that was asked for with `simple`."""

    id: int
    description: str
    name: str
    name_with_namespace: str
    path: str
    path_with_namespace: str
    created_at: Moment
    last_activity_at: Moment
    web_url: str
    avatar_url: str | None
    namespace: Namespace


class ProjectShape(SimpleProject):
    """A project in a list. Terraform waits for the end of an import unless `import_status` is none."""

    visibility: Literal["private"]
    archived: bool
    import_status: Literal["none"]
    shared_runners_enabled: bool
    group_runners_enabled: bool
    marked_for_deletion_on: str | None


class Accepted(Shape):
    """It is done, and can be undone for a while."""

    message: str


ACCEPTED = "202 Accepted"


def group_attributes(group: Group, names: FullNames) -> dict[str, Any]:
    """The attributes of a GroupShape; other shapes of groups begin with them."""
    scope = of_group(group)
    return {
        "id": group.id,
        "web_url": absolute(scope_url(scope)),
        "name": group.name,
        "path": group.path,
        "description": group.description,
        "visibility": "private",
        "avatar_url": None,
        "full_name": names.of(scope),
        "full_path": group.full_path,
        "created_at": group.created_at,
        "parent_id": group.parent_id,
        "shared_runners_setting": "enabled",
        "marked_for_deletion_on": None,
    }


def groups_in_list(found: Sequence[Group]) -> list[GroupShape]:
    """One page of groups."""
    names = names_for(of_group(each) for each in found)
    return [GroupShape(**group_attributes(each, names)) for each in found]


def simple_attributes(project: Project, names: FullNames) -> dict[str, Any]:
    """The attributes of a SimpleProject."""
    scope = of_project(project)
    return {
        **project_basic(project, names),
        "description": project.description,
        "last_activity_at": project.created_at,  # nothing else happens in it; Terraform crashes without one
        "web_url": absolute(scope_url(scope)),
        "avatar_url": None,
        "namespace": _namespace(project.group, names),
    }


def _namespace(group: Group, names: FullNames) -> Namespace:
    return Namespace(
        id=group.id,
        name=names.seen.get(group.id, group.path),
        path=group.path,
        kind="group",
        full_path=group.full_path,
        parent_id=group.parent_id,
        avatar_url=None,
        web_url=absolute(scope_url(of_group(group))),
    )


def namespaces_in_list(found: Sequence[Group]) -> list[Namespace]:
    """Groups as places of projects."""
    names = names_for(of_group(each) for each in found)
    return [_namespace(each, names) for each in found]


def project_attributes(project: Project, names: FullNames, rules: JobRules) -> dict[str, Any]:
    """The attributes of a ProjectShape; other shapes of projects begin with them."""
    return {
        **simple_attributes(project, names),
        "visibility": "private",
        "archived": False,
        "import_status": "none",
        "shared_runners_enabled": rules.shared_runners_enabled,
        "group_runners_enabled": rules.group_runners_enabled,
        "marked_for_deletion_on": None,
    }


def projects_in_list(found: Sequence[Project], *, simple: bool) -> list[ProjectShape | SimpleProject]:
    """One page of projects."""
    names = names_for(of_project(each) for each in found)
    if simple:
        return [SimpleProject(**simple_attributes(each, names)) for each in found]
    rules = job_rules.of_projects(db.session(), found)
    return [ProjectShape(**project_attributes(each, names, rules[each.id])) for each in found]
