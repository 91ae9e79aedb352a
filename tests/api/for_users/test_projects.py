"""Projects by script: which are seen, and how they are made, changed and deleted."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.models import AuditEvent, Deletion, Group, Project, Role, Route
from tests.api.for_users.conftest import ScriptOf
from tests.api.for_users.scripts import Script
from tests.cast import Cast
from tests.domain.queries import asked

SIMPLE = {"id", "description", "name", "name_with_namespace", "path", "path_with_namespace", "created_at",
          "last_activity_at", "web_url", "avatar_url", "namespace"}  # fmt: skip


def paths(found: list[dict[str, Any]]) -> list[str]:
    return [each["path_with_namespace"] for each in found]


@pytest.fixture
def cli(cast: Cast) -> None:
    """Two more projects: acme/platform/cli, and other/lab that only Dana sees."""
    cast.project("cli", cast.platform)
    cast.project("lab", cast.other)
    cast.session.commit()


def test_everybody_sees_their_projects_the_newest_first(script_of: ScriptOf, cast: Cast, cli: None) -> None:
    assert paths(script_of(cast.dana, "read_api").get("/projects")) == ["other/lab", "acme/platform/cli", "acme/web"]
    assert paths(script_of(cast.erin).get("/projects")) == ["acme/platform/cli", "acme/web"]
    assert paths(script_of(cast.bob).get("/projects")) == ["acme/web"]
    assert script_of(cast.charlie).get("/projects") == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"search": "CL"}, ["acme/platform/cli"]),
        ({"search": "acme"}, []),
        ({"search": "acme/w"}, ["acme/web"]),
        ({"order_by": "name", "sort": "asc"}, ["acme/platform/cli", "other/lab", "acme/web"]),
        ({"order_by": "path", "sort": "desc"}, ["other/lab", "acme/web", "acme/platform/cli"]),
        ({"order_by": "last_activity_at"}, ["other/lab", "acme/platform/cli", "acme/web"]),
        ({"membership": "true"}, []),
        ({"owned": "true"}, []),
        ({"per_page": "2", "page": "2"}, ["acme/web"]),
    ],
)
def test_a_list_of_projects_is_narrowed_sorted_and_paged(
    script_of: ScriptOf, cast: Cast, cli: None, given: dict[str, str], expected: list[str]
) -> None:
    assert paths(script_of(cast.dana).get("/projects", **given)) == expected


def test_roles_narrow_the_list_too(script_of: ScriptOf, cast: Cast, cli: None) -> None:
    cast.member(cast.erin, cast.web, Role.MAINTAINER)
    cast.session.commit()
    erin = script_of(cast.erin)
    assert paths(erin.get("/projects", membership=True)) == ["acme/platform/cli", "acme/web"]
    assert paths(erin.get("/projects", min_access_level=40)) == ["acme/web"]
    assert paths(script_of(cast.alice).get("/projects", owned=True)) == ["acme/platform/cli", "acme/web"]


def test_a_project_has_gitlabs_attributes(script_of: ScriptOf, cast: Cast) -> None:
    bob = script_of(cast.bob)
    (simple,), (listed,), shown = (
        bob.get("/projects", simple=True),
        bob.get("/projects"),
        bob.get("/projects/acme%2Fweb"),
    )
    assert set(simple) == SIMPLE
    assert set(listed) - SIMPLE == {
        "visibility",
        "archived",
        "import_status",
        "shared_runners_enabled",
        "group_runners_enabled",
        "marked_for_deletion_on",
    }
    assert set(shown) - set(listed) == {
        "allow_runner_registration_token",
        "runner_registration_token_allowed",
        "runner_registration_token_decided_by",
        "runner_token_expiration_interval",
        "build_timeout",
        "protected_refs",
    }
    assert (shown["shared_runners_enabled"], shown["group_runners_enabled"]) == (True, True)
    assert script_of(cast.alice).get("/projects/acme%2Fweb")["name_with_namespace"] == "Acme / Web"
    assert shown["name_with_namespace"] == "acme / Web"  # Bob sees the project, not its group
    assert (shown["namespace"]["id"], shown["namespace"]["kind"]) == (cast.acme.id, "group")
    assert (shown["namespace"]["name"], shown["namespace"]["full_path"]) == ("acme", "acme")
    assert "runner_token_expiration_interval" not in script_of(cast.erin).get("/projects/acme%2Fweb")


def test_a_stranger_finds_no_project(script_of: ScriptOf, cast: Cast) -> None:
    charlie = script_of(cast.charlie)
    for place in ("acme%2Fweb", cast.web.id, "nowhere", 999_999_999):
        for ask in (charlie.get, charlie.put, charlie.delete):
            assert ask(f"/projects/{place}", expect=404) == {"message": "404 Project Not Found"}


@pytest.mark.parametrize("number", [1, 100])
def test_a_list_of_projects_takes_the_same_number_of_queries(
    script_of: ScriptOf, session: Session, cast: Cast, number: int
) -> None:
    for each in range(number):
        group = Group(parent_id=cast.acme.id, name=f"G {each}", path=f"g{each}", traversal_ids=[], created_at=now())
        group.route = Route(path=f"acme/g{each}")
        project = Project(group=group, name=f"P {each}", path="p", created_at=now())
        project.route = Route(path=f"acme/g{each}/p")
        session.add_all([group, project])
        session.flush()
        group.traversal_ids = [cast.acme.id, group.id]
    session.commit()
    for who, path, most in (
        (cast.dana, "/projects", 5),  # the token, the number, the page, the names, what is settled for their jobs
        (cast.alice, "/projects", 6),  # and her roles
        (cast.alice, "/groups/acme/projects", 8),  # and the group, and her role in it
    ):
        script = script_of(who)
        with asked(session) as statements:
            found = script.get(path, per_page=100, include_subgroups=True)
        assert len(found) == min(100, number + 1)
        assert len([each for each in statements if each.startswith("SELECT")]) == most


def test_a_maintainer_makes_a_project_and_of_name_and_path_one_will_do(script_of: ScriptOf, cast: Cast) -> None:
    alice, acme = script_of(cast.alice), cast.acme.id
    made = alice.post("/projects", name="Data Store", namespace_id=acme, description="Tables", visibility="private")
    assert (made["path_with_namespace"], made["description"]) == ("acme/data-store", "Tables")
    assert alice.post("/projects", path="tools", namespace_id=acme)["name"] == "tools"
    assert "name, path are missing" in alice.post("/projects", expect=400, namespace_id=acme)["error"]
    assert alice.post("/projects", expect=400, name="x") == {"error": "namespace_id is missing"}
    assert "path" in alice.post("/projects", expect=400, path="web", namespace_id=acme)["message"]
    new = {"name": "x", "namespace_id": acme}
    assert "maintainers and owners may" in script_of(cast.erin).post("/projects", expect=403, **new)["message"]
    for stranger in (cast.charlie, cast.bob):
        script_of(stranger).post("/projects", expect=404, **new)


def test_a_project_is_changed_in_all_or_in_nothing(script_of: ScriptOf, session: Session, cast: Cast) -> None:
    bob = script_of(cast.bob)
    before = session.scalar(select(func.max(AuditEvent.id)))
    changed = bob.put(
        "/projects/acme%2Fweb",
        name="Site",
        path="site",
        allow_runner_registration_token=False,
        runner_token_expiration_interval=86400,
    )
    assert (changed["name"], changed["path_with_namespace"]) == ("Site", "acme/site")
    assert changed["runner_token_expiration_interval"] == 86400
    assert changed["runner_registration_token_decided_by"] == {
        "kind": "project",
        "id": cast.web.id,
        "full_path": "acme/site",
    }
    events = session.scalars(select(AuditEvent.action).where(AuditEvent.id > before).order_by(AuditEvent.id)).all()
    assert events == ["project_renamed", "registration_tokens_turned_off", "token_life_changed"]
    bob.put(f"/projects/{cast.web.id}", expect=400, allow_runner_registration_token=True, path="a b")
    bob.put(f"/projects/{cast.web.id}", expect=400, name="Z", runner_token_expiration_interval=-1)
    shown = bob.get(f"/projects/{cast.web.id}")
    assert (shown["name"], shown["allow_runner_registration_token"]) == ("Site", False)
    assert "may" in script_of(cast.erin).put("/projects/acme%2Fsite", expect=403, name="Mine")["message"]


def test_what_the_group_decided_is_not_turned_on_in_the_project(script_of: ScriptOf, cast: Cast) -> None:
    script_of(cast.alice).put("/groups/acme", allow_runner_registration_token=False)
    bob = script_of(cast.bob)
    shown = bob.get("/projects/acme%2Fweb")
    assert (shown["allow_runner_registration_token"], shown["runner_registration_token_allowed"]) == (True, False)
    assert shown["runner_registration_token_decided_by"] == {"kind": "group", "id": None, "full_path": None}
    bob.put("/projects/acme%2Fweb", expect=403, allow_runner_registration_token=False)


def test_a_project_is_deleted_at_once_and_can_be_restored(script_of: ScriptOf, session: Session, cast: Cast) -> None:
    assert "owners may" in script_of(cast.bob).delete("/projects/acme%2Fweb", expect=403)["message"]
    alice = script_of(cast.alice)
    assert alice.delete("/projects/acme%2Fweb", expect=202) == {"message": "202 Accepted"}
    assert alice.get(f"/projects/{cast.web.id}", expect=404) == {"message": "404 Project Not Found"}
    assert alice.get("/projects") == []
    assert session.scalars(select(Deletion)).one().path == "acme/web"


def test_nobody_is_asked_for_a_token(nobody: Script) -> None:
    for path in ("/projects", "/projects/acme%2Fweb"):
        nobody.get(path, expect=401)


# What is settled for its jobs


def test_a_maintainer_settles_the_jobs_of_a_project(script_of: ScriptOf, cast: Cast, session: Session) -> None:
    bob, path = script_of(cast.bob), "/projects/acme%2Fweb"
    settled = {
        "shared_runners_enabled": False,
        "group_runners_enabled": False,
        "build_timeout": 7200,
        "protected_refs": ["main", "release/*"],
    }
    shown = bob.put(path, **settled)
    assert {name: shown[name] for name in settled} == settled
    assert bob.get(path) == shown
    (listed,) = bob.get("/projects")
    assert (listed["shared_runners_enabled"], listed["group_runners_enabled"]) == (False, False)
    assert bob.put(path, group_runners_enabled=True, shared_runners_enabled=None)["shared_runners_enabled"] is False
    assert "group_runners_enabled" in bob.get(path)
    assert bob.put(path, protected_refs="")["protected_refs"] == []
    before = len(session.scalars(select(AuditEvent)).all())
    assert bob.put(path, build_timeout=7200)["build_timeout"] == 7200
    assert len(session.scalars(select(AuditEvent)).all()) == before


def test_a_new_project_can_settle_its_jobs_at_once(script_of: ScriptOf, cast: Cast) -> None:
    made = script_of(cast.alice).post(
        "/projects", namespace_id=cast.acme.id, path="api", build_timeout=900, shared_runners_enabled=False
    )
    assert made["build_timeout"] == 900
    assert (made["shared_runners_enabled"], made["group_runners_enabled"]) == (False, True)


@pytest.mark.parametrize(
    ("wrong", "field"), [({"build_timeout": 599}, "build_timeout"), ({"protected_refs": ["a b"]}, "protected_refs")]
)
def test_a_rule_for_jobs_that_cannot_be_kept_is_told_by_its_name(
    script_of: ScriptOf, cast: Cast, wrong: dict[str, object], field: str
) -> None:
    assert set(script_of(cast.bob).put("/projects/acme%2Fweb", expect=400, **wrong)["message"]) == {field}


def test_a_developer_settles_nothing_for_the_jobs_of_a_project(script_of: ScriptOf, cast: Cast) -> None:
    erin = script_of(cast.erin)
    assert "job settings" in erin.put("/projects/acme%2Fweb", expect=403, build_timeout=7200)["message"]
    assert "protected_refs" not in erin.get("/projects/acme%2Fweb")
