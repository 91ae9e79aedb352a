"""What the REST API answers about people, groups and projects, with GitLab's attribute names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from flask import url_for
from pydantic import PlainSerializer, WithJsonSchema

from portal.addresses import absolute, scope_url
from portal.api.for_users.operations import Shape
from portal.domain.scopes import of_group, of_project
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


def project_basic(project: Project) -> dict[str, Any]:
    """The attributes of a ProjectBasic."""
    return {
        "id": project.id,
        "name": project.name,
        "name_with_namespace": " / ".join([*project.group.full_path.split("/"), project.name]),
        "path": project.path,
        "path_with_namespace": project.full_path,
        "description": project.description or None,
        "created_at": project.created_at,
    }


def group_basic(group: Group) -> dict[str, Any]:
    """The attributes of a GroupBasic."""
    return {"id": group.id, "name": group.name, "web_url": absolute(scope_url(of_group(group)))}


def project_url(project: Project) -> str:
    """The project's page."""
    return absolute(scope_url(of_project(project)))
