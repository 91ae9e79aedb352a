"""What `gitlab-runner` asks, described by hand for OpenAPI: docs/runner-api.md says it at length."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

ROOM = "Runner protocol"
_TOKEN = {"type": "string", "minLength": 1, "description": "The runner's authentication token."}
_SYSTEM = {"description": "The machine's system ID, at most 64 characters."}
_INFO = {"description": "What the machine is: version, revision, platform, architecture, executor and so on."}
_LAST_UPDATE = {"description": "The `X-GitLab-Last-Update` of the last answer, as it came."}
_JOB_ID = {"type": "integer", "minimum": 1, "maximum": 2**63 - 1, "description": "The job's number."}
_JOB_TOKEN = {"type": "string", "minLength": 1, "description": "The token that the job came with."}
_ARTIFACT = {
    "artifact_type": {"type": "string", "description": "What it is: archive (as a rule), metadata, junit and so on."},
    "artifact_format": {"type": "string", "description": "zip, gzip, raw, zipzstd or tarzstd."},
}
_REPORT: dict[str, dict[str, Any]] = {
    "state": {"type": "string", "enum": ["running", "success", "failed"], "description": "How the job stands."},
    "exit_code": {"type": "integer", "description": "What the script ended with."},
    "failure_reason": {"type": "string", "description": "Why it failed, in one of GitLab's words."},
    "checksum": {"type": "string", "description": "`crc32:` and eight hexadecimal digits of the whole log."},
    "output": {"type": "object", "description": "The same `checksum`, and `bytesize`, the log's length."},
}
_FILE = {"description": "The file, in a form; other fields may say what the query can."}
_REGISTERED = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "token": {"type": "string"},
        "token_expires_at": {"type": ["string", "null"], "format": "date-time"},
    },
    "required": ["id", "token", "token_expires_at"],
}
_HANDED_OUT = {
    "type": "object",
    "description": "The job as the runner reads it; docs/runner-api.md says what stands in it.",
    "properties": {"id": {"type": "integer"}, "token": {"type": "string"}},
    "required": ["id", "token"],
}
_RESET = {
    "type": "object",
    "properties": {name: _REGISTERED["properties"][name] for name in ("token", "token_expires_at")},  # type: ignore[index]
    "required": ["token", "token_expires_at"],
}


@dataclass(frozen=True, slots=True)
class Spoken:
    """One operation of the protocol. `answer` is the schema of the body, of the type `media`; None: there is none.

    `takes` stands in a body of the type `sends`, or else in JSON or a form. With `by_job` a job's token opens it.
    `besides` are other answers that are no refusals, each with when it comes; `hears` are headers of all of them.
    """

    name: str
    method: str
    path: str
    says: str
    status: int
    answer: dict[str, Any] | None
    refuses: tuple[int, ...]
    takes: dict[str, dict[str, Any]] = field(default_factory=dict)
    media: str = "application/json"
    sends: str = ""
    by_job: bool = False
    queried: dict[str, dict[str, Any]] = field(default_factory=dict)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)  # further headers
    besides: dict[int, str] = field(default_factory=dict)
    hears: tuple[str, ...] = ()

    @property
    def refusals(self) -> tuple[int, ...]:
        """The statuses with which it may be refused: at a place that is no number there is no such path."""
        return tuple(sorted({*self.refuses, 404} if "{" in self.path else self.refuses))

    @property
    def parameters(self) -> list[tuple[str, str, dict[str, Any]]]:
        """What does not stand in the body: (where, name, schema)."""
        own = [("path", name, _JOB_ID) for name in re.findall(r"{(\w+)}", self.path)]
        shown = [("header", "JOB-TOKEN", _JOB_TOKEN)] if self.by_job else []
        shown += [("header", name, schema) for name, schema in self.told.items()]
        return [*own, *shown, *(("query", name, schema) for name, schema in self.queried.items())]


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
        201,
        _HANDED_OUT,
        (400, 403, 410, 413, 429),
        {"token": _TOKEN, "system_id": _SYSTEM, "info": _INFO, "last_update": _LAST_UPDATE},
        besides={
            204: "There is nothing to do; `X-GitLab-Last-Update` is to be sent with the next request.",
            409: "Others took the jobs that were found: ask again.",
        },
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
    Spoken(
        "protocol_report",
        "PUT",
        "/jobs/{job_id}",
        "Report of a job: that it runs, or how it ended. A log that arrived damaged is answered 412 and sent again.",
        200,
        {"type": "string"},
        (400, 403, 413),
        {"token": _JOB_TOKEN, **_REPORT},
        media="text/plain",
        besides={
            202: "Something else is just being written of the job: the report is to be sent again.",
            412: "The log is not the one that was sent: it is to be sent once more from its first byte.",
        },
        hears=("Job-Status", "X-GitLab-Trace-Update-Interval"),
    ),
    Spoken(
        "protocol_append_to_log",
        "PATCH",
        "/jobs/{job_id}/trace",
        "Send a piece of a job's log, which is the body. One that does not continue it is answered with its end.",
        202,
        {"type": "string"},
        (400, 403, 413, 416),
        media="text/plain",
        by_job=True,
        told={"Content-Range": {"type": "string", "description": "The first and the last byte, such as 0-99."}},
        hears=("Job-Status", "Range", "X-GitLab-Trace-Update-Interval"),
    ),
    Spoken(
        "protocol_authorize_artifacts",
        "POST",
        "/jobs/{job_id}/artifacts/authorize",
        "Ask whether an upload would be taken.",
        200,
        {"type": "object", "properties": {"MaximumSize": {"type": "integer"}}, "required": ["MaximumSize"]},
        (400, 403, 413),
        {**_ARTIFACT, "filesize": {"type": "integer", "description": "How large the file is, in bytes."}},
        by_job=True,
    ),
    Spoken(
        "protocol_upload_artifacts",
        "POST",
        "/jobs/{job_id}/artifacts",
        "Bring a file that the job left.",
        201,
        {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]},
        (400, 403, 413, 503),
        {"file": {"type": "string", "minLength": 1, "contentMediaType": "application/octet-stream"} | _FILE},
        sends="multipart/form-data",
        by_job=True,
        queried={**_ARTIFACT, "expire_in": {"type": "string", "description": "How long it stays, such as 1 week."}},
    ),
    Spoken(
        "protocol_download_artifacts",
        "GET",
        "/jobs/{job_id}/artifacts",
        "Fetch the archive of a job that the token's job needs, or of that job itself.",
        200,
        {"type": "string"},
        (401, 403, 404, 503),
        media="application/octet-stream",
        by_job=True,
        besides={206: "The part that `Range` asked for."},
    ),
)
