"""Telling every server process that a runner changed, so that none answers from an old memory."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

CHANNEL = "portal_runners"
EVERYTHING = "*"
SWITCHES = "switches"  # a registration switch was turned: who is refused for it is to be asked anew
MANAGERS = ":managers"  # behind the id: some of its managers are gone


def version(updated_at: datetime) -> str:
    """A text that is another one whenever the runner changed, and the same in every server process."""
    return f"{int(updated_at.timestamp() * 1_000_000):x}"


def announce(session: Session, runner_id: int, *, managers_gone: bool = False) -> None:
    """Send the runner's id to all server processes when, and only when, the transaction commits.

    `managers_gone` makes them also forget which of its machines have a row.
    """
    _notify(session, f"{runner_id}{MANAGERS if managers_gone else ''}")


def announce_many(session: Session, runner_ids: Iterable[int], *, managers_gone: bool = False) -> None:
    """The same for many runners, in one statement."""
    payloads = [f"{runner_id}{MANAGERS if managers_gone else ''}" for runner_id in runner_ids]
    if payloads:
        query = text("SELECT pg_notify(:channel, said) FROM unnest(CAST(:payloads AS text[])) AS said")
        session.execute(query, {"channel": CHANNEL, "payloads": payloads})


def announce_everything(session: Session) -> None:
    """The same for a change that touches many runners: the processes forget all they remember."""
    _notify(session, EVERYTHING)


def announce_switch(session: Session) -> None:
    """The same for a turned registration switch: the processes forget only which machines it lets them refuse."""
    _notify(session, SWITCHES)


def _notify(session: Session, payload: str) -> None:
    session.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": CHANNEL, "payload": payload})
