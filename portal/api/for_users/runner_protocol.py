"""What `gitlab-runner` asks, described by hand for OpenAPI: docs/runner-api.md says it at length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ROOM = "Runner protocol"
_TOKEN = {"type": "string", "minLength": 1, "description": "The runner's authentication token."}
_SYSTEM = {"description": "The machine's system ID, at most 64 characters."}
_INFO = {"description": "What the machine is: version, revision, platform, architecture, executor and so on."}
_REGISTERED = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "token": {"type": "string"},
        "token_expires_at": {"type": ["string", "null"], "format": "date-time"},
    },
    "required": ["id", "token", "token_expires_at"],
}
_RESET = {
    "type": "object",
    "properties": {name: _REGISTERED["properties"][name] for name in ("token", "token_expires_at")},  # type: ignore[index]
    "required": ["token", "token_expires_at"],
}


@dataclass(frozen=True, slots=True)
class Spoken:
    """One operation of the protocol. `answer` is the schema of the body; None means 204 without one."""

    name: str
    method: str
    path: str
    says: str
    status: int
    answer: dict[str, Any] | None
    refuses: tuple[int, ...]
    takes: dict[str, dict[str, Any]] = field(default_factory=dict)


PROTOCOL = (
    Spoken(
        "protocol_register",
        "POST",
        "/runners",
        "Register a machine the old way, with a registration token.",
        201,
        _REGISTERED,
        (400, 403, 410, 413, 429),
        {"token": {**_TOKEN, "description": "The registration token of the instance, a group or a project."}},
    ),
    Spoken(
        "protocol_verify",
        "POST",
        "/runners/verify",
        "Check a runner's token, and make or refresh the machine.",
        200,
        _REGISTERED,
        (400, 403, 410, 413, 429),
        {"token": _TOKEN, "system_id": _SYSTEM, "info": _INFO},
    ),
    Spoken(
        "protocol_poll",
        "POST",
        "/jobs/request",
        "Ask for a job; the machine's heartbeat.",
        204,
        None,
        (400, 403, 410, 413, 429),
        {"token": _TOKEN, "system_id": _SYSTEM, "info": _INFO},
    ),
    Spoken(
        "protocol_reset_token",
        "POST",
        "/runners/reset_authentication_token",
        "One more token for the machine; the old one ends after the grace period.",
        201,
        _RESET,
        (400, 413, 429),
        {"token": _TOKEN},
    ),
    Spoken(
        "protocol_unregister",
        "DELETE",
        "/runners",
        "A machine of an old client leaves.",
        204,
        None,
        (400, 403, 413),
        {"token": _TOKEN},
    ),
    Spoken(
        "protocol_unregister_machine",
        "DELETE",
        "/runners/managers",
        "One machine leaves; the runner stays.",
        204,
        None,
        (400, 403, 404, 413),
        {"token": _TOKEN, "system_id": {"type": "string", "minLength": 1, "maxLength": 64, **_SYSTEM}},
    ),
)
