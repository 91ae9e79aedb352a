"""glab, GitLab's command line, where it is installed: signing in over http, and its `api` for runners."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cast import Cast
from tests.portals import RunningPortal

pytestmark = pytest.mark.skipif(not shutil.which("glab"), reason="glab is not on the PATH")
Run = Callable[..., str]


@pytest.fixture
def glab(running_portal: RunningPortal, stage: Cast, tmp_path: Path) -> Run:
    """What glab prints, signed in as Alice."""
    host = running_portal.url.removeprefix("http://")
    quiet = {"GLAB_CHECK_UPDATE": "false", "GLAB_SEND_TELEMETRY": "false", "GLAB_NO_PROMPT": "1", "NO_COLOR": "1"}

    def run(*words: str) -> str:
        ended = subprocess.run(
            ["glab", *words],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GITLAB_HOST": running_portal.url, **quiet},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    run("auth", "login", "--hostname", host, "--api-protocol", "http", "--token", stage.access_token(stage.alice))
    return run


def test_glab_creates_lists_changes_and_deletes_a_runner(glab: Run, stage: Cast) -> None:
    group = f"group_id={stage.acme.id}"
    made = json.loads(glab("api", "user/runners", "-X", "POST", "-f", "runner_type=group_type", "-F", group))
    assert made["token"].startswith("glrt-t2_")
    runner = f"runners/{made['id']}"
    assert json.loads(glab("api", runner, "-X", "PUT", "-F", "paused=true"))["paused"] is True
    assert [each["id"] for each in json.loads(glab("api", "groups/acme/runners", "--paginate"))] == [made["id"]]
    asked = 'query { group(fullPath: "acme") { runners { count } } }'
    assert json.loads(glab("api", "graphql", "-f", f"query={asked}"))["data"]["group"]["runners"]["count"] == 1
    glab("api", runner, "-X", "DELETE")
    assert json.loads(glab("api", "runners")) == []


def test_glab_lists_projects_and_makes_tokens(glab: Run) -> None:
    assert "acme/web" in glab("repo", "list", "--all")
    assert glab("token", "create", "--user", "@me", "--scope", "read_api", "nightly").startswith("glpat-")
    assert "nightly" in glab("token", "list", "--user", "@me")
