"""Single sign-on with a real provider: who gets in and who does not, accounts, roles, connecting, confirming."""

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal.config import Settings
from portal.database import now
from portal.domain.trail.refused_acts import SECONDS, Flood
from portal.models import AuditEvent, Membership, User, UserIdentity, UserSession
from portal.web.openid_provider import Provider
from tests import databases
from tests.cast import Cast, csrf_of, hidden, send, sign_in
from tests.openid_provider import Browser, RunningProvider
from tests.web.reading import copy_of, fill, read, words
from tests.web.test_openid_provider import CLIENT, OTHER, Liar
from tests.web.test_second_factor import key_of

CALLBACK = "/-/sign-in/openid/callback"
START = "/-/sign-in/openid/start"
MINE, FACTOR = "/-/account/identities", "/-/account/second-factor"
ROLES = "ops=administrator,developers=acme:developer,testers=acme/web:maintainer"
Configure = Callable[..., None]


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    with RunningProvider(f"https://portal.example.com{CALLBACK}") as running:
        for name in ("frank", "grace"):
            running.put(name)
        running.put("alice", email="alice@acme.example")  # as Alice's account here has
        yield running


@pytest.fixture
def configure(app: Flask, provider: RunningProvider, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Set the portal to the provider, with more settings where a test wants them."""

    def configure(**more: str) -> None:
        settings: Settings = databases.settings("postgresql://unused@localhost/unused", **provider.settings(**more))
        monkeypatch.setitem(app.config, "PORTAL", replace(settings, database_url=app.config["PORTAL"].database_url))
        monkeypatch.setitem(app.extensions, "openid", Provider(app, settings))

    configure(PORTAL_OPENID_CREATE="true", PORTAL_OPENID_ROLES=ROLES)
    return configure


@pytest.fixture
def portal(configure: Configure, cast: Cast, client: FlaskClient) -> FlaskClient:
    """The portal with single sign-on: accounts are made on first use, and groups give roles."""
    return client


def start(client: FlaskClient, address: str = START, form_at: str = "/-/sign-in") -> str:
    """Press the button. Returns the address at the provider that the browser is led to."""
    page = client.post(address, data={"csrf_token": csrf_of(read(client, form_at))})
    assert page.status_code == 200, page.get_data(as_text=True)
    found = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', page.get_data(as_text=True))
    assert found
    return html.unescape(found[1])


def back(client: FlaskClient, address: str):
    """What the portal answers when the browser comes back to this address."""
    assert address.startswith(f"https://portal.example.com{CALLBACK}?")
    return client.get(address.removeprefix("https://portal.example.com"))


def sign_on(client: FlaskClient, username: str, browser: Browser | None = None):
    """All of it: the button, the provider's pages, and back."""
    return back(client, (browser or Browser()).visit(start(client), username))


def person(session: Session, username: str) -> User:
    session.expire_all()
    found = session.scalar(select(User).where(User.username == username))
    assert found, f"there is no {username}"
    return found


def roles(session: Session, username: str) -> set[tuple[str, str, bool]]:
    """(kind of scope, role, by single sign-on) of what was given to somebody."""
    user = person(session, username)
    rows = session.scalars(select(Membership).where(Membership.user_id == user.id))
    return {("project" if row.project_id else "group", row.role.name.lower(), row.from_openid) for row in rows}


def events(session: Session, action: str) -> list[AuditEvent]:
    return list(session.scalars(select(AuditEvent).where(AuditEvent.action == action).order_by(AuditEvent.id)))


# Refusals


def test_a_portal_without_a_provider_offers_none(client: FlaskClient, cast: Cast) -> None:
    page = read(client, "/-/sign-in")
    assert "openid" not in page
    assert client.post(START, data={"csrf_token": csrf_of(page)}).status_code == 404
    assert client.get(CALLBACK).status_code == 404
    assert "not set up" in words(read(sign_in(client, "alice"), MINE))


def test_the_way_there_starts_with_a_form_that_cannot_be_forged(portal: FlaskClient) -> None:
    assert portal.get(START).headers["Location"].startswith("/-/sign-in?")  # there is no such page
    assert portal.post(START, data={"csrf_token": "forged"}).status_code == 400


@pytest.mark.parametrize("query", ["", "?code=abc&state=abc", "?state=", "?error=access_denied&state=abc"])
def test_nobody_comes_back_who_has_not_started(portal: FlaskClient, query: str) -> None:
    answer = portal.get(CALLBACK + query)
    assert answer.status_code == 400
    assert "was not started in this browser" in words(answer.get_data(as_text=True))
    assert portal.get("/").status_code == 302


def test_another_browser_cannot_finish_what_one_has_started(portal: FlaskClient) -> None:
    address = Browser().visit(start(portal), "frank")
    other = portal.application.test_client()
    assert back(other, address).status_code == 400
    assert other.get("/").status_code == 302


def test_a_state_of_the_browsers_own_does_not_fit_another_code(portal: FlaskClient) -> None:
    stolen = parse_qs(urlsplit(Browser().visit(start(portal.application.test_client()), "frank")).query)
    mine = parse_qs(urlsplit(start(portal)).query)
    address = f"{CALLBACK}?code={stolen['code'][0]}&state={mine['state'][0]}&iss={stolen['iss'][0]}"
    answer = portal.get(address)  # the code was asked for with another proof key
    assert answer.status_code == 400
    assert portal.get("/").status_code == 302


def test_what_came_back_once_does_not_come_back_again(portal: FlaskClient, session: Session) -> None:
    address = Browser().visit(start(portal), "frank")
    cookie = portal.get_cookie("__Host-portal_session")
    assert cookie
    assert back(portal, address).status_code == 302
    assert back(portal, address).status_code == 400
    thief = portal.application.test_client()  # with a copy of the cookie as it was before
    thief.set_cookie("__Host-portal_session", cookie.value)
    assert back(thief, address).status_code == 400
    assert thief.get("/").status_code == 302


def test_a_sign_in_that_took_too_long_is_refused(portal: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    address = Browser().visit(start(portal), "frank")
    monkeypatch.setattr("portal.web.openid.now", lambda: now() + timedelta(minutes=10, seconds=1))
    assert back(portal, address).status_code == 400


@pytest.mark.parametrize("named", ["&iss=https://evil.example", "&iss=", ""])
def test_an_answer_that_names_another_issuer_or_none_is_refused(portal: FlaskClient, named: str) -> None:
    address = Browser().visit(start(portal), "frank")
    answer = back(portal, re.sub(r"&iss=[^&]+", "", address) + named)
    assert answer.status_code == 400
    assert portal.get("/").status_code == 302


def test_what_the_provider_refuses_is_said_in_words_of_ours(portal: FlaskClient) -> None:
    for error, sentence in (
        ("access_denied", "did not let you in"),
        ("<script>alert(1)</script>", "refused this sign-in"),
    ):
        state = parse_qs(urlsplit(start(portal)).query)["state"][0]
        issuer = portal.application.extensions["openid"].issuer
        query = {"error": error, "error_description": "Call 555 to win", "state": state, "iss": issuer}
        answer = portal.get(CALLBACK, query_string=query)
        assert answer.status_code == 403
        page = answer.get_data(as_text=True)
        assert sentence in words(page)
        assert "Call 555" not in page
        assert "alert(1)" not in page


def test_a_provider_that_is_down_stops_nobody_else(
    portal: FlaskClient, provider: RunningProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.portals import free_port

    gone = replace(portal.application.config["PORTAL"], openid_url=f"http://127.0.0.1:{free_port()}")
    monkeypatch.setitem(portal.application.extensions, "openid", Provider(portal.application, gone))
    answer = portal.post(START, data={"csrf_token": csrf_of(read(portal, "/-/sign-in"))})
    assert answer.status_code == 503
    page = answer.get_data(as_text=True)
    assert "Example Login does not answer" in words(page)
    assert 'href="/-/sign-in"' in page
    sign_in(portal, "alice")


def test_without_first_use_whoever_is_not_connected_is_refused_and_the_trail_says_so(
    portal: FlaskClient, configure: Configure, session: Session
) -> None:
    configure()
    answer = sign_on(portal, "frank")
    assert answer.status_code == 403
    assert "No account on this portal is connected" in words(answer.get_data(as_text=True))
    assert session.scalar(select(User).where(User.username == "frank")) is None
    refused = events(session, "sign_in_refused")[-1]
    assert (refused.changes["reason"][1], refused.changes["subject"][1]) == ("no account", "frank")


def test_an_account_is_not_taken_over_by_its_address(portal: FlaskClient, session: Session) -> None:
    answer = sign_on(portal, "alice")
    assert answer.status_code == 403
    assert "There is an account with your e-mail address here already" in words(answer.get_data(as_text=True))
    assert session.scalars(select(UserIdentity)).all() == []
    assert portal.get("/").status_code == 302


def test_who_is_blocked_stays_out(portal: FlaskClient, session: Session) -> None:
    sign_on(portal, "frank")
    session.execute(update(User).where(User.username == "frank").values(blocked_at=now()))
    session.commit()
    again = portal.application.test_client()
    answer = sign_on(again, "frank")
    assert answer.status_code == 403
    assert "is blocked" in words(answer.get_data(as_text=True))
    assert again.get("/").status_code == 302
    refused = events(session, "sign_in_refused")[-1]
    assert (refused.changes["reason"][1], refused.target_name) == ("blocked", "Frank Example")


def test_with_passwords_off_the_provider_is_the_only_way(portal: FlaskClient, configure: Configure) -> None:
    csrf = csrf_of(read(portal, "/-/sign-in"))
    configure(PORTAL_PASSWORD_SIGN_IN="false", PORTAL_OPENID_CREATE="true")
    page = read(portal, "/-/sign-in")
    assert 'name="password"' not in page
    answer = portal.post(
        "/-/sign-in", data={"csrf_token": csrf, "login": "dana", "password": "correct horse battery"}
    )
    assert answer.status_code == 403
    assert sign_on(portal, "frank").status_code == 302


# What the trail tells of a way back that led nowhere


@pytest.fixture
def flood(app: Flask) -> Flood:
    """No refusal was recorded yet in this minute."""
    made = app.extensions["refused_sign_ins"] = Flood(each=5, most=60)
    return made


def came_back_with(client: FlaskClient, address: str = START, form_at: str = "/-/sign-in", **query: str) -> int:
    """Start, and come back with this instead of what the provider says."""
    state = parse_qs(urlsplit(start(client, address, form_at)).query)["state"][0]
    issuer = client.application.extensions["openid"].issuer
    return client.get(CALLBACK, query_string={"state": state, "iss": issuer, **query}).status_code


@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ({"error": "access_denied", "error_description": "Call 555"}, 403, "the provider refused"),
        ({"error": "Call 555 to win"}, 403, "the provider refused"),
        ({"code": "Call 555"}, 400, "the provider did not take the code"),
        ({"code": "Call 555", "iss": "https://call.555"}, 400, "the answer was of another issuer"),
    ],
)
def test_a_way_back_that_leads_nowhere_leaves_an_event_in_words_of_ours(
    portal: FlaskClient, session: Session, flood: Flood, query: dict[str, str], status: int, reason: str
) -> None:
    assert came_back_with(portal, **query) == status
    (event,) = events(session, "sign_in_refused")
    assert (event.actor_kind, event.target_kind, event.address) == ("visitor", "instance", "127.0.0.1")
    assert event.changes == {"method": [None, "openid"], "reason": [None, reason]}


def test_an_id_token_that_cannot_be_trusted_leaves_an_event(
    portal: FlaskClient, session: Session, flood: Flood, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar = Liar()
    settings = replace(portal.application.config["PORTAL"], openid_url=liar.url, openid_client_id=CLIENT)
    monkeypatch.setitem(portal.application.extensions, "openid", Provider(portal.application, settings))
    query = parse_qs(urlsplit(start(portal)).query)
    liar.vouch(liar.claims(query["nonce"][0]), OTHER)
    assert portal.get(f"{CALLBACK}?code=code&state={query['state'][0]}").status_code == 502
    (event,) = events(session, "sign_in_refused")
    assert event.changes["reason"] == [None, "the answer of the provider could not be trusted"]
    liar.server.shutdown()
    query = parse_qs(urlsplit(start(portal)).query)
    liar.server.server_close()
    assert portal.get(f"{CALLBACK}?code=code&state={query['state'][0]}").status_code == 503
    assert events(session, "sign_in_refused")[-1].changes["reason"] == [None, "the provider did not answer"]


def test_who_confirms_and_is_refused_there_is_told_by_name(
    portal: FlaskClient, session: Session, flood: Flood
) -> None:
    sign_on(portal, "frank")
    assert came_back_with(portal, "/-/sign-in/openid/confirm", MINE, error="access_denied") == 403
    (event,) = events(session, "confirmation_refused")
    assert (event.actor_name, event.changes["reason"]) == ("Frank Example", [None, "the provider refused"])
    assert events(session, "sign_in_refused") == []


def test_a_flood_of_ways_back_leaves_so_many_events_a_minute_of_each_network(
    portal: FlaskClient, session: Session, flood: Flood
) -> None:
    for _ in range(8):
        assert came_back_with(portal, error="access_denied") == 403
    assert len(events(session, "sign_in_refused")) == 5
    since, *counted = flood._known["127.0.0.1"]
    flood._known["127.0.0.1"] = (since - SECONDS, *counted)  # a minute goes by
    came_back_with(portal, error="access_denied")
    assert events(session, "sign_in_refused")[-1].changes["not_recorded_before"] == [None, 3]


def test_a_way_back_that_nobody_has_started_leaves_no_event(
    portal: FlaskClient, session: Session, flood: Flood
) -> None:
    assert portal.get(f"{CALLBACK}?error=access_denied&state=abc").status_code == 400
    assert events(session, "sign_in_refused") == []


def test_a_password_where_there_are_none_leaves_an_event_about_nobody(
    portal: FlaskClient, configure: Configure, session: Session, flood: Flood
) -> None:
    csrf = csrf_of(read(portal, "/-/sign-in"))
    configure(PORTAL_PASSWORD_SIGN_IN="false", PORTAL_OPENID_CREATE="true")
    for _ in range(7):
        typed = {"csrf_token": csrf, "login": "dana", "password": "correct horse battery"}
        assert portal.post("/-/sign-in", data=typed).status_code == 403
    told = events(session, "sign_in_refused")
    assert [(each.target_kind, each.changes) for each in told] == [
        ("instance", {"method": [None, "password"], "reason": [None, "passwords are off"]})
    ] * 5


# First use


def test_the_first_sign_in_makes_an_account(portal: FlaskClient, session: Session) -> None:
    answer = sign_on(portal, "frank")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/")
    assert "Frank Example" in read(portal, "/")
    user = person(session, "frank")
    assert (user.name, user.email, user.password_digest) == ("Frank Example", "frank@example.com", None)
    assert not user.must_change_password
    made = events(session, "person_created")[-1]
    assert (made.actor_kind, made.actor_name, made.target_name) == ("system", "single sign-on", "Frank Example")
    assert events(session, "identity_connected")[-1].changes["subject"] == [None, "frank"]


def test_the_second_sign_in_finds_it_again_by_its_subject(portal: FlaskClient, session: Session) -> None:
    sign_on(portal, "frank")
    session.execute(update(User).where(User.username == "frank").values(username="franky", email="other@example.com"))
    session.commit()
    assert sign_on(portal.application.test_client(), "frank").status_code == 302
    assert session.scalar(select(User).where(User.username == "frank")) is None
    assert len(session.scalars(select(UserIdentity)).all()) == 1


def test_a_taken_user_name_gets_a_number(portal: FlaskClient, cast: Cast, session: Session) -> None:
    cast.person("frank")
    session.execute(update(User).where(User.username == "frank").values(email="somebody@acme.example"))
    cast.session.commit()
    session.commit()
    assert sign_on(portal, "frank").status_code == 302
    assert person(session, "frank-2").email == "frank@example.com"


def test_a_password_does_not_open_an_account_that_has_none(portal: FlaskClient, session: Session) -> None:
    sign_on(portal, "frank")
    other = portal.application.test_client()
    for password in ("", "a password at the provider"):
        send(other, "/-/sign-in", login="frank", password=password, expect=422)


def test_the_session_says_how_it_began_and_holds_nothing_of_the_provider(
    portal: FlaskClient, session: Session
) -> None:
    before = Browser().visit(start(portal), "frank")
    cookie = portal.get_cookie("__Host-portal_session")
    assert cookie
    started = portal.application.session_interface.get_signing_serializer(portal.application).loads(cookie.value)
    assert set(started) <= {"csrf_token", "openid", "_permanent"}
    assert {"for", "next", "at", "session"} == set(next(iter(started["openid"].values())))
    back(portal, before)
    found = session.scalars(select(UserSession)).all()[-1]
    assert (found.method, found.second_factor) == ("openid", False)
    after = portal.get_cookie("__Host-portal_session")
    assert after
    assert after.value != cookie.value
    with portal.session_transaction() as kept:
        assert "openid" not in kept


def test_a_sign_in_that_was_proven_long_ago_is_not_a_recent_one(
    portal: FlaskClient, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = Browser()
    sign_on(portal, "frank", browser)
    first = session.scalars(select(UserSession)).all()[-1]
    sign_on(portal.application.test_client(), "frank", browser)  # still signed in there: nothing is asked
    session.expire_all()
    second = session.scalars(select(UserSession)).all()[-1]
    assert second.id != first.id
    assert second.confirmed_at == first.confirmed_at < second.created_at


def test_the_way_back_leads_where_somebody_was_going(portal: FlaskClient, session: Session) -> None:
    sign_on(portal, "frank")
    other = portal.application.test_client()
    page = read(other, "/-/sign-in?next=/-/account/identities")
    assert "next=/-/account/identities" in html.unescape(page).replace("%2F", "/")
    answer = back(other, Browser().visit(start(other, f"{START}?next=/-/account/identities"), "frank"))
    assert answer.headers["Location"] == "/-/account/identities"


def test_the_way_back_never_leads_to_another_host(portal: FlaskClient) -> None:
    for elsewhere in ("https://evil.example/", "//evil.example/", "/\\evil.example"):
        other = portal.application.test_client()
        answer = back(other, Browser().visit(start(other, f"{START}?next={elsewhere}"), "frank"))
        assert answer.headers["Location"] == "/"


def test_the_redirect_uri_is_the_portals_whatever_the_host_header_says(portal: FlaskClient) -> None:
    csrf = csrf_of(read(portal, "/-/sign-in"))
    page = portal.post(START, data={"csrf_token": csrf}, headers={"X-Forwarded-Host": "evil.example"})
    assert "redirect_uri=https%3A%2F%2Fportal.example.com%2F-%2Fsign-in%2Fopenid%2Fcallback" in page.get_data(
        as_text=True
    )
    assert "code_challenge_method=S256" in page.get_data(as_text=True)
    assert "no-store" in page.headers["Cache-Control"]


# Roles by groups


def test_groups_give_roles_raise_them_and_take_them_away(
    portal: FlaskClient, provider: RunningProvider, session: Session
) -> None:
    provider.put("grace", "developers", "testers")
    sign_on(portal, "grace")
    assert roles(session, "grace") == {("group", "developer", True), ("project", "maintainer", True)}
    provider.put("grace", "testers")
    sign_on(portal.application.test_client(), "grace")
    assert roles(session, "grace") == {("project", "maintainer", True)}
    provider.put("grace")
    sign_on(portal.application.test_client(), "grace")
    assert roles(session, "grace") == set()
    assert [each.actor_name for each in events(session, "member_removed")] == ["single sign-on"] * 2


def test_a_group_makes_an_administrator_and_unmakes_one(
    portal: FlaskClient, provider: RunningProvider, session: Session
) -> None:
    provider.put("grace", "ops")
    sign_on(portal, "grace")
    assert person(session, "grace").admin
    read(portal, "/admin/runners")
    provider.put("grace")
    sign_on(portal.application.test_client(), "grace")
    assert not person(session, "grace").admin
    read(portal, "/admin/runners", expect=404)


def test_the_members_page_says_where_a_role_comes_from(
    portal: FlaskClient, provider: RunningProvider, session: Session
) -> None:
    provider.put("grace", "developers")
    sign_on(portal, "grace")
    provider.put("grace")
    alice = sign_in(portal.application.test_client(), "alice")
    assert "Grace Example grace Developer Here by single sign-on" in words(read(alice, "/groups/acme/-/members"))
    user_id = person(session, "grace").id
    members = "/groups/acme/-/members"
    refused = fill(alice, f"{members}/{user_id}/remove", form_at=members, expect=422)
    assert "Single sign-on gives Grace Example this role" in words(refused.get_data(as_text=True))
    fill(alice, f"{members}/{user_id}/role", form_at=members, expect=422, role="50")
    dana = sign_in(portal.application.test_client(), "dana")
    fill(dana, f"{members}/{user_id}/role", form_at=members, role="40")
    assert roles(session, "grace") == {("group", "maintainer", False)}


# Connecting


def connect(client: FlaskClient, username: str):
    return back(client, Browser().visit(start(client, f"{MINE}/connect", form_at=MINE), username))


def test_somebody_connects_their_account_and_signs_in_with_it(portal: FlaskClient, session: Session) -> None:
    sign_in(portal, "alice")
    answer = connect(portal, "alice")
    assert answer.headers["Location"] == MINE
    assert "alice@acme.example" in read(portal, MINE)
    other = portal.application.test_client()
    assert sign_on(other, "alice").status_code == 302
    assert "Alice Lam" in read(other, "/")
    connected = events(session, "identity_connected")[-1]
    assert (connected.actor_name, connected.target_name) == ("Alice Lam", "Alice Lam")


def test_what_is_somebody_elses_is_not_connected(portal: FlaskClient, session: Session) -> None:
    sign_on(portal.application.test_client(), "frank")
    sign_in(portal, "alice")
    answer = connect(portal, "frank")
    assert answer.status_code == 403
    assert "connected to somebody else" in words(answer.get_data(as_text=True))


def test_who_has_signed_out_meanwhile_connects_nothing(portal: FlaskClient, session: Session) -> None:
    sign_in(portal, "alice")
    address = Browser().visit(start(portal, f"{MINE}/connect", form_at=MINE), "alice")
    kept = portal.get_cookie("__Host-portal_session")
    assert kept
    fill(portal, "/-/sign-out", form_at="/")
    portal.set_cookie("__Host-portal_session", kept.value)
    assert back(portal, address).status_code == 400
    assert session.scalars(select(UserIdentity)).all() == []


def test_connecting_asks_for_a_recent_sign_in(portal: FlaskClient, session: Session) -> None:
    sign_in(portal, "alice")
    csrf = csrf_of(read(portal, MINE))
    session.execute(update(UserSession).values(confirmed_at=now() - timedelta(days=1)))
    session.commit()
    answer = portal.post(f"{MINE}/connect", data={"csrf_token": csrf})
    assert answer.headers["Location"].startswith("/-/confirm")


def test_somebody_disconnects_and_is_found_no_more(
    portal: FlaskClient, configure: Configure, session: Session
) -> None:
    configure()
    sign_in(portal, "alice")
    connect(portal, "alice")
    identity = session.scalars(select(UserIdentity)).one()
    fill(portal, f"{MINE}/{identity.id}/disconnect", form_at=MINE)
    assert "No account is connected" in words(read(portal, MINE))
    assert sign_on(portal.application.test_client(), "alice").status_code == 403
    assert events(session, "identity_disconnected")[-1].changes["subject"] == ["alice", None]


def test_the_only_way_to_sign_in_stays(portal: FlaskClient, session: Session) -> None:
    sign_on(portal, "frank")
    identity = session.scalars(select(UserIdentity)).one()
    answer = fill(portal, f"{MINE}/{identity.id}/disconnect", form_at=MINE, expect=422)
    assert "your only way to sign in" in words(answer.get_data(as_text=True))
    assert len(session.scalars(select(UserIdentity)).all()) == 1


def test_nobody_disconnects_what_is_somebody_elses(portal: FlaskClient, session: Session) -> None:
    sign_on(portal.application.test_client(), "frank")
    identity = session.scalars(select(UserIdentity)).one()
    sign_in(portal, "alice")
    fill(portal, f"{MINE}/{identity.id}/disconnect", form_at=MINE, expect=404)


# Confirming


def confirm(
    client: FlaskClient, username: str, browser: Browser | None = None, wanted: str = "/-/account/identities"
):
    address = start(client, f"/-/sign-in/openid/confirm?next={wanted}", form_at=MINE)
    return back(client, (browser or Browser()).visit(address, username))


def old_sign_in(session: Session) -> None:
    session.execute(update(UserSession).values(confirmed_at=now() - timedelta(days=1)))
    session.commit()


def test_somebody_proves_again_who_they_are_even_if_signed_in_there(portal: FlaskClient, session: Session) -> None:
    browser = Browser()
    sign_on(portal, "frank", browser)
    old_sign_in(session)
    answer = confirm(portal, "frank", browser)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/-/account/identities")
    session.expire_all()
    assert session.scalars(select(UserSession)).one().confirmed_at > now() - timedelta(minutes=1)
    assert events(session, "sign_in_confirmed")


def test_somebody_else_does_not_confirm_for_them(portal: FlaskClient, session: Session) -> None:
    sign_on(portal, "frank")
    old_sign_in(session)
    assert confirm(portal, "grace").status_code == 403
    session.expire_all()
    assert session.scalars(select(UserSession)).one().confirmed_at < now() - timedelta(hours=1)
    assert events(session, "sign_in_refused")[-1].changes["reason"] == [None, "not the person's own"]


def test_an_old_proof_does_not_pass_for_a_confirmation(
    portal: FlaskClient, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = Browser()
    sign_on(portal, "frank", browser)
    monkeypatch.setattr("portal.web.openid.now", lambda: now() + timedelta(minutes=5))
    old_sign_in(session)
    portal.application.extensions["refused_sign_ins"] = Flood(each=5, most=60)
    address = start(portal, "/-/sign-in/openid/confirm", form_at=MINE)
    silent = re.sub(r"&(prompt|max_age)=[^&]+", "", address)  # somebody keeps the provider from asking
    answer = back(portal, browser.visit(silent, "frank"))
    assert answer.status_code == 403
    assert "does not say that you have signed in there just now" in words(answer.get_data(as_text=True))
    (event,) = events(session, "confirmation_refused")
    assert (event.actor_name, event.target_name) == ("Frank Example", "Frank Example")
    assert event.changes == {"reason": [None, "no fresh proof from the provider"], "method": [None, "openid"]}
    session.expire_all()
    assert session.scalars(select(UserSession)).one().confirmed_at < now() - timedelta(hours=1)


def test_who_has_a_second_factor_here_confirms_with_its_code_too(portal: FlaskClient, session: Session) -> None:
    sign_on(portal, "frank")
    page = send(portal, f"{FACTOR}/set-up", form_at=FACTOR, expect=200).get_data(as_text=True)
    app, sealed = pyotp.TOTP(key_of(page)), hidden(page, "sealed")
    send(portal, f"{FACTOR}/turn-on", form_at=FACTOR, expect=200, sealed=sealed, code=app.at(now()))
    copied = copy_of(portal)
    old_sign_in(session)
    answer = confirm(portal, "frank")
    assert answer.headers["Location"] == "/-/sign-in/code"
    assert [portal.get("/").status_code, copied.get("/").status_code] == [302, 302]
    answer = fill(portal, "/-/sign-in/code", code=app.at(now(), counter_offset=1), expect=302)
    assert answer.headers["Location"] == "/-/account/identities"
    session.expire_all()
    found = session.scalars(select(UserSession)).one()
    assert (found.method, found.second_factor) == ("openid", True)
    assert found.confirmed_at > now() - timedelta(minutes=1)


def test_a_sign_in_that_comes_back_to_who_is_signed_in_by_now_changes_nothing(
    portal: FlaskClient, session: Session
) -> None:
    address = Browser().visit(start(portal, f"{START}?next=/-/account"), "frank")
    started = portal.get_cookie("__Host-portal_session")
    assert started
    sign_in(portal, "alice")
    with portal.session_transaction() as kept:
        kept["openid"] = portal.application.session_interface.get_signing_serializer(portal.application).loads(
            started.value
        )["openid"]
    assert back(portal, address).headers["Location"] == "/-/account"
    assert [each.user.username for each in session.scalars(select(UserSession))] == ["alice"]
    assert session.scalars(select(UserIdentity)).all() == []


def test_a_password_that_an_administrator_chose_keeps_nobody_out_who_comes_without_it(
    portal: FlaskClient, cast: Cast, session: Session
) -> None:
    sign_in(portal, "alice")
    connect(portal, "alice")
    session.execute(update(User).where(User.username == "alice").values(must_change_password=True))
    session.commit()
    assert portal.get("/").headers["Location"] == "/-/account/password"  # she came in with it
    other = portal.application.test_client()
    sign_on(other, "alice")
    assert other.get("/").status_code == 200
