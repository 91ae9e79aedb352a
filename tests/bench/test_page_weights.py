"""Weighing pages: links of one kind are followed once, and the scales add up what a browser loads."""

from __future__ import annotations

import pytest

from bench import page_weights
from tests.browser import setup

LINKS = {
    "/": ["/runners/1", "/runners/2", "/runners/1/edit", "/api/v4/runners", "/static/portal.css"],
    "/runners/1": ["/", "/runners/3", "/jobs?status=failed"],
}


class Scales:
    """Pages that are only links; each weighs as many bytes as it has links."""

    def __init__(self) -> None:
        self.weights: dict[str, int] = {}
        self.page = self

    def weigh(self, address: str) -> None:
        self.here = address.removeprefix("http://portal")
        self.weights[self.here] = len(LINKS.get(self.here, ()))

    def evaluate(self, _script: str) -> list[str]:
        return [f"http://portal{each}" for each in LINKS.get(self.here, ())] + ["https://elsewhere.example/"]


@pytest.fixture
def scales(monkeypatch: pytest.MonkeyPatch) -> Scales:
    monkeypatch.setattr(page_weights, "FILLED", ("/runners/9?rows=100",))
    return Scales()


def test_a_page_of_each_kind_is_weighed_and_no_other_site(scales: Scales) -> None:
    page_weights._walk(scales, "http://portal", most=99)
    assert set(scales.weights) == {"/", "/runners/9?rows=100", "/runners/1", "/runners/1/edit", "/jobs?status=failed"}


def test_no_more_pages_are_weighed_than_asked_for(scales: Scales) -> None:
    page_weights._walk(scales, "http://portal", most=2)
    assert len(scales.weights) == 2


@pytest.mark.skipif(not setup.is_there(), reason="There is no Chromium: `make browser` installs one.")
def test_the_browser_of_the_scales_starts() -> None:
    with page_weights._browser() as page:
        page.set_content("<h1>Weighed</h1>")
        assert page.inner_text("h1") == "Weighed"
