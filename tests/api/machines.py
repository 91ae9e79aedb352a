"""Machines as the tests play them: their calls, over the test client or over HTTP, and what they tell."""

from __future__ import annotations

import http.client
import json
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from flask.testing import FlaskClient

T = TypeVar("T")
JSON = {"Content-Type": "application/json", "Accept": "application/json"}


@dataclass(frozen=True)
class Answer:
    """One answer of the portal, whichever way it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers.get("Content-Type", "").split(";")[0] == "application/json", self
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """What gitlab-runner prints of it."""
        message = self.json["message"]
        assert isinstance(message, str)
        return message


Way = Callable[[str, str, bytes, Mapping[str, str]], Answer]


def through(client: FlaskClient) -> Way:
    """The way of the test client: no server, the test's own transaction."""

    def call(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        answer = client.open(path, method=method, data=body, headers=dict(headers))
        return Answer(answer.status_code, answer.headers, answer.get_data())

    return call


def over_http(url: str) -> Way:
    """The way of a real machine: a connection to a running portal, a new one for each call."""
    place = urlsplit(url)

    def call(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
        try:
            connection.request(method, place.path + path, body or None, dict(headers))
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    return call


@dataclass
class Machine:
    """One gitlab-runner process. Keywords of a call are added to its body; None leaves a key out."""

    way: Way
    token: str
    system_id: str | None = "r_machine00001"
    info: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def call(self, method: str, path: str, **said: Any) -> Answer:
        body = {name: value for name, value in {"token": self.token, **said}.items() if value is not None}
        return self.way(method, f"/api/v4/{path}", json.dumps(body).encode(), {**JSON, **self.headers})

    def poll(self, **said: Any) -> Answer:
        known = {"info": self.info or info_of("18.6.6"), "system_id": self.system_id}
        return self.call("POST", "jobs/request", **{**known, **said})

    def verify(self, **said: Any) -> Answer:
        return self.call("POST", "runners/verify", **{"system_id": self.system_id, **said})

    def register(self, **said: Any) -> Answer:
        """The old way, with a registration token in the place of the runner's."""
        return self.call("POST", "runners", **said)

    def unregister(self, **said: Any) -> Answer:
        """What 16.0 and newer send for a `glrt-` token."""
        return self.call("DELETE", "runners/managers", **{"system_id": self.system_id, **said})

    def unregister_the_old_way(self) -> Answer:
        """What 15.11 and older send for every token."""
        return self.call("DELETE", "runners")

    def ask_for_job(self, **said: Any) -> Job:
        """The job that a poll is answered with."""
        return self._given(self.poll(**said))

    def wait_for_job(self, **said: Any) -> Job:
        """The same of a running portal, where a process hears a moment later of what another has submitted."""
        return self._given(until(lambda: answer if (answer := self.poll(**said)).status != 204 else None, seconds=2))

    def _given(self, answer: Answer) -> Job:
        assert answer.status == 201, answer
        return Job(self, answer.json)

    def reset_token(self) -> Answer:
        return self.call("POST", "runners/reset_authentication_token")


@dataclass(frozen=True)
class Job:
    """A job as a machine has it, and what the machine says of it."""

    machine: Machine
    payload: Mapping[str, Any]

    @property
    def id(self) -> int:
        found: int = self.payload["id"]
        return found

    @property
    def token(self) -> str:
        found: str = self.payload["token"]
        return found

    @property
    def variables(self) -> dict[str, str]:
        return {each["key"]: each["value"] for each in self.payload["variables"]}

    def report(self, state: str, **said: Any) -> Answer:
        """What 18.5 and newer send first with the state running, and every version when the job has ended."""
        body = {"info": self.machine.info or info_of("18.6.6"), "token": self.token, "state": state, **said}
        return self.machine.way("PUT", f"/api/v4/jobs/{self.id}", json.dumps(body).encode(), JSON)

    def finish(self, log: bytes = b"", state: str = "success", **said: Any) -> Answer:
        """The last report, with the checksum of the whole log."""
        output = {"checksum": f"crc32:{zlib.crc32(log):08x}", "bytesize": len(log)}
        return self.report(state, checksum=output["checksum"], output=output, **said)

    def write(self, data: bytes, start: int = 0) -> Answer:
        """A piece of the log."""
        headers = {
            "Content-Type": "text/plain",
            "Content-Range": f"{start}-{start + len(data) - 1}",
            "JOB-TOKEN": self.token,
        }
        return self.machine.way("PATCH", f"/api/v4/jobs/{self.id}/trace?debug_trace=false", data, headers)


_FLAGS = {
    11: "variables image services artifacts cache shared upload_multiple_artifacts upload_raw_artifacts session "
    "terminal refspecs masking",
    13: "proxy raw_variables artifacts_exclude multi_build_steps trace_reset trace_checksum trace_size vault_secrets "
    "cancelable return_exit_code",
    15: "service_variables fallback_cache_keys service_multiple_aliases",
    16: "image_executor_opts service_executor_opts cancel_gracefully",
    17: "native_steps_integration",
    18: "two_phase_job_commit job_inputs",
}
VERSIONS = ("11.11.4", "13.12.0", "15.11.1", "16.11.4", "17.11.4", "18.4.0", "18.6.6", "19.3.0")


def info_of(version: str, **more: Any) -> dict[str, Any]:
    """The `info` that this version of gitlab-runner sends with every poll."""
    number = tuple(int(part) for part in version.split(".")[:2])
    flags = " ".join(names for since, names in _FLAGS.items() if since <= number[0]).split()
    info: dict[str, Any] = {
        "name": "gitlab-runner",
        "version": version,
        "revision": "df85dadf",
        "platform": "linux",
        "architecture": "amd64",
        "executor": "shell",
        "shell": "bash",
        "features": {flag: flag not in ("proxy", "session", "terminal") for flag in flags},
    }
    if number >= (14, 0):
        info["config"] = {"gpus": ""}
    if number >= (18, 5):
        info["labels"] = {"region": "eu-1", "rack": "b7"}
    return {**info, **more}


def until(ask: Callable[[], T], *, seconds: float = 20, why: str = "") -> T:
    """The first answer that is true, asked for again and again until the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        found = ask()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {why or ask}; the last answer was {found!r}"
        time.sleep(0.02)
