"""What a browser says it is, in words that people recognise."""

from __future__ import annotations

import ua_parser

UNKNOWN = "An unknown browser"


def described(user_agent: str) -> str:
    """The browser and the system, such as "Firefox 128 on Linux". Browsers may lie: it is a hint and no proof."""
    if not user_agent:
        return UNKNOWN
    read = ua_parser.parse(user_agent)
    browser = read.user_agent
    if browser is None:
        return UNKNOWN
    name = f"{browser.family} {browser.major}" if browser.major else browser.family
    return f"{name} on {read.os.family}" if read.os else name
