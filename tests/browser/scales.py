"""What a page weighs: everything that a browser loads for it on a first visit, as it comes over the wire."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

MOST_BYTES = 100_000
# A page is whole before any script has run: none of them keeps the browser from showing it.
BLOCKING = """[...document.querySelectorAll('script[src]')]
  .filter((each) => !each.defer && !each.async && each.type !== 'module').map((each) => each.src)"""


class Scales:
    """Weighs pages in a browser that keeps no files. `weights` are bytes by path, `blocking` scripts in the way."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.weights: dict[str, int] = {}
        self.blocking: list[str] = []
        self._bytes = 0
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.send("Network.setCacheDisabled", {"cacheDisabled": True})
        session.on("Network.loadingFinished", self._add)

    def weigh(self, address: str) -> int:
        """Open the page and everything that it loads. Returns its weight in bytes, headers included."""
        self._bytes = 0
        self.page.goto(address, wait_until="load")
        self.page.wait_for_load_state("networkidle")
        path = "/" + address.split("/", 3)[3]
        self.weights[path] = self._bytes
        self.blocking += [f"{path}: {script}" for script in self.page.evaluate(BLOCKING)]
        return self._bytes

    def _add(self, finished: dict[str, Any]) -> None:
        self._bytes += int(finished["encodedDataLength"])
