"""Figures are judged by their targets, told to programs as JSON, and shown to people with what they missed."""

from __future__ import annotations

import io
import json

from rich.console import Console

from bench.figures import Figure, readable, show
from bench.rounds import in_turn, medians, percentile


def test_a_figure_is_good_up_to_its_target() -> None:
    assert Figure("memory", 25, 25, "lower").ok
    assert not Figure("memory", 25.01, 25, "lower").ok
    assert Figure("polls", 2.0, 2.0, "higher").ok
    assert not Figure("polls", 1.99, 2.0, "higher").ok


def test_what_never_happened_is_good_for_nobody() -> None:
    never = Figure("woken", float("inf"), 20, "lower")
    assert not never.ok
    assert json.loads(never.line())["value"] is None
    assert not Figure("polls", float("inf"), 2, "higher").ok


def test_a_program_reads_one_object_a_line() -> None:
    line = Figure("polls", 2.34567, 2.0, "higher", unit="times", note="beside others").line()
    assert json.loads(line) == {"figure": "polls", "value": 2.3457, "target": 2.0, "better": "higher", "ok": True}
    assert "\n" not in line


def test_the_table_says_what_was_missed() -> None:
    shown = io.StringIO()
    figures = [Figure("memory", 21.4, 25, "lower", "KB"), Figure("polls", 1.5, 2, "higher")]
    show(figures, Console(file=shown, width=120))
    memory, polls = (line for line in shown.getvalue().splitlines() if "memory" in line or "polls" in line)
    assert "≤ 25 KB" in memory
    assert "ok" in memory
    assert "MISSED" in polls


def test_numbers_are_written_as_people_read_them() -> None:
    written = [readable(value) for value in (0, 0.36781, 2.5, 12.34, 123.4, 12_345.6, float("inf"))]
    assert written == ["0", "0.368", "2.5", "12.3", "123", "12,346", "never"]


def test_sides_are_measured_in_turn() -> None:
    asked: list[str] = []

    def side(name: str) -> float:
        asked.append(name)
        return float(len(asked))

    measured = in_turn(3, {"a": lambda: side("a"), "b": lambda: side("b")})
    assert asked == ["a", "b"] * 3
    assert measured == {"a": [1, 3, 5], "b": [2, 4, 6]}
    assert medians(measured) == {"a": 3, "b": 4}


def test_the_slowest_hundredth_is_not_hidden() -> None:
    assert percentile([float(number) for number in range(1000)], 0.99) == 990
    assert percentile([1.0, 2.0, 3.0], 0.99) == 3
    assert percentile([], 0.99) == float("inf")
