"""What pages weigh on a first visit: everything that a browser loads for each page that links lead to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import Page, sync_playwright

from bench.figures import Figure
from bench.runs import Run
from portal.domain.runners.runner_settings import RunnerSettings
from tests.browser import setup
from tests.browser.scales import MOST_BYTES, Scales
from tests.cast import PASSWORD, Cast

ROWS = 120  # runners and jobs, so that the longest pages are full
SHORT, LONG = 60, 400  # pages at most
FILLED = ("/groups/acme/-/runners?rows=100", "/admin/runners?rows=100", "/acme/web/-/jobs", "/-/api/try")
_NUMBER = re.compile(r"\d+")
_LINKS = "[...document.querySelectorAll('a[href]:not([download])')].map((each) => each.href)"


def figures(run: Run) -> Iterator[Figure]:
    """The heaviest page of a portal with full lists, and how many scripts keep a page from being shown."""
    with run.database() as url:
        with run.session(url) as session:
            _fill(Cast(session))
        with run.portal(url) as portal, _browser() as page:
            _sign_in(page, portal.url)
            scales = Scales(page)
            _walk(scales, portal.url, most=LONG if run.full else SHORT)
    path = max(scales.weights, key=lambda each: scales.weights[each])
    for each in sorted(scales.weights, key=lambda one: -scales.weights[one])[:10]:
        run.say(f"{scales.weights[each] / 1000:8.1f} KB  {each}")
    heaviest = round(scales.weights[path] / 1000, 1)
    note = f"{path}, of {len(scales.weights)} pages"
    yield Figure("heaviest_page_kb", heaviest, MOST_BYTES / 1000, "lower", unit="KB", note=note)
    yield Figure("scripts_in_the_way_of_pages", len(scales.blocking), 0, "lower")


def _fill(cast: Cast) -> None:
    tagged = RunnerSettings("Build machine in rack 7", "Call Bob", ("docker", "linux", "x86-64"))
    for _ in range(ROWS):
        cast.runner(cast.acme, tagged)
        cast.job(name="browser tests", tags=("docker", "linux"))


@contextmanager
def _browser() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=setup.chromium_path(), args=setup.LAUNCH_ARGS)
        yield browser.new_context().new_page()
        browser.close()


def _sign_in(page: Page, url: str) -> None:
    page.goto(f"{url}/-/sign-in")
    page.get_by_label("User name or e-mail").fill("dana")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url(f"{url}/")


def _walk(scales: Scales, url: str, *, most: int) -> None:
    """Follow links from the start page, one of each kind: what differs in numbers only is the same kind."""
    waiting, kinds = ["/", *FILLED], set()
    while waiting and len(scales.weights) < most:
        path = waiting.pop(0)
        kind = _NUMBER.sub("1", path)
        if kind in kinds:
            continue
        kinds.add(kind)
        scales.weigh(url + path)
        for link in scales.page.evaluate(_LINKS):
            parts = urlsplit(link)
            if link.startswith(url) and not parts.path.startswith(("/api/", "/static/")):
                waiting.append(parts.path + (f"?{parts.query}" if parts.query else ""))
