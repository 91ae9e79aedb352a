"""Tokens of runners, of people and of enrolment keys: how they are made, recognised, kept and shortened."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
BASE36 = string.digits + string.ascii_lowercase
RANDOM_LENGTH = 27  # 27 characters of 62 are 160 bits
SHORT_LENGTH = 9  # what gitlab-runner prints in its logs (18.1 and newer)

CREATED = "glrt-"  # the client treats exactly this prefix as "created by a person"
REGISTERED = "glrtr-"
PERSONAL = "glpat-"  # GitLab's prefix of personal access tokens
ENROLMENT = "glenrol-"  # ours; GitLab has no such thing
JOB = "glcbt-"  # GitLab's prefix of job tokens; the client shortens tokens that begin so in its logs
SHORTEST_LENGTH = 4  # of a token of a person or an enrolment key, by which it is told from others
REGISTRATION = "GR1348941"  # GitLab's constant prefix of registration tokens; secret scanners look for it

_OURS = re.compile(r"(glrt-|glrtr-)t([123])_([0-9A-Za-z]{27})\.([0-9a-z]{2})([0-9a-z]{7})")
_OF_PEOPLE = re.compile(r"(glpat-|glenrol-)([0-9A-Za-z]{27})\.([0-9a-z]{2})([0-9a-z]{7})")
_PREFIX = re.compile(r"^(?:glrt-(?:t[123]_)?|t[123]_|glrtr-|GR[0-9a-f]{7})")  # the client's own rule, since 18.1
LONGEST = 512  # longer texts are no token of anybody's; they are refused before they are hashed


def _base36(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        number, rest = divmod(number, 36)
        digits = BASE36[rest] + digits
    return digits


def _checksum(before: str) -> str:
    return _base36(zlib.crc32(before.encode("ascii")), 7)


def make(kind: int, *, prefix: str = CREATED) -> str:
    """A new token. `kind` is 1, 2 or 3 for an instance, group or project runner.

    Form (design/product.md): prefix, `t<kind>_`, 27 random base62 characters, `.`, their number in two
    base36 digits, and the CRC32 of all that stands before in seven.
    """
    return _closed(f"{prefix}t{kind}_")


def make_for_person(prefix: str = PERSONAL) -> str:
    """A new token of a person, or of an enrolment key: the same form without the kind of a runner."""
    return _closed(prefix)


def _closed(prefix: str) -> str:
    body = "".join(secrets.choice(BASE62) for _ in range(RANDOM_LENGTH))
    before = f"{prefix}{body}.{_base36(RANDOM_LENGTH, 2)}"
    return before + _checksum(before)


def make_for_job() -> str:
    """A new job token: 160 random bits in the same form."""
    return _closed(JOB)


def make_registration() -> str:
    """A new registration token: the prefix and 20 random base62 characters (119 bits)."""
    return REGISTRATION + "".join(secrets.choice(BASE62) for _ in range(20))


def is_mistyped(token: str) -> bool:
    """True for a token of our form whose checksum does not fit: it cannot exist, no look-up is needed.

    Tokens of other forms are never "mistyped": fleets that moved here keep the ones they had.
    """
    match = _OURS.fullmatch(token)
    return match is not None and not _fits(token, match[4])


def is_of_people(token: str, prefix: str) -> bool:
    """Whether it has the form of a personal access token or an enrolment key, checksum included: no other exists."""
    match = _OF_PEOPLE.fullmatch(token)
    return match is not None and match[1] == prefix and _fits(token, match[3])


def is_like_of_people(token: str) -> bool:
    """Whether it begins as a personal access token or an enrolment key does."""
    return token.startswith((PERSONAL, ENROLMENT))


def _fits(token: str, length: str) -> bool:
    return hmac.compare_digest(_checksum(token[:-7]), token[-7:]) and length == _base36(RANDOM_LENGTH, 2)


def of_machines(token: str) -> str:
    """Which kind of token that only machines send it is by its beginning, in words; empty for others."""
    if token.startswith((CREATED, REGISTERED)):
        return "a runner's own token, by which machines ask for jobs and nobody else for anything"
    if token.startswith(REGISTRATION):
        return "a registration token, with which machines register and nothing else is done"
    return ""


def is_created_by_person(token: str) -> bool:
    """What the client decides by: exactly the prefix `glrt-`."""
    return token.startswith(CREATED)


def digest(token: str) -> bytes:
    """The SHA-256 that is stored in place of the token; 160 random bits need no key and no salt."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def shorten(token: str) -> str:
    """The nine characters by which people match a log line of gitlab-runner to a runner."""
    return body(token)[:SHORT_LENGTH]


def shorten_of_people(token: str) -> str:
    """The characters behind the prefix by which people tell their tokens apart; 137 random bits stay secret."""
    return token.partition("-")[2][:SHORTEST_LENGTH]


def body(token: str) -> str:
    """What follows the prefix that the client knows: the short form is its beginning, the rest is the secret."""
    return _PREFIX.sub("", token)
