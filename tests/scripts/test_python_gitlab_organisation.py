"""python-gitlab sets up an organisation, unmodified: groups, projects, people, members, settings."""

from __future__ import annotations

import gitlab
import pytest
from gitlab.const import AccessLevel
from gitlab.exceptions import (
    GitlabAuthenticationError,
    GitlabCreateError,
    GitlabDeleteError,
    GitlabGetError,
    GitlabUpdateError,
)

from tests.portals import RunningPortal

FRED = {"username": "fred", "name": "Fred Poe", "email": "fred@acme.example", "password": "a long way to tipperary"}


def test_it_knows_whom_it_talks_to(dana: gitlab.Gitlab) -> None:
    dana.auth()
    assert dana.user is not None
    assert (dana.user.username, dana.user.is_admin) == ("dana", True)
    assert dana.version() == ("18.6.0", "runner-portal")


def test_it_builds_groups_and_projects(dana: gitlab.Gitlab) -> None:
    tools = dana.groups.create({"name": "Tools", "path": "tools", "visibility": "private"})
    build = dana.groups.create({"name": "Build", "path": "build", "parent_id": tools.id, "description": "Builders"})
    assert (build.full_path, build.full_name, build.parent_id) == ("tools/build", "Tools / Build", tools.id)
    project = dana.projects.create({"name": "Image Maker", "namespace_id": build.id})
    assert project.path_with_namespace == "tools/build/image-maker"
    assert dana.projects.get("tools/build/image-maker").id == project.id
    assert dana.groups.get("tools/build").id == build.id

    assert [each.full_path for each in tools.subgroups.list(get_all=True)] == ["tools/build"]
    assert [each.full_path for each in tools.descendant_groups.list(get_all=True)] == ["tools/build"]
    found = tools.projects.list(include_subgroups=True, get_all=True)
    assert [each.path_with_namespace for each in found] == ["tools/build/image-maker"]
    assert [each.full_path for each in dana.groups.list(search="buil", get_all=True)] == ["tools/build"]
    assert [each.full_path for each in dana.groups.list(owned=True, top_level_only=True, get_all=True)] == ["tools"]
    assert [each.id for each in dana.projects.list(owned=True, simple=True, iterator=True)] == [project.id]

    build.name, build.path = "Makers", "makers"
    build.save()
    assert dana.projects.get(project.id).path_with_namespace == "tools/makers/image-maker"
    project.description = "makes images"
    project.save()
    assert dana.projects.get("tools/makers/image-maker").description == "makes images"
    project.delete()
    tools.delete()
    with pytest.raises(GitlabGetError, match="404 Group Not Found"):
        dana.groups.get("tools/makers")


def test_it_looks_after_people(dana: gitlab.Gitlab) -> None:
    fred = dana.users.create({**FRED, "skip_confirmation": True})
    assert [each.id for each in dana.users.list(username="fred")] == [fred.id]
    assert dana.users.list(search="fred@acme", get_all=True)[0].email == "fred@acme.example"
    fred.name, fred.admin = "Fred Ray", True
    fred.save()
    assert (dana.users.get(fred.id).name, dana.users.get(fred.id).is_admin) == ("Fred Ray", True)
    assert [each.username for each in dana.users.list(admins=True, order_by="username", sort="asc")] == [
        "dana",
        "fred",
        "root",
    ]
    assert fred.block() is True
    assert fred.state == "blocked"
    assert [each.username for each in dana.users.list(blocked=True, get_all=True)] == ["fred"]
    assert fred.unblock() is True
    fred.delete()
    with pytest.raises(GitlabGetError, match="404 User Not Found"):
        dana.users.get(fred.id)
    alone = dana.users.create({**FRED, "password": "", "reset_password": True})
    assert alone.username == "fred"


def test_it_gives_and_takes_roles(dana: gitlab.Gitlab, alice: gitlab.Gitlab) -> None:
    acme, web = alice.groups.get("acme"), alice.projects.get("acme/web")
    charlie = alice.users.list(username="charlie")[0]  # whom she knows by name only
    member = acme.members.create({"user_id": charlie.id, "access_level": AccessLevel.REPORTER})
    assert (member.username, member.access_level, member.expires_at) == ("charlie", 20, None)
    member.access_level = AccessLevel.MAINTAINER
    member.save()
    assert acme.members.get(charlie.id).access_level == AccessLevel.MAINTAINER
    everybody = {each.username: each.access_level for each in web.members_all.list(get_all=True)}
    assert everybody == {"alice": 50, "bob": 40, "charlie": 40, "erin": 30}
    assert [each.username for each in web.members.list(get_all=True)] == ["bob"]
    assert web.members_all.get(charlie.id).access_level == AccessLevel.MAINTAINER
    assert [each.username for each in acme.members.list(query="fox")] == ["charlie"]
    with pytest.raises(GitlabCreateError, match="member already"):
        acme.members.create({"username": "charlie", "access_level": AccessLevel.GUEST})
    member.delete()
    with pytest.raises(GitlabGetError, match="404 Member Not Found"):
        acme.members.get(charlie.id)
    with pytest.raises(GitlabGetError, match="404 User Not Found"):
        alice.users.get(charlie.id)


def test_it_changes_settings_and_the_switch(dana: gitlab.Gitlab, alice: gitlab.Gitlab) -> None:
    settings = dana.settings.get()
    assert settings.allow_runner_registration_token
    settings.runner_token_expiration_interval = 86400
    settings.valid_runner_registrars = ["project"]
    settings.save()
    assert dana.settings.get().attributes["valid_runner_registrars"] == ["project"]
    acme = alice.groups.get("acme")
    acme.allow_runner_registration_token = False
    acme.save()
    web = alice.projects.get("acme/web")
    assert not web.runner_registration_token_allowed
    assert web.runner_registration_token_decided_by["full_path"] == "acme"
    settings.allow_runner_registration_token = False
    settings.save()
    with pytest.raises(GitlabUpdateError, match="403 Forbidden - An administrator turned registration tokens off"):
        alice.groups.update(acme.id, {"allow_runner_registration_token": True})
    with pytest.raises(GitlabGetError, match="administrators may"):
        alice.settings.get()


def test_it_tells_its_user_why_something_is_refused(
    running_portal: RunningPortal, dana: gitlab.Gitlab, alice: gitlab.Gitlab
) -> None:
    with pytest.raises(GitlabCreateError, match="There is a group or project at acme already"):
        dana.groups.create({"name": "Acme", "path": "acme"})
    with pytest.raises(GitlabCreateError, match="administrators may"):
        alice.groups.create({"name": "Mine", "path": "mine"})
    with pytest.raises(GitlabDeleteError, match="Nobody else owns acme"):
        dana.users.delete(alice.http_get("/user")["id"])
    with pytest.raises(GitlabAuthenticationError, match="401 Unauthorized"):
        gitlab.Gitlab(running_portal.url).groups.list(get_all=True)
