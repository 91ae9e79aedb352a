"""Numbers in the address of a page, and how pages write how many there are."""

from __future__ import annotations

from flask import request

from portal.domain.runners.runner_lists import COUNTED


def number(name: str) -> int | None:
    """The number of this name; what is none, or longer than any number here, counts as not there."""
    given = request.args.get(name, "")
    return int(given) if given.isascii() and given.isdecimal() and len(given) <= 18 else None


def counted(count: int, most: int = COUNTED) -> str:
    """How many there are, as pages write it: what is counted up to `most` only is written with a plus behind it."""
    return f"{most:,}+" if count > most else f"{count:,}"
