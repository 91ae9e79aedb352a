"""Measuring several sides in turn, so that a slow minute of the machine strikes all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median


def in_turn(rounds: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """What each side measured in each round: A B C, A B C, and so on."""
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            measured[name].append(measure())
    return measured


def medians(measured: Mapping[str, list[float]]) -> dict[str, float]:
    """The middle of each side's rounds."""
    return {name: median(values) for name, values in measured.items()}


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not pass, such as 0.99; infinity where there are none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("inf")
