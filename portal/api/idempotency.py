"""The header Idempotency-Key: the same creation sent again by the same person is one creation."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

import orjson
from flask import g, request

from portal.api.credentials import Credential
from portal.domain.errors import BadRequest
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import Scope

HEADER = "Idempotency-Key"
REPLAYED = {"Idempotent-Replayed": "true"}  # what an answer to a repeated request has
LONGEST = 255
_KEY = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Once:
    """What the domain needs to carry a request out once; nothing in it where the request has no key."""

    request_key: UUID | None = None
    request_digest: bytes | None = None


def once(asked: Mapping[str, object], what: str = "create a runner") -> Once:
    """The key of this request, for who asks and for `what` they ask, and a digest of the details.

    Two people may choose the same key, and nobody learns of another's; the key itself is not kept.
    Raises BadRequest for a key that is no key.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return Once()
    if len(key) > LONGEST or not _KEY.fullmatch(key):
        raise BadRequest(
            f"{HEADER} must be 1 to {LONGEST} visible ASCII characters without spaces, such as a new UUID for each "
            f"{what.rpartition(' ')[2]} that you want."
        )
    credential: Credential = g.credential
    digest = hashlib.sha256(orjson.dumps([what, _who(credential), key])).digest()
    written = orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)
    return Once(UUID(bytes=digest[:16], version=5), hashlib.sha256(written).digest())


def of_creation(scope: Scope, settings: RunnerSettings, expires: datetime | None = None) -> Once:
    """The same for a new runner, asked for through either door for scripts; `expires` is its token's end if given.

    How long the token lives until then differs with every sending, so it is left out of what is compared.
    """
    asked = asdict(settings)
    if expires is not None:
        asked |= {"token_expiration_interval": None, "token_expires_at": expires}
    return once({"scope": scope.kind.value, "id": scope.id, **asked})


def of_job(asked: Mapping[str, object]) -> Once:
    """The same for a new job. What is asked for may hold secrets, so the key is in its digest: nobody can try values
    out against what is stored.
    """
    return once({**asked, "key": request.headers.get(HEADER)}, "submit a job")


def of_template(template_id: int) -> Once:
    """The same for a job of a template, which is what it is."""
    return once({}, f"run the template {template_id} for a job")


def _who(credential: Credential) -> str:
    """A person, whichever of their tokens they use; or an enrolment key."""
    return f"key {credential.key.id}" if credential.key is not None else f"person {credential.actor.id}"
