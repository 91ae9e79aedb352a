"""The examples of an enrolment key are right as pasted, wherever the portal stands; tests/real runs them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from portal.domain import enrolment_examples
from portal.domain.instructions import Block
from portal.domain.scopes import INSTANCE
from tests.cast import Cast

KEY = "glenrol-0123456789abcdefghijklmnopq.0r0abcdef"
URLS = ["https://runners.acme.example", 'http://127.0.0.1:8080/a path/it\'s $HOME `id` "quoted" ${x}']


def blocks(url: str = URLS[0]) -> dict[str, Block]:
    found = enrolment_examples.sections(url=url, key=KEY, scope=INSTANCE)
    return {block.id: block for section in found for block in section.blocks}


@pytest.mark.parametrize("url", URLS)
def test_what_a_shell_reads_has_no_fault(url: str) -> None:
    shells = [block.text for block in blocks(url).values() if block.language == "bash"]
    assert len(shells) == 4
    for text in shells:
        subprocess.run(["bash", "-n", "-c", text], check=True, timeout=30)


@pytest.mark.parametrize("url", URLS)
def test_cloud_init_writes_a_script_that_bash_reads(url: str) -> None:
    config = yaml.safe_load(blocks(url)["cloud-init"].text)
    (file,) = config["write_files"]
    assert (file["path"], file["permissions"]) == ("/run/enrol-runner", "0700")
    assert file["content"].startswith("#!/bin/bash\nset -eu\n")
    assert KEY in file["content"]
    subprocess.run(["bash", "-n", "-c", file["content"]], check=True, timeout=30)
    assert config["runcmd"] == [["sh", "-c", "/run/enrol-runner; rm -f /run/enrol-runner"]]


@pytest.mark.parametrize("url", URLS)
def test_ansibles_task_is_yaml_and_holds_no_key(url: str) -> None:
    text = blocks(url)["ansible"].text
    (task,) = yaml.safe_load(text)
    assert task["ansible.builtin.uri"]["url"] == f"{url}/api/v4/user/runners"
    assert task["no_log"] is True
    assert KEY not in text


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
