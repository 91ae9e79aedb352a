"""Who passes the door for scripts: access tokens, sessions for reading, and how everybody else is refused."""

from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.api.for_users.operations import OPERATIONS
from portal.database import now
from portal.domain import tokens
from portal.domain.people import access_tokens, people
from portal.domain.people.second_factor import Configured, Demand
from portal.models import AccessToken
from tests.api.for_users.conftest import ScriptOf
from tests.api.for_users.scripts import Script
from tests.cast import Cast, sign_in


def test_a_token_says_whose_it_is(script_of: ScriptOf, cast: Cast) -> None:
    me = script_of(cast.alice).get("/user")
    assert (me["username"], me["name"], me["email"]) == ("alice", "Alice Lam", "alice@acme.example")
    assert not me["is_admin"]


def test_a_bearer_is_as_good_as_a_private_token(app: Flask, cast: Cast) -> None:
    bearer = {"Authorization": f"Bearer {cast.access_token(cast.alice)}"}
    assert app.test_client().get("/api/v4/user", headers=bearer).get_json()["username"] == "alice"


def test_nobody_is_asked_who_they_are(nobody: Script) -> None:
    answer = nobody.ask("GET", "/user")
    assert (answer.status_code, answer.get_json()["message"]) == (401, "401 Unauthorized")
    assert "PRIVATE-TOKEN" in answer.get_json()["hint"]
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("token", ["glpat-x", "glrt-t1_x", "x" * 10_000, "glpat-" + "a" * 27 + ".0r0000000"])
def test_what_is_no_token_is_refused_as_gitlab_does(app: Flask, token: str) -> None:
    answer = Script(app.test_client(), token).ask("GET", "/user")
    assert answer.status_code == 401
    assert answer.get_json()["error"] == "invalid_token"
    assert answer.get_json()["error_description"].startswith("Token was not found.")


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        (tokens.make(2), "a runner's own token"),
        (tokens.make(3, prefix=tokens.REGISTERED), "a runner's own token"),
        ("glrt-of-elsewhere", "a runner's own token"),
        (tokens.make_registration(), "a registration token"),
    ],
)
def test_a_machines_token_is_told_what_it_is(app: Flask, token: str, kind: str) -> None:
    said = Script(app.test_client(), token).get("/user", expect=401)["error_description"]
    assert f"This is {kind}" in said
    assert "Send an access token" in said
    assert token not in said


def test_a_token_in_an_address_is_not_read(app: Flask, cast: Cast) -> None:
    token = cast.access_token(cast.alice)
    assert app.test_client().get(f"/api/v4/user?private_token={token}").status_code == 401
    assert app.test_client().get(f"/api/v4/user?access_token={token}").status_code == 401


def test_a_revoked_token_an_expired_one_and_one_of_somebody_blocked_open_nothing(
    app: Flask, session: Session, cast: Cast
) -> None:
    scripts = [Script(app.test_client(), cast.access_token(cast.alice)) for _ in range(3)]
    first, second, _ = session.scalars(select(AccessToken).order_by(AccessToken.id))
    access_tokens.revoke(session, cast.as_(cast.alice), first)
    second.expires_at = now().date()
    session.commit()
    said = [script.get("/user", expect=401)["error_description"] for script in scripts[:2]]
    assert [each.split(".")[0] for each in said] == ["Token was revoked", "Token is expired"]
    scripts[2].get("/user")
    people.block(session, cast.as_(cast.dana), cast.alice)
    session.commit()
    assert "blocked" in scripts[2].get("/user", expect=401)["error_description"]


def test_a_small_token_is_told_what_would_open_the_door(script_of: ScriptOf, cast: Cast) -> None:
    refused = script_of(cast.alice, "create_runner").get("/user", expect=403)
    assert refused["error"] == "insufficient_scope"
    assert refused["scope"] == "api read_api"


def test_each_scope_that_would_do_is_named_once(script_of: ScriptOf, cast: Cast) -> None:
    assert all(len(set(each.opens)) == len(each.opens) for each in OPERATIONS.values())


def test_an_enrolment_key_is_told_what_it_is_for(app: Flask, cast: Cast) -> None:
    key = cast.enrolment_key(cast.alice).token
    refused = Script(app.test_client(), key).get("/runners", expect=403)
    assert refused["error"] == "insufficient_scope"
    assert "opens nothing but the creation of runners" in refused["error_description"]
    assert "provided by the access token" not in refused["error_description"]


def test_a_browser_reads_with_its_session_and_writes_nothing(app: Flask, cast: Cast) -> None:
    browser = sign_in(app.test_client(), "alice")
    assert browser.get("/api/v4/user").get_json()["username"] == "alice"
    runner_id = cast.runner().runner.id
    refused = browser.put(f"/api/v4/runners/{runner_id}", json={"paused": True})
    assert (refused.status_code, refused.get_json()["message"]) == (401, "401 Unauthorized")
    assert "Being signed in opens reading only." in refused.get_json()["hint"]


def test_a_tokens_last_use_is_noted_without_a_write(app: Flask, session: Session, cast: Cast) -> None:
    Script(app.test_client(), cast.access_token(cast.alice)).get("/user")
    uses = app.extensions["token_uses"].take()
    access_tokens.write_uses(session, uses)
    session.commit()
    token = session.scalars(select(AccessToken)).one()
    assert token.last_used_at is not None
    assert now() - token.last_used_at < timedelta(minutes=1)
    assert token.last_used_address == "127.0.0.1"


def test_the_answers_say_how_much_may_still_be_asked(script_of: ScriptOf, cast: Cast) -> None:
    answer = script_of(cast.alice).ask("GET", "/version")
    assert answer.headers["RateLimit-Name"] == "api_token"
    assert answer.headers["RateLimit-Limit"] == "2000"
    assert answer.headers["RateLimit-Remaining"] == "1999"
    assert answer.get_json() == {"version": "18.6.0", "revision": "runner-portal"}


def test_a_runner_is_shown_to_who_may_read_it_and_is_not_there_for_others(script_of: ScriptOf, cast: Cast) -> None:
    runner_id = cast.runner().runner.id
    shown = script_of(cast.alice, "manage_runner").get(f"/runners/{runner_id}")
    assert shown["tag_list"] == ["docker", "linux"]
    assert shown["groups"][0]["name"] == "Acme"
    assert script_of(cast.bob).get(f"/runners/{runner_id}")["maintenance_note"] is None
    assert script_of(cast.charlie).get(f"/runners/{runner_id}", expect=404) == {"message": "404 Runner Not Found"}
    assert script_of(cast.erin).get(f"/runners/{runner_id}", expect=404) == {"message": "404 Runner Not Found"}


@pytest.mark.parametrize("path", ["/user", "/users", "/groups", "/runners", "/personal_access_tokens"])
def test_a_browser_that_no_page_lets_in_reads_nothing(
    app: Flask, session: Session, cast: Cast, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its person must choose a password of their own, or set up a second factor, before any page opens."""
    browser = sign_in(app.test_client(), "alice")
    usual = app.extensions["second_factor"]
    with monkeypatch.context() as demanding:
        demanding.setitem(app.extensions, "second_factor", Configured(Demand.EVERYBODY, usual.vault))
        refused = browser.get(f"/api/v4{path}")
        assert (refused.status_code, refused.get_json()["error"]) == (401, "invalid_token")
        assert "second factor" in refused.get_json()["error_description"]
    assert browser.get(f"/api/v4{path}").status_code == 200
    cast.alice.must_change_password = True
    cast.session.commit()
    assert "password of your own" in browser.get(f"/api/v4{path}").get_json()["error_description"]


def test_a_token_is_its_persons_also_where_a_second_factor_is_demanded(
    app: Flask, cast: Cast, script_of: ScriptOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = app.extensions["second_factor"]
    monkeypatch.setitem(app.extensions, "second_factor", Configured(Demand.EVERYBODY, usual.vault))
    assert script_of(cast.alice, "read_api").get("/user")["username"] == "alice"
