"""A person with a browser that runs no script: cookies are kept, forms are sent as they stand in the page."""

from __future__ import annotations

import html
import http.cookiejar
import re
import urllib.error
import urllib.parse
import urllib.request

from tests.api.machines import Answer
from tests.portals import ROOT_PASSWORD

_HIDDEN = re.compile(r'<input[^>]* name="(csrf_token|request_key|seen_token_id)" value="([^"]*)"')


class Person:
    """Somebody at `url`. Addresses begin with a slash and are taken below it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cookies = http.cookiejar.CookieJar()
        self._browser = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(self.cookies), urllib.request.ProxyHandler({})
        )

    def another_tab(self) -> Person:
        """The same session in another tab, whose answers do not mix with this one's."""
        tab = Person(self.url)
        for cookie in self.cookies:
            tab.cookies.set_cookie(cookie)
        return tab

    def open(self, path: str, data: bytes | None = None) -> Answer:
        try:
            with self._browser.open(self.url + path, data, timeout=60) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as refusal:
            with refusal:
                return Answer(refusal.code, refusal.headers, refusal.read())

    def page(self, path: str) -> str:
        answer = self.open(path)
        assert answer.status == 200, answer
        return answer.body.decode()

    def filled_in(self, path: str, **fields: str) -> bytes:
        """The body of the form at `path`, ready to be sent once or more often."""
        return urllib.parse.urlencode({**dict(_HIDDEN.findall(self.page(path))), **fields}).encode()

    def send(self, path: str, **fields: str) -> Answer:
        return self.open(path, self.filled_in(path, **fields))

    def sign_in(self, login: str = "root", password: str = ROOT_PASSWORD) -> Person:
        answer = self.send("/-/sign-in", login=login, password=password)
        assert answer.status == 200, answer
        assert "Sign out" in answer.body.decode()
        return self

    def create_runner(self, **fields: str) -> Answer:
        """Root's instance runner; the answer is the page that shows the token."""
        return self.send("/admin/runners/new", **{"run_untagged": "y", "description": "Fleet", **fields})


def token_on(page: str) -> str:
    """The token that a page shows, or nothing."""
    found = re.search(r'<code id="token">([^<]+)</code>', page)
    return html.unescape(found[1]) if found else ""


def runner_id_on(page: str) -> int:
    """The runner whose token page this is."""
    found = re.search(r"/runners/(\d+)/connection", page)
    assert found, "this is no token page"
    return int(found[1])


def block_on(page: str, name: str) -> str:
    """The text of a block that the page offers to copy, exactly."""
    found = re.search(rf'<pre id="block-{name}"[^>]*>(.*?)</pre>', page, re.DOTALL)
    assert found, f"the page has no block {name}"
    return html.unescape(re.sub(r"</?code[^>]*>", "", found[1]))
