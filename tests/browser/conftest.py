"""A real Chromium, a portal of each module's own, and a watch: no page may complain on the console."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from tests import databases
from tests.browser import setup
from tests.cast import PASSWORD, Cast
from tests.portals import RunningPortal

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
# The browser says this of every answer with such a status; the page itself is what the tests look at.
EXPECTED = re.compile(r"Failed to load resource: the server responded with a status of 4(04|03|09|22)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "browser":
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    if not setup.is_there():
        pytest.skip("There is no Chromium: `make browser` installs one where that is possible.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=setup.chromium_path(), args=setup.LAUNCH_ARGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def database(chromium: Browser, postgres: databases.Server) -> Iterator[str]:
    with postgres.copy() as url:
        yield url


@pytest.fixture(scope="module")
def cast(database: str) -> Iterator[Cast]:
    """The cast in the module's database, through a session of the test's own."""
    engine = create_engine(database)
    with Session(engine) as session:
        yield Cast(session)
    engine.dispose()


@pytest.fixture(scope="module")
def portal(database: str) -> Iterator[RunningPortal]:
    with RunningPortal(database) as running:
        yield running


class Visitor:
    """Somebody with a browser of their own: opens pages, and remembers what the console said."""

    def __init__(self, context: BrowserContext, portal: RunningPortal) -> None:
        self.context, self.portal = context, portal
        self.complaints: list[str] = []
        context.on("page", self._watch)
        context.set_default_timeout(10_000)
        self.page: Page = context.new_page()

    def _watch(self, page: Page) -> None:
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: {error}"))

    def _hear(self, message: ConsoleMessage) -> None:
        source = message.location.get("url", "")
        ours = not source.startswith("chrome-error:")  # the browser's own page, "send the form again?"
        if ours and message.type in ("error", "warning") and not EXPECTED.match(message.text):
            self.complaints.append(f"{source}: {message.text}")

    def open(self, path: str, page: Page | None = None) -> Page:
        page = page or self.page
        page.goto(self.portal.url + path)
        return page

    def sign_in(self, username: str, password: str = PASSWORD) -> Page:
        page = self.open("/-/sign-in")
        page.get_by_label("User name or e-mail").fill(username)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Sign in", exact=True).click()
        page.wait_for_url(f"{self.portal.url}/")
        return page


Visit = Callable[..., Visitor]


@pytest.fixture
def visit(chromium: Browser, portal: RunningPortal) -> Iterator[Visit]:
    """Start a visitor; `javascript=False`, `viewport`, `color_scheme` and so on. The console must stay silent."""
    visitors: list[Visitor] = []

    def start(*, javascript: bool = True, **options: object) -> Visitor:
        options = {"viewport": DESKTOP, "reduced_motion": "reduce", "java_script_enabled": javascript, **options}
        visitors.append(Visitor(chromium.new_context(**options), portal))  # type: ignore[arg-type]
        return visitors[-1]

    yield start
    for visitor in visitors:
        visitor.context.close()
    assert [complaint for visitor in visitors for complaint in visitor.complaints] == []
