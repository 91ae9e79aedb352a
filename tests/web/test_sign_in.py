"""Signing in, out, and what a session survives."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Literal

import pytest
from argon2 import PasswordHasher
from flask.testing import FlaskClient
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from portal import create_app
from portal.database import db, now
from portal.domain.people import accounts
from portal.domain.people.sign_in_throttle import PER_ACCOUNT, PER_PLACE, WINDOW
from portal.models import AuditEvent, SignInAttempt, UserSession
from tests import databases
from tests.api.processes import Process
from tests.cast import PASSWORD, Cast, csrf_of, send, sign_in
from tests.domain.clock import let_pass
from tests.domain.queries import asked
from tests.web.reading import read, words


def test_alice_signs_in_and_sees_her_group(client: FlaskClient, cast: Cast) -> None:
    page = sign_in(client, "alice").get("/").get_data(as_text=True)
    assert "acme" in page
    assert "other" not in page


def test_a_wrong_password_and_an_unknown_name_get_the_same_answer(client: FlaskClient, cast: Cast) -> None:
    wrong = send(client, "/-/sign-in", login="alice", password="not hers at all", expect=422)
    nobody = send(client, "/-/sign-in", login="nobody", password="not hers at all", expect=422)
    sentence = "The user name or the password is wrong."
    assert sentence in wrong.get_data(as_text=True)
    assert sentence in nobody.get_data(as_text=True)


def test_a_page_behind_the_sign_in_comes_back_after_it(client: FlaskClient, cast: Cast) -> None:
    answer = client.get("/groups/acme/-/runners")
    assert answer.status_code == 302
    asked = answer.headers["Location"]
    back = send(client, asked, login="alice", password=PASSWORD, expect=302)
    assert back.headers["Location"] == "/groups/acme/-/runners"


def test_the_way_back_never_leads_to_another_host(client: FlaskClient, cast: Cast) -> None:
    for elsewhere in ("https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"):
        fresh = client.application.test_client()
        answer = send(fresh, f"/-/sign-in?next={elsewhere}", login="alice", password=PASSWORD, expect=302)
        assert answer.headers["Location"] == "/"


def test_somebody_signs_in_with_the_e_mail_address_whatever_its_case(client: FlaskClient, cast: Cast) -> None:
    page = read(sign_in(client, " Alice@ACME.example "), "/")
    assert "Alice Lam" in page


def test_the_refused_form_keeps_the_name_and_not_the_password(client: FlaskClient, cast: Cast) -> None:
    page = send(client, "/-/sign-in", login="alice", password="not hers at all", expect=422).get_data(as_text=True)
    assert 'value="alice"' in page
    assert "not hers at all" not in page


def test_an_endless_password_is_refused_like_any_other(client: FlaskClient, cast: Cast) -> None:
    send(client, "/-/sign-in", login="alice", password="x" * 100_000, expect=422)


def test_signing_out_ends_the_session_for_good(client: FlaskClient, cast: Cast) -> None:
    sign_in(client, "alice")
    send(client, "/-/sign-out", form_at="/", expect=302)
    assert client.get("/").headers["Location"].startswith("/-/sign-in")


def test_a_cookie_that_somebody_changed_signs_nobody_in(client: FlaskClient, cast: Cast) -> None:
    sign_in(client, "alice")
    cookie = client.get_cookie("__Host-portal_session")
    assert cookie is not None
    client.set_cookie("__Host-portal_session", cookie.value[:-3] + "AAA")
    assert client.get("/").status_code == 302


def test_who_is_signed_in_is_not_asked_again(client: FlaskClient, cast: Cast) -> None:
    assert sign_in(client, "alice").get("/-/sign-in").headers["Location"] == "/"


def test_the_way_back_keeps_the_filter_in_the_address(client: FlaskClient, cast: Cast) -> None:
    asked = client.get("/groups/acme/-/runners?status=online&tag=a%26b").headers["Location"]
    back = send(client, asked, login="alice", password=PASSWORD, expect=302)
    assert back.headers["Location"] == "/groups/acme/-/runners?status=online&tag=a%26b"


def test_a_form_sent_after_the_session_ended_leads_back_to_the_start(client: FlaskClient, cast: Cast) -> None:
    csrf = csrf_of(read(client, "/-/sign-in"))
    answer = client.post("/groups/acme/-/delete", data={"csrf_token": csrf, "typed": "acme"})
    assert answer.headers["Location"] == "/-/sign-in"


def test_a_deleted_persons_session_ends(client: FlaskClient, cast: Cast) -> None:
    sign_in(client, "charlie")
    cast.session.delete(cast.charlie)
    cast.session.commit()
    assert client.get("/").headers["Location"].startswith("/-/sign-in")


def test_the_list_of_people_tells_when_somebody_signed_in_last(client: FlaskClient, cast: Cast) -> None:
    sign_in(client, "alice")
    page = words(read(sign_in(client.application.test_client(), "dana"), "/admin/people"))
    assert re.search("alice@acme.example just now (Last sign-in )?just now", page)
    assert re.search("bob@acme.example just now (Last sign-in )?never", page, re.I)


# What a refusal tells

WRONG = "not hers at all"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that are really looked at, each a costly hash."""
    real, seen = accounts._hasher, []

    class Watched(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
            seen.append(str(password))
            return real.verify(hash, password)

    monkeypatch.setattr(accounts, "_hasher", Watched())
    return seen


def tried(client: FlaskClient, login: str, password: str = WRONG, expect: int = 422) -> TestResponse:
    answer: TestResponse = send(client, "/-/sign-in", login=login, password=password, expect=expect)
    return answer


def told(answer: TestResponse, login: str) -> tuple[int, str, list[str]]:
    """All that an answer tells, but for what was typed and what is random in every answer."""
    page = re.sub(r'name="csrf_token" value="[^"]+"', "", answer.get_data(as_text=True)).replace(login, "LOGIN")
    return answer.status_code, page, sorted(name for name, _ in answer.headers if name != "Content-Length")


def refusals(session: Session) -> list[AuditEvent]:
    query = select(AuditEvent).where(AuditEvent.action == "sign_in_refused").order_by(AuditEvent.id)
    return list(session.scalars(query))


@pytest.mark.parametrize("other", ["erin", "nobody", "sso", "blocked"])
def test_nothing_tells_whether_an_account_exists(
    client: FlaskClient, cast: Cast, session: Session, hashed: list[str], other: str
) -> None:
    """Six tries: the same text, status and headers, the same statements, one hash each while there is one."""
    cast.person("sso").password_digest = None
    cast.person("blocked").blocked_at = now()
    cast.session.commit()
    tried(client, "dana")  # so that nothing is compiled for the first time below

    def tries(login: str, address: str) -> list[tuple[object, ...]]:
        found = []
        browser = client.application.test_client()
        browser.environ_base["REMOTE_ADDR"] = address
        for number in range(7):
            before = len(hashed)
            with asked(session) as statements:
                answer = tried(browser, login, expect=422 if number < PER_PLACE else 429)
            sent = [re.sub(r"sa_savepoint_\d+", "", each.split(" VALUES")[0]) for each in statements]
            found.append((told(answer, login), sent, len(hashed) - before))
        return found

    assert tries("alice", "192.0.2.1") == tries(other, "192.0.2.2")


def test_too_many_attempts_are_told_with_how_long_to_wait(client: FlaskClient, cast: Cast, hashed: list[str]) -> None:
    for login in ("alice", "nobody"):
        for _ in range(PER_PLACE):
            tried(client, login)
        hashed.clear()
        answer = tried(client, login, PASSWORD, expect=429)
        assert "Too many attempts to sign in. Wait 15 minutes and try again." in words(answer.get_data(as_text=True))
        assert 890 <= int(answer.headers["Retry-After"]) <= 900
        assert hashed == []


def test_who_waited_signs_in(client: FlaskClient, cast: Cast, session: Session) -> None:
    for _ in range(PER_PLACE):
        tried(client, "alice")
    tried(client, "alice", PASSWORD, expect=429)
    let_pass(session, WINDOW)
    session.commit()
    sign_in(client, "alice")


def test_a_sign_in_makes_up_for_the_failures_before(client: FlaskClient, cast: Cast) -> None:
    for _ in range(3):
        for _ in range(PER_PLACE - 1):
            tried(client.application.test_client(), "alice")
        sign_in(client.application.test_client(), "alice")


def test_a_victim_signs_in_from_the_browser_they_used_while_an_attacker_tries_from_everywhere(
    client: FlaskClient, cast: Cast
) -> None:
    sign_in(client, "alice")
    send(client, "/-/sign-out", form_at="/", expect=302)
    attacker = client.application.test_client()
    for number in range(PER_ACCOUNT):
        attacker.environ_base["REMOTE_ADDR"] = f"198.51.100.{number}"
        tried(attacker, "alice")
    attacker.environ_base["REMOTE_ADDR"] = "203.0.113.1"
    tried(attacker, "alice", expect=429)
    client.environ_base["REMOTE_ADDR"] = "203.0.113.2"
    sign_in(client, "alice")


def test_when_many_passwords_are_checked_an_attempt_does_not_count(
    client: FlaskClient, cast: Cast, session: Session
) -> None:
    with accounts._checks, accounts._checks:
        for _ in range(PER_PLACE + 1):
            answer = tried(client, "alice", PASSWORD, expect=429)
            assert answer.headers["Retry-After"] == "3"
    assert session.scalar(select(func.count()).select_from(SignInAttempt)) == 0
    sign_in(client, "alice")


def test_who_is_blocked_learns_it_by_the_right_password_only(
    client: FlaskClient, cast: Cast, session: Session
) -> None:
    cast.alice.blocked_at = now()
    cast.session.commit()
    assert "wrong" in words(tried(client, "alice").get_data(as_text=True))
    answer = tried(client, "alice", PASSWORD, expect=403)
    assert "Your account is blocked. An administrator" in words(answer.get_data(as_text=True))
    assert client.get("/").status_code == 302
    assert [each.changes["reason"][1] for each in refusals(session)] == ["wrong password", "blocked"]


def test_every_refusal_leaves_an_event_about_the_person(client: FlaskClient, cast: Cast, session: Session) -> None:
    tried(client, "Alice@acme.example ")
    [event] = refusals(session)
    assert (event.actor_kind, event.actor_id, event.actor_name) == ("visitor", None, "somebody")
    assert (event.target_kind, event.target_id, event.target_name) == ("person", cast.alice.id, "Alice Lam")
    assert (event.address, event.changes) == ("127.0.0.1", {"reason": [None, "wrong password"]})


def test_an_unknown_name_is_kept_nowhere_for_it_may_be_a_password(
    client: FlaskClient, cast: Cast, session: Session
) -> None:
    tried(client, "hunter2 in the wrong field")
    [event] = refusals(session)
    assert (event.target_kind, event.target_name) == ("instance", "the instance")
    assert event.changes == {"reason": [None, "unknown name"]}
    page = read(sign_in(client.application.test_client(), "dana"), "/admin/trail")
    assert "hunter2" not in page
    everything = session.scalars(text("SELECT row_to_json(e)::text FROM audit_events e")).all()
    assert not [each for each in everything if "hunter2" in each]


# Devices


def cookies_of(answer: TestResponse) -> dict[str, str]:
    return {line.partition("=")[0]: line for line in answer.headers.getlist("Set-Cookie")}


def test_a_browser_gets_its_mark_at_the_sign_in_and_not_before(client: FlaskClient, cast: Cast) -> None:
    assert "__Host-portal_device" not in cookies_of(tried(client, "alice"))
    cookie = cookies_of(tried(client, "alice", PASSWORD, expect=302))["__Host-portal_device"]
    for word in ("HttpOnly", "SameSite=Lax", "Secure", "Path=/;", "Max-Age=7776000"):
        assert word in cookie + ";"
    assert "Domain" not in cookie


def test_the_mark_signs_nobody_in(client: FlaskClient, cast: Cast) -> None:
    sign_in(client, "alice")
    client.delete_cookie("__Host-portal_session")
    assert client.get_cookie("__Host-portal_device")
    assert client.get("/").status_code == 302


@pytest.mark.parametrize(
    ("url", "prefix", "path", "secure"),
    [
        ("http://portal.example.com", "", "/", False),
        ("https://portal.example.com/ci", "__Secure-", "/ci", True),
        ("https://portal.example.com", "__Host-", "/", True),
    ],
)
def test_cookies_are_as_strict_as_the_portals_address_allows(
    own_database: str, url: str, prefix: str, path: str, secure: bool
) -> None:
    app = create_app(databases.settings(own_database, PORTAL_URL=url))
    with app.app_context():
        Cast(db.session())
        client = app.test_client()
        base = f"{url.removesuffix('/ci')}/"
        page = client.get(f"{path.rstrip('/')}/-/sign-in", base_url=base).get_data(as_text=True)
        fields = {"csrf_token": csrf_of(page), "login": "alice", "password": PASSWORD}
        answer = client.post(f"{path.rstrip('/')}/-/sign-in", base_url=base, data=fields, headers={"Referer": base})
        db.session.remove()
        db.engine.dispose()
    given = cookies_of(answer)
    assert set(given) == {f"{prefix}portal_session", f"{prefix}portal_device"}
    for line in given.values():
        parts = [part.strip() for part in line.split(";")]
        assert ("Secure" in parts) is secure
        assert {"HttpOnly", "SameSite=Lax", f"Path={path}"} <= set(parts)
        assert "Domain" not in line


# What a session survives


def session_cookie(client: FlaskClient) -> str:
    found = client.get_cookie("__Host-portal_session")
    assert found is not None
    return found.value


def replayed(client: FlaskClient, cookie: str) -> int:
    """The status of a page for somebody who kept a copy of the cookie."""
    other = client.application.test_client()
    other.set_cookie("__Host-portal_session", cookie)
    return other.get("/groups/acme").status_code


def test_every_sign_in_has_a_key_of_its_own(client: FlaskClient, cast: Cast, session: Session) -> None:
    client.get("/-/sign-in")
    before = session_cookie(client)
    first = session_cookie(sign_in(client, "alice"))
    second = session_cookie(sign_in(client.application.test_client(), "alice"))
    assert len({before, first, second}) == 3
    assert len(set(session.scalars(select(UserSession.digest)))) == 2
    assert replayed(client, first) == 200
    assert replayed(client, before) == 302


def test_a_copy_of_the_cookie_is_worth_nothing_after_the_sign_out(client: FlaskClient, cast: Cast) -> None:
    cookie = session_cookie(sign_in(client, "alice"))
    send(client, "/-/sign-out", form_at="/", expect=302)
    assert replayed(client, cookie) == 302


def test_nor_after_a_change_of_the_password_elsewhere(client: FlaskClient, cast: Cast) -> None:
    stolen = session_cookie(sign_in(client.application.test_client(), "alice"))
    sign_in(client, "alice")
    fields = {"old": PASSWORD, "new": "a longer secret than that", "again": "a longer secret than that"}
    send(client, "/-/account/password", expect=302, **fields)
    assert replayed(client, stolen) == 302
    assert client.get("/groups/acme").status_code == 200


@pytest.mark.parametrize("how", ["blocked", "deleted"])
def test_who_is_blocked_or_deleted_is_out_with_the_next_request(client: FlaskClient, cast: Cast, how: str) -> None:
    browsers = [sign_in(client.application.test_client(), "charlie") for _ in range(2)]
    if how == "blocked":
        cast.charlie.blocked_at = now()
    else:
        cast.session.delete(cast.charlie)
    cast.session.commit()
    assert {each.get("/").status_code for each in browsers} == {302}


@pytest.mark.parametrize(
    ("field", "limit"), [("last_used_at", timedelta(hours=12)), ("created_at", timedelta(days=7))]
)
def test_a_session_ends_at_its_limit_and_not_before(
    client: FlaskClient, cast: Cast, session: Session, field: str, limit: timedelta
) -> None:
    sign_in(client, "alice")
    client.application.extensions["session_uses"].take()
    for early, status in ((timedelta(seconds=30), 200), (timedelta(0), 302)):
        session.execute(update(UserSession).values({field: now() - limit + early}))
        session.commit()
        assert client.get("/").status_code == status
        client.application.extensions["session_uses"].take()


# Many at once


@pytest.mark.parametrize("cores", [2, 20])
def test_of_twenty_wrong_passwords_at_once_at_most_five_are_looked_at(
    process: Process, hashed: list[str], monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr(accounts, "_checks", threading.BoundedSemaphore(cores))
    with process.session() as session:
        Cast(session)
    together = threading.Barrier(20)

    def attempt(number: int) -> int:
        client = process.app.test_client()
        csrf = csrf_of(client.get("/-/sign-in").get_data(as_text=True))
        together.wait()
        fields = {"csrf_token": csrf, "login": "alice", "password": f"guess number {number}"}
        return client.post("/-/sign-in", data=fields).status_code

    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(attempt, range(20)))
    assert set(statuses) <= {422, 429}
    assert 1 <= len(hashed) == statuses.count(422) <= PER_PLACE
    assert len(hashed) == PER_PLACE or cores == 2  # with few, most are asked to come again, and not counted


def test_the_background_forgets_attempts_that_count_no_more(process: Process) -> None:
    with process.session() as session:
        for age in (timedelta(0), WINDOW):
            row = SignInAttempt(account_digest=b"x" * 32, network="192.0.2.1", created_at=now() - age)
            session.add(row)
        session.commit()
        assert process.background.housekeeping.prune_sign_ins() == 1
        assert session.scalar(select(func.count()).select_from(SignInAttempt)) == 1
