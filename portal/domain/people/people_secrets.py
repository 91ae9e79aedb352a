"""What access tokens and enrolment keys have in common: a name that says what they are for, and a last day."""

from __future__ import annotations

from datetime import date, timedelta

LONGEST_NAME = 255


def problems(name: str, expires_at: date | None, today: date, longest: timedelta) -> dict[str, list[str]]:
    """What is wrong with the two, by field; empty when nothing is. `longest` is how long such a secret may live."""
    found: dict[str, list[str]] = {}
    if not name.strip():
        found["name"] = ["Say what it is for, so that you know later which one to revoke."]
    elif len(name) > LONGEST_NAME:
        found["name"] = [f"It is too long: at most {LONGEST_NAME} characters."]
    elif not name.strip().isprintable():
        found["name"] = ["Write it in one line, without tabs and other control characters."]
    last = today + longest
    if expires_at is None or not today < expires_at <= last:
        found["expires_at"] = [f"Choose a day from {today + timedelta(days=1)} to {last}."]
    return found
