"""Reading runners to import: from config.toml files and JSON lists. Tokens become digests here and are dropped."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from portal.domain import tokens
from portal.domain.errors import Invalid
from portal.domain.runners.runner_settings import split_tags

SHORTEST_TOKEN = 14  # characters behind the prefix: nine of them are printed in logs, the others are the secret
USUAL_TOKEN = 20  # GitLab has made no shorter ones
INSTANCE_WORD = "instance"
_VARIABLE = re.compile(r"\$\{|\$[A-Za-z_]|\{\{|%[A-Za-z_]+%|^<.*>$")
_TOKEN = re.compile(r"[!-~]+")
_KIND = re.compile(r"(?:glrtr?-)?t([123])_")
_JSON = re.compile(r"\s*(?:\{|\[\s*(?:[{\]\"]|$))")  # a TOML table begins with [ and a name, or with [[
_PLACE = re.compile(r"line (\d+),? column (\d+)")
_NEVER = range(2, 9000)  # years that mean themselves; config.toml writes the year 1 for "does not expire"
_LEVELS = {"not_protected": False, "ref_protected": True}
_KEYS = (
    "token", "scope", "description", "maintenance_note", "tag_list", "run_untagged", "locked", "paused",
    "access_level", "maximum_timeout", "token_expires_at",
)  # fmt: skip
# What people write instead, and what GitLab's own lists call it.
_MEANT = {
    "tags": "tag_list",
    "tag-list": "tag_list",
    "name": "description",
    "note": "maintenance_note",
    "maintainer_note": "maintenance_note",
    "group": "scope",
    "project": "scope",
    "path": "scope",
    "protected": "access_level",
    "timeout": "maximum_timeout",
    "expires_at": "token_expires_at",
}
# A name that a page may repeat: no token looks so.
_NAME = re.compile(r"(?!glrtr?-)(?=.{1,30}$)[A-Za-z][a-z]*(?:[A-Z_ -][a-z]+)*[0-9]?")
_MOST_NAMES = 8  # of an entry's ignored names that are told
_ALONE = re.compile(r"(?:glrtr?-|GR1348941|t[123]_)[0-9A-Za-z_.-]*|(?=\D*\d)[0-9A-Za-z_.-]{14,}")


@dataclass(frozen=True, slots=True)
class ReadToken:
    """What is kept of a token: enough to recognise it. `kind` is the 1, 2 or 3 that stands in it, if any."""

    digest: bytes
    short: str
    by_person: bool
    kind: int | None
    brief: bool  # shorter than any that GitLab has made


@dataclass(frozen=True, slots=True)
class Written:
    """One runner as a file or a list describes it. None stands for what it does not say.

    `place` names it for people. `problem` says why it cannot be imported at all; then there may be no token.
    `scope` is "instance" or a full path. `maximum_timeout` is in seconds. `server` is where it was before.
    `ignored` are the names in it that mean nothing here.
    """

    place: str
    token: ReadToken | None = None
    problem: str = ""
    scope: str | None = None
    description: str = ""
    maintenance_note: str = ""
    tags: tuple[str, ...] | None = None
    run_untagged: bool | None = None
    locked: bool = False
    paused: bool = False
    protected: bool = False
    maximum_timeout: int | None = None
    expires_at: datetime | None = None
    executor: str = ""
    server: str = ""
    ignored: tuple[str, ...] = ()


class _Wrong(Exception):
    """One entry cannot be taken; the text says why and never repeats a value, which may be a token."""


def read(text: str, *, source: str, field: str) -> list[Written]:
    """The runners in a config.toml or a JSON list; which of the two it is, is seen by how it begins.

    `source` names it in the places of its runners. Raises Invalid for `field` with the line and column where it
    cannot be read; no message repeats anything of the text.
    """
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise Invalid({field: [f"{source} is empty."]})
    if _is_bare(text):
        raise Invalid({field: [f"{source}: {_BARE}"]})
    is_list = bool(_JSON.match(text))
    try:
        return _read_list(text, source) if is_list else _read_config(text, source)
    except _Wrong as wrong:
        raise Invalid({field: [f"{source}: {wrong}"]}) from None
    except (ValueError, RecursionError) as wrong:  # whichever way a parser gives up on what is no text of its kind
        kind = "JSON" if is_list else "TOML"
        raise Invalid({field: [f"{source} cannot be read as {kind}: {_where(text, wrong)}."]}) from None


_BARE = (
    'a token alone does not say where its runner belongs. Write it as a JSON list, such as [{"token": "glrt-…", '
    '"scope": "acme"}]. To see whose token it is, look it up instead.'
)


def _is_bare(text: str) -> bool:
    """Whether there is nothing but one token, or several of them line by line."""
    return all(_ALONE.fullmatch(line.strip().strip("\"',")) for line in text.splitlines() if line.strip())


def _where(text: str, wrong: Exception) -> str:
    """The place that a parser's message names; its other words may repeat what stands there."""
    if found := _PLACE.search(str(wrong)):
        return f"it goes wrong at line {found[1]}, column {found[2]}"
    if "end of document" in str(wrong):
        lines = text.split("\n")
        return f"it goes wrong at line {len(lines)}, column {len(lines[-1]) + 1}, its end"
    return "it is nested too deeply, or a number in it is too long"


def _read_config(text: str, source: str) -> list[Written]:
    entries = tomllib.loads(text.replace("\r\n", "\n")).get("runners")
    if not isinstance(entries, list) or not entries:
        raise _Wrong("there is no [[runners]] in it.")
    return _each(entries, source, _of_config)


def _read_list(text: str, source: str) -> list[Written]:
    entries = json.loads(text)
    if not isinstance(entries, list):
        raise _Wrong("a JSON list is wanted, such as [{…}, {…}].")
    if not entries:
        raise _Wrong("the list is empty.")
    return _each(entries, source, _of_list)


def _each(entries: Sequence[Any], source: str, build: Any) -> list[Written]:
    found = [_one(entry, f"{source}, runner {number}", build) for number, entry in enumerate(entries, 1)]
    if build is not _of_list:
        return found
    return [replace(each, ignored=_ignored(entry)) for each, entry in zip(found, entries, strict=True)]


def _ignored(entry: Any) -> tuple[str, ...]:
    """The names in it that mean nothing here, with the one that was meant. Never a value, nor what could be one."""
    names = [name for name in entry if name not in _KEYS] if isinstance(entry, Mapping) else []
    told = tuple(_named(name) for name in names[:_MOST_NAMES])
    return (*told, f"{len(names) - len(told)} more") if len(names) > len(told) else told


def _named(name: str) -> str:
    if name in _MEANT:
        return f"{name} (it is called {_MEANT[name]} here)"
    return name if _NAME.fullmatch(name) else "a name that is not shown here"


def _one(entry: Any, place: str, build: Any) -> Written:
    """One runner, or why it is none."""
    if not isinstance(entry, Mapping):
        return Written(place, problem="It is no object with names and values.")
    name = entry.get("name") or entry.get("description")
    if isinstance(name, str) and _storable(name) and len(name) <= 255:
        place = f"{place} “{name.strip()}”" if name.strip() else place
    try:
        token = _read_token(entry.get("token"))
        made: Written = build(entry, place, token)
    except _Wrong as wrong:
        return Written(place, problem=str(wrong))
    return made


def _of_config(entry: Mapping[str, Any], place: str, token: ReadToken) -> Written:
    return Written(
        place,
        token,
        description=_text(entry, "name"),
        expires_at=_moment(entry, "token_expires_at"),
        executor=_text(entry, "executor"),
        server=_host(_text(entry, "url")),
    )


def _of_list(entry: Mapping[str, Any], place: str, token: ReadToken) -> Written:
    level = _text(entry, "access_level") or "not_protected"
    if level not in _LEVELS:
        raise _Wrong("access_level must be not_protected or ref_protected.")
    return Written(
        place,
        token,
        scope=_text(entry, "scope") or None,
        description=_text(entry, "description"),
        maintenance_note=_text(entry, "maintenance_note"),
        tags=_tags(entry),
        run_untagged=None if entry.get("run_untagged") is None else _flag(entry, "run_untagged"),
        locked=_flag(entry, "locked"),
        paused=_flag(entry, "paused"),
        protected=_LEVELS[level],
        maximum_timeout=_number(entry, "maximum_timeout"),
        expires_at=_moment(entry, "token_expires_at"),
    )


def _read_token(value: Any) -> ReadToken:
    """A token's digest and short form. Raises an error whose text says why it can be no authentication token."""
    text = value.strip() if isinstance(value, str) else ""
    if value is not None and not isinstance(value, str):
        raise _Wrong("token must be a text.")
    if not text:
        raise _Wrong("It has no token.")
    if _VARIABLE.search(text):
        raise _Wrong("In place of the token stands a variable that nobody has filled in.")
    if text.startswith(tokens.REGISTRATION):
        raise _Wrong(
            "This is a registration token (GR1348941…), which many machines share to register. Take the runner's own "
            "authentication token from the config.toml of its machine."
        )
    if not _TOKEN.fullmatch(text):
        raise _Wrong("The token has a space or a character that no token has.")
    if len(tokens.body(text)) < SHORTEST_TOKEN:
        raise _Wrong(f"The token is too short: fewer than {SHORTEST_TOKEN} characters behind its prefix.")
    if len(text) > tokens.LONGEST:
        raise _Wrong(f"The token is too long: more than {tokens.LONGEST} characters.")
    if tokens.is_mistyped(text):
        raise _Wrong("The token was mistyped: its checksum does not fit, so a character is wrong or missing.")
    kind = _KIND.match(text)
    return ReadToken(
        digest=tokens.digest(text),
        short=tokens.shorten(text),
        by_person=tokens.is_created_by_person(text),
        kind=int(kind[1]) if kind else None,
        brief=len(tokens.body(text)) < USUAL_TOKEN,
    )


def _storable(text: str) -> bool:
    """Whether PostgreSQL takes the text: escapes of JSON and TOML can write U+0000 and halves of characters."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _Wrong(f"{name} must be a text.")
    if not _storable(value):
        raise _Wrong(f"{name} has a character that cannot be stored.")
    return value.strip()


def _flag(entry: Mapping[str, Any], name: str) -> bool:
    value = entry.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise _Wrong(f"{name} must be true or false.")
    return value


def _number(entry: Mapping[str, Any], name: str) -> int | None:
    value = entry.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 10**18:
        raise _Wrong(f"{name} must be a whole number of seconds.")
    return value


def _tags(entry: Mapping[str, Any]) -> tuple[str, ...] | None:
    value = entry.get("tag_list")
    if value is None:
        return None
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, str) and _storable(part) for part in parts):
        raise _Wrong("tag_list must be a list of texts, or one text with commas.")
    return split_tags(",".join(parts))


def _moment(entry: Mapping[str, Any], name: str) -> datetime | None:
    value = entry.get(name)
    if value is None or value == "":
        return None
    wrong = _Wrong(f"{name} must be a time such as 2026-01-31T12:00:00Z.")
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise wrong from None
    if not isinstance(value, datetime):
        raise wrong
    if value.year not in _NEVER:
        return None
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)


def _host(url: str) -> str:
    """The server's name only: an address may hold a password."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
