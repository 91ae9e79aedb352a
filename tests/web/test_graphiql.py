"""The page that tries GraphQL: for signed-in people, served locally, strict, and useful without a script."""

import re

from flask.testing import FlaskClient
from graphql import build_schema

from portal.config import ROOT
from tests.cast import Cast, sign_in

PAGE = "/-/graphql-explorer"


def test_it_is_for_signed_in_people(cast: Cast, client: FlaskClient) -> None:
    for address in (PAGE, f"{PAGE}/schema"):
        answer = client.get(address)
        assert answer.status_code == 302
        assert answer.headers["Location"].startswith("/-/sign-in")


def test_its_scripts_and_styles_come_from_the_portal(cast: Cast, client: FlaskClient) -> None:
    page = sign_in(client, "alice").get(PAGE).get_data(as_text=True)
    files = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
    assert {"react.min.js", "graphiql.min.css"} <= {each.split("/")[-1].split("?")[0] for each in files}
    for each in files:
        answer = client.get(each)
        assert answer.status_code == 200
        answer.close()


def test_its_policy_lets_in_fonts_of_the_style_sheet_and_nothing_else(cast: Cast, client: FlaskClient) -> None:
    usual = sign_in(client, "alice").get("/").headers["Content-Security-Policy"]
    policy = client.get(PAGE).headers["Content-Security-Policy"]
    assert policy.replace(" font-src 'self' data:;", "") == usual


def test_it_begins_with_a_group_that_the_person_sees_and_their_csrf_token(cast: Cast, client: FlaskClient) -> None:
    page = sign_in(client, "alice").get(PAGE).get_data(as_text=True)
    assert 'data-group="acme"' in page
    (csrf,) = re.findall(r'data-csrf="([^"]+)"', page)
    query = {"query": "mutation { bulkRunnerDelete(input: {ids: []}) { errors } }"}
    answer = client.post("/api/graphql", json=query, headers={"X-CSRFToken": csrf})
    assert answer.get_json() == {"data": {"bulkRunnerDelete": {"errors": []}}}


def test_a_stranger_begins_without_a_group(cast: Cast, client: FlaskClient) -> None:
    assert 'data-group=""' in sign_in(client, "charlie").get(PAGE).get_data(as_text=True)


def test_without_a_script_it_says_what_to_do_and_shows_the_schema(cast: Cast, client: FlaskClient) -> None:
    page = sign_in(client, "alice").get(PAGE).get_data(as_text=True)
    assert "<noscript>" in page
    assert "curl https://portal.example.com/api/graphql" in page
    assert "type CiRunner {" in page


def test_the_schema_is_a_file_that_tools_can_read(cast: Cast, client: FlaskClient) -> None:
    answer = sign_in(client, "alice").get(f"{PAGE}/schema")
    assert "schema.graphql" in answer.headers["Content-Disposition"]
    assert build_schema(answer.get_data(as_text=True)).get_type("CiRunnerManager")


def test_it_keeps_nothing_in_the_storage_of_the_browser() -> None:
    script = (ROOT / "static" / "graphql-explorer.js").read_text()
    assert not re.search(r"localStorage|sessionStorage|indexedDB|document\.cookie", script)
    assert "storage," in script


def test_it_says_how_the_keyboard_leaves_the_editor(cast: Cast, client: FlaskClient) -> None:
    page = sign_in(client, "alice").get(PAGE).get_data(as_text=True)
    assert "press Esc, then Tab or Shift and Tab, to leave it" in page
