"""A measured figure, whether it meets its target, and how figures are printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """A ratio, a slope, a count or a duration, and the target that it must keep to.

    `better` says on which side of the target good is; `unit` and `note` are for people only.
    """

    name: str
    value: float
    target: float
    better: Literal["lower", "higher"]
    unit: str = ""
    note: str = ""

    @property
    def ok(self) -> bool:
        if not isfinite(self.value):
            return False
        return self.value <= self.target if self.better == "lower" else self.value >= self.target

    def line(self) -> str:
        """The figure for programs: one JSON object. What could not be measured at all is null, and not ok."""
        return json.dumps(
            {
                "figure": self.name,
                "value": round(self.value, 4) if isfinite(self.value) else None,
                "target": self.target,
                "better": self.better,
                "ok": self.ok,
            }
        )


def show(figures: Sequence[Figure], console: Console | None = None) -> None:
    """The table for people: every figure beside its target, with what missed it marked."""
    table = Table(title="Figures and their targets", title_justify="left")
    table.add_column("figure", overflow="fold")
    for column in ("value", "target"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("note", overflow="fold")
    for figure in figures:
        sign = "≤" if figure.better == "lower" else "≥"
        table.add_row(
            figure.name,
            f"{readable(figure.value)} {figure.unit}".strip(),
            f"{sign} {readable(figure.target)} {figure.unit}".strip(),
            "ok" if figure.ok else "MISSED",
            figure.note,
        )
    (console or Console()).print(table)


def readable(value: float) -> str:
    """Three digits that count, and thousands apart."""
    if not isfinite(value):
        return "never"
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
