"""Times and durations in words."""

from __future__ import annotations

from datetime import datetime

from markupsafe import Markup

from portal.database import now

_STEPS = ((60, 1, "second"), (3600, 60, "minute"), (86_400, 3600, "hour"), (86_400 * 60, 86_400, "day"))


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
    seconds = max(60, int((moment - now()).total_seconds()))
    unit, name = next(((unit, name) for limit, unit, name in _STEPS if seconds < limit), (86_400, "day"))
    count = seconds // unit
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
