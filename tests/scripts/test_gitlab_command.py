"""The command `gitlab` of python-gitlab, with its own configuration file, unmodified: it lists and creates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cast import Cast
from tests.portals import RunningPortal
from tests.scripts.conftest import GitlabCommand

Run = Callable[..., Any]


def configuration(url: str, token: str) -> str:
    return f"[global]\ndefault = portal\n\n[portal]\nurl = {url}\nprivate_token = {token}\napi_version = 4\n"


@pytest.fixture
def configured(running_portal: RunningPortal, stage: Cast, gitlab_command: GitlabCommand, tmp_path: Path) -> Run:
    """What a command of Dana's prints as JSON; None when it prints nothing."""
    (tmp_path / ".python-gitlab.cfg").write_text(configuration(running_portal.url, stage.access_token(stage.dana)))

    def run(*words: str) -> Any:
        ended = gitlab_command("--output", "json", *words)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout) if ended.stdout.strip() else None

    return run


def test_it_sets_up_a_group_with_a_project_and_a_member(configured: Run) -> None:
    assert configured("current-user", "get")["username"] == "dana"
    group = configured("group", "create", "--name", "Tools", "--path", "tools")
    assert "tools" in [each["path"] for each in configured("group", "list", "--get-all")]
    project = configured("project", "create", "--name", "Image", "--namespace-id", str(group["id"]))
    assert configured("project", "get", "--id", "tools/image")["id"] == project["id"]
    member = configured("group-member", "create", "--group-id", "tools", "--username", "erin", "--access-level", "30")
    shown = configured("group-member", "get", "--group-id", "tools", "--id", str(member["id"]))
    assert shown["access_level"] == 30
    assert [each["name"] for each in configured("personal-access-token", "list", "--get-all")] == ["a test's"]
    assert configured("application-settings", "get")["allow_runner_registration_token"] is True


def test_it_creates_lists_changes_and_deletes_runners(configured: Run, stage: Cast) -> None:
    group, project = str(stage.acme.id), str(stage.web.id)
    new = ("current-user-runner", "create", "--runner-type")
    shared = configured(*new, "instance_type", "--description", "for all", "--run-untagged", "true")
    ours = configured(*new, "group_type", "--group-id", group, "--tag-list", "linux,docker", "--locked", "true")
    webs = configured(*new, "project_type", "--project-id", project, "--maximum-timeout", "600")
    assert ours["token"].startswith("glrt-t2_")
    ids = [shared["id"], ours["id"], webs["id"]]

    assert [each["id"] for each in configured("runner-all", "list", "--get-all")] == ids
    assert [each["id"] for each in configured("runner", "list", "--tag-list", "docker,linux")] == [ours["id"]]
    assert [each["id"] for each in configured("group-runner", "list", "--group-id", "acme")] == ids[:2]
    assert [each["id"] for each in configured("project-runner", "list", "--project-id", "acme/web")] == ids
    changed = configured("runner", "update", "--id", str(webs["id"]), "--description", "web's", "--active", "false")
    assert (changed["description"], changed["paused"]) == ("web's", True)
    shown = configured("runner", "get", "--id", str(webs["id"]))
    assert (shown["maximum_timeout"], shown["status"]) == (600, "never_contacted")
    assert configured("runner-job", "list", "--runner-id", str(webs["id"])) == []
    shop = str(configured("project", "create", "--name", "Shop", "--namespace-id", group)["id"])
    configured("project-runner", "create", "--project-id", shop, "--runner-id", str(webs["id"]))
    configured("project-runner", "delete", "--project-id", shop, "--id", str(webs["id"]))
    for number in ids:
        configured("runner", "delete", "--id", str(number))
    assert configured("runner-all", "list") == []


def test_it_tells_its_user_what_was_refused(
    running_portal: RunningPortal, stage: Cast, gitlab_command: GitlabCommand
) -> None:
    charlie = {"GITLAB_URL": running_portal.url, "GITLAB_PRIVATE_TOKEN": stage.access_token(stage.charlie)}
    refused = gitlab_command("runner-all", "list", **charlie)
    assert refused.returncode == 1
    assert "403 Forbidden - Only administrators see every runner." in refused.stderr
    missing = gitlab_command("runner", "get", "--id", "1", **charlie)
    assert (missing.returncode, "404 Runner Not Found" in missing.stderr) == (1, True)
    nobody = gitlab_command("runner", "list", GITLAB_URL=running_portal.url, GITLAB_PRIVATE_TOKEN="glpat-nobody")
    assert "401" in nobody.stderr
