"""Pages are compressed where nobody can learn a secret from their length, and nowhere else."""

import gzip
import re
from html import unescape

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal import create_app
from portal.database import db
from portal.domain.registration import registration_tokens
from portal.domain.scopes import INSTANCE
from tests import databases
from tests.cast import Cast, csrf_of, hidden, sign_in

BROWSER = {"Accept-Encoding": "gzip, deflate, br, zstd", "Sec-Fetch-Mode": "navigate"}
LIST = "/groups/acme/-/runners?search=docker"


@pytest.fixture
def alice(app: Flask, cast: Cast) -> FlaskClient:
    return sign_in(app.test_client(), "alice")


def encoding(client: FlaskClient, path: str, **headers: str) -> str:
    answer = client.get(path, headers={**BROWSER, **{name.replace("_", "-"): each for name, each in headers.items()}})
    assert answer.status_code == 200
    assert {"Accept-Encoding", "Sec-Fetch-Site", "Sec-Fetch-Mode", "HX-Request"} <= set(answer.vary)
    return answer.headers.get("Content-Encoding", "as it is")


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_what_the_portal_or_the_person_asks_for_is_compressed(alice: FlaskClient, site: str) -> None:
    answer = alice.get(LIST, headers={**BROWSER, "Sec-Fetch-Site": site})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert b"</html>" in gzip.decompress(answer.data)
    assert int(answer.headers["Content-Length"]) == len(answer.data)
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "something-new"])
def test_what_another_site_causes_is_not(alice: FlaskClient, site: str) -> None:
    assert encoding(alice, LIST, Sec_Fetch_Site=site) == "as it is"


@pytest.mark.parametrize("path", ["/admin/runners?search=GUESS", "/acme/web/-/jobs?search=GUESS"])
def test_what_a_page_asks_for_by_itself_is_not_since_another_site_may_have_opened_it(
    app: Flask, cast: Cast, path: str
) -> None:
    dana = sign_in(app.test_client(), "dana")
    assert encoding(dana, path, Sec_Fetch_Site="cross-site") == "as it is"
    page = dana.get(path).get_data(as_text=True)
    refreshed = re.search(r'<div id="(?:runner|job)-rows" hx-get="([^"]+)"', page)
    assert refreshed
    again = unescape(refreshed[1])
    assert "GUESS" in again
    cast.job(name="GUESS")  # while nothing changes, the list of jobs is not even sent again
    assert encoding(dana, again, Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="cors", HX_Request="true") == "as it is"


@pytest.mark.parametrize("mode", ["cors", "same-origin", "no-cors", "something-new"])
def test_only_who_goes_to_a_page_gets_it_compressed(alice: FlaskClient, mode: str) -> None:
    assert encoding(alice, LIST, Sec_Fetch_Site="same-origin", Sec_Fetch_Mode=mode) == "as it is"


def test_a_browser_that_does_not_say_how_it_asks_gets_it_as_it_is(alice: FlaskClient) -> None:
    answer = alice.get(LIST, headers={"Accept-Encoding": "gzip", "Sec-Fetch-Site": "same-origin"})
    assert "Content-Encoding" not in answer.headers


def test_a_refresh_by_script_is_not_compressed_whatever_else_is_said(alice: FlaskClient) -> None:
    assert encoding(alice, LIST, Sec_Fetch_Site="same-origin", HX_Request="true") == "as it is"


def test_over_https_a_browser_that_does_not_say_gets_it_as_it_is(alice: FlaskClient) -> None:
    assert encoding(alice, LIST) == "as it is"


def test_over_plain_http_browsers_do_not_say_and_there_is_nothing_to_hide(own_database: str) -> None:
    app = create_app(databases.settings(own_database, PORTAL_URL="http://portal.example.com:8080"))
    client = app.test_client()
    assert encoding(client, "/-/sign-in") == "gzip"
    assert encoding(client, "/-/sign-in", Sec_Fetch_Site="cross-site") == "as it is"
    with app.app_context():
        db.session.remove()
        db.engine.dispose()


def test_who_does_not_take_it_gets_it_as_it_is(alice: FlaskClient) -> None:
    assert encoding(alice, LIST, Sec_Fetch_Site="same-origin", Accept_Encoding="br") == "as it is"


def test_a_list_that_shows_a_registration_token_is_never_compressed(app: Flask, cast: Cast) -> None:
    dana = sign_in(app.test_client(), "dana")
    assert encoding(dana, "/admin/runners", Sec_Fetch_Site="same-origin") == "gzip"
    configured = app.extensions["registration"]
    row = registration_tokens.make_token(cast.session, cast.as_(cast.dana), INSTANCE, configured)
    token = configured.vault.open(row.ciphertext or b"") or ""
    cast.session.commit()
    page = dana.get("/admin/runners", headers={**BROWSER, "Sec-Fetch-Site": "same-origin"})
    assert token in page.get_data(as_text=True)


def test_the_answer_that_shows_a_new_token_is_never_compressed(alice: FlaskClient) -> None:
    page = alice.get("/groups/acme/-/runners/new").get_data(as_text=True)
    form = {"csrf_token": csrf_of(page), "tags": "docker", "request_key": hidden(page, "request_key")}
    headers = {**BROWSER, "Sec-Fetch-Site": "same-origin"}
    answer = alice.post("/groups/acme/-/runners/new", data=form, headers=headers)
    assert "glrt-" in answer.get_data(as_text=True)


def test_answers_of_the_api_are_not_compressed(alice: FlaskClient) -> None:
    answer = alice.get("/api/v4/runners", headers={**BROWSER, "Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 200
    assert "Content-Encoding" not in answer.headers
