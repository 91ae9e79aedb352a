"""What the REST API answers about people, groups and projects, with GitLab's attribute names."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

from flask import url_for
from pydantic import PlainSerializer, WithJsonSchema

from portal.addresses import absolute, scope_url
from portal.api import credentials
from portal.api.for_users.operations import Shape
from portal.database import db
from portal.domain.groups import full_names
from portal.domain.groups.full_names import FullNames
from portal.domain.scopes import Scope, of_group, of_project
from portal.models import Group, Project, User


def written(moment: datetime) -> str:
    """A moment as GitLab writes it: UTC, in milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Moment = Annotated[
    datetime, PlainSerializer(written, return_type=str), WithJsonSchema({"type": "string", "format": "date-time"})
]


class UserBasic(Shape):
    """A person, as everybody may know them."""

    id: int
    username: str
    name: str
    state: str
    locked: bool
    avatar_url: str | None
    web_url: str


class ProjectBasic(Shape):
    """A project in a few words."""

    id: int
    name: str
    name_with_namespace: str
    path: str
    path_with_namespace: str
    description: str | None
    created_at: Moment


class GroupBasic(Shape):
    """A group in a few words."""

    id: int
    name: str
    web_url: str


def user_basic(user: User) -> dict[str, Any]:
    """The attributes of a UserBasic; other shapes of people begin with them."""
    return {
        "id": user.id,
        "username": user.username,
        "name": user.name,
        "state": "blocked" if user.blocked_at else "active",
        "locked": False,
        "avatar_url": None,
        "web_url": absolute(url_for("people.show", user_id=user.id)),
    }


def names_for(scopes: Iterable[Scope]) -> FullNames:
    """What these are called in full, for who asks."""
    return full_names.of_scopes(db.session(), credentials.actor(), list(scopes))


def project_basic(project: Project, names: FullNames) -> dict[str, Any]:
    """The attributes of a ProjectBasic; other shapes of projects begin with them."""
    return {
        "id": project.id,
        "name": project.name,
        "name_with_namespace": names.of(of_project(project)),
        "path": project.path,
        "path_with_namespace": project.full_path,
        "description": project.description or None,
        "created_at": project.created_at,
    }


def projects_in_short(found: Iterable[Project]) -> list[ProjectBasic]:
    """Some projects, with the names of the groups above as far as who asks may see those."""
    projects = list(found)
    names = names_for(of_project(each) for each in projects)
    return [ProjectBasic(**project_basic(each, names)) for each in projects]


def group_basic(group: Group) -> dict[str, Any]:
    """The attributes of a GroupBasic."""
    return {"id": group.id, "name": group.name, "web_url": absolute(scope_url(of_group(group)))}


def project_url(project: Project) -> str:
    """The project's page."""
    return absolute(scope_url(of_project(project)))
