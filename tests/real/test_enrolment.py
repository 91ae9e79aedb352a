"""The examples of an enrolment key's created page, as pasted: a real gitlab-runner enrols itself."""

from __future__ import annotations

import shutil
import subprocess
from datetime import timedelta

import orjson
import pytest
from sqlalchemy import select

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


@with_curl
@clients.each(since=(15, 11))
def test_the_pasted_shell_creates_a_runner_and_registers_this_machine(
    root: Person, process: Process, home: Home
) -> None:
    page = created(root)
    pasted = home.paste(block_on(page, "enrol"))
    assert pasted.returncode == 0, pasted.stdout
    assert "Runner registered successfully" in pasted.stdout
    with process.session() as session:
        runner = session.scalars(select(Runner)).one()
        assert runner.tag_list == ["docker"]
        assert runner.enrolled_with is not None
        manager = session.scalars(select(RunnerManager)).one()
        assert (manager.runner_id, manager.system_xid) == (runner.id, home.system_id)


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
    ran = home.paste("\n".join(line.removeprefix("      ") for line in script.splitlines()))
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
