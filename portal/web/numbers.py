"""Numbers in the address of a page."""

from __future__ import annotations

from flask import request


def number(name: str) -> int | None:
    """The number of this name; what is none, or longer than any number here, counts as not there."""
    given = request.args.get(name, "")
    return int(given) if given.isascii() and given.isdecimal() and len(given) <= 18 else None
