"""`/projects/:id/jobs`: submitted, listed, read, stopped, run again and erased, as GitLab's clients know jobs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.jobs import job_definitions
from portal.domain.jobs.artifact_store import ArtifactStore
from portal.domain.jobs.job_definitions import ArtifactsWanted, JobVariable, Repository
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import AuditEvent, Job, JobArtifact, JobLog, JobStatus, Role, RunnerManager
from tests import artifacts
from tests.api.for_users.conftest import ScriptOf
from tests.api.for_users.runner_attributes import IN_LIST, MANAGER
from tests.api.for_users.scripts import API
from tests.api.machines import Job as MachinesJob
from tests.api.machines import Machine, through
from tests.api.test_any_body import anything, calm
from tests.cast import JOB_VAULT, Cast
from tests.domain.queries import asked

JOBS = "/projects/acme%2Fweb/jobs"
JOB = {
    *("id", "status", "stage", "name", "ref", "tag", "coverage", "allow_failure", "created_at", "started_at"),
    *("finished_at", "erased_at", "duration", "queued_duration", "user", "commit", "pipeline", "web_url", "project"),
    *("artifacts", "runner", "runner_manager", "artifacts_expire_at", "archived", "tag_list"),
    *("exit_code", "protected", "timeout", "retried", "retry_of_id", "checks_runner_id"),  # ours
}
DETAILS = {  # ours, too, and told of one job only
    *("script", "after_script", "image", "services", "variable_names", "repository", "needs", "needed_by"),
    "retries_left",
}
WHOLE = {"name": "build", "script": ["make"]}


@pytest.fixture
def machine(app: Flask, cast: Cast) -> Machine:
    """A machine of a runner of acme that takes everything."""
    settings = RunnerSettings(description="Takes all", tags=("docker", "linux"), run_untagged=True)
    return Machine(through(app.test_client()), cast.runner(settings=settings).token)


@pytest.fixture
def in_folder(app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    """The portal's artifacts lie in a folder of this test's."""
    store = ArtifactStore(artifacts.settings(tmp_path))
    monkeypatch.setitem(app.extensions, "artifact_store", store)
    return store


def took(machine: Machine) -> MachinesJob:
    """The job that the machine takes, and acknowledges."""
    job = machine.ask_for_job()
    assert job.report("running").status == 200
    return job


def again(session: Session, job_id: int) -> Job:
    session.expire_all()
    return session.get_one(Job, job_id)


def ids(jobs: list[dict[str, Any]]) -> list[int]:
    return [each["id"] for each in jobs]


def test_one_job_tells_what_it_runs_and_no_secret(script_of: ScriptOf, cast: Cast) -> None:
    needed = cast.job()
    job = cast.job(
        after_script=("make clean",),
        image="alpine:3.20",
        services=("postgres:16",),
        variables=(JobVariable("TOKEN", "open sesame"),),
        repository=Repository("https://me:secret@git.example.com/web.git", "0123abcd"),
        needs=(needed.id,),
        retry=2,
    )
    shown = script_of(cast.erin).get(f"{JOBS}/{job.id}")
    assert set(shown) == JOB | DETAILS
    assert {name: shown[name] for name in DETAILS} == {
        "script": ["make"],
        "after_script": ["make clean"],
        "image": "alpine:3.20",
        "services": ["postgres:16"],
        "variable_names": ["TOKEN"],
        "repository": {"url": "https://…@git.example.com/web.git", "commit": "0123abcd"},
        "needs": [needed.id],
        "needed_by": [],
        "retries_left": 2,
    }
    assert script_of(cast.erin).get(f"{JOBS}/{needed.id}")["needed_by"] == [job.id]


# Submitting


def test_a_job_is_submitted_with_everything_that_can_be_said_of_it(
    script_of: ScriptOf, cast: Cast, session: Session
) -> None:
    needed = cast.job()
    shown = script_of(cast.bob).post(
        JOBS,
        name="build",
        script=["make", "make test"],
        after_script=["make clean"],
        image="alpine:3.20",
        services=["postgres:16"],
        tag_list=["linux", "docker"],
        ref="release/1.2",
        protected=True,
        variables=[{"key": "TOKEN", "value": "open sesame", "masked": True, "raw": True}, {"key": "LEVEL"}],
        timeout=600,
        artifacts={"paths": ["out/"], "exclude": ["out/tmp"], "when": "always", "expire_in": "1 week", "name": "out"},
        repository={"url": "https://me:secret@git.example.com/web.git", "commit": "0123abcd"},
        retry=2,
        needs=[needed.id],
    )
    assert set(shown) == JOB
    assert (shown["status"], shown["stage"], shown["name"], shown["ref"]) == (
        "pending",
        "test",
        "build",
        "release/1.2",
    )
    assert (shown["tag_list"], shown["protected"], shown["timeout"]) == (["docker", "linux"], True, 600)
    assert (shown["user"]["username"], shown["project"]["path_with_namespace"]) == ("bob", "acme/web")
    assert (shown["runner"], shown["runner_manager"], shown["started_at"], shown["duration"]) == (None,) * 4
    assert shown["web_url"] == f"https://portal.example.com/acme/web/-/jobs/{shown['id']}"
    asked_for = job_definitions.opened(again(session, shown["id"]).definition, JOB_VAULT)
    assert asked_for == job_definitions.NewJob(
        name="build",
        script=("make", "make test"),
        after_script=("make clean",),
        image="alpine:3.20",
        services=("postgres:16",),
        tags=("linux", "docker"),
        ref="release/1.2",
        protected=True,
        variables=(JobVariable("TOKEN", "open sesame", masked=True, raw=True), JobVariable("LEVEL")),
        timeout=600,
        artifacts=ArtifactsWanted(("out/",), ("out/tmp",), "out", "always", "1 week"),
        repository=Repository("https://me:secret@git.example.com/web.git", "0123abcd"),
        retry=2,
        needs=(needed.id,),
    )
    event = session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc())).first()
    assert event is not None
    assert (event.action, event.actor_name.startswith("Bob Ray (access token")) == ("job_submitted", True)
    assert "sesame" not in str(event.changes)


def test_a_name_and_a_script_are_enough_and_a_form_will_do(app: Flask, script_of: ScriptOf, cast: Cast) -> None:
    script = script_of(cast.erin)
    fields = {"name": "build", "script": "make\r\nmake test\n", "variables[LEVEL]": "debug", "tags": "linux,docker"}
    answer = app.test_client().post(API + JOBS, data=fields, headers={"PRIVATE-TOKEN": script.token})
    assert answer.status_code == 201
    asked_for = job_definitions.opened(again(cast.session, answer.get_json()["id"]).definition, JOB_VAULT)
    assert (asked_for.script, asked_for.ref) == (("make", "make test"), "main")
    assert (asked_for.variables, asked_for.tags) == ((JobVariable("LEVEL", "debug"),), ("linux", "docker"))


def test_variables_may_be_an_object_and_their_values_numbers_and_flags(script_of: ScriptOf, cast: Cast) -> None:
    made = script_of(cast.erin).post(JOBS, **WHOLE, variables={"A": "x", "B": 1.5, "C": True, "D": None})
    found = job_definitions.opened(again(cast.session, made["id"]).definition, JOB_VAULT).variables
    assert [(each.key, each.value) for each in found] == [("A", "x"), ("B", "1.5"), ("C", "true"), ("D", "")]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"script": 7}, "script is invalid: a list of lines, or one text of lines"),
        ({"script": None}, "script is invalid: a list of lines, or one text of lines"),
        ({"variables": [{"key": "A", "maskd": True}]}, "variables is invalid: a list of objects with key, value"),
        ({"variables": [{"value": "A"}]}, "variables is invalid"),
        ({"variables": {"A": []}}, "variables is invalid: the value of a variable is a text"),
        ({"variables": [{"key": "A", "masked": "yes"}]}, "masked, file and raw of a variable are true or false"),
        ({"artifacts": {"exclude": ["x"]}}, "artifacts is invalid: an object with paths"),
        ({"artifacts": {"paths": ["x"], "pathes": []}}, "artifacts is invalid: an object with paths"),
        ({"repository": "https://git.example.com/x.git"}, "repository is invalid: an object with url"),
        ({"timeout": "1h"}, "timeout is invalid: a whole number"),
        ({"tag_list": ["a"], "tags": ["b"]}, "tag_list, tags are mutually exclusive"),
        ({"needs": ["x"]}, "needs is invalid"),
    ],
)
def test_what_is_of_a_wrong_kind_is_told_in_gitlabs_words(
    script_of: ScriptOf, cast: Cast, wrong: dict[str, Any], said: str
) -> None:
    assert said in script_of(cast.bob).post(JOBS, expect=400, **{**WHOLE, **wrong})["error"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": " "}, "name"),
        ({"script": []}, "script"),
        ({"image": "two words"}, "image"),
        ({"ref": "with space"}, "ref"),
        ({"tag_list": ["x" * 300]}, "tag_list"),
        ({"tags": ["x" * 300]}, "tag_list"),
        ({"variables": {"1A": "x"}}, "variables"),
        ({"timeout": 1}, "timeout"),
        ({"artifacts": {"paths": ["/etc"]}}, "artifacts"),
        ({"repository": {"url": "nothing"}}, "repository"),
        ({"retry": 3}, "retry"),
        ({"needs": [10**15]}, "needs"),
    ],
)
def test_a_value_that_cannot_be_taken_is_told_beside_its_parameter(
    script_of: ScriptOf, cast: Cast, session: Session, wrong: dict[str, Any], field: str
) -> None:
    answer = script_of(cast.bob).post(JOBS, expect=400, **{**WHOLE, **wrong})
    assert set(answer["message"]) == {field}
    assert session.scalars(select(Job)).all() == []


@calm
@hypothesis_given(
    st.dictionaries(st.sampled_from(["name", "script", "variables", "artifacts", "repository"]), anything)
)
def test_no_body_makes_the_portal_fail(script_of: ScriptOf, cast: Cast, wrong: dict[str, Any]) -> None:
    assert script_of(cast.bob).ask("POST", JOBS, **{**WHOLE, **wrong}).status_code in (201, 400)


def test_the_same_request_sent_again_makes_no_second_job(script_of: ScriptOf, cast: Cast, session: Session) -> None:
    script, headers = script_of(cast.bob), {"Idempotency-Key": "one-job-please"}
    asked_for = {**WHOLE, "variables": {"PASSWORD": "open sesame"}}
    first = script.ask("POST", JOBS, headers=headers, **asked_for)
    second = script.ask("POST", JOBS, headers=headers, **asked_for)
    assert (first.status_code, second.status_code) == (201, 200)
    assert (second.headers["Idempotent-Replayed"], second.get_json()["id"]) == ("true", first.get_json()["id"])
    assert script.ask("POST", JOBS, headers=headers, **{**asked_for, "ref": "other"}).status_code == 422
    assert script.ask("POST", JOBS, headers={"Idempotency-Key": "two words"}, **asked_for).status_code == 400
    assert script_of(cast.erin).ask("POST", JOBS, headers=headers, **asked_for).status_code == 201
    assert len(session.scalars(select(Job)).all()) == 2


def test_who_may_submit(script_of: ScriptOf, cast: Cast) -> None:
    reporter = cast.person("rita")
    cast.member(reporter, cast.acme, Role.REPORTER)
    cast.session.commit()
    assert script_of(cast.charlie).post(JOBS, expect=404, **WHOLE) == {"message": "404 Project Not Found"}
    assert "run jobs" in script_of(reporter).post(JOBS, expect=403, **WHOLE)["message"]
    assert "protected refs" in script_of(cast.erin).post(JOBS, expect=403, **WHOLE, protected=True)["message"]
    assert script_of(cast.erin, "read_api").post(JOBS, expect=403, **WHOLE)["error"] == "insufficient_scope"


# Lists


def test_jobs_are_listed_newest_first_in_pages(script_of: ScriptOf, cast: Cast) -> None:
    made = [cast.job(name=f"job {number}").id for number in range(5)]
    answer = script_of(cast.erin, "read_api").ask("GET", JOBS, per_page=2, page=2)
    assert ids(answer.get_json()) == made[::-1][2:4]
    told = {name: answer.headers[name] for name in ("X-Page", "X-Next-Page", "X-Prev-Page", "X-Total")}
    assert told == {"X-Page": "2", "X-Next-Page": "3", "X-Prev-Page": "1", "X-Total": "5"}
    assert set(answer.get_json()[0]) == JOB
    assert ids(script_of(cast.erin).get(JOBS, sort="asc")) == made


@pytest.mark.parametrize("sort", ["asc", "desc"])
def test_a_list_is_walked_by_its_links(script_of: ScriptOf, cast: Cast, sort: str) -> None:
    made = [cast.job().id for _ in range(5)]
    script, path, seen = script_of(cast.erin), f"{JOBS}?pagination=keyset&per_page=2&sort={sort}", []
    while path:
        answer = script.ask("GET", path)
        assert "X-Total" not in answer.headers
        seen += ids(answer.get_json())
        link = re.fullmatch(
            r"<https://portal.example.com/api/v4([^>]+)>; rel=\"next\"", answer.headers.get("Link", "")
        )
        path = link[1] if link else ""
    assert seen == (made if sort == "asc" else made[::-1])
    assert "no cursor" in script.get(JOBS, expect=400, pagination="keyset", cursor="x")["message"]


def test_filters_narrow_the_list(script_of: ScriptOf, cast: Cast, machine: Machine) -> None:
    failed = cast.job(name="build app", retry=1).id
    took(machine).finish(state="failed", failure_reason="script_failure")
    running = took(machine).id
    tagged = cast.job(name="deploy", tags=("big", "linux"), ref="release/1").id
    cast.job(cast.project("api", cast.acme))
    script = script_of(cast.erin)
    assert ids(script.get(JOBS)) == [tagged, running, failed]
    for wanted, expected in (
        ({"scope": "running"}, [running]),
        ({"scope[]": ["running", "failed"]}, [running, failed]),
        ({"scope[]": ["running", "manual"]}, [running]),
        ({"scope": "created"}, []),
        ({"include_retried": "false"}, [tagged, running]),
        ({"ref": "release/1"}, [tagged]),
        ({"tag": "linux"}, [tagged]),
        ({"search": "BUILD"}, [running, failed]),
        ({"name": "deploy"}, [tagged]),
        ({"search": f"#{failed}"}, [failed]),
    ):
        assert ids(script.get(JOBS, **wanted)) == expected, wanted
    assert "scope does not have a valid value" in script.get(JOBS, expect=400, scope="busy")["error"]


def test_many_jobs_take_as_many_statements_as_one(
    script_of: ScriptOf, cast: Cast, machine: Machine, in_folder: ArtifactStore, session: Session
) -> None:
    script = script_of(cast.erin)

    def run_one() -> None:
        cast.job()
        held = took(machine)
        artifacts.keep(session, in_folder, session.get_one(Job, held.id))
        held.finish()

    def statements() -> int:
        session.expire_all()
        with asked(session) as found:
            assert len(script.get(JOBS)) == len(session.scalars(select(Job.id)).all())
        return len(found)

    run_one()
    script.get(JOBS)
    few = statements()
    for _ in range(4):
        run_one()
    assert statements() == few < 20


def test_who_may_read_jobs(script_of: ScriptOf, cast: Cast) -> None:
    job, guest = cast.job(), cast.person("gus")
    cast.member(guest, cast.acme, Role.GUEST)
    cast.session.commit()
    for after in ("", f"/{job.id}", f"/{job.id}/trace"):
        assert script_of(cast.charlie).get(JOBS + after, expect=404) == {"message": "404 Project Not Found"}
        assert "see its jobs" in script_of(guest).get(JOBS + after, expect=403)["message"]
    api = cast.project("api", cast.acme)
    cast.session.commit()
    assert script_of(cast.erin).get(f"/projects/{api.id}/jobs/{job.id}", expect=404) == {
        "message": "404 Job Not Found"
    }


# One job


def test_a_job_that_ran_tells_how_and_on_which_machine(
    script_of: ScriptOf, cast: Cast, machine: Machine, in_folder: ArtifactStore, session: Session
) -> None:
    cast.job()
    held = took(machine)
    running = script_of(cast.erin).get(f"{JOBS}/{held.id}")
    assert (running["status"], running["runner"]["job_execution_status"]) == ("running", "active")
    assert (running["duration"] is not None, running["finished_at"]) == (True, None)
    artifacts.keep(session, in_folder, session.get_one(Job, held.id), b"12345", filename="out.zip")
    held.finish(state="failed", failure_reason="script_failure", exit_code=7)
    shown = script_of(cast.erin).get(f"{JOBS}/{held.id}")
    assert set(shown) == JOB | DETAILS | {"failure_reason", "artifacts_file"}
    assert (shown["status"], shown["failure_reason"], shown["exit_code"]) == ("failed", "script_failure", 7)
    assert shown["queued_duration"] >= 0
    assert set(shown["runner"]) == IN_LIST - {"created_by"}
    assert (shown["runner"]["description"], shown["runner"]["job_execution_status"]) == ("Takes all", "idle")
    assert set(shown["runner_manager"]) == MANAGER
    assert (shown["runner_manager"]["system_id"], shown["runner_manager"]["ip_address"]) == ("r_machine00001", None)
    assert shown["artifacts_file"] == {"filename": "out.zip", "size": 5}
    assert [(each["file_type"], each["file_format"]) for each in shown["artifacts"]] == [("archive", "zip")]
    assert shown["artifacts_expire_at"] is not None
    assert script_of(cast.alice).get(f"{JOBS}/{held.id}")["runner_manager"]["ip_address"] == "127.0.0.1"


def test_a_machine_that_is_forgotten_is_still_named(
    script_of: ScriptOf, cast: Cast, machine: Machine, session: Session
) -> None:
    cast.job()
    took(machine).finish()
    gone = session.scalars(select(RunnerManager)).one()
    number = gone.id
    session.delete(gone)
    session.commit()
    (shown,) = script_of(cast.erin).get(JOBS)
    told = {name: value for name, value in shown["runner_manager"].items() if value is not None}
    assert told == {"id": number, "system_id": "r_machine00001"}


def test_a_log_is_read_as_it_was_written(script_of: ScriptOf, cast: Cast, machine: Machine) -> None:
    cast.job()
    held, script, log = took(machine), script_of(cast.erin, "read_api"), "grün\x1b[0m\n".encode() * 30_000
    assert script.ask("GET", f"{JOBS}/{held.id}/trace").data == b""
    held.write(log[:100_000])
    assert script.ask("GET", f"{JOBS}/{held.id}/trace").data == log[:100_000]
    held.write(log[100_000:], 100_000)
    answer = script.ask("GET", f"{JOBS}/{held.id}/trace")
    assert (answer.data == log, answer.mimetype, answer.headers["X-Content-Type-Options"]) == (
        True,
        "text/plain",
        "nosniff",
    )
    assert answer.headers["Content-Length"] == str(len(log))


def test_who_reads_a_running_log_has_its_machine_send_it_sooner(
    app: Flask, script_of: ScriptOf, cast: Cast, machine: Machine
) -> None:
    cast.job()
    held = took(machine)
    script_of(cast.erin).ask("GET", f"{JOBS}/{held.id}/trace")
    assert app.extensions["log_watches"].take() != {}


# Stopping, running again, erasing


def test_a_waiting_job_is_canceled_at_once(script_of: ScriptOf, cast: Cast, machine: Machine) -> None:
    job = cast.job()
    script = script_of(cast.erin)
    assert script.post(f"{JOBS}/{job.id}/cancel")["status"] == "canceled"
    assert machine.poll().status == 204
    assert "over already" in script.post(f"{JOBS}/{job.id}/cancel", expect=409)["message"]


def test_a_running_job_is_canceled_gently_or_by_force(script_of: ScriptOf, cast: Cast, machine: Machine) -> None:
    cast.job()
    held, script = took(machine), script_of(cast.erin)
    assert script.post(f"{JOBS}/{held.id}/cancel")["status"] == "canceling"
    assert held.report("running").headers["Job-Status"] == "canceling"
    assert script.post(f"{JOBS}/{held.id}/cancel", force=True)["status"] == "canceled"


def test_a_job_that_is_over_is_run_again_once(script_of: ScriptOf, cast: Cast, machine: Machine) -> None:
    job = cast.job()
    script = script_of(cast.erin)
    assert "not over yet" in script.post(f"{JOBS}/{job.id}/retry", expect=409)["message"]
    took(machine).finish(state="failed")
    second = script.post(f"{JOBS}/{job.id}/retry")
    assert (second["status"], second["retry_of_id"], second["user"]["username"]) == ("pending", job.id, "erin")
    assert script.get(f"{JOBS}/{job.id}")["retried"] is True
    assert "again already" in script.post(f"{JOBS}/{job.id}/retry", expect=409)["message"]


def test_an_erased_job_has_neither_log_nor_artifacts(
    script_of: ScriptOf, cast: Cast, machine: Machine, in_folder: ArtifactStore, session: Session, tmp_path: Path
) -> None:
    cast.job()
    held, script = took(machine), script_of(cast.erin)
    held.write(b"a secret by mistake\n")
    artifacts.keep(session, in_folder, session.get_one(Job, held.id))
    assert "not over yet" in script.post(f"{JOBS}/{held.id}/erase", expect=409)["message"]
    held.finish(b"a secret by mistake\n")
    assert artifacts.files_in(tmp_path) != []
    shown = script.post(f"{JOBS}/{held.id}/erase")
    assert (shown["status"], shown["erased_at"] is not None, shown["artifacts"]) == ("success", True, [])
    assert script.ask("GET", f"{JOBS}/{held.id}/trace").data == b""
    assert session.get_one(JobLog, held.id, populate_existing=True).size == 0
    assert (session.scalars(select(JobArtifact)).all(), artifacts.files_in(tmp_path)) == ([], [])
    assert "erased already" in script.post(f"{JOBS}/{held.id}/erase", expect=409)["message"]


@pytest.mark.parametrize("act", ["cancel", "retry", "erase"])
def test_who_reads_jobs_only_stops_and_repeats_none(
    script_of: ScriptOf, cast: Cast, session: Session, act: str
) -> None:
    job, rita = cast.job(ref="v1", protected=True), cast.person("rita")
    cast.member(rita, cast.acme, Role.REPORTER)
    session.commit()
    for who in (rita, cast.erin):  # a developer runs nothing on protected refs
        assert script_of(who).ask("POST", f"{JOBS}/{job.id}/{act}").status_code == 403
    assert script_of(cast.charlie).ask("POST", f"{JOBS}/{job.id}/{act}").status_code == 404
    assert script_of(cast.bob, "read_api").ask("POST", f"{JOBS}/{job.id}/{act}").status_code == 403
    assert again(session, job.id).state is JobStatus.PENDING
