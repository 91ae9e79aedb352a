"""Reading pages as people do: their words, their links, their tokens; and speaking as a machine does."""

from __future__ import annotations

import html
import re
from typing import Any

from flask.testing import FlaskClient

from tests.cast import csrf_of

TOKEN = re.compile(r"glrt-t[123]_[0-9A-Za-z]{27}\.0r[0-9a-z]{7}")
SYSTEM_ID = "s_c0ffee123456"
INFO = {
    "name": "gitlab-runner",
    "version": "18.9.0",
    "revision": "abcdef12",
    "platform": "linux",
    "architecture": "arm64",
    "executor": "docker",
}


def read(client: FlaskClient, path: str, expect: int = 200) -> str:
    """The HTML at this address, which must answer as expected."""
    answer = client.get(path)
    assert answer.status_code == expect, f"{path}: {answer.status_code}"
    return answer.get_data(as_text=True)


def fill(client: FlaskClient, address: str, /, *, form_at: str = "", expect: int = 302, **fields: str) -> Any:
    """Fill in the form of a page and send it, whatever its fields are called."""
    csrf = csrf_of(read(client, form_at or address))
    answer = client.post(address, data={"csrf_token": csrf, **fields})
    assert answer.status_code == expect, f"{answer.status_code}: {words(answer.get_data(as_text=True))}"
    return answer


def words(page: str) -> str:
    """What the page says, without its tags."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page))).strip()


def links(page: str) -> list[str]:
    return [html.unescape(address) for address in re.findall(r'href="([^"]+)"', page)]


def part(page: str, element_id: str) -> str:
    """The HTML from this element on; the part that a test looks at stands at its beginning."""
    place = page.find(f'id="{element_id}"')
    assert place >= 0, f"the page has no element {element_id}"
    return page[place:]


def row_titles(page: str) -> list[str]:
    """The runners or jobs that a list shows, in its order."""
    return [html.unescape(title) for title in re.findall(r'<a class="name"[^>]*>([^<]*)</a>', page)]


def counts(page: str) -> dict[str, int]:
    """The numbers on a list's status tiles."""
    found = re.findall(r'<a class="tile" [^>]*><b>(\d+)</b>.*?</svg>([^<]+)</span>', page)
    return {status: int(number) for number, status in found}


def token_of(answer: Any) -> str:
    """The token on a created page."""
    assert answer.status_code == 200, answer.get_data(as_text=True)[:2000]
    found = TOKEN.search(answer.get_data(as_text=True))
    assert found, "the page shows no token"
    return found[0]


def verify(client: FlaskClient, token: str, system_id: str = SYSTEM_ID) -> int:
    """Register a machine, as `gitlab-runner register` does. Returns the status."""
    return client.post(
        "/api/v4/runners/verify", json={"token": token, "system_id": system_id, "info": INFO}
    ).status_code


def poll(client: FlaskClient, token: str, system_id: str = SYSTEM_ID) -> int:
    """Ask for a job, as `gitlab-runner run` does. Returns the status."""
    return client.post(
        "/api/v4/jobs/request", json={"token": token, "system_id": system_id, "info": INFO}
    ).status_code


def copy_of(client: FlaskClient) -> FlaskClient:
    """Another browser that somebody has put this one's session cookie into."""
    name = client.application.config["SESSION_COOKIE_NAME"]
    kept = client.get_cookie(name)
    assert kept, "there is no session"
    other = client.application.test_client()
    other.set_cookie(name, kept.value, secure=True)
    return other
