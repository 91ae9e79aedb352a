"""Members by script: who is shown, and how roles are given, changed and taken."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.models import AuditEvent, Membership, Role, User
from tests.api.for_users.conftest import ScriptOf
from tests.api.for_users.scripts import Script
from tests.cast import Cast
from tests.domain.queries import asked

PLACES = ["/groups/acme", "/projects/acme%2Fweb"]


def levels(found: list[dict[str, Any]]) -> dict[str, int]:
    return {each["username"]: each["access_level"] for each in found}


def test_the_members_that_were_given_a_role_here_and_all_of_them(script_of: ScriptOf, cast: Cast) -> None:
    erin = script_of(cast.erin, "read_api")
    assert levels(erin.get("/groups/acme/members")) == {"alice": 50, "erin": 30}
    assert levels(erin.get("/projects/acme%2Fweb/members")) == {"bob": 40}
    assert levels(erin.get("/projects/acme%2Fweb/members/all")) == {"alice": 50, "bob": 40, "erin": 30}
    assert levels(erin.get("/groups/acme%2Fplatform/members")) == {}
    assert levels(erin.get("/groups/acme%2Fplatform/members/all")) == {"alice": 50, "erin": 30}
    assert levels(script_of(cast.bob).get("/projects/acme%2Fweb/members/all"))["alice"] == 50


def test_everybody_stands_there_once_with_their_highest_role(script_of: ScriptOf, cast: Cast) -> None:
    cast.member(cast.erin, cast.web, Role.GUEST)
    cast.member(cast.alice, cast.web, Role.OWNER)
    cast.session.commit()
    script = script_of(cast.dana)
    assert levels(script.get("/projects/acme%2Fweb/members")) == {"alice": 50, "bob": 40, "erin": 10}
    every = script.get("/projects/acme%2Fweb/members/all")
    assert [(each["username"], each["access_level"]) for each in every] == [("alice", 50), ("bob", 40), ("erin", 30)]
    assert script.get(f"/projects/acme%2Fweb/members/{cast.erin.id}")["access_level"] == 10
    assert script.get(f"/projects/acme%2Fweb/members/all/{cast.erin.id}")["access_level"] == 30


def test_a_member_has_gitlabs_attributes_and_no_address(script_of: ScriptOf, cast: Cast) -> None:
    member = script_of(cast.erin).get(f"/groups/acme/members/{cast.alice.id}")
    assert {name: value for name, value in member.items() if name not in ("created_at", "web_url")} == {
        "id": cast.alice.id,
        "username": "alice",
        "name": "Alice Lam",
        "state": "active",
        "locked": False,
        "avatar_url": None,
        "access_level": 50,
        "expires_at": None,
        "membership_state": "active",
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"query": "LAM"}, ["alice"]),
        ({"query": "acme.example"}, []),
        ({"user_ids[]": "erin"}, ["erin"]),
        ({"user_ids": "both"}, ["alice", "erin"]),
        ({"per_page": "1", "page": "2"}, ["erin"]),
    ],
)
def test_members_are_searched_and_paged(
    script_of: ScriptOf, cast: Cast, given: dict[str, str], expected: list[str]
) -> None:
    numbers = {"erin": str(cast.erin.id), "both": f"{cast.alice.id},{cast.erin.id}"}
    given = {name: numbers.get(value, value) for name, value in given.items()}
    assert list(levels(script_of(cast.erin).get("/groups/acme/members", **given))) == expected


@pytest.mark.parametrize("place", PLACES)
def test_a_stranger_sees_and_changes_no_members(script_of: ScriptOf, cast: Cast, place: str) -> None:
    charlie, what = script_of(cast.charlie), place.split("/")[1].removesuffix("s").capitalize()
    missing = {"message": f"404 {what} Not Found"}
    for path in ("members", "members/all", f"members/{cast.bob.id}", f"members/all/{cast.alice.id}"):
        assert charlie.get(f"{place}/{path}", expect=404) == missing
    assert charlie.post(f"{place}/members", expect=404, user_id=cast.charlie.id, access_level=50) == missing
    assert charlie.put(f"{place}/members/{cast.bob.id}", expect=404, access_level=10) == missing
    assert charlie.delete(f"{place}/members/{cast.bob.id}", expect=404) == missing


@pytest.mark.parametrize("place", PLACES)
def test_who_is_no_member_is_not_found(script_of: ScriptOf, cast: Cast, place: str) -> None:
    alice, number = script_of(cast.alice), cast.charlie.id
    missing = {"message": "404 Member Not Found"}
    for path in (f"members/{number}", f"members/all/{number}", "members/999999999"):
        assert alice.get(f"{place}/{path}", expect=404) == missing
    assert alice.put(f"{place}/members/{number}", expect=404, access_level=10) == missing
    assert alice.delete(f"{place}/members/{number}", expect=404) == missing


@pytest.mark.parametrize("place", PLACES)
def test_a_role_is_given_changed_and_taken(script_of: ScriptOf, session: Session, cast: Cast, place: str) -> None:
    alice = script_of(cast.alice)
    made = alice.post(f"{place}/members", user_id=cast.charlie.id, access_level=30)
    assert (made["username"], made["access_level"]) == ("charlie", 30)
    path = f"{place}/members/{cast.charlie.id}"
    assert alice.put(path, access_level="40")["access_level"] == 40
    alice.delete(path)
    alice.get(path, expect=404)
    events = session.scalars(select(AuditEvent.action).order_by(AuditEvent.id.desc()).limit(3)).all()
    assert events == ["member_removed", "member_role_changed", "member_added"]


def test_a_role_is_given_by_user_name_too(script_of: ScriptOf, cast: Cast) -> None:
    made = script_of(cast.alice).post("/groups/acme/members", username="Charlie", access_level=10)
    assert made["id"] == cast.charlie.id


def test_somebody_is_named_once_and_exists(script_of: ScriptOf, cast: Cast) -> None:
    alice, number = script_of(cast.alice), cast.erin.id
    path = "/groups/acme/members"
    assert "missing, at least one" in alice.post(path, expect=400, access_level=30)["error"]
    both = {"user_id": number, "username": "erin", "access_level": 30}
    assert alice.post(path, expect=400, **both) == {"error": "user_id, username are mutually exclusive"}
    assert alice.post(path, expect=404, user_id=999_999_999, access_level=30) == {"message": "404 User Not Found"}
    assert list(alice.post(path, expect=400, username="nobody", access_level=30)["message"]) == ["username"]
    assert alice.post(path, expect=400, user_id=number) == {"error": "access_level is missing"}
    again = alice.post(path, expect=409, user_id=number, access_level=30)
    assert again["message"].startswith("409 Conflict - Erin Day is a member already")


@pytest.mark.parametrize("level", [0, 5, 15, 60, "x", True])
def test_a_role_that_there_is_not_is_refused(script_of: ScriptOf, cast: Cast, level: object) -> None:
    given = {"user_id": cast.charlie.id, "access_level": level}
    assert script_of(cast.alice).post("/groups/acme/members", expect=400, **given)["error"].startswith("access_level")


def test_a_role_with_an_end_is_refused_since_it_would_not_end(script_of: ScriptOf, cast: Cast) -> None:
    alice = script_of(cast.alice)
    given = {"user_id": cast.charlie.id, "access_level": 30, "expires_at": "2030-01-01"}
    assert "expires_at cannot be kept" in alice.post("/groups/acme/members", expect=400, **given)["error"]
    path = f"/groups/acme/members/{cast.erin.id}"
    alice.put(path, expect=400, access_level=30, expires_at="2030-01-01")
    assert alice.put(path, access_level=40, expires_at="")["expires_at"] is None


def test_nobody_gives_more_than_they_have(script_of: ScriptOf, cast: Cast) -> None:
    bob, erin = script_of(cast.bob), script_of(cast.erin)
    given = {"user_id": cast.charlie.id, "access_level": 50}
    assert "above your own" in bob.post("/projects/acme%2Fweb/members", expect=403, **given)["message"]
    assert "owners may" in erin.post("/groups/acme/members", expect=403, **given)["message"]
    assert "owners may" in erin.delete(f"/groups/acme/members/{cast.alice.id}", expect=403)["message"]
    reader = script_of(cast.alice, "read_api")
    assert reader.post("/groups/acme/members", expect=403, **given)["error"] == "insufficient_scope"


def test_people_leave_and_the_last_owner_stays(script_of: ScriptOf, cast: Cast) -> None:
    erin, alice = script_of(cast.erin), script_of(cast.alice)
    erin.delete(f"/groups/acme/members/{cast.erin.id}")
    erin.get("/groups/acme", expect=404)
    refused = alice.delete(f"/groups/acme/members/{cast.alice.id}", expect=409)["message"]
    assert refused.startswith("409 Conflict - This is the group's last owner.")
    assert alice.put(f"/groups/acme/members/{cast.alice.id}", expect=409, access_level=10)["message"] == refused


@pytest.mark.parametrize("number", [1, 100])
def test_a_list_of_members_takes_the_same_number_of_queries(
    script_of: ScriptOf, session: Session, cast: Cast, number: int
) -> None:
    for each in range(number):
        person = User(username=f"p{each}", name=f"P {each}", email=f"p{each}@x.example", created_at=now())
        session.add(Membership(user=person, group_id=cast.acme.id, access_level=10))
    session.commit()
    script = script_of(cast.alice)
    for path, most in (("/groups/acme/members", 5), ("/projects/acme%2Fweb/members/all", 5)):
        with asked(session) as statements:
            script.get(path, per_page=100)
        assert len([each for each in statements if each.startswith("SELECT")]) == most


def test_nobody_is_asked_for_a_token(nobody: Script) -> None:
    for place in PLACES:
        nobody.get(f"{place}/members", expect=401)
