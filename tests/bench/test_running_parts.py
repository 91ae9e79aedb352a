"""`python -m bench` runs parts one by one, whatever becomes of one of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from bench import __main__ as bench
from bench.figures import Figure
from bench.runs import Run


def part(monkeypatch: pytest.MonkeyPatch, name: str, *figures: Figure, problem: Exception | None = None) -> None:
    """A part that measures what it is told to."""
    module = ModuleType(f"bench.{name}")

    def measure(_run: Run) -> Iterator[Figure]:
        yield from figures
        if problem is not None:
            raise problem

    module.figures = measure  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, f"bench.{name}", module)
    monkeypatch.setitem(bench.PARTS, name, "a part of a test")


def printed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


def test_every_part_has_a_module_that_measures() -> None:
    for name in bench.PARTS:
        assert callable(__import__(f"bench.{name}", fromlist=["figures"]).figures)


def test_figures_that_keep_their_targets_end_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    part(monkeypatch, "quick", Figure("time", 1, 2, "lower"))
    assert bench.main(["quick"]) == 0
    assert [each["figure"] for each in printed(capsys)] == ["time"]


def test_a_figure_that_misses_its_target_is_told_by_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    part(monkeypatch, "slow", Figure("time", 3, 2, "lower"))
    assert bench.main(["slow"]) == 1
    assert [each["ok"] for each in printed(capsys)] == [False]


def test_a_part_that_breaks_keeps_no_other_from_being_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    part(monkeypatch, "broken", Figure("first", 1, 2, "lower"), problem=RuntimeError("no disk"))
    part(monkeypatch, "quick", Figure("second", 1, 2, "lower"))
    assert bench.main(["broken", "quick"]) == 1
    assert [each["figure"] for each in printed(capsys)] == ["first", "second"]


def test_an_unknown_part_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["poles"]) == 2
    told = capsys.readouterr().err
    assert "poles" in told
    assert "polls" in told


@pytest.mark.parametrize(
    "asked", [["lists"], ["polls", "held_polls"], []], ids=["another part", "one of two", "all parts"]
)
@pytest.mark.parametrize("given", [["--url", "http://127.0.0.1:1"], ["--tokens", "tokens.txt"]])
def test_servers_are_refused_for_parts_that_would_measure_a_portal_of_their_own(
    capsys: pytest.CaptureFixture[str], asked: list[str], given: list[str]
) -> None:
    assert bench.main([*asked, *given]) == 2
    told = capsys.readouterr().err
    assert "--url" in told
    assert (asked or ["queue_day"])[-1] in told
    assert "python -m bench polls --url" in told


def test_tokens_without_a_server_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["polls", "--tokens", "tokens.txt"]) == 2
    assert "none is given" in capsys.readouterr().err


def test_the_part_that_measures_servers_is_given_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    part(monkeypatch, "polls")

    def measure(run: Run) -> Iterator[Figure]:
        asked.append(run.urls)
        yield from ()

    sys.modules["bench.polls"].figures = measure  # type: ignore[attr-defined]
    assert bench.main(["polls", "--url", "http://127.0.0.1:1", "--url", "http://127.0.0.1:2"]) == 0
    assert asked == [("http://127.0.0.1:1", "http://127.0.0.1:2")]


def test_the_long_form_is_asked_for_by_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    part(monkeypatch, "quick")

    def measure(run: Run) -> Iterator[Figure]:
        asked.append(run.full)
        yield from ()

    sys.modules["bench.quick"].figures = measure  # type: ignore[attr-defined]
    bench.main(["quick"])
    monkeypatch.setenv("BENCH", "full")
    bench.main(["quick"])
    assert asked == [False, True]
