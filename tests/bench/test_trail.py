"""The walk through the pages of the trail, on the smallest demo: every page answers, and the figures are there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench import large_demo, trail
from bench.runs import Run

NAMES = {
    "trail_median_ms",
    "trail_worst_ms",
    "trail_deep_page_ratio",
    "trail_most_queries_on_a_page",
    "trail_export_first_lines_worst_ms",
    "trail_verify_us_per_event",
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setattr(large_demo, "SHORT", 0.1)
    monkeypatch.delenv("BENCH_LARGE_DATABASE", raising=False)
    every = trail.pages
    some = ("project", "runner")
    monkeypatch.setattr(
        trail, "pages", lambda session: [each for each in every(session) if each.name.startswith(some)]
    )
    made = Run()
    yield made
    made.close()


def test_the_part_measures_what_it_says(run: Run) -> None:
    figures = {figure.name: figure for figure in trail.figures(run)}
    assert set(figures) == NAMES
    assert all(figure.value > 0 for figure in figures.values())
    assert figures["trail_most_queries_on_a_page"].ok
