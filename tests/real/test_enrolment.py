"""The examples of an enrolment key's created page, as pasted: a real gitlab-runner enrols itself."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
from sqlalchemy import func, select

from portal.database import now
from portal.models import EnrolmentKey, Runner, RunnerManager
from tests.api.people import Person, block_on
from tests.api.processes import Process
from tests.real import clients
from tests.real.clients import Home

KEYS = "/admin/enrolment-keys"
with_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


def created(root: Person, **fields: str) -> str:
    """The page of a new key."""
    tomorrow = (now().date() + timedelta(days=1)).isoformat()
    chosen = {"name": "Machines", "tags": "docker", "most_runners": "2", "expires_at": tomorrow, **fields}
    answer = root.send(f"{KEYS}/new", **chosen)
    page = answer.body.decode()
    assert "is shown once" in page, page
    return page


def kept(home: Home) -> list[Path]:
    """What the machine keeps for a retry."""
    return sorted(home.folder.glob(".enrol-runner-*"))


def runners(process: Process) -> int:
    with process.session() as session:
        return session.scalar(select(func.count()).select_from(Runner)) or 0


each_shell = pytest.mark.parametrize(
    "shell",
    [
        pytest.param(each, marks=pytest.mark.skipif(shutil.which(each) is None, reason=f"there is no {each}"))
        for each in ("bash", "dash", "zsh")
    ],
)


@with_curl
@each_shell
@clients.each(since=(15, 11))
def test_the_pasted_shell_creates_a_runner_and_registers_this_machine(
    root: Person, process: Process, home: Home, shell: str
) -> None:
    page = created(root)
    pasted = home.paste(block_on(page, "enrol"), shell)
    assert pasted.returncode == 0, pasted.stdout
    assert "Runner registered successfully" in pasted.stdout
    assert kept(home) == []
    with process.session() as session:
        runner = session.scalars(select(Runner)).one()
        assert runner.tag_list == ["docker"]
        assert runner.enrolled_with is not None
        manager = session.scalars(select(RunnerManager)).one()
        assert (manager.runner_id, manager.system_xid) == (runner.id, home.system_id)


@with_curl
@each_shell
@clients.each(since=(15, 11))
def test_without_gitlab_runner_no_use_of_the_key_is_burnt(
    root: Person, process: Process, home: Home, shell: str
) -> None:
    (home.folder / "bin" / "gitlab-runner").unlink()
    pasted = home.paste(block_on(created(root), "enrol"), shell)
    assert pasted.returncode == 1
    assert "No runner was created: root finds no gitlab-runner here." in pasted.stdout
    assert (runners(process), kept(home)) == (0, [])


@with_curl
@each_shell
@clients.each(since=(15, 11))
def test_after_a_failed_registration_pasting_it_again_takes_the_same_runner(
    root: Person, process: Process, home: Home, shell: str
) -> None:
    text = block_on(created(root), "enrol")
    failed = home.paste(text, shell, RUNNER_EXECUTOR="", CONFIG_FILE="/proc/nowhere/config.toml")
    assert failed.returncode == 1, failed.stdout
    assert "then paste this again" in failed.stdout
    (file,) = kept(home)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = home.paste(text, shell)
    assert again.returncode == 0, again.stdout
    assert (runners(process), kept(home)) == (1, [])


@with_curl
@clients.each(since=(15, 11))
def test_after_a_lost_answer_pasting_it_again_makes_no_second_runner_and_says_what_to_do(
    root: Person, process: Process, home: Home
) -> None:
    text, cut = block_on(created(root), "enrol"), home.folder / "bin" / "curl"
    cut.write_text(f'#!/bin/sh\n{shutil.which("curl")} "$@" >/dev/null\nexit 56\n')
    cut.chmod(0o700)
    assert home.paste(text).returncode != 0
    cut.unlink()
    again = home.paste(text)
    assert again.returncode == 1
    assert "cannot be shown again. If it is lost, reset it" in again.stdout
    assert f"remove {kept(home)[0]} to make another" in again.stdout
    assert runners(process) == 1


@with_curl
@clients.each(since=(15, 11))
def test_a_refusal_is_printed_and_nothing_is_registered(root: Person, process: Process, home: Home) -> None:
    page = created(root, networks="192.0.2.0/24")
    pasted = home.paste(block_on(page, "enrol"))
    assert pasted.returncode == 1
    assert "may not be used from 127.0.0.1" in pasted.stdout
    assert not home.config.exists()
    with process.session() as session:
        assert session.scalars(select(EnrolmentKey.runners_created)).one() == 0


@with_curl
@clients.each(since=(15, 11))
def test_the_script_of_cloud_init_does_the_same(root: Person, process: Process, home: Home) -> None:
    text = block_on(created(root), "cloud-init")
    script = text.split("content: |\n")[1].split("runcmd:")[0]
    ran = home.paste("\n".join(line.removeprefix("      ") for line in script.splitlines()), "sh")
    assert ran.returncode == 0, ran.stdout
    with process.session() as session:
        assert session.scalars(select(RunnerManager)).one().system_xid == home.system_id


@with_curl
def test_the_pasted_curl_answers_with_a_token(root: Person) -> None:
    page = created(root)
    ran = subprocess.run(
        ["bash", "-c", block_on(page, "curl")], capture_output=True, text=True, timeout=60, check=True
    )
    assert orjson.loads(ran.stdout)["token"].startswith("glrt-t1_")


@pytest.mark.skipif(shutil.which("ansible-playbook") is None, reason="there is no ansible-playbook")
@clients.each(since=(15, 11))
def test_the_playbook_registers_the_machine_and_repeated_changes_nothing(
    root: Person, process: Process, home: Home
) -> None:
    page = created(root)
    playbook, hosts = home.folder / "playbook.yml", home.folder / "hosts"
    playbook.write_text(block_on(page, "ansible").replace("/root/", f"{home.folder}/"))
    hosts.write_text(
        f"here ansible_connection=local ansible_become=false ansible_python_interpreter={sys.executable}\n"
    )
    run = "\n".join(("cd ~", block_on(page, "ansible-run")))
    first = home.paste(run)
    assert first.returncode == 0, first.stdout
    assert "changed=3" in first.stdout
    assert "glrt-" not in first.stdout
    again = home.paste(run)
    assert again.returncode == 0, again.stdout
    assert "changed=0" in again.stdout
    assert (runners(process), kept(home)) == (1, [])
    with process.session() as session:
        assert session.scalars(select(RunnerManager)).one().system_xid == home.system_id


@pytest.mark.skipif(shutil.which("ansible-playbook") is None, reason="there is no ansible-playbook")
@clients.each(since=(15, 11))
def test_the_playbook_says_why_it_was_refused_and_not_with_which_key(
    root: Person, process: Process, home: Home
) -> None:
    page = created(root, networks="192.0.2.0/24")
    (home.folder / "playbook.yml").write_text(block_on(page, "ansible").replace("/root/", f"{home.folder}/"))
    (home.folder / "hosts").write_text(
        f"here ansible_connection=local ansible_become=false ansible_python_interpreter={sys.executable}\n"
    )
    ran = home.paste("\n".join(("cd ~", block_on(page, "ansible-run"))))
    assert ran.returncode != 0
    assert "may not be used from 127.0.0.1" in ran.stdout
    assert "glenrol-" not in ran.stdout
