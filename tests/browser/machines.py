"""A machine that speaks to the portal over HTTP as gitlab-runner does."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

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


def _post(address: str, token: str, system_id: str) -> int:
    body = json.dumps({"token": token, "system_id": system_id, "info": INFO}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code
