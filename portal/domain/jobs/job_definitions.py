"""What is asked for in a job: its values, their limits, and how they are stored."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson
from sqlalchemy import Row, select, update
from sqlalchemy.orm import Session

from portal.domain import audit
from portal.domain.actors import Actor
from portal.domain.errors import BadRequest, Invalid
from portal.domain.jobs import artifact_expiry
from portal.domain.runners.runner_settings import LONGEST_TAG, MOST_TAGS
from portal.domain.scopes import INSTANCE
from portal.domain.vault import Vault
from portal.models import JobDefinition

LONGEST_NAME = 255
LONGEST_REF = 255
MOST_LINES = 1000  # of a script
LONGEST_SCRIPT = 64 * 1024  # characters, all lines together
MOST_VARIABLES = 200
LONGEST_VALUE = 64 * 1024
LONGEST_VALUES = 256 * 1024  # of all variables together
SHORTEST_MASKED = 8  # characters; gitlab-runner masks nothing shorter well
MOST_SERVICES = 20
LONGEST_IMAGE = 512
SHORTEST_TIMEOUT = 10  # seconds
LONGEST_TIMEOUT = 30 * 86_400
MOST_RETRIES = 2  # GitLab's
MOST_PATHS = 100
LONGEST_PATH = 1024
LONGEST_EXPIRY = 255
MOST_NEEDS = 50
LONGEST_URL = 2048
BATCH = 1000  # definitions that are encrypted anew together
WHEN = ("on_success", "on_failure", "always")
SCHEMES = ("https", "http", "ssh", "git", "file")

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_COMMIT = re.compile(r"[0-9a-fA-F]{8,64}")
_REF = re.compile(r"[^\s~^:?*\[\\\x00-\x1f\x7f]+")
_SCP = re.compile(r"[A-Za-z0-9_.-]+@[A-Za-z0-9_.-]+:[^\s]+")


@dataclass(frozen=True, slots=True)
class JobVariable:
    """A variable. `masked` hides its value in the log, `file` hands over a file's path, `raw` keeps `$` as it is."""

    key: str
    value: str = field(default="", repr=False)  # it may be a secret, and what is shown of it could come into a log
    masked: bool = False
    file: bool = False
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Repository:
    """What is checked out before the script: `commit`, or the newest of the job's ref when it is empty."""

    url: str = field(repr=False)  # it may hold credentials
    commit: str = ""


@dataclass(frozen=True, slots=True)
class ArtifactsWanted:
    """Which files are kept afterwards. `expire_in` in GitLab's words ("1 week"); empty for the instance's default."""

    paths: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    name: str = "artifacts"
    when: str = "on_success"
    expire_in: str = ""


@dataclass(frozen=True, slots=True)
class NewJob:
    """What somebody asks for; forms, scripts and templates build this and nothing else decides.

    `timeout` in seconds; None: the project's. `protected` None: as the project's patterns say of the ref. `needs` are
    numbers of jobs whose artifacts are there when this one begins. `retry`: how often it runs again when it fails.
    """

    name: str
    script: tuple[str, ...]
    after_script: tuple[str, ...] = ()
    image: str = ""
    services: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    ref: str = "main"
    protected: bool | None = None
    variables: tuple[JobVariable, ...] = ()
    timeout: int | None = None
    artifacts: ArtifactsWanted | None = None
    repository: Repository | None = None
    retry: int = 0
    needs: tuple[int, ...] = ()

    def check(self) -> None:
        """Raise Invalid with every problem, each beside its field."""
        if problems := self.problems():
            raise Invalid(problems)

    def problems(self) -> dict[str, list[str]]:
        """What is wrong, by field; empty when nothing is."""
        found = {
            "name": _text(self.name, LONGEST_NAME, "Give the job a name."),
            "script": _script(self.script, needed=True),
            "after_script": _script(self.after_script),
            "image": _words((self.image,) if self.image else (), 1, LONGEST_IMAGE, "image"),
            "services": _words(self.services, MOST_SERVICES, LONGEST_IMAGE, "service"),
            "tags": _tags(self.tags),
            "ref": _ref(self.ref),
            "variables": _variables(self.variables),
            "timeout": _timeout(self.timeout),
            "artifacts": _artifacts(self.artifacts),
            "repository": _repository(self.repository),
            "retry": [] if 0 <= self.retry <= MOST_RETRIES else [f"A job runs again at most {MOST_RETRIES} times."],
            "needs": [] if len(self.needs) <= MOST_NEEDS else [f"A job needs at most {MOST_NEEDS} others."],
        }
        return {name: sentences for name, sentences in found.items() if sentences}


def _stored(text: str) -> bool:
    """Whether the database takes it: no NUL, no half of a surrogate pair."""
    return "\0" not in text and text == text.encode("utf-8", "ignore").decode()


def _text(text: str, longest: int, missing: str) -> list[str]:
    if not text.strip():
        return [missing]
    if len(text) > longest:
        return [f"It is too long: at most {longest} characters."]
    return [] if _stored(text) and text.isprintable() else ["It has a character that cannot be stored."]


def _script(lines: tuple[str, ...], *, needed: bool = False) -> list[str]:
    if needed and not any(line.strip() for line in lines):
        return ["Write at least one line to run."]
    if len(lines) > MOST_LINES:
        return [f"Too many lines: {len(lines)}. Keep to {MOST_LINES}, or put them into a file of the repository."]
    if sum(map(len, lines)) > LONGEST_SCRIPT:
        return [f"It is too long: at most {LONGEST_SCRIPT} characters."]
    return [] if all(map(_stored, lines)) else ["It has a character that cannot be stored."]


def _words(words: tuple[str, ...], most: int, longest: int, what: str) -> list[str]:
    if len(words) > most:
        return [f"Too many: at most {most}."]
    if any(not word or len(word) > longest or re.search(r"\s", word) or not _stored(word) for word in words):
        return [f"Write each {what} as a name such as alpine:3.20, at most {longest} characters and without spaces."]
    return []


def _tags(tags: tuple[str, ...]) -> list[str]:
    if len(tags) > MOST_TAGS:
        return [f"Too many tags: {len(tags)}. Keep to {MOST_TAGS}."]
    if any(not tag or len(tag) > LONGEST_TAG or not _stored(tag) for tag in tags):
        return [f"Each tag has 1 to {LONGEST_TAG} characters."]
    return []


def _ref(ref: str) -> list[str]:
    if not ref:
        return ["Say which branch or tag this is for, such as main."]
    if len(ref) > LONGEST_REF:
        return [f"It is too long: at most {LONGEST_REF} characters."]
    if not _REF.fullmatch(ref) or not _stored(ref) or ref.startswith(("-", "/")) or ".." in ref:
        return ["This is no name of a branch or tag; write one such as main or release/1.2."]
    return []


def _variables(variables: tuple[JobVariable, ...]) -> list[str]:
    if len(variables) > MOST_VARIABLES:
        return [f"Too many variables: {len(variables)}. Keep to {MOST_VARIABLES}."]
    if sum(len(each.value) for each in variables) > LONGEST_VALUES:
        return [f"The values are too long together: at most {LONGEST_VALUES} characters."]
    keys = [each.key for each in variables]
    found = [f"{key[:40]} is there twice." for key in dict.fromkeys(keys) if keys.count(key) > 1]
    for each in variables:
        if not _KEY.fullmatch(each.key):
            found.append(f"{each.key[:40]!r} is no name of a variable: letters, digits and _, not a digit first.")
        elif len(each.value) > LONGEST_VALUE:
            found.append(f"The value of {each.key} is too long: at most {LONGEST_VALUE} characters.")
        elif not _stored(each.value):
            found.append(f"The value of {each.key} has a character that cannot be stored.")
        elif each.masked and (len(each.value) < SHORTEST_MASKED or "\n" in each.value):
            found.append(
                f"The value of {each.key} cannot be masked: that takes {SHORTEST_MASKED} characters in one line."
            )
    return found


def _timeout(seconds: int | None) -> list[str]:
    if seconds is None or SHORTEST_TIMEOUT <= seconds <= LONGEST_TIMEOUT:
        return []
    return ["Write a time from 10s to 30d, or leave it empty for the project's."]


def _artifacts(wanted: ArtifactsWanted | None) -> list[str]:
    if wanted is None:
        return []
    paths = (*wanted.paths, *wanted.exclude)
    if not wanted.paths:
        return ["Say which files to keep."]
    if len(paths) > MOST_PATHS:
        return [f"Too many paths: at most {MOST_PATHS}."]
    if any(not path or len(path) > LONGEST_PATH or not _stored(path) or "\n" in path for path in paths):
        return [f"Each path has 1 to {LONGEST_PATH} characters in one line."]
    if any(path.startswith("/") or ".." in path.split("/") for path in paths):
        return ["Paths stand below the job's folder: without / in front and without .. in them."]
    if wanted.when not in WHEN:
        return [f"They are kept {', '.join(WHEN[:-1])} or {WHEN[-1]}."]
    if not re.fullmatch(r"[^/\\\x00-\x1f\x7f]{1,128}", wanted.name) or not _stored(wanted.name):
        return ["Their name has 1 to 128 characters, without slashes."]
    return expiry_problems(wanted.expire_in)


def expiry_problems(text: str) -> list[str]:
    """What is wrong with how long artifacts are to stay; empty when nothing is."""
    if len(text) > LONGEST_EXPIRY or not _stored(text):
        return ["Write when they expire, such as 1 week, or leave it empty."]
    try:
        artifact_expiry.read(text, None)
    except BadRequest as wrong:
        return [str(wrong)]
    return []


def _repository(repository: Repository | None) -> list[str]:
    if repository is None:
        return []
    url = repository.url
    scheme = url.partition("://")[0] if "://" in url else ""
    if len(url) > LONGEST_URL or not _stored(url) or re.search(r"[\s\x00-\x1f\x7f]", url):
        return [f"The address has at most {LONGEST_URL} characters and no spaces."]
    if (scheme not in SCHEMES or url.endswith("://")) and not _SCP.fullmatch(url):
        return ["Write the address of a Git repository, such as https://git.example.com/acme/web.git."]
    if "://…@" in url:
        return ["Write the name and password in the address again: they are kept for the address that was there."]
    if scheme and not _has_host(url):
        return ["The address names no host. Write / ? # and @ in a name or password as %2F %3F %23 and %40."]
    if repository.commit and not _COMMIT.fullmatch(repository.commit):
        return ["A commit is 8 to 64 hexadecimal digits; leave it empty for the newest of the ref."]
    return []


def _has_host(url: str) -> bool:
    """Whether it is clear where the host stands: a / in a password would end the part of which nothing is shown."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "file" or (bool(parts.hostname) and (parts.port is None or parts.port > 0))
    except ValueError:
        return False


class Undecryptable(Exception):
    """What is secret in a job cannot be read: the key that closed it is not configured any more."""


def digest(new: NewJob, key: object) -> bytes:
    """By which a request that is sent again is known to ask for the same.

    What is asked for may hold secrets, so the request's key is in it: nobody can try values.
    """
    return hashlib.sha256(orjson.dumps([str(key), asdict(new)])).digest()


def stored(new: NewJob, vault: Vault) -> JobDefinition:
    """The row that keeps what is asked for; variables and the repository's address are encrypted."""
    config = {
        "name": new.name.strip(),
        "script": list(new.script),
        "after_script": list(new.after_script),
        "image": new.image,
        "services": list(new.services),
        "tags": list(new.tags),
        "ref": new.ref,
        "protected": new.protected,
        "timeout": new.timeout,
        "artifacts": _as_mapping(new.artifacts),
        "commit": new.repository.commit if new.repository else "",
        "retry": new.retry,
        "needs": list(new.needs),
        "variable_names": [each.key for each in new.variables],
    }
    secrets = {
        "variables": [_as_mapping(each) for each in new.variables],
        "repository": new.repository.url if new.repository else "",
    }
    return JobDefinition(config=config, ciphertext=vault.close(orjson.dumps(secrets).decode()))


def _as_mapping(value: Any) -> dict[str, Any] | None:
    """The fields of one of the frozen values above, tuples as lists, as JSON has them."""
    if value is None:
        return None
    found = {name: getattr(value, name) for name in value.__dataclass_fields__}
    return {name: list(each) if isinstance(each, tuple) else each for name, each in found.items()}


def opened(definition: JobDefinition, vault: Vault) -> NewJob:
    """What was asked for, with what is secret in it. Raises Undecryptable."""
    text = vault.open(definition.ciphertext)
    if text is None:
        raise Undecryptable
    secrets = orjson.loads(text)
    config: Mapping[str, Any] = definition.config
    url = secrets["repository"]
    return NewJob(
        name=config["name"],
        script=tuple(config["script"]),
        after_script=tuple(config["after_script"]),
        image=config["image"],
        services=tuple(config["services"]),
        tags=tuple(config["tags"]),
        ref=config["ref"],
        protected=config["protected"],
        variables=tuple(JobVariable(**each) for each in secrets["variables"]),
        timeout=config["timeout"],
        artifacts=_wanted(config["artifacts"]),
        repository=Repository(url, config["commit"]) if url else None,
        retry=config["retry"],
        needs=tuple(config["needs"]),
    )


def _wanted(found: Mapping[str, Any] | None) -> ArtifactsWanted | None:
    if found is None:
        return None
    tuples: Callable[[str], tuple[str, ...]] = lambda name: tuple(found[name])  # noqa: E731
    return ArtifactsWanted(tuples("paths"), tuples("exclude"), found["name"], found["when"], found["expire_in"])


@dataclass(frozen=True, slots=True)
class Renewed:
    """How many definitions were encrypted anew, and how many no key opens."""

    renewed: int
    lost: int


def renew_encryption(session: Session, actor: Actor, vault: Vault) -> Renewed:
    """Encrypt the secrets of every job and template anew with the first key, a batch at a time.

    One event says how many. What no key opens is left alone.
    """
    renewed = lost = last = 0
    while rows := _batch_after(session, last):
        changed = [(row.id, vault.renew(row.ciphertext)) for row in rows]
        values = [{"id": number, "ciphertext": text} for number, text in changed if text is not None]
        if values:
            session.execute(update(JobDefinition), values)
        renewed, lost, last = renewed + len(values), lost + len(rows) - len(values), rows[-1].id
    if renewed:
        audit.record(session, actor, "encryption_renewed", INSTANCE, INSTANCE, {"jobs": (None, renewed)})
    return Renewed(renewed, lost)


def _batch_after(session: Session, last: int) -> Sequence[Row[int, bytes]]:
    query = select(JobDefinition.id, JobDefinition.ciphertext).where(JobDefinition.id > last)
    return session.execute(query.order_by(JobDefinition.id).limit(BATCH).with_for_update()).all()


def masked_url(url: str) -> str:
    """The address of a repository as people may read it: without a user's name or password in it, nor what follows ?.

    A password may hold an @ itself, so the last one before the path counts. A name alone is no secret with ssh.
    """
    without_query = re.sub(r"([?#]).+", r"\1…", url)
    return re.sub(r"^(?!ssh://[^/:@]*@[^@]*$)([a-z]+://)[^/?#]*@", r"\1…@", without_query)
