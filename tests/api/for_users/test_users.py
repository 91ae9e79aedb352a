"""People by script: who finds whom, and what administrators do with accounts."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import actors
from portal.domain.errors import NotFound
from portal.domain.groups import groups
from portal.domain.people import access_tokens, accounts, people
from portal.models import AuditEvent, Role, User
from tests.api.for_users.conftest import ScriptOf
from tests.cast import Cast, sign_in
from tests.domain.queries import asked

FRED = {"username": "fred", "name": "Fred Poe", "email": "fred@acme.example", "password": "a long way to tipperary"}


def names(found: list[dict[str, object]]) -> list[object]:
    return sorted(each["username"] for each in found)  # type: ignore[type-var]


def actions(session: Session) -> list[str]:
    return list(session.scalars(select(AuditEvent.action).order_by(AuditEvent.id.desc()).limit(3)))


def test_an_administrator_finds_everybody_with_all_attributes(script_of: ScriptOf, cast: Cast) -> None:
    found = script_of(cast.dana, "read_api").get("/users")
    assert names(found) == ["alice", "bob", "charlie", "dana", "erin"]
    assert [each["id"] for each in found] == sorted((each["id"] for each in found), reverse=True)
    dana = next(each for each in found if each["username"] == "dana")
    assert (dana["email"], dana["is_admin"], dana["state"]) == ("dana@acme.example", True, "active")
    assert (dana["two_factor_enabled"], dana["can_create_group"], dana["external"]) == (False, True, False)
    assert dana["web_url"].endswith(f"/admin/people/{cast.dana.id}")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"username": "ERIN"}, ["erin"]),
        ({"username": "eri"}, []),
        ({"search": "a"}, ["alice", "bob", "charlie", "dana", "erin"]),  # the addresses all hold an "a"
        ({"search": "bob@acme"}, ["bob"]),
        ({"search": "erin", "username": "bob"}, []),
        ({"admins": "true"}, ["dana"]),
        ({"blocked": "true"}, ["charlie"]),
        ({"active": "true", "search": "charlie"}, []),
        ({"active": "true", "blocked": "true", "search": "charlie"}, ["charlie"]),
    ],
)
def test_an_administrators_list_is_narrowed(
    script_of: ScriptOf, session: Session, cast: Cast, given: dict[str, str], expected: list[str]
) -> None:
    people.block(session, cast.as_(cast.dana), cast.charlie)
    session.commit()
    assert names(script_of(cast.dana).get("/users", **given)) == expected


def test_people_are_sorted_and_paged(script_of: ScriptOf, cast: Cast) -> None:
    answer = script_of(cast.dana).ask("GET", "/users", order_by="username", sort="asc", per_page=2, page=2)
    assert [each["username"] for each in answer.get_json()] == ["charlie", "dana"]
    assert (answer.headers["X-Total"], answer.headers["X-Next-Page"]) == ("5", "3")


def test_others_find_those_whom_the_members_pages_show_them_and_only_what_those_show(
    script_of: ScriptOf, cast: Cast
) -> None:
    found = script_of(cast.bob).get("/users")
    assert names(found) == ["alice", "bob", "erin"]  # the group's members are members of his project
    assert set(found[0]) == {"id", "username", "name", "state", "locked", "avatar_url", "web_url"}
    cast.member(cast.charlie, cast.other, Role.GUEST)
    cast.session.commit()
    assert names(script_of(cast.erin).get("/users")) == ["alice", "bob", "erin"]
    assert names(script_of(cast.charlie).get("/users")) == ["charlie"]


def test_what_was_deleted_makes_nobody_known(script_of: ScriptOf, session: Session, cast: Cast) -> None:
    bob, erin = script_of(cast.bob), script_of(cast.erin)
    groups.delete(session, cast.as_(cast.dana), cast.web)
    session.commit()
    assert names(bob.get("/users")) == ["bob"]
    assert bob.get("/users", username="charlie") == []
    assert names(erin.get("/users")) == ["alice", "erin"]
    groups.delete(session, cast.as_(cast.dana), cast.acme)
    session.commit()
    assert names(erin.get("/users")) == ["erin"]
    assert script_of(cast.alice).get("/users", username="charlie") == []


def test_who_gives_roles_finds_a_stranger_by_the_whole_name_or_address(script_of: ScriptOf, cast: Cast) -> None:
    alice = script_of(cast.alice)
    assert names(alice.get("/users", username="Charlie")) == ["charlie"]
    assert names(alice.get("/users", search="charlie@acme.example")) == ["charlie"]
    for part in ("charli", "charlie@acme", "@acme.example"):
        assert alice.get("/users", search=part) == []
    assert alice.get("/users", username="charlie", search="dana") == []


def test_who_gives_no_roles_finds_no_stranger(script_of: ScriptOf, cast: Cast) -> None:
    for given in ({"username": "charlie"}, {"search": "charlie"}, {"search": "charlie@acme.example"}):
        assert script_of(cast.erin).get("/users", **given) == []
    assert script_of(cast.erin).get("/users", search="alice@acme.example") == []  # not even of whom she knows


def test_who_administers_is_nobody_elses_question(script_of: ScriptOf, cast: Cast) -> None:
    assert "administrators may" in script_of(cast.alice).get("/users", expect=403, admins=True)["message"]


def test_a_person_is_shown_to_themselves_to_administrators_and_in_few_words_to_others(
    script_of: ScriptOf, cast: Cast
) -> None:
    path = f"/users/{cast.alice.id}"
    assert script_of(cast.alice).get(path)["email"] == "alice@acme.example"
    assert script_of(cast.dana).get(path)["email"] == "alice@acme.example"
    assert "email" not in script_of(cast.erin).get(path)
    missing = {"message": "404 User Not Found"}
    assert script_of(cast.charlie).get(path, expect=404) == missing
    assert script_of(cast.alice).get(f"/users/{cast.charlie.id}", expect=404) == missing
    assert script_of(cast.dana).get("/users/999999999", expect=404) == missing


@pytest.mark.parametrize("number", [1, 100])
def test_a_list_of_people_takes_the_same_number_of_queries(
    script_of: ScriptOf, session: Session, cast: Cast, number: int
) -> None:
    for each in range(number):
        person = User(username=f"p{each}", name=f"P {each}", email=f"p{each}@x.example", created_at=now())
        session.add(person)
    session.commit()
    for who, most in ((cast.dana, 4), (cast.alice, 3)):
        script = script_of(who)
        with asked(session) as statements:
            script.get("/users", per_page=100)
        assert len([each for each in statements if each.startswith("SELECT")]) == most


def test_an_administrator_makes_a_person_who_chooses_another_password(
    app: Flask, script_of: ScriptOf, session: Session, cast: Cast
) -> None:
    made = script_of(cast.dana).post("/users", **FRED, skip_confirmation=True)
    assert (made["username"], made["is_admin"], made["state"]) == ("fred", False, "active")
    assert actions(session)[0] == "person_created"
    browser = sign_in(app.test_client(), "fred", FRED["password"])
    assert browser.get("/").headers["Location"].endswith("/-/account/password")


@pytest.mark.parametrize("how", ["reset_password", "force_random_password"])
def test_without_a_chosen_password_nobody_knows_one(
    script_of: ScriptOf, session: Session, cast: Cast, how: str
) -> None:
    made = script_of(cast.dana).post("/users", **{**FRED, "password": "", how: True}, admin=True)
    assert made["is_admin"]
    person = session.get_one(User, made["id"])
    assert person.password_digest is None


def test_a_person_needs_some_way_in_and_good_values(script_of: ScriptOf, cast: Cast) -> None:
    dana = script_of(cast.dana)
    without = {name: value for name, value in FRED.items() if name != "password"}
    said = dana.post("/users", expect=400, **without)["error"]
    assert said.startswith("password, reset_password, force_random_password are missing")
    wrong = dana.post("/users", expect=400, **{**FRED, "username": "alice", "password": "short"})["message"]
    assert set(wrong) == {"username", "password"}
    assert dana.post("/users", expect=400, username="x", name="X", password="y") == {"error": "email is missing"}


def test_only_administrators_make_change_block_and_delete_people(script_of: ScriptOf, cast: Cast) -> None:
    alice = script_of(cast.alice)
    assert "administrators may" in alice.post("/users", expect=403, **FRED)["message"]
    for number, status in ((cast.erin.id, 403), (cast.alice.id, 403), (cast.charlie.id, 404), (999_999_999, 404)):
        alice.put(f"/users/{number}", expect=status, admin=True)
        alice.delete(f"/users/{number}", expect=status)
        alice.post(f"/users/{number}/block", expect=status)
        alice.post(f"/users/{number}/unblock", expect=status)
    assert not cast.alice.admin


def test_a_token_that_reads_writes_nothing(script_of: ScriptOf, cast: Cast) -> None:
    reader = script_of(cast.dana, "read_api")
    assert reader.post("/users", expect=403, **FRED)["error"] == "insufficient_scope"
    assert reader.delete(f"/users/{cast.erin.id}", expect=403)["error"] == "insufficient_scope"


def test_a_person_is_changed_in_several_things_at_once(script_of: ScriptOf, session: Session, cast: Cast) -> None:
    changed = script_of(cast.dana).put(
        f"/users/{cast.erin.id}", name="Erin Night", admin=True, password="a long way to tipperary"
    )
    assert (changed["name"], changed["username"], changed["is_admin"]) == ("Erin Night", "erin", True)
    assert actions(session) == ["administrator_added", "password_reset", "person_changed"]
    session.expire_all()
    assert cast.erin.must_change_password
    assert accounts.signed_in(session, "erin", "a long way to tipperary") is not None


def test_when_one_thing_is_refused_nothing_of_a_person_changes(
    script_of: ScriptOf, session: Session, cast: Cast
) -> None:
    refused = script_of(cast.dana).put(f"/users/{cast.erin.id}", expect=400, name="Erin N", admin=True, password="x")
    assert list(refused["message"]) == ["password"]
    session.expire_all()
    assert (cast.erin.name, cast.erin.admin) == ("Erin Day", False)


def test_the_last_administrator_stays_one(script_of: ScriptOf, cast: Cast) -> None:
    refused = script_of(cast.dana).put(f"/users/{cast.dana.id}", expect=403, admin=False)
    assert refused["message"].startswith("403 Forbidden - Dana Kay is the last administrator")


def test_a_blocked_person_is_out_with_their_tokens_until_they_are_let_in(
    app: Flask, script_of: ScriptOf, session: Session, cast: Cast
) -> None:
    dana, alice = script_of(cast.dana), script_of(cast.alice)
    browser = sign_in(app.test_client(), "alice")
    assert dana.post(f"/users/{cast.alice.id}/block") is True
    assert dana.post(f"/users/{cast.alice.id}/block") is True
    assert dana.get(f"/users/{cast.alice.id}")["state"] == "blocked"
    alice.get("/user", expect=401)
    assert browser.get("/").status_code == 302
    assert dana.post(f"/users/{cast.alice.id}/unblock") is True
    assert alice.get("/user")["state"] == "active"
    assert actions(session)[:2] == ["person_unblocked", "person_blocked"]
    event = session.scalars(select(AuditEvent).where(AuditEvent.action == "person_blocked")).one()
    assert (event.actor_kind, event.actor_id) == ("access_token", cast.dana.id)


def test_administrators_neither_block_nor_delete_themselves(script_of: ScriptOf, cast: Cast) -> None:
    cast.person("fay", admin=True)
    dana = script_of(cast.dana)
    assert "cannot block yourself" in dana.post(f"/users/{cast.dana.id}/block", expect=403)["message"]
    assert "cannot delete your own" in dana.delete(f"/users/{cast.dana.id}", expect=403)["message"]


def test_a_person_is_deleted_and_their_groups_are_not_left_by_mistake(
    script_of: ScriptOf, session: Session, cast: Cast
) -> None:
    dana, gone = script_of(cast.dana), cast.erin.id
    dana.delete(f"/users/{gone}")
    dana.get(f"/users/{gone}", expect=404)
    refused = dana.delete(f"/users/{cast.alice.id}", expect=409)
    assert refused["message"].startswith("409 Conflict - Nobody else owns acme.")
    dana.delete(f"/users/{cast.alice.id}", leave_groups=True)
    assert actions(session)[0] == "person_deleted"


def test_what_becomes_of_the_runners_of_who_is_deleted_can_be_said(
    script_of: ScriptOf, session: Session, cast: Cast
) -> None:
    cast.member(cast.erin, cast.web, Role.MAINTAINER)
    session.commit()
    made = script_of(cast.erin, "create_runner", "api").ask(
        "POST", "/user/runners", runner_type="project_type", project_id=cast.web.id
    )
    runner_id = made.get_json()["id"]
    dana = script_of(cast.dana)
    dana.delete(f"/users/{cast.erin.id}", expect=400, created_runners="burn")
    dana.delete(f"/users/{cast.erin.id}", created_runners="pause")
    assert dana.get(f"/runners/{runner_id}")["paused"]


def test_an_administrator_whose_turn_comes_too_late_changes_nothing(session: Session, cast: Cast) -> None:
    """Somebody blocked or demoted them while their script's request waited."""
    fay = cast.person("fay", admin=True)
    token = actors.by_token(access_tokens.find(session, cast.access_token(fay)))
    fay.blocked_at = now()
    session.flush()
    with pytest.raises(NotFound):
        people.block(session, token, cast.erin)
    fay.blocked_at, fay.admin = None, False
    session.flush()
    with pytest.raises(NotFound):
        people.block(session, token, cast.erin)
    fay.admin = True
    session.flush()
    assert people.block(session, token, cast.erin) == 0
