"""`/personal_access_tokens`: scripts list, make, rotate and revoke the tokens of their people."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.people import people
from portal.models import AccessToken, AuditEvent, TokenScope
from tests.api.for_users.conftest import ScriptOf
from tests.api.for_users.scripts import Script
from tests.cast import Cast, sign_in
from tests.domain.queries import asked

TOKENS = "/personal_access_tokens"
ATTRIBUTES = {
    "id",
    "name",
    "revoked",
    "created_at",
    "description",
    "scopes",
    "user_id",
    "last_used_at",
    "active",
    "expires_at",
    "last_used_ips",
}


def day(later: int) -> str:
    return (now().date() + timedelta(days=later)).isoformat()


def names(found: list[dict[str, Any]]) -> list[str]:
    return [each["name"] for each in found]


@pytest.fixture
def alice(script_of: ScriptOf, cast: Cast) -> Script:
    return script_of(cast.alice)


@pytest.fixture
def dana(script_of: ScriptOf, cast: Cast) -> Script:
    return script_of(cast.dana)


class TestReading:
    def test_a_token_has_gitlabs_attributes_and_nothing_secret(self, alice: Script, cast: Cast) -> None:
        shown = alice.get(f"{TOKENS}/self")
        assert set(shown) == ATTRIBUTES
        assert (shown["name"], shown["scopes"], shown["user_id"]) == ("a test's", ["api"], cast.alice.id)
        assert (shown["active"], shown["revoked"], shown["expires_at"]) == (True, False, day(30))
        assert (shown["last_used_at"], shown["last_used_ips"], shown["description"]) == (None, [], None)

    @pytest.mark.parametrize("scope", list(TokenScope))
    def test_a_token_of_any_scope_may_ask_what_it_is_and_end_itself(
        self, script_of: ScriptOf, cast: Cast, scope: str
    ) -> None:
        script = script_of(cast.alice, scope)
        assert script.get(f"{TOKENS}/self")["scopes"] == [scope]
        script.delete(f"{TOKENS}/self")
        assert "revoked" in script.get(f"{TOKENS}/self", expect=401)["error_description"]

    def test_a_browser_shows_no_token_to_ask_about(self, app: Flask, cast: Cast) -> None:
        answer = sign_in(app.test_client(), "alice").get(f"/api/v4{TOKENS}/self")
        assert (answer.status_code, answer.get_json()) == (
            400,
            {"message": "400 Bad request - This endpoint requires token type to be a personal access token"},
        )

    def test_everybody_lists_their_own_and_administrators_all(self, alice: Script, dana: Script, cast: Cast) -> None:
        cast.access_token(cast.bob)
        assert {each["user_id"] for each in alice.get(TOKENS)} == {cast.alice.id}
        assert [each["user_id"] for each in dana.get(TOKENS)] == [cast.bob.id, cast.dana.id, cast.alice.id]
        assert [each["user_id"] for each in dana.get(TOKENS, user_id=cast.bob.id)] == [cast.bob.id]
        for script, whose in ((alice, cast.bob.id), (alice, 999_999), (dana, 999_999)):
            assert script.get(TOKENS, expect=404, user_id=whose) == {"message": "404 User Not Found"}

    def test_a_token_that_only_makes_runners_lists_none(self, script_of: ScriptOf, cast: Cast) -> None:
        for scope in ("create_runner", "manage_runner"):
            assert script_of(cast.alice, scope).get(TOKENS, expect=403)["error"] == "insufficient_scope"

    def test_filters_keep_what_fits(self, alice: Script, session: Session) -> None:
        for name, life in (("Nightly", 3), ("Fleet report", 50)):
            alice.post("/user/personal_access_tokens", name=name, scopes=["read_api"], expires_at=day(life))
        old = AccessToken.name == "Nightly"
        session.execute(
            update(AccessToken)
            .where(old)
            .values(created_at=now() - timedelta(days=9), last_used_at=now() - timedelta(days=2))
        )
        session.commit()
        yesterday = (now() - timedelta(days=1)).isoformat()
        ids = {each["name"]: each["id"] for each in alice.get(TOKENS)}
        alice.delete(f"{TOKENS}/{ids['Fleet report']}")
        every = ["Fleet report", "Nightly", "a test's"]
        for filters, found in (
            ({}, every),
            ({"state": "active"}, every[1:]),
            ({"state": "inactive"}, every[:1]),
            ({"revoked": "true"}, every[:1]),
            ({"revoked": "false"}, every[1:]),
            ({"search": "REPORT"}, every[:1]),
            ({"created_before": yesterday}, ["Nightly"]),
            ({"created_after": yesterday}, [every[0], every[2]]),
            ({"last_used_before": yesterday}, ["Nightly"]),
            ({"last_used_after": day(-9)}, ["Nightly"]),
            ({"expires_before": day(4)}, ["Nightly"]),
            ({"expires_after": day(30)}, ["Fleet report"]),
            ({"search": "", "created_after": "", "state": "active", "user_id": ""}, every[1:]),
        ):
            assert names(alice.get(TOKENS, **filters)) == found, filters

    @pytest.mark.parametrize(
        "wrong", ["state=good", "revoked=perhaps", "created_after=soon", "expires_after=31.12.2030", "user_id=x"]
    )
    def test_a_filter_that_is_none_is_named(self, alice: Script, wrong: str) -> None:
        name, _, value = wrong.partition("=")
        assert alice.get(TOKENS, expect=400, **{name: value})["error"].startswith(f"{name} ")

    def test_pages_have_gitlabs_headers_and_the_same_few_queries(
        self, dana: Script, cast: Cast, session: Session
    ) -> None:
        asked_for = []
        for _ in range(2):
            with asked(session) as statements:
                answer = dana.ask("GET", TOKENS, per_page=3)
            asked_for.append(len(statements))
            for user in (cast.alice, cast.bob, cast.erin):
                cast.access_token(user)
        assert answer.headers["X-Total"] == "4"
        assert answer.headers["X-Next-Page"] == "2"
        assert len(answer.get_json()) == 3
        assert asked_for[0] == asked_for[1]

    def test_somebody_elses_token_is_not_there(self, alice: Script, dana: Script, cast: Cast) -> None:
        number = dana.get(f"{TOKENS}/self")["id"]
        for ask in (alice.get, alice.delete):
            assert ask(f"{TOKENS}/{number}", expect=404)["message"].startswith("404 Not Found")
        alice.post(f"{TOKENS}/{number}/rotate", expect=404)
        assert dana.get(f"{TOKENS}/{alice.get(f'{TOKENS}/self')['id']}")["user_id"] == cast.alice.id


class TestMaking:
    def test_a_script_makes_a_token_of_its_person_shown_once(self, app: Flask, alice: Script, cast: Cast) -> None:
        made = alice.post(
            "/user/personal_access_tokens",
            name="fleet report",
            description="each morning",
            scopes=["read_api"],
            expires_at=day(9),
        )
        assert set(made) == {*ATTRIBUTES, "token"}
        assert (made["user_id"], made["description"], made["expires_at"]) == (cast.alice.id, "each morning", day(9))
        assert Script(app.test_client(), made["token"]).get("/user")["username"] == "alice"
        assert "token" not in alice.get(f"{TOKENS}/{made['id']}")
        assert made["token"] not in str(alice.get(TOKENS))

    def test_scopes_come_as_a_list_as_a_repeated_field_or_with_commas(self, alice: Script) -> None:
        both = ["create_runner", "manage_runner"]
        made = alice.post("/user/personal_access_tokens", name="a", scopes=",".join(both))
        assert made["scopes"] == both
        answer = alice.client.post(
            "/api/v4/user/personal_access_tokens",
            data={"name": "a", "scopes[]": both},
            headers={"PRIVATE-TOKEN": alice.token},
        )
        assert answer.get_json()["scopes"] == both

    def test_without_a_day_it_lives_as_long_as_a_token_may(self, alice: Script) -> None:
        assert alice.post("/user/personal_access_tokens", name="a", scopes=["api"])["expires_at"] == day(365)

    @pytest.mark.parametrize("scope", ["read_api", "create_runner", "manage_runner"])
    def test_a_token_makes_none_that_is_stronger_than_itself(
        self, script_of: ScriptOf, cast: Cast, session: Session, scope: str
    ) -> None:
        """Only one that opens everything makes others, or puts one in its own place."""
        script = script_of(cast.dana, scope)
        for path, given in (
            ("/user/personal_access_tokens", {"name": "a", "scopes": ["api"]}),
            ("/user/personal_access_tokens", {"name": "a", "scopes": [scope]}),
            (f"/users/{cast.alice.id}/personal_access_tokens", {"name": "a", "scopes": ["api"]}),
            (f"{TOKENS}/self/rotate", {}),
        ):
            assert script.post(path, expect=403, **given)["scope"] == "api"
        assert len(session.scalars(select(AccessToken)).all()) == 1

    def test_administrators_make_one_for_anybody(
        self, app: Flask, dana: Script, cast: Cast, session: Session
    ) -> None:
        path = f"/users/{cast.alice.id}/personal_access_tokens"
        made = dana.post(path, name="for alice", scopes=["api"])
        assert Script(app.test_client(), made["token"]).get("/user")["username"] == "alice"
        event = session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc()).limit(1)).one()
        assert (event.actor_kind, event.actor_id, event.target_id) == ("access_token", cast.dana.id, cast.alice.id)
        assert made["token"][10:] not in f"{event.actor_name} {event.changes}"

    def test_nobody_else_does_whoever_it_is_for(self, alice: Script, cast: Cast) -> None:
        for whose in (cast.alice.id, cast.bob.id, 999_999):
            alice.post(f"/users/{whose}/personal_access_tokens", expect=403, name="a", scopes=["api"])

    def test_for_nobody_and_for_somebody_blocked_none_is_made(
        self, dana: Script, cast: Cast, session: Session
    ) -> None:
        given = {"name": "a", "scopes": ["api"]}
        missing = dana.post("/users/999999/personal_access_tokens", expect=404, **given)
        assert missing == {"message": "404 User Not Found"}
        people.block(session, cast.as_(cast.dana), cast.erin)
        session.commit()
        said = dana.post(f"/users/{cast.erin.id}/personal_access_tokens", expect=400, **given)
        assert "blocked" in said["message"]["user"][0]

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"scopes": ["api"]}, {"error": "name is missing"}),
            ({"name": "a"}, {"error": "scopes is missing"}),
            ({"name": "a", "scopes": [1]}, {"error": "scopes is invalid: a list of texts, or one text with commas"}),
            (
                {"name": "a", "scopes": ["api"], "expires_at": "tomorrow"},
                {"error": "expires_at is invalid: a day, such as 2030-12-31"},
            ),
        ],
    )
    def test_a_wrong_parameter_is_named(self, alice: Script, given: dict[str, Any], said: dict[str, str]) -> None:
        assert alice.post("/user/personal_access_tokens", expect=400, **given) == said

    def test_what_cannot_be_taken_is_told_by_field(self, alice: Script) -> None:
        said = alice.post("/user/personal_access_tokens", expect=400, name=" ", scopes=["sudo"], expires_at=day(366))
        assert set(said["message"]) == {"name", "scopes", "expires_at"}


class TestRotating:
    def test_a_token_takes_its_own_place(self, app: Flask, alice: Script) -> None:
        new = alice.post(f"{TOKENS}/self/rotate", expect=200)
        assert new["expires_at"] == day(7)
        assert "revoked" in alice.get("/user", expect=401)["error_description"]
        assert Script(app.test_client(), new["token"]).get("/user")["username"] == "alice"

    def test_another_of_ones_own_until_a_chosen_day_and_only_once(self, alice: Script) -> None:
        old = alice.post("/user/personal_access_tokens", name="a", scopes=["read_api"])
        new = alice.post(f"{TOKENS}/{old['id']}/rotate", expect=200, expires_at=day(90))
        assert (new["name"], new["scopes"], new["expires_at"]) == ("a", ["read_api"], day(90))
        assert alice.get(f"{TOKENS}/{old['id']}")["revoked"]
        again = alice.post(f"{TOKENS}/{old['id']}/rotate", expect=400)
        assert again == {"message": "400 Bad request - Token already revoked"}

    def test_a_day_too_late_changes_nothing(self, alice: Script) -> None:
        alice.post(f"{TOKENS}/self/rotate", expect=400, expires_at=day(366))
        assert alice.get(f"{TOKENS}/self")["active"]


class TestRevoking:
    def test_ends_it_for_its_script_and_may_be_repeated(self, app: Flask, alice: Script, cast: Cast) -> None:
        other = Script(app.test_client(), cast.access_token(cast.alice))
        number = other.get(f"{TOKENS}/self")["id"]
        alice.delete(f"{TOKENS}/{number}")
        alice.delete(f"{TOKENS}/{number}")
        other.get("/user", expect=401)

    def test_a_browser_writes_nothing(self, app: Flask, cast: Cast) -> None:
        cast.access_token(cast.alice)
        browser = sign_in(app.test_client(), "alice")
        number = browser.get(f"/api/v4{TOKENS}").get_json()[0]["id"]
        assert browser.delete(f"/api/v4{TOKENS}/{number}").status_code == 401
        assert browser.get(f"/api/v4{TOKENS}/{number}").get_json()["active"]
