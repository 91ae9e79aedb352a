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
SHORTEST_PASSWORD = 12
LONGEST_PASSWORD = 512  # Argon2 would take more; a bound keeps a hostile sign-in cheap


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


def _hold(value: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,4})([sm]?)", value)
    seconds = int(match[1]) * _UNITS[match[2] or "s"] if match else -1
    if not 0 <= seconds <= 300:
        raise ValueError("a time such as 50s or 1m, of at most 5 minutes, or 0")
    return timedelta(seconds=seconds)


def _days(value: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,4})d", value)
    if match is None or not 1 <= int(match[1]) <= 3650:
        raise ValueError("a number of days such as 365d, from 1d to 3650d")
    return timedelta(days=int(match[1]))


def _password(value: str) -> str:
    if value and not SHORTEST_PASSWORD <= len(value) <= LONGEST_PASSWORD:
        raise ValueError(f"{SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters long, or empty")
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


def _whose(value: str) -> str:
    known = ("optional", "administrators", "everybody")
    if value.lower() not in known:
        raise ValueError("one of " + ", ".join(known))
    return value.lower()


def _kept(value: str) -> timedelta | None:
    """Days; empty stands for ever. Less than a month would forget the registrations that the switch counts."""
    match = re.fullmatch(r"(\d{1,5})d", value)
    if value and (match is None or not 30 <= int(match[1]) <= 36_500):
        raise ValueError("a number of days such as 400d, at least 30d, or empty")
    return timedelta(days=int(match[1])) if match else None


def _store(value: str) -> str:
    """`s3://bucket/prefix` or a folder's full path; empty stands for one in the data folder."""
    if not value or "://" not in value:
        return str(_folder(value)) if value else ""
    if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_.=-]+)*/?", value) or "/." in value:
        raise ValueError("a folder such as /srv/artifacts, or a bucket such as s3://bucket/prefix")
    return value.rstrip("/")


def _expiry(value: str) -> timedelta | None:
    """Days; None stands for as long as the job."""
    match = re.fullmatch(r"(\d{1,5})d", value)
    if value != "never" and (match is None or not 1 <= int(match[1]) <= 36_500):
        raise ValueError("a number of days such as 30d, from 1d to 36500d, or never")
    return timedelta(days=int(match[1])) if match else None


def _log_format(value: str) -> str:
    if value.lower() not in ("json", "text"):
        raise ValueError("json or text")
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


def _provider(value: str) -> str:
    """The issuer of an OpenID Connect provider; its discovery URL is taken too. Empty stands for none."""
    issuer = _address(value.removesuffix("/").removesuffix("/.well-known/openid-configuration"))
    parts = urlsplit(issuer)
    if issuer and parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError("an https address such as https://sso.example.com (http only on this machine itself)")
    return issuer


def _visible(value: str) -> str:
    if not re.fullmatch(r"[!-~]*", value):
        raise ValueError("visible ASCII characters without spaces")
    return value


def _words(longest: int) -> Callable[[str], str]:
    def read(value: str) -> str:
        if len(value) > longest or not value.isprintable():
            raise ValueError(f"at most {longest} characters in one line")
        return value.strip()

    return read


def _scopes(value: str) -> str:
    words = value.split()
    if "openid" not in words or not all(re.fullmatch(r"[!#-\[\]-~]+", word) for word in words):
        raise ValueError("names separated by spaces, openid among them")
    return " ".join(words)


@dataclass(frozen=True, slots=True)
class MappedRole:
    """What a group at the provider gives here: `role` in the group or project at `path`, or all (administrator)."""

    group: str
    path: str
    role: str


_ROLES = ("guest", "reporter", "developer", "maintainer", "owner")
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


def _mapping(value: str) -> tuple[MappedRole, ...]:
    mapped = []
    for entry in filter(None, (part.strip() for part in value.split(","))):
        # The group stands before the last "=", so that its name may hold one.
        group, _, given = entry.rpartition("=")
        path, _, role = given.rpartition(":")
        if not group.strip() or (given != "administrator" and (role not in _ROLES or not _PATH.fullmatch(path))):
            raise ValueError(
                "a list such as ops=administrator,developers=acme:maintainer,testers=acme/web:developer, "
                "with the roles " + ", ".join(_ROLES)
            )
        mapped.append(MappedRole(group.strip(), path, role))
    return tuple(mapped)


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
    listen_url: str = setting(
        "PORTAL_LISTEN_URL",
        "",
        "The same database without a pooler in between, where DATABASE_URL leads to one in transaction mode: what "
        "changes is heard through it, one connection for each server process.",
        _database,
        secret=True,
    )
    data_dir: Path = setting(
        "PORTAL_DATA_DIR",
        "./data",
        "Folder for the embedded database, the generated secret key, artifacts, and uploads on their way.",
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
        "Keys that registration tokens, second factors and variables of jobs are encrypted with, separated by "
        "commas: the first encrypts, every one decrypts, and so does SECRET_KEY; empty uses that alone.",
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
    trusted_proxies: int = setting(
        "PORTAL_TRUSTED_PROXIES",
        "0",
        "How many proxies stand before the portal and write X-Forwarded-For; 0 ignores that header.",
        _number(0, 16),
    )
    hsts_subdomains: bool = setting(
        "PORTAL_HSTS_SUBDOMAINS",
        "false",
        "true has browsers use HTTPS for every host below the portal's own too, when its address is https.",
        _switch,
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
    second_factor: str = setting(
        "PORTAL_SECOND_FACTOR",
        "optional",
        "Of whom a second factor is demanded: optional (nobody), administrators or everybody.",
        _whose,
    )
    deleted_kept: timedelta = setting(
        "PORTAL_DELETED_KEPT",
        "7d",
        "How long a deleted runner, group or project can be restored.",
        _duration,
    )
    password_sign_in: bool = setting(
        "PORTAL_PASSWORD_SIGN_IN",
        "true",
        "false lets nobody sign in with a password; single sign-on is then the only way in.",
        _switch,
    )
    openid_url: str = setting(
        "PORTAL_OPENID_URL",
        "",
        "Issuer or discovery URL of the OpenID Connect provider people sign in at; empty turns single sign-on off.",
        _provider,
    )
    openid_client_id: str = setting(
        "PORTAL_OPENID_CLIENT_ID", "", "Client ID that the provider knows the portal by.", _visible
    )
    openid_client_secret: str = setting(
        "PORTAL_OPENID_CLIENT_SECRET",
        "",
        "Client secret of the portal at the provider; empty for a public client.",
        _visible,
        secret=True,
    )
    openid_name: str = setting(
        "PORTAL_OPENID_NAME", "single sign-on", "What the sign-in page calls the provider.", _words(60)
    )
    openid_scopes: str = setting(
        "PORTAL_OPENID_SCOPES", "openid profile email", "Scopes that the portal asks the provider for.", _scopes
    )
    openid_create: bool = setting(
        "PORTAL_OPENID_CREATE",
        "false",
        "true makes an account at the first sign-in of somebody who has none.",
        _switch,
    )
    openid_groups_claim: str = setting(
        "PORTAL_OPENID_GROUPS_CLAIM",
        "groups",
        "Claim that lists a person's groups at the provider; dots lead into nested claims.",
        _visible,
    )
    openid_roles: tuple[MappedRole, ...] = setting(
        "PORTAL_OPENID_ROLES",
        "",
        "What these groups give, such as ops=administrator,developers=acme:maintainer,testers=acme/web:developer.",
        _mapping,
    )
    access_token_longest: timedelta = setting(
        "PORTAL_ACCESS_TOKEN_LONGEST",
        "365d",
        "How long an access token or an enrolment key may live at the longest.",
        _days,
    )
    rate_limit_token: int = setting(
        "PORTAL_RATE_LIMIT_TOKEN",
        "2000",
        "API requests a minute with one access token, in each server process; 0 sets no limit.",
        _number(0, 10_000_000),
    )
    rate_limit_address: int = setting(
        "PORTAL_RATE_LIMIT_ADDRESS",
        "5000",
        "API requests of people and scripts a minute from one address, in each server process; 0 sets no limit.",
        _number(0, 10_000_000),
    )
    rate_limit_refused: int = setting(
        "PORTAL_RATE_LIMIT_REFUSED",
        "60",
        "API requests a minute without a good credential from one address, in each server process; 0 sets no limit.",
        _number(0, 10_000_000),
    )
    rate_limit_log_only: bool = setting(
        "PORTAL_RATE_LIMIT_LOG_ONLY",
        "false",
        "true refuses nobody for too many API requests, and logs who would have been.",
        _switch,
    )
    max_body: int = setting(
        "PORTAL_MAX_BODY",
        "1048576",
        "Largest request body in bytes; a larger one is refused with 413.",
        _number(16_384, 1 << 30),
    )
    artifacts: str = setting(
        "PORTAL_ARTIFACTS",
        "",
        "Where the artifacts of jobs lie: a folder, or a bucket that belongs to this portal alone, such as "
        "s3://bucket/prefix; empty is the folder artifacts in the data folder.",
        _store,
    )
    artifacts_s3_endpoint: str = setting(
        "PORTAL_ARTIFACTS_S3_ENDPOINT",
        "",
        "Address of the S3-compatible store, such as https://s3.example.com; empty is AWS.",
        _address,
    )
    artifacts_s3_region: str = setting(
        "PORTAL_ARTIFACTS_S3_REGION", "us-east-1", "Region that requests to the S3-compatible store name.", _visible
    )
    artifacts_s3_key: str = setting(
        "PORTAL_ARTIFACTS_S3_KEY",
        "",
        "Access key of the S3-compatible store; empty uses the role of the machine, as AWS has them.",
        _visible,
    )
    artifacts_s3_secret: str = setting(
        "PORTAL_ARTIFACTS_S3_SECRET", "", "Secret that belongs to the access key.", _visible, secret=True
    )
    artifact_limit: int = setting(
        "PORTAL_ARTIFACT_LIMIT",
        "104857600",
        "Largest artifact in bytes; a larger one is refused with 413, and the job fails.",
        _number(1024, 1 << 40),
    )
    artifacts_kept: timedelta | None = setting(
        "PORTAL_ARTIFACTS_KEPT",
        "30d",
        "How long artifacts stay for which a job does not say it, such as 30d, or never to keep them with the job.",
        _expiry,
    )
    job_log_limit: int = setting(
        "PORTAL_JOB_LOG_LIMIT",
        "104857600",
        "Longest log of a job in bytes; a job that writes more fails.",
        _number(1 << 20, 10 << 30),
    )
    job_taken_back: timedelta = setting(
        "PORTAL_JOB_TAKEN_BACK",
        "2m",
        "After how long a job is taken back from a machine that never spoke of it, and queued again; machines with "
        "gitlab-runner 18.5 and newer speak at once, and have 30s.",
        _duration,
    )
    poll_hold: timedelta = setting(
        "PORTAL_POLL_HOLD",
        "50s",
        "How long a machine that asks for a job is kept waiting for one, where it knows that there is none yet; 0 "
        "answers at once. Proxies in front must allow answers to take longer than this.",
        _hold,
    )
    job_silent: timedelta = setting(
        "PORTAL_JOB_SILENT",
        "10m",
        "After how long a job fails whose machine fell silent; gitlab-runner speaks at least every 30s, or every 2m "
        "with its FF_USE_DYNAMIC_TRACE_FORCE_SEND_INTERVAL.",
        _duration,
    )
    jobs_kept: timedelta | None = setting(
        "PORTAL_JOBS_KEPT",
        "400d",
        "How long jobs stay after their end, with their logs and artifacts, such as 400d, or never to keep them for "
        "ever.",
        _expiry,
    )
    trail_kept: timedelta | None = setting(
        "PORTAL_TRAIL_KEPT",
        "",
        "How long events stay on the trail, such as 400d; empty keeps them for ever.",
        _kept,
    )
    log_level: str = setting("PORTAL_LOG_LEVEL", "info", "debug, info, warning or error.", _level)
    log_format: str = setting(
        "PORTAL_LOG_FORMAT", "json", "Form of the log lines: json (one object a line) or text.", _log_format
    )

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
        _check_sign_in(values)
        if bool(values["artifacts_s3_key"]) is not bool(values["artifacts_s3_secret"]):
            raise SettingError(
                "PORTAL_ARTIFACTS_S3_SECRET is without its pair; "
                "it must be set together with PORTAL_ARTIFACTS_S3_KEY."
            )
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
        return f"{self._cookie_prefix}portal_session"

    @property
    def device_cookie(self) -> str:
        """The name of the cookie by which the sign-in throttle knows a browser again."""
        return f"{self._cookie_prefix}portal_device"

    @property
    def _cookie_prefix(self) -> str:
        return "" if not self.over_https else "__Secure-" if self.path_prefix else "__Host-"


def documented() -> list[tuple[str, str, str]]:
    """Every setting as (name, default, sentence), in order, for the README's table and its test."""
    return [(f.metadata["name"], f.metadata["default"], f.metadata["sentence"]) for f in fields(Settings)]


def _check_sign_in(values: Mapping[str, Any]) -> None:
    """Settings of single sign-on that only make sense together."""
    if values["openid_url"] and not values["openid_client_id"]:
        raise SettingError("PORTAL_OPENID_CLIENT_ID is missing; it must be set together with PORTAL_OPENID_URL.")
    if not values["openid_url"] and not values["password_sign_in"]:
        raise SettingError(
            "PORTAL_PASSWORD_SIGN_IN is false; it must be true without PORTAL_OPENID_URL, or nobody could sign in."
        )


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
