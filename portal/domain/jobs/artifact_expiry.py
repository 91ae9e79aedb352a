"""How long artifacts are kept, in the words in which GitLab's configuration says it: "1 week", "2 hrs 30 min"."""

from __future__ import annotations

import re
from datetime import timedelta

from portal.domain.errors import BadRequest

LONGEST = 36_500 * 86_400  # seconds: a hundred years
_UNITS: dict[tuple[str, ...], int] = {
    ("s", "sec", "secs", "second", "seconds"): 1,
    ("m", "min", "mins", "minute", "minutes"): 60,
    ("h", "hr", "hrs", "hour", "hours"): 3600,
    ("d", "day", "days"): 86_400,
    ("w", "wk", "wks", "week", "weeks"): 7 * 86_400,
    ("mo", "mos", "mon", "mons", "month", "months"): 30 * 86_400,
    ("y", "yr", "yrs", "year", "years"): 31_557_600,  # 365.25 days, as GitLab has it
}
_SECONDS = {word: seconds for words, seconds in _UNITS.items() for word in words}
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*([a-z]*)\s*(?:,|and\b)?\s*", re.ASCII)


def read(text: str, default: timedelta | None) -> timedelta | None:
    """How long from now; None for as long as the job. An empty text is the default, "never" and 0 are for ever.

    A number without a unit counts seconds. Raises BadRequest for what says no time.
    """
    words = text.strip().lower()
    if not words:
        return default
    if words == "never":
        return None
    seconds = _seconds(words, text)
    return timedelta(seconds=min(seconds, LONGEST)) if seconds else None


def _seconds(words: str, text: str) -> int:
    total, at = 0.0, 0
    while at < len(words):
        part = _PART.match(words, at)
        unit = _SECONDS.get(part[2] or "s") if part else None
        if part is None or unit is None:
            raise BadRequest(
                f"expire_in is no time: {text[:60]!r}. "
                'Write one such as "1 week", "2 hrs 30 min", "30 days" or "never".'
            )
        total += float(part[1]) * unit
        at = part.end()
    return int(total)
