"""When a job that waits will begin, in a sentence: who can take it, and how soon they will. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from datetime import timedelta

from portal.domain.jobs.obstacle_words import counted
from portal.domain.runners.runner_status import ONLINE_WINDOW

COUNTED = 1000  # counts of jobs stop there
ASKS_WITHIN = timedelta(minutes=5)  # a machine with room for a job asks more often than that


class Readiness(enum.StrEnum):
    """How soon a runner that may take a job will, the soonest first."""

    READY = "ready"  # it asked for jobs in the last minutes
    BUSY = "busy"  # it runs a job at this moment; it may have room for more
    SILENT = "silent"  # it runs nothing and has not asked in the last minutes
    OFFLINE = "offline"
    NEVER_CONTACTED = "never_contacted"


def of_needs(awaited: Sequence[int]) -> str:
    """What to say of a job that waits for others."""
    shown = ", ".join(f"#{number}" for number in awaited[:5])
    more = f" and {len(awaited) - 5} more" if len(awaited) > 5 else ""
    job, have = ("job", "has") if len(awaited) == 1 else ("jobs", "have")
    return f"It waits until {job} {shown}{more} {have} succeeded, which it needs."


def of_takers(readiness: Readiness, number: int, total: int, before: int | None) -> str:
    """What to say when `total` runners can take it, and the readiest, `number` of them, are like this."""
    if readiness is Readiness.READY:
        return f"{counted(number)} can take it now.{_queue(before)}"
    if readiness is Readiness.BUSY:
        return _busy(number, total)
    can = f"{counted(total)} can take it"
    if readiness is Readiness.SILENT:
        return f"{can}, but {_none(total)} asked for jobs in the last {_minutes()} minutes."
    if readiness is Readiness.OFFLINE:
        they, hours = "it is" if total == 1 else "all are", int(ONLINE_WINDOW.total_seconds() // 3600)
        return f"{can}, but {they} offline: {_none(total)} asked in over {hours} hours."
    return f"{can}, but no machine has ever asked for jobs with {'its' if total == 1 else 'their'} token."


def none_can(looked_at: int, *, beyond: int) -> str:
    """The beginning of what to say when none of those that were looked at can take it, and `beyond` were not."""
    if beyond:
        return f"None of the {counted(looked_at)} that were looked at can take it"
    return "No runner can take it"


def of_nobody(*, seen: int, hidden: int, beyond: int = 0) -> str:
    """What to say when no runner can take it and no single change helps, of so many that are in reach."""
    none = none_can(seen + hidden, beyond=beyond)
    if seen and hidden:
        return (
            f"{none}, and no single change helps with those that you may see. A maintainer sees the "
            f"other {hidden:,}, and can create one."
        )
    if seen:
        return f"{none}, and no single change helps. Create one that fits, or see what each needs."
    if hidden and beyond:
        return f"{none}, and you may see none of them: ask a maintainer."
    if hidden == 1:
        return "The one runner in its reach cannot take it, and you may not see it: ask a maintainer."
    if hidden:
        return (
            f"None of the {counted(hidden)} in its reach can take it, and you may see none of them: ask a maintainer."
        )
    return "No runner can take it: the project, its groups and the instance have none. Create one."


def _minutes() -> int:
    return int(ASKS_WITHIN.total_seconds() // 60)


def _none(total: int) -> str:
    return "it has not" if total == 1 else "none has"


def _busy(number: int, total: int) -> str:
    if total == 1:
        return "The one runner that can take it is busy. It begins when that one has room."
    if number == total:
        return f"All {counted(total)} that can take it are busy. It begins when one has room."
    busy = f"{number:,} {'is' if number == 1 else 'are'} busy"
    return f"{counted(total)} can take it: {busy}, and the rest has not asked for jobs in {_minutes()} minutes."


def _queue(before: int | None) -> str:
    """How many jobs have their turn first."""
    if not before:
        return ""
    if before == 1:
        return " 1 job that asks the same has its turn first."
    more = f"More than {COUNTED:,}" if before > COUNTED else f"{before:,}"
    return f" {more} jobs that ask the same have their turn first."
