"""What a runner's poll is answered with."""

from __future__ import annotations

from datetime import datetime


def queue_value(runner_updated_at: datetime) -> str:
    """The opaque text of `X-GitLab-Last-Update`.

    A client echoes it; it changes whenever the runner does, and is the same in every server process.
    """
    return f"{int(runner_updated_at.timestamp() * 1_000_000):x}"
