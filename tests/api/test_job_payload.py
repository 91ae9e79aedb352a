"""A job as strict clients read it: every key there, each of its type, and nothing that loses the job."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from portal.domain.jobs.job_definitions import ArtifactsWanted, JobVariable, NewJob, Repository
from portal.domain.runners.runner_settings import RunnerSettings
from tests.api.machines import Machine, through
from tests.cast import Cast

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Strict(BaseModel):
    """What a client written in a typed language decodes: no key may be missing; more of them are passed over."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Variable(Strict):
    key: StrictStr = Field(min_length=1)
    value: StrictStr
    public: StrictBool
    masked: StrictBool
    file: StrictBool
    raw: StrictBool


class Step(Strict):
    name: StrictStr
    script: list[StrictStr]
    timeout: StrictInt
    when: StrictStr
    allow_failure: StrictBool


class Image(Strict):
    name: StrictStr
    alias: StrictStr
    command: list[StrictStr]
    entrypoint: list[StrictStr]
    ports: list[Any]
    variables: list[Variable]
    pull_policy: list[StrictStr]


class Artifacts(Strict):
    name: StrictStr
    untracked: StrictBool
    paths: list[StrictStr]
    exclude: list[StrictStr]
    when: StrictStr
    expire_in: StrictStr
    artifact_type: StrictStr
    artifact_format: StrictStr


class Git(Strict):
    repo_url: StrictStr
    ref: StrictStr
    sha: StrictStr = Field(min_length=8)  # gitlab-runner looks at the first eight characters without asking
    before_sha: StrictStr = Field(min_length=8)
    ref_type: StrictStr
    refspecs: list[StrictStr]
    depth: StrictInt
    repo_object_format: StrictStr


class JobInfo(Strict):
    name: StrictStr
    stage: StrictStr
    project_id: StrictInt
    project_name: StrictStr
    time_in_queue_seconds: StrictFloat
    project_jobs_running_on_instance_runners_count: StrictStr


class RunnerInfo(Strict):
    timeout: StrictInt


class Features(Strict):
    trace_sections: StrictBool
    token_mask_prefixes: list[StrictStr]
    failure_reasons: list[StrictStr]


class Payload(Strict):
    id: StrictInt
    token: StrictStr = Field(min_length=15, pattern="^glcbt-")
    allow_git_fetch: StrictBool
    job_info: JobInfo
    git_info: Git
    runner_info: RunnerInfo
    inputs: list[Any]
    variables: list[Variable]
    steps: list[Step]
    image: Image | None
    services: list[Image]
    artifacts: list[Artifacts]
    cache: list[Any]
    credentials: list[Any]
    dependencies: list[Any]
    features: Features
    secrets: dict[str, Any]
    hooks: list[Any]
    policy_options: dict[str, Any]


FULL = {
    "after_script": ("echo after",),
    "image": "alpine:3.20",
    "services": ("redis:7",),
    "variables": (JobVariable("KEY", "a value that is long", masked=True), JobVariable("FILE", "x", file=True)),
    "artifacts": ArtifactsWanted(("out",), expire_in="1 week"),
    "repository": Repository("https://git.example.com/acme/web.git", COMMIT),
    "timeout": 600,
}


@pytest.fixture
def machine(client: FlaskClient, cast: Cast) -> Machine:
    return Machine(through(client), cast.runner(settings=RunnerSettings(run_untagged=True)).token)


@pytest.mark.parametrize("asked", [{}, FULL], ids=["the least", "everything"])
def test_every_key_is_there_with_its_type(asked: dict[str, Any], cast: Cast, machine: Machine) -> None:
    cast.job(**asked)
    given = machine.ask_for_job().payload
    Payload.model_validate(given)
    assert "run" not in given  # gitlab-runner 18.9 and newer decodes it as JSON, and loses the job with an empty one


def test_a_check_is_a_job_like_any_other(cast: Cast, client: FlaskClient) -> None:
    issued = cast.runner()
    cast.check(issued.runner)
    given = Machine(through(client), issued.token).ask_for_job().payload
    Payload.model_validate(given)
    assert "run" not in given


@pytest.mark.parametrize("ref", ["x", "main", "release/1.2"])
@pytest.mark.parametrize("commit", ["", COMMIT, COMMIT[:8]])
def test_what_stands_for_the_commit_is_long_enough_for_every_client(
    ref: str, commit: str, cast: Cast, machine: Machine
) -> None:
    cast.job(ref=ref, repository=Repository("https://git.example.com/acme/web.git", commit))
    git = Git.model_validate(machine.ask_for_job().payload["git_info"])
    assert git.sha == commit or not commit
    assert git.ref == ref


def test_a_masked_variable_is_not_public(cast: Cast, machine: Machine) -> None:
    cast.job(variables=(JobVariable("OPEN", "1"), JobVariable("CLOSED", "long enough", masked=True)))
    told = {each["key"]: (each["public"], each["masked"]) for each in machine.ask_for_job().payload["variables"]}
    assert told["OPEN"] == (True, False)
    assert told["CLOSED"] == told["CI_JOB_TOKEN"] == (False, True)


def test_steps_say_when_and_for_how_long(cast: Cast, machine: Machine) -> None:
    cast.job(after_script=("echo after",), timeout=90)
    steps = machine.ask_for_job().payload["steps"]
    assert [(step["name"], step["when"], step["timeout"], step["allow_failure"]) for step in steps] == [
        ("script", "on_success", 90, False),
        ("after_script", "always", 90, True),
    ]


def test_the_cast_submits_what_the_test_means() -> None:
    assert NewJob("build", ("make",), **FULL).problems() == {}
