"""The table of a runner's machines in a real browser: no short text is broken, and nothing is wider than the page."""

from __future__ import annotations

from datetime import timedelta

import pytest

from portal.database import now
from portal.models import LEGACY, RunnerManager
from portal.models.runner import CreationState
from portal.models.runner_manager import Executor
from tests.browser.conftest import PHONE, Visit
from tests.cast import Cast

WIDTHS = ({"width": 1280, "height": 800}, {"width": 1024, "height": 768}, PHONE)
# The short words that take more than one line, and how far the page can be scrolled sideways.
MEASURE = """() => ({
  broken: (() => {
    const found = [], range = document.createRange();
    const texts = document.createTreeWalker(document.querySelector('.machines-table tbody'), NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const word = texts.currentNode.data.trim();
      if (!/^\\S{1,18}$/.test(word)) continue;
      range.selectNodeContents(texts.currentNode);
      if (range.getBoundingClientRect().height > 30) found.push(word);
    }
    return found;
  })(),
  sideways: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  outside: [...document.querySelectorAll('.machines-table td')].filter(
    (cell) => cell.getBoundingClientRect().right > innerWidth).length,
})"""


@pytest.fixture(scope="module")
def runner_path(cast: Cast) -> str:
    """A runner with machines that tell short and long things of themselves, two of them with a note below."""
    issued = cast.runner()
    issued.record.expires_at = now() + timedelta(days=20)
    for name, address, version in (
        ("s_c0ffee123456", "127.0.0.1", "18.9.0"),
        ("r_9f86d081884c", "198.51.100.127", "13.12.0"),
        (LEGACY, "2001:db8:85a3:1319:8a2e:370:7344:7348", "17.11.4~pre.12.gabcdef12"),
    ):
        cast.session.add(
            RunnerManager(
                runner_id=issued.runner.id,
                system_xid=name,
                creation_state=CreationState.FINISHED,
                contacted_at=now() - timedelta(minutes=13),
                token_id=issued.record.id,
                version=version,
                revision="abcdef1234",
                platform="linux",
                architecture="amd64",
                ip_address=address,
                executor_type=Executor.DOCKER_AUTOSCALER,
            )
        )
    cast.session.commit()
    return f"/groups/acme/-/runners/{issued.runner.id}"


@pytest.mark.parametrize("viewport", WIDTHS, ids=lambda viewport: str(viewport["width"]))
def test_no_short_text_of_a_machine_is_broken(visit: Visit, runner_path: str, viewport: dict[str, int]) -> None:
    alice = visit(viewport=viewport)
    alice.sign_in("alice")
    page = alice.open(runner_path)
    page.locator(".machines-table").wait_for()
    assert page.evaluate(MEASURE) == {"broken": [], "sideways": 0, "outside": 0}
