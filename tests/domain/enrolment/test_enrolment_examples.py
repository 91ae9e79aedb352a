"""The examples of an enrolment key are right as pasted, wherever the portal stands; tests/real runs them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from portal.domain.enrolment import enrolment_examples
from portal.domain.runners.instructions import Block
from portal.domain.scopes import INSTANCE
from tests.cast import Cast

KEY = "glenrol-0123456789abcdefghijklmnopq.0r0abcdef"
URLS = ["https://runners.acme.example", 'http://127.0.0.1:8080/a path/it\'s $HOME `id` "quoted" ${x}']


def blocks(url: str = URLS[0]) -> dict[str, Block]:
    found = enrolment_examples.sections(url=url, key=KEY, scope=INSTANCE)
    return {block.id: block for section in found for block in section.blocks}


SHELLS = [each for each in ("bash", "dash", "zsh") if shutil.which(each)]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("url", URLS)
def test_what_a_shell_reads_has_no_fault(url: str, shell: str) -> None:
    shells = [block.text for block in blocks(url).values() if block.language == "bash"]
    assert len(shells) == 4
    for text in shells:
        subprocess.run([shell, "-n", "-c", text], check=True, timeout=30)


@pytest.mark.parametrize("url", URLS)
def test_cloud_init_writes_a_script_that_every_shell_reads_and_keeps_it_after_a_failure(url: str) -> None:
    config = yaml.safe_load(blocks(url)["cloud-init"].text)
    (file,) = config["write_files"]
    assert (file["path"], file["permissions"]) == ("/root/enrol-runner", "0700")
    assert file["content"].startswith("#!/bin/sh\nset -eu\n")
    assert KEY in file["content"]
    for shell in SHELLS:
        subprocess.run([shell, "-n", "-c", file["content"]], check=True, timeout=30)
    assert config["runcmd"] == [["sh", "-c", "/root/enrol-runner && rm -f /root/enrol-runner"]]


@pytest.mark.parametrize("url", URLS)
def test_ansibles_playbook_is_yaml_holds_no_key_and_hides_only_what_is_secret(url: str) -> None:
    text = blocks(url)["ansible"].text
    (play,) = yaml.safe_load(text)
    there, create, refused, keep, register = play["tasks"]
    assert "gitlab-runner --version" in there.values()
    assert create["ansible.builtin.uri"]["url"] == f"{url}/api/v4/user/runners"
    assert create["ansible.builtin.uri"]["status_code"] == [200, 201]
    assert [bool(task.get("no_log")) for task in (create, refused, keep, register)] == [True, False, True, False]
    assert keep["when"] == "created.status == 201"
    assert register["ansible.builtin.shell"]["removes"] == keep["ansible.builtin.copy"]["dest"]
    subprocess.run(["sh", "-n", "-c", register["ansible.builtin.shell"]["cmd"]], check=True, timeout=30)
    assert KEY not in text


@pytest.mark.parametrize("block", ["enrol", "curl", "terraform-apply", "ansible-run"])
def test_what_holds_the_key_says_that_the_shells_history_keeps_it(block: str) -> None:
    assert "The shell's history keeps the key" in blocks()[block].note


@pytest.mark.skipif(shutil.which("terraform") is None, reason="there is no terraform")
@pytest.mark.parametrize("url", URLS)
def test_terraform_reads_its_file_as_it_would_write_it(tmp_path: Path, url: str) -> None:
    (tmp_path / "main.tf").write_text(blocks(url)["terraform"].text + "\n")
    subprocess.run(["terraform", "fmt", "-check", "-diff", str(tmp_path)], check=True, timeout=60)


def test_terraform_names_the_keys_scope_and_holds_no_key(cast: Cast) -> None:
    found = enrolment_examples.sections(url=URLS[0], key=KEY, scope=cast.web)
    text = next(block.text for section in found for block in section.blocks if block.id == "terraform")
    assert 'runner_type = "project_type"' in text
    assert f"project_id  = {cast.web.id}" in text
    assert "early_auth_check = false" in text
    assert KEY not in text


def test_the_key_is_on_no_command_line() -> None:
    for block in blocks().values():
        for line in block.text.splitlines():
            if KEY in line:
                assert line.strip().split("=")[0] in (
                    "enrolment_key", "export GITLAB_TOKEN", "export ENROLMENT_KEY", "header ",
                )  # fmt: skip
