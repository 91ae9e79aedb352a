"""A Chromium for the browser tests: found, or installed where that is possible. `python -m tests.browser.setup`"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
LAUNCH_ARGS = [
    *(["--no-sandbox"] if AS_ROOT else []),  # Chromium refuses to run as root inside its sandbox
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SECONDS = 600  # the longest that an installation may take


@cache
def chromium_path() -> str | None:
    """The path of the system's Chromium; None when Playwright's own is to be used, or there is none at all."""
    return next((found for name in NAMES if (found := shutil.which(name)) and _runs(found)), None)


@cache
def playwrights_own() -> str | None:
    """The path of the Chromium that Playwright has downloaded, if it has."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() and _runs(path) else None


def _runs(path: str) -> bool:
    """Whether it starts: Ubuntu's `chromium-browser` is only a hint to a snap, and a download may miss libraries."""
    return _succeeds([path, "--version"], seconds=30)


def is_there() -> bool:
    """Whether the browser tests can run."""
    return chromium_path() is not None or playwrights_own() is not None


def main() -> int:
    """Make sure that there is one. Never fails: without a Chromium the browser tests are skipped."""
    if is_there():
        return 0
    print("Looking for a Chromium for the browser tests …", flush=True)
    for command in _installations():
        if _succeeds(command):
            chromium_path.cache_clear()
            playwrights_own.cache_clear()
            if is_there():
                return 0
    print("There is no Chromium here and none could be installed, so the browser tests will be skipped.")
    return 0


def _installations() -> list[list[str]]:
    ways = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if AS_ROOT and shutil.which("apt-get"):
        package = ["apt-get", "install", "--yes", "-qq", "--no-install-recommends", "chromium"]
        # The second time with fresh lists: a new machine or image often has none.
        ways += [package, ["apt-get", "update", "-qq"], package]
    return ways


def _succeeds(command: list[str], seconds: float = SECONDS) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
