"""Style sheets and scripts: compressed for who takes that, kept by browsers as long as they stay the same."""

import gzip
import re

import pytest
from flask.testing import FlaskClient

from portal.config import ROOT
from tests.cast import Cast, sign_in
from tests.web.test_headers import check

GZIP = {"Accept-Encoding": "gzip, deflate, br"}


@pytest.mark.parametrize("name", ["portal.css", "portal.js", "mark.svg", "vendor/htmx.min.js"])
def test_a_file_is_compressed_for_who_takes_that_and_is_the_same_for_all(
    cast: Cast, client: FlaskClient, name: str
) -> None:
    plain, small = client.get(f"/static/{name}"), client.get(f"/static/{name}", headers=GZIP)
    assert small.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert gzip.decompress(small.data) == plain.data == (ROOT / "static" / name).read_bytes()
    assert small.headers["Content-Type"] == plain.headers["Content-Type"]
    assert int(small.headers["Content-Length"]) == len(small.data) < len(plain.data)
    assert small.headers["ETag"] != plain.headers["ETag"]
    for answer in (plain, small):
        assert "Accept-Encoding" in answer.headers["Vary"]
        check(answer, f"/static/{name}")
        answer.close()


def test_who_refuses_compression_gets_none(cast: Cast, client: FlaskClient) -> None:
    answer = client.get("/static/portal.css", headers={"Accept-Encoding": "gzip;q=0, br"})
    assert "Content-Encoding" not in answer.headers
    answer.close()


def test_a_browser_that_has_the_file_hears_that_it_is_the_same(cast: Cast, client: FlaskClient) -> None:
    first = client.get("/static/portal.css", headers=GZIP)
    again = client.get("/static/portal.css", headers={**GZIP, "If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_the_files_of_a_page_are_kept_for_a_year(cast: Cast, client: FlaskClient) -> None:
    page = sign_in(client, "alice").get("/").get_data(as_text=True)
    files = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert len(files) >= 4
    for address in files:
        answer = client.get(address, headers=GZIP)
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        answer.close()


@pytest.mark.parametrize("query", ["", "?v=", "?v=1", "?v=0123456789ab"])
def test_an_answer_to_a_fingerprint_of_another_version_is_not_kept(
    cast: Cast, client: FlaskClient, query: str
) -> None:
    answer = client.get(f"/static/portal.css{query}", headers=GZIP)
    assert "immutable" not in answer.headers.get("Cache-Control", "")
    answer.close()


@pytest.mark.parametrize(
    "path", ["../README.md", "../portal.css", "nowhere.css", "vendor/", "..%2fstatic/portal.css"]
)
def test_nothing_else_is_answered(cast: Cast, client: FlaskClient, path: str) -> None:
    assert client.get(f"/static/{path}?v=1", headers=GZIP).status_code == 404
