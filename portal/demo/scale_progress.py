"""Telling people how far a large demo is: a line for each part, which on a terminal is written over and over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import TextIO

from portal.demo.demo_scale import Progress

EVERY = 10.0  # seconds between two lines about the same part, where lines cannot be written over


@dataclass
class Teller:
    """Writes to `out`. `clock` is in seconds and only goes forward."""

    out: TextIO
    clock: Callable[[], float] = monotonic
    _since: float = field(default=0.0, init=False)
    _told: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._since = self._told = self.clock()

    def tell(self, progress: Progress) -> None:
        """Say how far it is; a part's last line stays."""
        moment = self.clock()
        over = progress.rows >= progress.of
        if self.out.isatty():
            self.out.write(f"\r{said(progress, moment - self._since)}\x1b[K")
            self.out.write("\n" if over else "")
        elif over or moment - self._told >= EVERY:
            self.out.write(f"{said(progress, moment - self._since)}\n")
            self._told = moment
        self.out.flush()
        if over:
            self._since = moment


def said(progress: Progress, seconds: float) -> str:
    """One line: the part, its rows, how many a second, and how long the rest will take."""
    rate = (progress.rows - progress.begun_at) / seconds if seconds > 0 else 0.0
    rows = f"  {progress.part:<15} {progress.rows:>10,}"
    if progress.rows >= progress.of:
        return f"{rows} rows, {rate:,.0f} a second, {duration(seconds)}"
    left = f", {duration((progress.of - progress.rows) / rate)} left" if rate else ""
    return f"{rows} of {progress.of:,} rows, {rate:,.0f} a second{left}"


def duration(seconds: float) -> str:
    """As people say it: 7 s, 3 min 20 s."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
