"""A machine that speaks to the portal over HTTP as gitlab-runner does."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

SYSTEM_ID = "s_c0ffee123456"
INFO = {
    "version": "18.9.0",
    "revision": "abcdef12",
    "platform": "linux",
    "architecture": "arm64",
    "executor": "shell",
}


def verify(url: str, token: str, system_id: str = SYSTEM_ID) -> int:
    """What `gitlab-runner register` sends. Returns the status."""
    return _post(f"{url}/api/v4/runners/verify", token, system_id)


def poll(url: str, token: str, system_id: str = SYSTEM_ID) -> int:
    """What `gitlab-runner run` sends. Returns the status."""
    return _post(f"{url}/api/v4/jobs/request", token, system_id)


def register(url: str, token: str, expect: int = 201) -> int:
    """What `gitlab-runner register` sends with a registration token. Returns the runner's number, 0 for none."""
    body = {"token": token, "description": "old box", "tag_list": "docker", "run_untagged": True, "info": INFO}
    status, answer = _send(f"{url}/api/v4/runners", body)
    assert status == expect, answer
    return int(answer["id"]) if status == 201 else 0


def _post(address: str, token: str, system_id: str) -> int:
    return _send(address, {"token": token, "system_id": system_id, "info": INFO})[0]


def _send(address: str, body: dict[str, Any]) -> tuple[int, Any]:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status), json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.loads(refused.read() or b"null")
