"""The REST API to read: every operation stands on its room's page, whole without a script."""

import html
from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest
from flask import Flask

from portal.web.api_document import Reference, kind, marked
from tests.cast import Cast, sign_in

MOST_BYTES = 70_000  # the rest of a page's 100 KB is style and script


@pytest.fixture
def pages(app: Flask, cast: Cast) -> dict[str, str]:
    """The page of all, that of each room, and that of the shapes, by address."""
    client = sign_in(app.test_client(), "charlie")
    rooms = Reference(app.extensions["api_description"].document).rooms()
    addresses = ["/-/api", *(f"/-/api/{room.anchor}" for room in rooms), "/-/api/shapes"]
    found = {address: client.get(address) for address in addresses}
    assert {answer.status_code for answer in found.values()} == {200}
    return {address: answer.get_data(as_text=True) for address, answer in found.items()}


@pytest.fixture
def page(pages: dict[str, str]) -> str:
    """All of it, one page behind the other."""
    return "".join(pages.values())


def test_every_operation_stands_on_a_page(app: Flask, pages: dict[str, str]) -> None:
    document = app.test_client().get("/api/v4/openapi.json").get_json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            name, room = operation["operationId"], operation["tags"][0].lower().replace(" ", "-")
            assert f'id="{name}"' in pages["/-/api"]
            assert f'<a href="/-/api/{room}#{name}">' in pages["/-/api"]
            page = pages[f"/-/api/{room}"]
            assert f'<article id="{name}"' in page
            assert f"{method.upper()}</span><code>{path}</code>" in page
            for parameter in operation.get("parameters", ()):
                assert f"<code>{parameter['name']}</code>" in page


def test_an_operation_is_a_line_that_opens_with_an_example_to_copy(pages: dict[str, str]) -> None:
    assert sum(page.count('<details class="operation">') for page in pages.values()) > 100
    shown = pages["/-/api/runners"].split('<article id="runners_update"')
    assert "Change some of a runner&#39;s settings" in shown[0].split("<details")[-1]
    example = html.unescape(shown[1].split('<code id="curl-runners_update">')[1].split("</code>")[0])
    assert example == (
        'curl --request PUT --header "PRIVATE-TOKEN: $TOKEN" \\\n'
        """  --json '{"paused": true, "tag_list": ["docker", "linux"]}' \\\n"""
        "  https://portal.example.com/api/v4/runners/7"
    )
    assert 'data-copy="curl-runners_update" hidden' in shown[1]


def test_the_page_of_all_can_be_searched_by_parameter_and_attribute(pages: dict[str, str]) -> None:
    line = pages["/-/api"].split('id="runners_update"')[1].split(">")[0]
    assert "maximum_timeout" in line
    line = pages["/-/api"].split('id="shape-RunnerDetails"')[1].split(">")[0]
    assert "tag_list" in line


def test_there_is_no_other_room(app: Flask, cast: Cast) -> None:
    assert sign_in(app.test_client(), "charlie").get("/-/api/kitchen").status_code == 404


def test_every_operation_has_an_example_that_names_no_secret(app: Flask) -> None:
    for room in Reference(app.extensions["api_description"].document).rooms():
        for each in room.operations:
            assert each.example.startswith("curl ")
            assert "{" not in each.example.splitlines()[-1]
            shown = "$TOKEN"
            if room.name == "Runner protocol":
                shown = "$JOB_TOKEN" if "{job_id}" in each.path else "$RUNNER_TOKEN"
            assert shown in each.example or each.path == "/openapi.json"


def test_a_path_in_an_example_is_encoded_and_what_is_needed_stands_in_the_address() -> None:
    parameter = {"description": "", "required": True, "schema": {"type": "string"}}
    asked = {
        "operationId": "a_b", "tags": ["A"], "summary": "", "description": "", "responses": {}, "security": [{}],
        "parameters": [
            {**parameter, "name": "project", "in": "path", "example": "acme/web"},
            {**parameter, "name": "search", "in": "query", "example": "a b"},
        ],
    }  # fmt: skip
    document = {
        "servers": [{"url": "https://portal.example.com"}],
        "tags": [{"name": "A", "description": ""}],
        "paths": {"/projects/{project}": {"get": asked}},
    }
    (only,) = Reference(document).rooms()[0].operations
    assert only.example.endswith('"https://portal.example.com/projects/acme%2Fweb?search=a+b"')


def test_each_status_is_explained_once(page: str) -> None:
    assert page.count("The body is too large.") == 1
    assert '<dt id="status-413">' in page


def test_no_page_of_it_is_heavy(pages: dict[str, str]) -> None:
    weights = {address: len(page.encode()) for address, page in pages.items()}
    assert {address: weight for address, weight in weights.items() if weight > MOST_BYTES} == {}


def test_every_link_within_the_reference_leads_somewhere(pages: dict[str, str]) -> None:
    class Places(HTMLParser):
        """The ids of a page, and where its links within the reference lead."""

        def __init__(self, address: str) -> None:
            super().__init__()
            self.address = address
            self.ids: list[str] = []
            self.links: set[tuple[str, str]] = set()

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found = dict(attrs)
            if found.get("id"):
                self.ids.append(str(found["id"]))
            if tag == "a" and "#" in (found.get("href") or ""):
                page, _, place = urljoin(self.address, found["href"]).partition("#")
                self.links.add((page, place))

    places = {address: Places(address) for address in pages}
    for address, page in pages.items():
        places[address].feed(page)
        assert len(places[address].ids) == len(set(places[address].ids))
    links = {link for each in places.values() for link in each.links}
    assert len(links) > 180
    assert [link for link in links if link[1] not in places[link[0]].ids] == []


def test_a_runner_is_described_with_what_opens_it_and_what_it_answers(pages: dict[str, str]) -> None:
    shown = pages["/-/api/runners"].split('id="runners_show"')[1].split("</article>")[0]
    assert "include_projects" in shown
    assert "<code>manage_runner</code>" in shown
    assert '<a href="shapes#shape-RunnerDetails">' in shown
    assert "401" in shown


def test_the_account_menu_leads_there(app: Flask, cast: Cast) -> None:
    assert 'href="/-/api"' in sign_in(app.test_client(), "charlie").get("/").get_data(as_text=True)


def test_the_viewer_is_of_this_portal_and_says_what_to_do_without_a_script(app: Flask, cast: Cast) -> None:
    answer = sign_in(app.test_client(), "charlie").get("/-/api/try")
    page = answer.get_data(as_text=True)
    assert "/static/vendor/swagger-ui-bundle.js" in page
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert "<noscript>" in page


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer"}, "whole number"),
        (
            {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^[0-9]+$"}, {"type": "null"}]},
            "whole number or null",
        ),
        ({"anyOf": [{"type": "boolean"}, {"type": "string", "enum": ["true"]}]}, "true or false"),
        ({"type": "array", "items": {"type": "string"}}, "list of text"),
        ({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}, "list of text or text"),
        ({"type": "string", "format": "date-time"}, "moment"),
        ({"type": ["string", "null"], "format": "date"}, "day or null"),
        ({"enum": ["a", "<b>"]}, "<code>a</code>, <code>&lt;b&gt;</code>"),
        ({"$ref": "#/components/schemas/Runner"}, '<a href="shapes#shape-Runner">Runner</a>'),
        ({}, "anything"),
    ],
)
def test_a_schema_is_told_in_words(schema: dict[str, object], words: str) -> None:
    assert str(kind(schema)) == words


def test_what_stands_between_backticks_is_code_and_nothing_is_markup_by_itself() -> None:
    assert str(marked("a `b<` <i>")) == "a <code>b&lt;</code> &lt;i&gt;"


def test_a_shape_that_is_taken_is_no_shape_that_is_answered(app: Flask) -> None:
    reference = Reference(app.extensions["api_description"].document)
    names = {shape.name for shape in reference.shapes()}
    assert "RunnerDetails" in names
    assert not [name for name in names if name.endswith("Body")]
