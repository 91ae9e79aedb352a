"""Times and durations in words."""

from __future__ import annotations

import re
from datetime import datetime

from markupsafe import Markup

from portal.database import now

_STEPS = ((60, 1, "second"), (3600, 60, "minute"), (86_400, 3600, "hour"), (86_400 * 60, 86_400, "day"))
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_WRITTEN = re.compile(r"([0-9]{1,9})\s*([smhdw])", re.IGNORECASE)


def in_words(moment: datetime) -> str:
    """How long ago: "just now", "8 seconds ago", "19 days ago", or the date after two months."""
    seconds = int((now() - moment).total_seconds())
    if seconds < 2:
        return "just now"
    for limit, unit, name in _STEPS:
        if seconds < limit:
            count = seconds // unit
            return f"{count} {name}{'' if count == 1 else 's'} ago"
    return moment.strftime("%-d %b %Y")


def exact(moment: datetime | None) -> str:
    """The exact time in UTC, for hovering and for machines to read."""
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC") if moment else ""


def ago(moment: datetime | None, never: str = "—") -> Markup | str:
    """A `<time>` element: words to read, the exact time on hover."""
    if moment is None:
        return never
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment.isoformat(), exact(moment), in_words(moment)
    )


def until(moment: datetime) -> Markup:
    """A `<time>` element for a moment to come: "in 18 hours" to read, the exact time on hover."""
    seconds = max(60.0, (moment - now()).total_seconds())
    rounded = ((limit, unit, name, int(seconds / unit + 0.5)) for limit, unit, name in _STEPS)
    # To the nearest, so that a life of two hours that began just now has two hours to go; 59.9 minutes are an hour.
    count, name = next(
        ((count, name) for limit, unit, name, count in rounded if count * unit < limit),
        (int(seconds / 86_400 + 0.5), "day"),
    )
    words = f"in {count} {name}{'' if count == 1 else 's'}"
    return Markup('<time title="{}" datetime="{}" data-still>{}</time>').format(
        exact(moment), moment.isoformat(), words
    )


def duration(seconds: int) -> str:
    """Seconds in words: "1 hour 30 minutes"."""
    parts = []
    for unit, name in ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        count, seconds = divmod(seconds, unit)
        if count:
            parts.append(f"{count} {name}{'' if count == 1 else 's'}")
    return " ".join(parts) or "0 seconds"


def read_duration(text: str) -> int | None:
    """Seconds of "90m", "12h", "30d" or "2w"; None for an empty text.

    Raises ValueError with a sentence for people. A bare number is refused: nobody knows which unit it was meant in.
    """
    written = text.strip()
    if not written:
        return None
    found = _WRITTEN.fullmatch(written)
    if found:
        return int(found[1]) * _UNITS[found[2].lower()]
    if written.isascii() and written.isdecimal():
        raise ValueError(f"Add the unit, such as {written[:9]}h for hours or {written[:9]}d for days.")
    raise ValueError("Write a number and its unit, such as 90m, 12h, 30d or 2w.")


def write_duration(seconds: int) -> str:
    """The same the other way round, in the largest unit up to days that fits exactly: "30d", "90m"."""
    unit = next(unit for unit in "dhms" if seconds % _UNITS[unit] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"
