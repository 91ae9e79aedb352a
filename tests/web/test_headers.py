"""The headers of every answer: each route of the portal, each kind of refusal, over HTTPS and without."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.orm import Session
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from portal import create_app
from portal.database import db
from portal.web import static_files
from tests import databases
from tests.cast import Cast, csrf_of, sign_in
from tests.domain.queries import asked
from tests.house.conftest import places as places  # the fixture: what to put into the addresses
from tests.house.test_doors import APP, WRITES, text_of
from tests.web.reading import read

RULES = list(APP.url_map.iter_rules())
CASES = [(rule, method) for rule in RULES for method in sorted(rule.methods - {"OPTIONS", "HEAD"})]
FORMS = [rule for rule in RULES if {"GET", "POST"} <= rule.methods]
HSTS = "Strict-Transport-Security"


def policy_of(answer: TestResponse) -> dict[str, str]:
    parts = answer.headers["Content-Security-Policy"].split(";")
    return dict(part.strip().partition(" ")[::2] for part in parts)


def check(answer: TestResponse, path: str) -> None:
    """What every answer of a portal at an https address has."""
    headers = answer.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers[HSTS] == "max-age=63072000"
    policy = policy_of(answer)
    if path.startswith("/api/"):
        assert policy == {"default-src": "'none'", "frame-ancestors": "'none'"}
        assert headers["Referrer-Policy"] == "same-origin"
        same_for_everybody = path.endswith("/openapi.json") and answer.status_code == 200
        assert headers["Cache-Control"] == ("no-cache" if same_for_everybody else "no-store")
        return
    assert policy["default-src"] == policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in str(policy)
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    if not path.startswith("/static/"):
        assert headers["Cache-Control"] == "no-store"
    if "Content-Type" in headers and headers["Content-Type"].startswith("text/"):
        assert "charset=utf-8" in headers["Content-Type"]


def address(app: Flask, rule: Rule, places: dict[str, Any], method: str) -> str:
    with app.test_request_context():
        adapter = app.url_map.bind("portal.example.com")
        values = {name: places[name] for name in rule.arguments}
        return adapter.build(rule.endpoint, values, method=method, force_external=False)


@pytest.fixture
def dana(cast: Cast, client: FlaskClient) -> FlaskClient:
    return sign_in(client, "dana")


@pytest.mark.parametrize(("rule", "method"), CASES, ids=[f"{method} {text_of(rule)}" for rule, method in CASES])
def test_every_route_answers_with_them(
    app: Flask, dana: FlaskClient, places: dict[str, Any], rule: Rule, method: str
) -> None:
    places = {"filename": "portal.css", **places}
    path = address(app, rule, places, method)
    if rule.endpoint == "sessions.sign_in":
        dana.delete_cookie("__Host-portal_session")
    answer = dana.open(path, method=method)
    assert answer.status_code < 500 or rule.endpoint == "health.ready"
    check(answer, path)
    answer.close()


@pytest.mark.parametrize(
    "path", ["/", "/admin/people", "/groups/acme", "/-/account", "/nowhere", "/static/nowhere.css"]
)
def test_a_visitor_gets_them_too(cast: Cast, client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (302, 404)
    check(answer, path)


@pytest.mark.parametrize("rule", FORMS, ids=text_of)
def test_a_head_is_a_get_without_its_body_and_never_a_form(
    app: Flask, session: Session, dana: FlaskClient, places: dict[str, Any], rule: Rule
) -> None:
    path = address(app, rule, places, "GET")
    if rule.endpoint == "sessions.sign_in":
        dana.delete_cookie("__Host-portal_session")
    with asked(session) as statements:
        answer = dana.head(path)
    assert answer.status_code == dana.get(path).status_code
    assert answer.data == b""
    assert [each for each in statements if WRITES.search(each)] == []
    check(answer, path)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/api/v4/nowhere", 404),
        ("DELETE", "/-/sign-in", 405),
        ("PATCH", "/api/v4/runners/verify", 405),
        ("POST", "/-/sign-in", 400),
        ("GET", "/groups/a%00b", 400),
    ],
)
def test_a_refusal_has_them(dana: FlaskClient, method: str, path: str, status: int) -> None:
    if path == "/-/sign-in":
        dana.delete_cookie("__Host-portal_session")
    answer = dana.open(path, method=method)
    assert answer.status_code == status
    check(answer, path)


@pytest.mark.parametrize("path", ["/groups/acme/-/runners/new", "/api/v4/runners/verify"])
def test_a_body_that_is_too_large_has_them(dana: FlaskClient, path: str) -> None:
    limit = dana.application.config["MAX_CONTENT_LENGTH"]
    answer = dana.post(path, data={"description": "x" * limit})
    assert answer.status_code == 413
    check(answer, path)


@pytest.mark.parametrize(
    ("path", "body"), [("/groups/acme", None), ("/api/v4/runners", {"token": "GR1348941" + "x" * 20})]
)
def test_a_failure_of_ours_has_them(cast: Cast, dana: FlaskClient, path: str, body: dict[str, str] | None) -> None:
    for table in ("namespaces", "application_settings"):
        cast.session.execute(text(f"ALTER TABLE {table} RENAME TO {table}_gone"))
    cast.session.commit()
    answer = dana.post(path, json=body) if body else dana.get(path)
    assert answer.status_code == 500
    check(answer, path)


def test_files_may_be_kept_and_have_them_all_the_same(cast: Cast, client: FlaskClient) -> None:
    with client.application.test_request_context():
        address = static_files.asset("portal.css")
    answer = client.get(address)
    assert "immutable" in answer.headers["Cache-Control"]
    check(answer, "/static/portal.css")
    answer.close()


def test_what_a_cross_site_page_sent_is_refused_with_them(dana: FlaskClient) -> None:
    csrf = csrf_of(read(dana, "/"))
    answer = dana.post("/-/sign-out", data={"csrf_token": csrf[:-1]})
    assert answer.status_code == 400
    check(answer, "/-/sign-out")


@pytest.fixture
def plain(own_database: str) -> Iterator[FlaskClient]:
    """A portal whose address is http."""
    app = create_app(databases.settings(own_database, PORTAL_URL="http://portal.example.com:8080"))
    yield app.test_client()
    with app.app_context():
        db.session.remove()
        db.engine.dispose()


@pytest.mark.parametrize("path", ["/", "/-/sign-in", "/nowhere", "/static/portal.css", "/healthz", "/api/v4/nowhere"])
def test_a_portal_without_https_promises_none(plain: FlaskClient, path: str) -> None:
    answer = plain.get(path, headers={"X-Forwarded-Proto": "https"})
    assert HSTS not in answer.headers
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    answer.close()


@pytest.mark.parametrize("path", ["/-/sign-in", "/healthz", "/api/v4/nowhere"])
def test_hosts_below_the_portals_own_are_bound_only_by_a_setting(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setitem(app.config, "PORTAL", replace(app.config["PORTAL"], hsts_subdomains=True))
    assert client.get(path).headers[HSTS] == "max-age=63072000; includeSubDomains"


@pytest.mark.parametrize("path", ["/", "/-/sign-in", "/static/portal.css", "/healthz", "/api/v4/runners/verify"])
def test_no_other_origin_may_read_an_answer(dana: FlaskClient, path: str) -> None:
    asked_from = {"Origin": "https://evil.example.com", "Access-Control-Request-Method": "POST"}
    for method in ("GET", "POST", "OPTIONS"):
        answer = dana.open(path, method=method, headers=asked_from)
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control-")]
        answer.close()


@pytest.mark.parametrize("path", ["/", "/-/account", "/static/portal.css", "/healthz", "/api/v4/runners/verify"])
def test_no_route_repeats_a_request_by_trace(dana: FlaskClient, path: str) -> None:
    assert dana.open(path, method="TRACE").status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        *("/static/", "/static", "/static/vendor/", "/static/../app.py", "/static/%2e%2e/portal/config.py"),
        *("/.git/config", "/.git/", "/data/secret-key", "/README.md", "/templates/base.html"),
    ],
)
def test_no_folder_is_listed_and_nothing_but_static_files_is_served(dana: FlaskClient, path: str) -> None:
    assert dana.get(path).status_code == 404
