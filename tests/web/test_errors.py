"""Refusals and failures as pages: a human sentence, a way on, and nothing of our insides."""

import logging
import re

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from tests.cast import Cast, csrf_of, sign_in
from tests.web.reading import links, read, words


@pytest.mark.parametrize(
    "path", ["/nowhere", "/groups/nowhere", "/acme/web/-/nowhere", "/-/nowhere", "/admin/nowhere"]
)
def test_an_address_that_is_none_says_so_and_leads_back(cast: Cast, client: FlaskClient, path: str) -> None:
    page = read(sign_in(client, "dana"), path, expect=404)
    assert "There is nothing here" in words(page)
    assert "or you may not see" in words(page)
    assert "/" in links(page)


def test_a_refusal_says_who_may_and_leads_back(cast: Cast, client: FlaskClient) -> None:
    page = read(sign_in(client, "erin"), "/groups/acme/-/edit", expect=403)
    assert "You may not do this" in words(page)
    assert "You may not rename it (acme): owners may." in words(page)
    assert "/" in links(page)


@pytest.mark.parametrize("path", ["/groups/acme/-/runners", "/groups/acme", "/"])
def test_a_page_that_takes_no_form_says_so(cast: Cast, client: FlaskClient, path: str) -> None:
    sign_in(client, "alice")
    answer = client.post(path, data={"csrf_token": csrf_of(read(client, "/"))})
    says = words(answer.get_data(as_text=True))
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]
    assert "This address does not take that" in says


def test_a_body_that_is_too_large_is_refused_in_words(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    limit = client.application.config["MAX_CONTENT_LENGTH"]
    answer = client.post("/groups/acme/-/runners/new", data={"description": "x" * limit})
    assert answer.status_code == 413
    assert "This is too large" in words(answer.get_data(as_text=True))


def test_a_failure_of_ours_says_so_gives_a_number_and_shows_nothing_of_the_inside(
    cast: Cast, client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    sign_in(client, "alice")
    cast.session.execute(text("ALTER TABLE audit_events RENAME TO audit_events_gone"))
    cast.session.commit()
    answer = client.get("/groups/acme/-/trail", headers={"X-Request-Id": "number-of-this-test"})
    page = answer.get_data(as_text=True)
    assert answer.status_code == 500
    assert "The portal failed to answer. It is not your fault, and nothing was changed." in words(page)
    assert "<code>number-of-this-test</code>" in page
    assert "audit_events" not in page
    assert "Traceback" not in page
    assert any(
        record.levelno == logging.ERROR and "audit_events" in str(record.exc_info) for record in caplog.records
    )


def test_the_portal_goes_on_after_a_failure(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    cast.session.execute(text("ALTER TABLE audit_events RENAME TO audit_events_gone"))
    cast.session.commit()
    read(client, "/groups/acme/-/trail", expect=500)
    read(client, "/groups/acme/-/runners")


def test_a_change_that_fails_half_way_changes_nothing(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    csrf = csrf_of(read(client, "/groups/acme/-/edit"))
    cast.session.execute(text("ALTER TABLE audit_events RENAME TO audit_events_gone"))
    cast.session.commit()
    fields = {"csrf_token": csrf, "name": "Apex", "path": "apex", "description": ""}
    assert client.post("/groups/acme/-/edit", data=fields).status_code == 500
    read(client, "/groups/acme")
    read(client, "/groups/apex", expect=404)


@pytest.mark.parametrize("path", ["/?search=%00", "/groups/a%00b", "/groups/acme/-/runners?tag=%00&creator=%00"])
def test_a_character_that_cannot_be_stored_is_refused_in_words(cast: Cast, client: FlaskClient, path: str) -> None:
    says = words(read(sign_in(client, "alice"), path, expect=400))
    assert "a character that cannot be stored" in says


@pytest.mark.parametrize("path", ["/-/sign-in", "/groups/acme/-/edit", "/groups/acme/-/members"])
def test_such_a_character_in_a_form_is_refused_too(cast: Cast, client: FlaskClient, path: str) -> None:
    if path != "/-/sign-in":
        sign_in(client, "alice")
    csrf = csrf_of(read(client, path))
    fields = dict.fromkeys(("login", "password", "name", "path", "description", "role"), "x\x00")
    assert client.post(path, data={"csrf_token": csrf, **fields}).status_code == 400


PAGES = [
    ("/-/sign-in", 200),
    ("/", 200),
    ("/nowhere", 404),
    ("/groups/acme", 200),
    ("/groups/acme/-/runners", 200),
    ("/groups/acme/-/runners/new", 200),
    ("/groups/acme/-/trail", 200),
    ("/groups/acme/-/members", 200),
    ("/groups/acme/-/delete", 200),
    ("/admin/people", 200),
    ("/-/account/password", 200),
    ("/static/portal.css", 200),
]


@pytest.mark.parametrize(("path", "status"), PAGES)
def test_every_page_goes_out_with_headers_that_keep_browsers_careful(
    cast: Cast, client: FlaskClient, path: str, status: int
) -> None:
    if path != "/-/sign-in":
        sign_in(client, "dana")
    answer = client.get(path)
    assert answer.status_code == status
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'"
    assert policy["form-action"] == "'self'"
    assert "unsafe" not in str(policy)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    answer.close()


@pytest.mark.parametrize("path", [path for path, _ in PAGES if not path.startswith("/static")])
def test_no_proxy_and_no_browser_keeps_a_page(cast: Cast, client: FlaskClient, path: str) -> None:
    if path != "/-/sign-in":
        sign_in(client, "dana")
    assert client.get(path).headers["Cache-Control"] == "no-store"


def test_browsers_may_keep_files_whose_address_names_their_content(cast: Cast, client: FlaskClient) -> None:
    page = read(client, "/-/sign-in")
    files = list(re.findall(r'(?:href|src)="(/static/[^"]+)"', page))
    assert len(files) >= 4
    for address in files:
        answer = client.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
        answer.close()


def test_refusals_redirects_and_failures_have_the_headers_too(cast: Cast, client: FlaskClient) -> None:
    for answer in (client.get("/"), client.post("/-/sign-in", data={}), client.delete("/-/sign-in")):
        assert answer.status_code in (302, 400, 405)
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]


def test_the_session_cookie_is_kept_from_scripts_and_other_sites(cast: Cast, client: FlaskClient) -> None:
    csrf = csrf_of(read(client, "/-/sign-in"))
    fields = {"csrf_token": csrf, "login": "alice", "password": "correct horse battery"}
    cookie = client.post("/-/sign-in", data=fields).headers["Set-Cookie"]
    for word in ("HttpOnly", "SameSite=Lax", "Secure", "Path=/"):
        assert word in cookie
