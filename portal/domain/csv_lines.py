"""Lines of a CSV file that a spreadsheet may open: nothing in them becomes a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from datetime import datetime

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def line(values: Iterable[object]) -> str:
    """One line, its end included."""
    out = io.StringIO()
    csv.writer(out).writerow([cell(value) for value in values])
    return out.getvalue()


def cell(value: object) -> str:
    """A value as text; what a spreadsheet would take for a formula becomes a text there too."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, int):
        return str(value)
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
