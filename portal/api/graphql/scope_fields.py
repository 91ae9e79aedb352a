"""The fields of groups, projects and people."""

from __future__ import annotations

from typing import Any

from ariadne import ObjectType
from flask import url_for

from portal.addresses import absolute, scope_url
from portal.api.graphql import job_lists, runner_lists
from portal.api.graphql.context import Info
from portal.api.graphql.siblings import ScopeNode, shown
from portal.domain.groups import full_names
from portal.domain.scopes import of_group
from portal.models import User

group, project, person = ObjectType("Group"), ObjectType("Project"), ObjectType("UserCore")


def _web_url(node: ScopeNode, _info: Info) -> str:
    return absolute(scope_url(node.scope))


for _type in (group, project):
    _type.set_field("id", lambda node, _info: node.owner.id)
    _type.set_field("name", lambda node, _info: node.owner.name)
    _type.set_field("path", lambda node, _info: node.owner.path)
    _type.set_field("fullPath", lambda node, _info: node.scope.full_path)
    _type.set_field("description", lambda node, _info: node.owner.description or None)
    _type.set_field("createdAt", lambda node, _info: node.owner.created_at)
    _type.set_field("webUrl", _web_url)

group.set_field("runners", runner_lists.of_group)
project.set_field("runners", runner_lists.of_project)
project.set_field("jobs", job_lists.of_project)
project.set_field("job", job_lists.one_of_project)


@project.field("nameWithNamespace")
def _name_with_namespace(node: ScopeNode, _info: Info) -> str:
    asked = node.page.context
    names = node.page.once("names", lambda: full_names.of_scopes(asked.session, asked.actor, node.page.things))
    return names.of(node.scope)


@project.field("group")
def _group(node: ScopeNode, _info: Info) -> ScopeNode | None:
    groups = [of_group(each.project.group) for each in node.page.things if each.project is not None]
    found = node.page.once("groups", lambda: shown(node.page.context, groups))
    return found.get(node.owner.group_id)


person.set_field("state", lambda user, _info: "blocked" if user.blocked_at else "active")
person.set_field("avatarUrl", lambda _user, _info: None)


@person.field("webUrl")
def _person_url(user: User, _info: Info) -> str:
    return absolute(url_for("people.show", user_id=user.id))


@person.field("webPath")
def _person_path(user: User, _info: Info) -> Any:
    return url_for("people.show", user_id=user.id)
