"""Parts of pages that refresh themselves: what they have shown, and when they may stop asking."""

from __future__ import annotations

import hashlib

STOP_POLLING = 286  # htmx's word for "do not ask again"


def seen(*shown: object) -> str:
    """A mark of what a page shows, for its address: another as soon as something of it differs."""
    return hashlib.sha256(repr(shown).encode()).hexdigest()[:16]
