"""Real gitlab-runner binaries run jobs with the shell executor; the portal keeps what the scripts wrote."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from portal.domain.jobs.job_definitions import ArtifactsWanted, JobVariable, Repository
from portal.models import JobMachine, JobStatus
from tests.real import clients
from tests.real.clients import Home
from tests.real.job_stage import Stage, repository

every_client = clients.each()
CANCELS_GRACEFULLY = (16, 11)
TELLS_EXIT_CODES = (13, 7)
MEBIBYTE = 1 << 20


@pytest.fixture
def machine(stage: Stage, home: Home) -> Iterator[Home]:
    """The machine of the runner, which polls until the test is over."""
    stage.configure(home)
    with home.running():
        yield home


def text_of(size: int, seed: int = 1) -> bytes:
    """Lines of this many bytes together, always the same ones, with letters of one to four bytes each."""
    chance = random.Random(seed)  # noqa: S311
    letters = [*"abcdefghijklmnopqrstuvwxyz 0123456789", "ä", "ß", "€", "→", "木", "𝄞", "🚀"]
    block = "\n".join("".join(chance.choices(letters, k=chance.randint(0, 200))) for _ in range(1000)).encode()
    lines, found = block.split(b"\n"), bytearray(b"begin\n")
    while len(found) < size:
        found += b"%08d " % len(found) + chance.choice(lines) + b"\n"
    return bytes(found) + b"end\n"


def written(folder: Path, content: bytes) -> Path:
    """A file that a script can show."""
    path = folder / "text"
    path.write_bytes(content)
    return path


@every_client
def test_jobs_succeed_and_fail_as_their_scripts_do(stage: Stage, machine: Home) -> None:
    good = stage.submit("echo hello", "echo more", after_script=("echo after all",))
    bad = stage.submit("echo before", "exit 42", "echo never", after_script=("echo after $CI_JOB_STATUS",))
    job = stage.ended(good)
    assert (job.state, job.failure_reason) == (JobStatus.SUCCESS, None)
    log = stage.log(good)
    assert b"\nhello\n" in log
    assert b"\nafter all\n" in log
    assert b"Job succeeded" in log
    job = stage.ended(bad)
    assert (job.state, job.failure_reason, job.exit_code) == (JobStatus.FAILED, "script_failure", 42)
    log = stage.log(bad)
    assert b"\nbefore\n" in log
    assert b"\nnever\n" not in log
    assert b"\nafter failed\n" in log
    with_machine = stage.session.scalars(select(JobMachine.system_xid)).all()
    system_id = machine.system_id if machine.client.number >= (15, 8) else "<legacy>"
    assert with_machine == [system_id] * 2


@every_client
def test_variables_arrive_as_they_are_and_masked_ones_do_not_appear(stage: Stage, machine: Home) -> None:
    secret, other = "s3cret-and-long", "p@ss:w0rd/long+1="
    job = stage.submit(
        'echo "masked=$MASKED other=$OTHER"',
        'echo "raw=$RAW expanded=$EXPANDED"',
        'echo "file=$(cat "$FILE")"',
        'test "$MASKED" = "$(printf s3cret; printf %s -and-long)" && echo "it is the right one"',
        'echo "token=$CI_JOB_TOKEN ref=$CI_COMMIT_REF_NAME path=$CI_PROJECT_PATH"',
        variables=(
            JobVariable("MASKED", secret, masked=True),
            JobVariable("OTHER", other, masked=True),
            JobVariable("RAW", "$HOME and $$MASKED", raw=True),
            JobVariable("EXPANDED", "in-$CI_PROJECT_NAME"),
            JobVariable("FILE", "one\ntwo $HOME\n", file=True, raw=True),
        ),
    )
    assert stage.ended(job).state is JobStatus.SUCCESS, stage.log(job).decode()
    log = stage.log(job).decode()
    assert secret not in log
    assert other not in log
    assert not re.search(r"glcbt-\w{4}", log)
    assert "masked=[MASKED] other=[MASKED]" in log
    assert "it is the right one" in log
    assert "expanded=in-web\n" in log
    # 15.11 masks the token twice, once by what it begins with, and leaves that behind.
    assert re.search(r"token=\[MASKED\](glcbt-)? ref=main path=acme/web\n", log)
    if machine.client.number >= (15, 7):  # older ones expand raw variables too
        assert "raw=$HOME and $$MASKED" in log
        assert "file=one\ntwo $HOME\n" in log


@every_client
def test_a_job_that_is_canceled_by_force_stops_at_once(stage: Stage, machine: Home) -> None:
    job = stage.submit("echo started", "sleep 300", after_script=("echo never",))
    stage.writes(job, b"started")
    assert stage.cancel(job, force=True) is JobStatus.CANCELED
    size = len(stage.log(job))
    after = stage.submit("echo the next one")
    assert stage.ended(after, seconds=90).state is JobStatus.SUCCESS
    assert stage.job(job).state is JobStatus.CANCELED
    assert len(stage.log(job)) == size


@clients.each(since=CANCELS_GRACEFULLY)
def test_a_job_that_is_canceled_gently_runs_its_after_script(stage: Stage, machine: Home) -> None:
    job = stage.submit("echo started", "sleep 300", after_script=("echo cleaned up",))
    stage.writes(job, b"started")
    assert stage.cancel(job) is JobStatus.CANCELING
    assert stage.ended(job, seconds=90).state is JobStatus.CANCELED
    assert b"\ncleaned up\n" in stage.log(job)


@clients.each(before=CANCELS_GRACEFULLY)
def test_an_older_one_is_stopped_where_newer_ones_are_asked(stage: Stage, machine: Home) -> None:
    job = stage.submit("echo started", "sleep 300", after_script=("echo never",))
    stage.writes(job, b"started")
    assert stage.cancel(job) is JobStatus.CANCELED
    assert stage.ended(stage.submit("true"), seconds=90).state is JobStatus.SUCCESS


@every_client
@pytest.mark.parametrize(("asked", "limit"), [(10, None), (3600, 10)])
def test_a_job_ends_at_its_timeout_or_the_runners_whichever_is_shorter(
    stage: Stage, home: Home, asked: int, limit: int | None
) -> None:
    if limit is not None:
        stage.limit_runner(limit)
    stage.configure(home)
    job = stage.submit("echo started", "sleep 300", timeout=asked)
    with home.running():
        ended = stage.ended(job, seconds=90)
    assert (ended.state, ended.failure_reason) == (JobStatus.FAILED, "job_execution_timeout")
    assert ended.effective_timeout == 10
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert 9 < (ended.finished_at - ended.started_at).total_seconds() < 60


@every_client
def test_a_long_log_is_kept_byte_for_byte(stage: Stage, machine: Home) -> None:
    text = text_of(20 * MEBIBYTE)
    job = stage.submit(f"cat {written(machine.folder, text)}")
    assert stage.ended(job, seconds=240).state is JobStatus.SUCCESS
    assert text in stage.log(job)


@every_client
def test_a_restart_of_the_portal_in_the_middle_of_a_job_loses_nothing(stage: Stage, machine: Home) -> None:
    job = stage.submit("for number in $(seq 1 20); do echo line $number; sleep 1; done")
    stage.writes(job, b"line 2\n")
    stage.portal.stop()
    time.sleep(3)
    stage.portal.start()
    assert stage.ended(job, seconds=120).state is JobStatus.SUCCESS
    assert b"".join(b"line %d\n" % number for number in range(1, 21)) in stage.log(job)


@every_client
def test_kill_9_of_the_portal_in_the_middle_of_a_log_loses_nothing(stage: Stage, machine: Home) -> None:
    text = text_of(6 * MEBIBYTE, seed=2)
    path = written(machine.folder, text)
    parts = 24
    size = len(text) // parts + 1
    job = stage.submit(
        f"for part in $(seq 0 {parts - 1}); do dd if={path} bs={size} skip=$part count=1 status=none; sleep 0.5; done"
    )
    for begun in (1, 9, 17):
        stage.writes(job, text[size * begun : size * begun + 200])
        stage.portal.kill()
        stage.portal.start()
    assert stage.ended(job, seconds=120).state is JobStatus.SUCCESS
    assert text in stage.log(job)


@every_client
def test_a_repository_is_checked_out_by_branch_by_commit_and_by_tag(
    stage: Stage, machine: Home, tmp_path: Path
) -> None:
    bare, first, newest = repository(tmp_path)
    url = f"file://{bare}"
    show = ("cat file", "git log -1 --format='at %H'")
    wanted = {
        stage.submit(*show, repository=Repository(url)): (b"\nmain 2\n", newest),
        stage.submit(*show, repository=Repository(url, first)): (b"\nmain 1\n", first),
        stage.submit(*show, repository=Repository(url), ref="x"): (b"\nx\n", ""),
        stage.submit(*show, repository=Repository(url), ref="v1"): (b"\nmain 1\n", first),
        stage.submit(*show, repository=Repository(url, first[:10])): (b"\nmain 1\n", first),
        stage.submit(*show, repository=Repository(url)): (b"\nmain 2\n", newest),
    }
    for job, (line, commit) in wanted.items():
        assert stage.ended(job).state is JobStatus.SUCCESS, stage.log(job).decode()
        assert line in stage.log(job)
        assert f"\nat {commit}".encode() in stage.log(job)


@every_client
def test_what_one_job_leaves_the_next_one_finds(stage: Stage, machine: Home, tmp_path: Path) -> None:
    text = text_of(MEBIBYTE, seed=3)
    source, seen = written(tmp_path, text), tmp_path / "seen"
    left = stage.submit(
        "mkdir -p out/deep", f"cp {source} out/deep/text", artifacts=ArtifactsWanted(("out",), expire_in="1 day")
    )
    assert stage.ended(left).state is JobStatus.SUCCESS, stage.log(left).decode()
    found = stage.submit(f"cp out/deep/text {seen}", needs=(left,))
    assert stage.ended(found).state is JobStatus.SUCCESS, stage.log(found).decode()
    assert seen.read_bytes() == text
