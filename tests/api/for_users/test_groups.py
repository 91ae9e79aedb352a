"""Groups by script: which are seen, and how they are made, changed and deleted."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.models import AuditEvent, Deletion, Group, Membership, Role, Route
from tests.api.for_users.conftest import ScriptOf
from tests.api.for_users.scripts import Script
from tests.cast import Cast
from tests.domain.queries import asked

GITLABS = {"id", "web_url", "name", "path", "description", "visibility", "avatar_url", "full_name", "full_path",
           "created_at", "parent_id", "shared_runners_setting", "marked_for_deletion_on"}  # fmt: skip
SWITCH = {
    "allow_runner_registration_token",
    "runner_registration_token_allowed",
    "runner_registration_token_decided_by",
}


def paths(found: list[dict[str, Any]]) -> list[str]:
    return [each["full_path"] for each in found]


def test_everybody_sees_their_groups_and_those_below(script_of: ScriptOf, cast: Cast) -> None:
    assert paths(script_of(cast.dana, "read_api").get("/groups")) == ["acme", "other", "acme/platform"]
    assert paths(script_of(cast.erin).get("/groups")) == ["acme", "acme/platform"]
    assert script_of(cast.charlie).get("/groups") == []
    assert script_of(cast.bob).get("/groups") == []  # a project's maintainer sees the project only


def test_a_group_in_a_list_has_gitlabs_attributes(script_of: ScriptOf, cast: Cast) -> None:
    acme, platform = script_of(cast.alice).get("/groups")
    assert set(acme) == GITLABS
    assert (platform["full_name"], platform["parent_id"]) == ("Acme / Platform", acme["id"])
    assert (acme["parent_id"], acme["visibility"]) == (None, "private")
    assert platform["web_url"].endswith("/groups/acme/platform")


def test_of_a_group_above_that_one_may_not_see_only_the_path_is_told(script_of: ScriptOf, cast: Cast) -> None:
    cast.member(cast.charlie, cast.platform, Role.GUEST)
    cast.session.commit()
    assert script_of(cast.charlie).get("/groups")[0]["full_name"] == "acme / Platform"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"search": "PLAT"}, ["acme/platform"]),
        ({"search": "acme/pl"}, ["acme/platform"]),
        ({"search": "acme"}, ["acme"]),
        ({"search": "%"}, []),
        ({"top_level_only": "true"}, ["acme", "other"]),
        ({"order_by": "path", "sort": "desc"}, ["other", "acme/platform", "acme"]),
        ({"order_by": "id"}, ["acme", "acme/platform", "other"]),
        ({"owned": "true"}, []),
        ({"min_access_level": "10"}, []),
        ({"per_page": "1", "page": "2"}, ["other"]),
    ],
)
def test_a_list_of_groups_is_narrowed_sorted_and_paged(
    script_of: ScriptOf, cast: Cast, given: dict[str, str], expected: list[str]
) -> None:
    assert paths(script_of(cast.dana).get("/groups", **given)) == expected


def test_roles_narrow_the_list_too(script_of: ScriptOf, cast: Cast) -> None:
    cast.member(cast.erin, cast.platform, Role.OWNER)
    cast.session.commit()
    erin = script_of(cast.erin)
    assert paths(erin.get("/groups", owned=True)) == ["acme/platform"]
    assert paths(erin.get("/groups", min_access_level=30)) == ["acme", "acme/platform"]
    assert "min_access_level does not have" in erin.get("/groups", expect=400, min_access_level=31)["error"]
    assert paths(erin.get("/groups", **{"skip_groups[]": cast.acme.id})) == ["acme/platform"]


def test_a_group_is_found_by_number_and_by_path(script_of: ScriptOf, cast: Cast) -> None:
    alice = script_of(cast.alice)
    for place in (cast.platform.id, "acme%2Fplatform", "ACME%2Fplatform", "acme/platform"):
        assert alice.get(f"/groups/{place}")["full_path"] == "acme/platform"


@pytest.mark.parametrize("place", ["acme", "other", "nowhere", "0", "99999999999999999999"])
def test_a_stranger_finds_no_group(script_of: ScriptOf, cast: Cast, place: str) -> None:
    charlie = script_of(cast.charlie)
    for ask in (charlie.get, charlie.put, charlie.delete):
        assert ask(f"/groups/{place}", expect=404) == {"message": "404 Group Not Found"}


def test_what_a_group_settles_is_shown_to_who_reads_its_runners(script_of: ScriptOf, cast: Cast) -> None:
    few, all_ = script_of(cast.erin).get("/groups/acme"), script_of(cast.alice).get("/groups/acme")
    assert set(few) == GITLABS | SWITCH
    assert set(all_) - set(few) == {
        "runner_token_expiration_interval",
        "subgroup_runner_token_expiration_interval",
        "project_runner_token_expiration_interval",
        "runner_registration_enabled",
        "ci_registered_group_runners",
        "ci_registered_project_runners",
        "stale_runner_cleanup_days",
        "stale_runner_cleanup_legacy_only",
    }
    assert not [name for name in all_ if name.endswith("token") and name.startswith("runners")]


def test_the_subgroups_the_descendants_and_the_projects_of_a_group(script_of: ScriptOf, cast: Cast) -> None:
    cast.project("cli", cast.group("deep", inside=cast.platform))
    cast.session.commit()
    erin = script_of(cast.erin)
    assert paths(erin.get("/groups/acme/subgroups")) == ["acme/platform"]
    assert paths(erin.get("/groups/acme/descendant_groups")) == ["acme/platform/deep", "acme/platform"]
    assert paths(erin.get("/groups/acme%2Fplatform/subgroups")) == ["acme/platform/deep"]
    projects = erin.get("/groups/acme/projects")
    assert [each["path_with_namespace"] for each in projects] == ["acme/web"]
    projects = erin.get("/groups/acme/projects", include_subgroups=True)
    assert [each["path_with_namespace"] for each in projects] == ["acme/platform/deep/cli", "acme/web"]
    for below in ("subgroups", "descendant_groups", "projects"):
        script_of(cast.charlie).get(f"/groups/acme/{below}", expect=404)


@pytest.mark.parametrize("number", [1, 100])
def test_a_list_of_groups_takes_the_same_number_of_queries(
    script_of: ScriptOf, session: Session, cast: Cast, number: int
) -> None:
    for each in range(number):
        group = Group(parent_id=cast.acme.id, name=f"G {each}", path=f"g{each}", traversal_ids=[], created_at=now())
        group.route = Route(path=f"acme/g{each}")
        session.add(group)
        session.flush()
        group.traversal_ids = [cast.acme.id, group.id]
    session.commit()
    for who, most in ((cast.dana, 4), (cast.alice, 5)):  # the token, the number, the page, the names; her roles
        script = script_of(who)
        with asked(session) as statements:
            found = script.get("/groups", per_page=100)
        assert len(found) == min(100, number + (3 if who is cast.dana else 2))
        assert len([each for each in statements if each.startswith("SELECT")]) == most


def test_an_administrator_makes_a_group_at_the_top_and_owns_it(
    script_of: ScriptOf, session: Session, cast: Cast
) -> None:
    made = script_of(cast.dana).post("/groups", name="Tools", path="tools", description="All tools")
    assert (made["full_path"], made["parent_id"], made["description"]) == ("tools", None, "All tools")
    role = session.scalars(select(Membership).where(Membership.group_id == made["id"])).one()
    assert (role.user_id, role.access_level) == (cast.dana.id, Role.OWNER)


def test_an_owner_makes_a_group_in_theirs_and_others_do_not(script_of: ScriptOf, cast: Cast) -> None:
    made = script_of(cast.alice).post("/groups", name="Ops", path="ops", parent_id=cast.acme.id)
    assert made["full_path"] == "acme/ops"
    new = {"name": "X", "path": "x"}
    assert "administrators may" in script_of(cast.alice).post("/groups", expect=403, **new)["message"]
    assert "owners may" in script_of(cast.erin).post("/groups", expect=403, **new, parent_id=cast.acme.id)["message"]
    script_of(cast.charlie).post("/groups", expect=404, **new, parent_id=cast.acme.id)
    script_of(cast.alice, "read_api", "create_runner").post("/groups", expect=403, **new, parent_id=cast.acme.id)


def test_a_wrong_group_is_refused_by_field(script_of: ScriptOf, cast: Cast) -> None:
    dana = script_of(cast.dana)
    assert "path" in dana.post("/groups", expect=400, name="Acme", path="acme")["message"]
    assert set(dana.post("/groups", expect=400, name="", path="a b")["message"]) == {"name", "path"}
    assert dana.post("/groups", expect=400, name="A") == {"error": "path is missing"}
    said = dana.post("/groups", expect=400, name="A", path="a", visibility="public")["error"]
    assert said == "visibility does not have a valid value: private"


def test_a_group_is_made_with_what_it_settles_or_not_at_all(
    script_of: ScriptOf, session: Session, cast: Cast
) -> None:
    dana = script_of(cast.dana)
    made = dana.post(
        "/groups", name="T", path="t", allow_runner_registration_token=False, ci_registered_group_runners=5
    )
    assert (made["allow_runner_registration_token"], made["ci_registered_group_runners"]) == (False, 5)
    dana.post("/groups", expect=400, name="U", path="u", runner_token_expiration_interval=1)
    dana.get("/groups/u", expect=404)


def test_a_group_is_renamed_with_everything_below(script_of: ScriptOf, cast: Cast) -> None:
    alice = script_of(cast.alice)
    changed = alice.put("/groups/acme", path="corp", description="new")
    assert (changed["full_path"], changed["name"], changed["description"]) == ("corp", "Acme", "new")
    assert alice.get("/groups/corp%2Fplatform")["full_path"] == "corp/platform"
    alice.get("/groups/acme", expect=404)
    assert "owners may" in script_of(cast.erin).put("/groups/corp", expect=403, name="Mine")["message"]


def test_what_a_group_settles_is_changed_with_an_event_for_each_thing(
    script_of: ScriptOf, session: Session, cast: Cast
) -> None:
    before = session.scalar(select(func.max(AuditEvent.id)))
    changed = script_of(cast.dana).put(
        "/groups/acme",
        name="Acme Inc.",
        allow_runner_registration_token="false",
        runner_registration_enabled=False,
        ci_registered_group_runners=7,
        project_runner_token_expiration_interval=7200,
        stale_runner_cleanup_days=30,
    )
    assert changed["runner_registration_token_decided_by"] == {
        "kind": "group",
        "id": cast.acme.id,
        "full_path": "acme",
    }
    assert not changed["runner_registration_token_allowed"]
    assert not changed["runner_registration_enabled"]
    assert (changed["ci_registered_group_runners"], changed["ci_registered_project_runners"]) == (7, None)
    assert changed["project_runner_token_expiration_interval"] == 7200
    assert changed["stale_runner_cleanup_days"] == 30
    events = session.scalars(select(AuditEvent.action).where(AuditEvent.id > before).order_by(AuditEvent.id)).all()
    assert events == [
        "access_token_created",
        "group_renamed",
        "registration_tokens_turned_off",
        "runner_creation_changed",
        "runner_limits_changed",
        "token_life_changed",
        "stale_runner_cleanup_changed",
    ]


def test_the_same_values_again_change_nothing_and_leave_no_trace(
    script_of: ScriptOf, session: Session, cast: Cast
) -> None:
    dana, alice = script_of(cast.dana), script_of(cast.alice)
    shown = dana.put("/groups/acme", ci_registered_group_runners=7, stale_runner_cleanup_days=30)
    before = session.scalar(select(func.count()).select_from(AuditEvent))
    for script in (dana, alice):  # some of it only administrators change
        assert script.put("/groups/acme", **shown) == shown
    assert session.scalar(select(func.count()).select_from(AuditEvent)) == before
    for other in ({"ci_registered_group_runners": 8}, {"runner_registration_enabled": False}):
        assert "administrators may" in alice.put("/groups/acme", expect=403, **shown | other)["message"]
    for standing in ({"ci_registered_group_runners": 7}, {"runner_registration_enabled": True}):
        script_of(cast.erin).put("/groups/acme", expect=403, **standing)


def test_a_change_locks_the_groups_before_their_settings_and_the_switch_before_both(
    script_of: ScriptOf, session: Session, cast: Cast
) -> None:
    """As who deletes a group or registers a runner does; else each would wait for the other."""
    given = {"name": "New", "runner_token_expiration_interval": 7200, "allow_runner_registration_token": False}
    for path in ("/groups/acme%2Fplatform", "/projects/acme%2Fweb"):
        alice = script_of(cast.alice)
        with asked(session) as statements:
            alice.put(path, **given)
        steps = ("pg_advisory_xact_lock(", "FOR SHARE OF namespaces", "_settings (")
        first = [next(n for n, each in enumerate(statements) if step in each) for step in steps]
        assert first == sorted(first)


def test_one_refused_value_keeps_all_others(script_of: ScriptOf, session: Session, cast: Cast) -> None:
    refused = script_of(cast.alice).put(
        "/groups/acme",
        expect=400,
        name="Corp",
        allow_runner_registration_token=False,
        subgroup_runner_token_expiration_interval=60,
    )
    assert refused["message"] == {
        "subgroup_runner_token_expiration_interval": ["must be from 7200 to 157680000 seconds, or null"]
    }
    assert (
        "administrators may"
        in script_of(cast.alice).put("/groups/acme", expect=403, name="Corp", ci_registered_group_runners=1)[
            "message"
        ]
    )
    shown = script_of(cast.alice).get("/groups/acme")
    assert (shown["name"], shown["allow_runner_registration_token"]) == ("Acme", True)


def test_null_takes_a_life_back_and_turns_the_clean_up_off(script_of: ScriptOf, cast: Cast) -> None:
    alice = script_of(cast.alice)
    alice.put("/groups/acme", runner_token_expiration_interval=9000, stale_runner_cleanup_days=30)
    shown = alice.put("/groups/acme", stale_runner_cleanup_legacy_only=True)
    assert (shown["runner_token_expiration_interval"], shown["stale_runner_cleanup_days"]) == (9000, 30)
    assert shown["stale_runner_cleanup_legacy_only"]
    shown = alice.put("/groups/acme", runner_token_expiration_interval=None, stale_runner_cleanup_days=None)
    assert (shown["runner_token_expiration_interval"], shown["stale_runner_cleanup_days"]) == (None, None)
    refused = alice.put("/groups/acme", expect=400, stale_runner_cleanup_legacy_only=True)["message"]
    assert "Give stale_runner_cleanup_days" in refused["stale_runner_cleanup_legacy_only"][0]
    assert list(alice.put("/groups/acme", expect=400, stale_runner_cleanup_days=1)["message"]) == [
        "stale_runner_cleanup_days"
    ]


def test_what_is_decided_above_is_told_and_not_turned_on_below(script_of: ScriptOf, cast: Cast) -> None:
    cast.member(cast.charlie, cast.platform, Role.OWNER)
    cast.session.commit()
    script_of(cast.alice).put("/groups/acme", allow_runner_registration_token=False)
    shown = script_of(cast.erin).get("/groups/acme%2Fplatform")
    assert (shown["allow_runner_registration_token"], shown["runner_registration_token_allowed"]) == (True, False)
    assert shown["runner_registration_token_decided_by"]["full_path"] == "acme"
    charlie = script_of(cast.charlie)
    shown = charlie.get("/groups/acme%2Fplatform")
    assert shown["runner_registration_token_decided_by"] == {"kind": "group", "id": None, "full_path": None}
    assert charlie.put("/groups/acme%2Fplatform", allow_runner_registration_token=True, name="P")["name"] == "P"
    refused = charlie.put("/groups/acme%2Fplatform", expect=403, allow_runner_registration_token=False)
    assert "turned registration tokens off" in refused["message"]


def test_a_group_is_deleted_at_once_and_can_be_restored(script_of: ScriptOf, session: Session, cast: Cast) -> None:
    alice, number = script_of(cast.alice), cast.platform.id
    assert "owners may" in script_of(cast.erin).delete(f"/groups/{number}", expect=403)["message"]
    assert alice.delete(f"/groups/{number}", expect=202) == {"message": "202 Accepted"}
    for place in (number, "acme%2Fplatform"):
        assert alice.get(f"/groups/{place}", expect=404) == {"message": "404 Group Not Found"}
    assert paths(alice.get("/groups")) == ["acme"]
    assert session.scalars(select(Deletion)).one().path == "acme/platform"


def test_nobody_is_asked_for_a_token(nobody: Script, app: Flask) -> None:
    for path in ("/groups", "/groups/acme"):
        nobody.get(path, expect=401)
