"""The pictures of docs/images, from a demo portal of their own: `python -m tests.screenshots [FOLDER]`"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from portal.commands import DEMO_PASSWORD
from portal.config import ROOT
from tests.browser.setup import LAUNCH_ARGS, chromium_path, is_there
from tests.databases import Server
from tests.portals import RunningPortal

FOLDER = ROOT / "docs" / "images"
SHOWN_URL = "https://portal.example.com"  # stands in the commands; the browser goes to the portal itself
DESK = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
# End of the file's name, and what the browser is like.
LOOKS = {
    "": {**DESK, "color_scheme": "light"},
    "-dark": {**DESK, "color_scheme": "dark"},
    "-phone": {**PHONE, "color_scheme": "light"},
}
INFO = {
    "name": "gitlab-runner",
    "version": "18.9.0",
    "revision": "07e534ba",
    "platform": "linux",
    "architecture": "amd64",
    "executor": "docker",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots", description="Take the README's pictures.")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where they go; default: docs/images")
    folder: Path = parser.parse_args().folder
    if not is_there():
        print(
            "There is no Chromium here. Install one, or run: python -m playwright install chromium", file=sys.stderr
        )
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    server = Server()
    try:
        with server.copy() as url, RunningPortal(url, PORTAL_URL=SHOWN_URL) as portal:
            _fill(portal)
            _take_all(portal, folder)
    finally:
        server.stop()
    return 0


def _fill(portal: RunningPortal) -> None:
    command = [sys.executable, "-m", "flask", "--app", "app", "demo", "fill"]
    subprocess.run(command, cwd=ROOT, env=portal.environment, check=True, stdout=subprocess.DEVNULL)


def _take_all(portal: RunningPortal, folder: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=LAUNCH_ARGS)
        for ending in LOOKS:  # all lists first: the created pages add runners
            with _alice(browser, portal, ending) as page:
                _jobs(page, portal, folder, ending)
                page.goto(f"{portal.url}/groups/acme/-/runners")
                _shoot(page, folder / f"runners{ending}.png")
        for ending in LOOKS:
            with _alice(browser, portal, ending) as page:
                _create_and_connect(page, portal)
                _shoot(page, folder / f"created{ending}.png")
        browser.close()


@contextmanager
def _alice(browser: Browser, portal: RunningPortal, ending: str) -> Iterator[Page]:
    """A page on which Alice is signed in."""
    context = browser.new_context(**LOOKS[ending], reduced_motion="reduce", locale="en-GB")
    page = context.new_page()
    page.goto(f"{portal.url}/-/sign-in")
    page.locator("[name=login]").fill("alice")
    page.locator("[name=password]").fill(DEMO_PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{portal.url}/")
    yield page
    context.close()


def _jobs(page: Page, portal: RunningPortal, folder: Path, ending: str) -> None:
    """The jobs of a project, one that ran, one that waits for a reason, and the check of a runner."""
    jobs = f"{portal.url}/acme/web/-/jobs"
    page.goto(jobs)
    _shoot(page, folder / f"jobs{ending}.png")
    for name, called in (("job", "package"), ("stuck", "build image")):
        page.goto(f"{jobs}?search={called}")
        page.locator("main a[href*='/jobs/']", has_text=called).first.click()
        _shoot(page, folder / f"{name}{ending}.png")
    page.goto(f"{portal.url}/groups/acme/-/runners?search=Linux+build+fleet")
    page.locator("main a", has_text="Linux build fleet").first.click()
    page.goto(f"{page.url}/jobs")
    page.locator("main a[href*='/checks/']").first.click()
    _shoot(page, folder / f"check{ending}.png")


def _create_and_connect(page: Page, portal: RunningPortal) -> None:
    page.goto(f"{portal.url}/groups/acme/platform/-/runners/new")
    page.locator("[name=tags]").fill("docker, linux")
    page.locator("[name=description]").fill("Linux builders, rack 7")
    page.get_by_role("button", name="Create runner").click()
    token = page.locator("#token").inner_text()
    for path in ("/runners/verify", "/jobs/request"):
        _call(f"{portal.url}/api/v4{path}", {"token": token, "system_id": "s_6c1f0a2be94d", "info": INFO})
    page.get_by_text("it asks for jobs").wait_for()


def _call(url: str, body: object) -> None:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status in (200, 204)


def _shoot(page: Page, path: Path) -> None:
    page.wait_for_load_state("networkidle")
    page.screenshot(path=path, animations="disabled")
    print(path)


if __name__ == "__main__":
    sys.exit(main())
