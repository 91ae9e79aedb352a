"""Every setting of the portal, once: its name, its default and one sentence on what it does."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
SHORTEST_KEY = 32  # characters


class SettingError(Exception):
    """A setting has a value the portal cannot start with; the text names the setting and what to write."""


def _text(value: str) -> str:
    return value.strip()


def _folder(value: str) -> Path:
    return Path(value).expanduser().resolve()


def _number(lowest: int, highest: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not value.isdecimal() or not lowest <= int(value) <= highest:
            raise ValueError(f"a whole number from {lowest} to {highest}")
        return int(value)

    return read


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,9})([smhd]?)", value)
    seconds = int(match[1]) * _UNITS[match[2] or "s"] if match else 0
    if not 60 <= seconds <= 365 * 86400:
        raise ValueError("a time such as 90s, 30m, 24h or 7d, from a minute to 365 days")
    return timedelta(seconds=seconds)


def _password(value: str) -> str:
    # The rule of accounts.password_problems, known here so that the start can say which setting is wrong.
    if value and not 12 <= len(value) <= 512:
        raise ValueError("12 to 512 characters long, or empty")
    return value


def _host(value: str) -> str:
    if re.search(r"[\s/]", value):
        raise ValueError("a host name or an IP address such as 127.0.0.1, 0.0.0.0 or ::")
    return value


def _level(value: str) -> str:
    known = ("debug", "info", "warning", "error")
    if value.lower() not in known:
        raise ValueError("one of " + ", ".join(known))
    return value.lower()


def _address(value: str) -> str:
    """An http(s) address without a trailing slash; empty stands for host and port."""
    if not value:
        return ""
    wrong = ValueError("an address such as https://portal.example.com or https://example.com/runners")
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018  (reading it checks it)
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise wrong
    if parts.username is not None or re.search(r"\s", value):
        raise ValueError("an address without a user name, password or spaces")
    return value.rstrip("/")


def _database(value: str) -> str:
    if not value:
        return ""
    scheme = value.partition("://")[0]
    if scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise ValueError("a PostgreSQL address such as postgresql://user:password@host/name, or nothing")
    return "postgresql+psycopg" + value[len(scheme) :]


def _switch(value: str) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if value.lower() not in words:
        raise ValueError("true or false")
    return words[value.lower()]


def _keys(value: str) -> tuple[str, ...]:
    keys = tuple(key for key in (part.strip() for part in value.split(",")) if key)
    if any(len(key) < SHORTEST_KEY for key in keys):
        raise ValueError(f"one or more keys of at least {SHORTEST_KEY} characters, separated by commas")
    return keys


def setting(
    name: str, default: str, sentence: str, read: Callable[[str], Any] = _text, *, secret: bool = False
) -> Any:
    """Declare one setting: its environment variable, default (as written there), sentence and reader.

    The value of a `secret` one is not repeated in messages.
    """
    return field(metadata={"name": name, "default": default, "sentence": sentence, "read": read, "secret": secret})


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one process, read once from the environment."""

    database_url: str = setting(
        "DATABASE_URL",
        "",
        "PostgreSQL 15 or newer to use; empty starts an embedded PostgreSQL in the data folder.",
        _database,
        secret=True,
    )
    data_dir: Path = setting(
        "PORTAL_DATA_DIR",
        "./data",
        "Folder for the embedded database and the generated secret key.",
        _folder,
    )
    host: str = setting("PORTAL_HOST", "127.0.0.1", "Address the server listens on.", _host)
    port: int = setting("PORTAL_PORT", "8080", "Port the server listens on.", _number(1, 65535))
    url: str = setting(
        "PORTAL_URL",
        "",
        "Address people and runners reach the portal by, a path prefix included; "
        "used in instructions, links and messages; empty means host and port.",
        _address,
    )
    secret_key: str = setting(
        "SECRET_KEY",
        "",
        "Key that signs sessions and forms; empty generates one into the data folder, readable by its owner only.",
    )
    encryption_keys: tuple[str, ...] = setting(
        "PORTAL_ENCRYPTION_KEYS",
        "",
        "Keys that registration tokens are encrypted with, separated by commas: the first encrypts, every one "
        "decrypts, and so does SECRET_KEY; empty uses that alone.",
        _keys,
        secret=True,
    )
    enforce_create_runner_workflow: bool = setting(
        "PORTAL_ENFORCE_CREATE_RUNNER_WORKFLOW",
        "false",
        "true turns registration tokens off for the whole portal; no page can turn them on again.",
        _switch,
    )
    root_password: str = setting(
        "PORTAL_ROOT_PASSWORD",
        "",
        "Password of the first administrator, root, when it is made; empty generates and prints one.",
        _password,
        secret=True,
    )
    workers: int = setting("PORTAL_WORKERS", "1", "Server processes.", _number(1, 64))
    threads: int = setting("PORTAL_THREADS", "4", "Threads of each server process.", _number(1, 128))
    token_grace: timedelta = setting(
        "PORTAL_TOKEN_GRACE",
        "24h",
        "How long a runner's old token goes on working after a machine has reset it by itself.",
        _duration,
    )
    session_idle: timedelta = setting(
        "PORTAL_SESSION_IDLE",
        "12h",
        "How long a session lasts that nobody uses.",
        _duration,
    )
    session_longest: timedelta = setting(
        "PORTAL_SESSION_LONGEST",
        "7d",
        "How long a session lasts at the longest, however much it is used.",
        _duration,
    )
    recent_sign_in: timedelta = setting(
        "PORTAL_RECENT_SIGN_IN",
        "15m",
        "For how long after signing in somebody may do what is sensitive without proving again who they are.",
        _duration,
    )
    deleted_kept: timedelta = setting(
        "PORTAL_DELETED_KEPT",
        "7d",
        "How long a deleted runner, group or project can be restored.",
        _duration,
    )
    max_body: int = setting(
        "PORTAL_MAX_BODY",
        "1048576",
        "Largest request body in bytes; a larger one is refused with 413.",
        _number(16_384, 1 << 30),
    )
    log_level: str = setting("PORTAL_LOG_LEVEL", "info", "debug, info, warning or error.", _level)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read and check every setting.

        Raises SettingError, naming the setting, for a value that cannot be used. Fills in the address
        from host and port, and the secret key from the data folder, where they are not set.
        """
        environment = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for each in fields(cls):
            name, default = each.metadata["name"], each.metadata["default"]
            text = environment.get(name, "") or default
            try:
                values[each.name] = each.metadata["read"](text)
            except ValueError as wrong:
                shown = "not usable" if each.metadata["secret"] else repr(text)
                raise SettingError(f"{name} is {shown}; it must be {wrong}.") from None
        values["url"] = values["url"] or _own_address(values["host"], values["port"])
        values["secret_key"] = values["secret_key"] or _own_secret(values["data_dir"])
        if len(values["secret_key"]) < SHORTEST_KEY:
            raise SettingError(f"SECRET_KEY is too short; it must have at least {SHORTEST_KEY} characters.")
        values["encryption_keys"] = (*values["encryption_keys"], values["secret_key"])
        return cls(**values)

    @property
    def path_prefix(self) -> str:
        """The path below which the portal lives, such as "/runners"; empty at the top."""
        return urlsplit(self.url).path.rstrip("/")

    @property
    def over_https(self) -> bool:
        """Whether people reach the portal over HTTPS, which decides the cookies' Secure flag."""
        return urlsplit(self.url).scheme == "https"

    @property
    def session_cookie(self) -> str:
        """The cookie's name; its prefix makes browsers refuse one that another host or plain HTTP has set.

        `__Host-` wants the path `/`, so below a path prefix the weaker `__Secure-` has to do.
        """
        prefix = "" if not self.over_https else "__Secure-" if self.path_prefix else "__Host-"
        return f"{prefix}portal_session"


def documented() -> list[tuple[str, str, str]]:
    """Every setting as (name, default, sentence), in order, for the README's table and its test."""
    return [(f.metadata["name"], f.metadata["default"], f.metadata["sentence"]) for f in fields(Settings)]


def _own_address(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"


def _own_secret(data_dir: Path) -> str:
    try:
        return stored_secret(data_dir / "secret-key")
    except OSError as problem:
        reason = problem.strerror or "unusable"
        raise SettingError(
            f"PORTAL_DATA_DIR is {str(data_dir)!r} ({reason}); it must be a folder to write in."
        ) from None


def stored_secret(path: Path) -> str:
    """The secret kept in this file; made with mode 600 when it is missing, once even if two processes race."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    if not path.exists():
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(48) + "\n")
        try:
            # A link, unlike a rename, never replaces the key another process has just put there.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()
