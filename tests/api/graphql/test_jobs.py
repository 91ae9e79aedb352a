"""Jobs in queries: their fields, their lists, who sees them; and the mutations that stop them and run them again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.jobs import job_artifacts, job_lists, job_walks
from portal.domain.jobs.artifact_store import StoredFile
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE
from portal.models import AuditEvent, Job, JobMachine, JobStatus, Role, Runner, RunnerManager
from tests.api import machines
from tests.api.graphql.conftest import AskerOf
from tests.api.graphql.queries import NOT_AVAILABLE, Asker, gid
from tests.api.machines import Machine, through
from tests.cast import Cast

EVERYTHING = RunnerSettings(description="Takes all", tags=("docker", "linux"), run_untagged=True)
JOBS = 'query($statuses: [CiJobStatus!]) { project(fullPath: "acme/web") { jobs(statuses: $statuses) { %s } } }'
JOB = 'query($id: JobID!) { project(fullPath: "acme/web") { job(id: $id) { %s } } }'
NOT_YET = ("startedAt", "finishedAt", "erasedAt", "duration", "exitCode", "failureMessage", "failureReason")
OF_RUNNER = "query($id: CiRunnerID!) { runner(id: $id) { %s } }"


@pytest.fixture
def machine(app: Flask, cast: Cast) -> Machine:
    """A machine of a runner of acme that takes untagged jobs too."""
    return Machine(through(app.test_client()), cast.runner(settings=EVERYTHING).token)


def one(asker: Asker, job_id: int, wanted: str) -> Any:
    return asker.data(JOB % wanted, id=gid("Ci::Build", job_id))["project"]["job"]


def listed(asker: Asker, *statuses: str) -> list[str]:
    found = asker.data(JOBS % "nodes { name }", statuses=list(statuses) or None)["project"]["jobs"]
    return [each["name"] for each in found["nodes"]]


def of_runner(asker: Asker, runner_id: int | None, wanted: str) -> Any:
    return asker.data(OF_RUNNER % wanted, id=gid("Ci::Runner", runner_id))["runner"]


def runner_of(session: Session) -> Runner:
    return session.scalars(select(Runner)).one()


# ---- fields


def test_a_job_that_waits_tells_what_it_asks_for(cast: Cast, asker_of: AskerOf) -> None:
    job = cast.job(name="build", tags=("linux", "docker"), ref="release/2")
    wanted = f"""id name status refName tags active cancelable retryable retried kind allowFailure manualJob playable
        scheduled webPath {" ".join(NOT_YET)}
        runner {{ id }} runnerManager {{ id }} project {{ fullPath }} artifacts {{ count }}"""
    assert one(asker_of(cast.erin, "read_api"), job.id, wanted) == {
        "id": f"gid://gitlab/Ci::Build/{job.id}",
        "name": "build",
        "status": "PENDING",
        "refName": "release/2",
        "tags": ["docker", "linux"],
        "active": True,
        "cancelable": True,
        "retryable": False,
        "retried": False,
        "kind": "BUILD",
        "allowFailure": False,
        "manualJob": False,
        "playable": False,
        "scheduled": False,
        "webPath": f"/acme/web/-/jobs/{job.id}",
        **dict.fromkeys(NOT_YET),
        "runner": None,
        "runnerManager": None,
        "project": {"fullPath": "acme/web"},
        "artifacts": {"count": 0},
    }


def test_a_job_that_runs_tells_on_which_machine(
    cast: Cast, asker_of: AskerOf, machine: Machine, session: Session
) -> None:
    job = cast.job()
    machine.ask_for_job(system_id="r_thisonehasit")
    wanted = "status duration runner { id description } runnerManager { systemId jobExecutionStatus runner { id } }"
    runner = gid("Ci::Runner", runner_of(session).id)
    found = one(asker_of(cast.alice), job.id, wanted)
    assert found.pop("duration") in (0, 1)
    assert found == {
        "status": "RUNNING",
        "runner": {"id": runner, "description": "Takes all"},
        "runnerManager": {"systemId": "r_thisonehasit", "jobExecutionStatus": "ACTIVE", "runner": {"id": runner}},
    }


def test_the_machine_is_null_once_the_portal_has_forgotten_it(
    cast: Cast, asker_of: AskerOf, machine: Machine, session: Session
) -> None:
    job = cast.job()
    machine.ask_for_job().finish()
    session.execute(delete(RunnerManager))
    session.commit()
    found = one(asker_of(cast.alice), job.id, "runner { description } runnerManager { systemId }")
    assert found == {"runner": {"description": "Takes all"}, "runnerManager": None}
    assert session.scalars(select(JobMachine.job_id)).all() == [job.id]  # the link itself stays


def test_who_may_not_read_the_runner_sees_the_job_without_it(cast: Cast, asker_of: AskerOf, machine: Machine) -> None:
    job = cast.job()
    machine.ask_for_job()
    wanted = "status runner { id } runnerManager { id }"
    assert one(asker_of(cast.erin), job.id, wanted) == {"status": "RUNNING", "runner": None, "runnerManager": None}
    assert one(asker_of(cast.bob), job.id, wanted)["runner"] is not None  # who maintains what it serves reads it


def test_a_failed_job_tells_why_in_a_word_and_in_a_sentence(cast: Cast, asker_of: AskerOf, machine: Machine) -> None:
    job = cast.job()
    machine.ask_for_job().finish(state="failed", failure_reason="script_failure", exit_code=7)
    found = one(asker_of(cast.erin), job.id, "status exitCode failureReason failureMessage retryable")
    assert found.pop("failureMessage").startswith("A command failed")
    assert found == {"status": "FAILED", "exitCode": 7, "failureReason": "script_failure", "retryable": True}


def test_how_long_it_waited_and_ran_is_told_in_seconds(cast: Cast, asker_of: AskerOf, session: Session) -> None:
    job = cast.job()
    began = now() - timedelta(minutes=5)
    times = {"queued_at": began - timedelta(seconds=2.5), "started_at": began}
    session.execute(update(Job).values(**times, finished_at=began + timedelta(seconds=61.9), status="success"))
    session.commit()
    found = one(asker_of(cast.erin), job.id, "queuedDuration duration")
    assert found == {"queuedDuration": 2.5, "duration": 61}


def test_the_files_that_it_left_are_there_until_they_expire(
    cast: Cast, asker_of: AskerOf, machine: Machine, session: Session
) -> None:
    job = cast.job()
    machine.ask_for_job()
    for number, (kind, expiry) in enumerate({"archive": "1 week", "junit": "1 second"}.items()):
        label = job_artifacts.labelled(artifact_type=kind, artifact_format="gzip", expire_in=expiry)
        file = StoredFile(f"key{number}", 5_000_000_000, bytes(32))
        job_artifacts.keep(session, job, label, file, at=now() - timedelta(minutes=1), usual=None)
    session.commit()
    wanted = "artifacts { count nodes { name fileType size expireAt } }"
    found = one(asker_of(cast.erin), job.id, wanted)["artifacts"]
    assert found["nodes"][0].pop("expireAt") > now().isoformat()
    assert found == {"count": 1, "nodes": [{"name": "artifacts.gz", "fileType": "ARCHIVE", "size": "5000000000"}]}


# ---- lists


def test_a_projects_jobs_are_listed_newest_first_and_by_status_and_name(
    cast: Cast, asker_of: AskerOf, machine: Machine
) -> None:
    for name in ("one", "two", "three"):
        cast.job(name=name)
    cast.job(cast.project("api", cast.acme), name="elsewhere")
    machine.ask_for_job().finish()
    erin = asker_of(cast.erin)
    assert listed(erin) == ["three", "two", "one"]
    assert listed(erin, "SUCCESS") == ["one"]
    assert listed(erin, "PENDING", "RUNNING", "MANUAL") == ["three", "two"]
    assert listed(erin, "MANUAL") == []
    query = '{ project(fullPath: "acme/web") { jobs(name: "T") { count nodes { name } } } }'
    assert erin.data(query)["project"]["jobs"] == {"count": 2, "nodes": [{"name": "three"}, {"name": "two"}]}


def test_a_list_of_jobs_is_paged_both_ways(cast: Cast, asker_of: AskerOf) -> None:
    for number in range(5):
        cast.job(name=str(number))
    erin = asker_of(cast.erin)
    query = """query($first: Int, $last: Int, $after: String, $before: String) { project(fullPath: "acme/web") {
        jobs(first: $first, last: $last, after: $after, before: $before) { count nodes { name }
        pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } } }"""

    def page(**window: Any) -> tuple[str, bool, bool, dict[str, Any]]:
        found = erin.data(query, **window)["project"]["jobs"]
        assert found["count"] == 5
        info = found["pageInfo"]
        names = "".join(each["name"] for each in found["nodes"])
        return names, info["hasPreviousPage"], info["hasNextPage"], info

    *first, info = page(first=2)
    assert first == ["43", False, True]
    *second, info = page(first=2, after=info["endCursor"])
    assert second == ["21", True, True]
    assert page(first=2, after=info["endCursor"])[:3] == ("0", True, False)
    assert page(last=2)[:3] == ("10", True, False)
    assert page(last=2, before=info["startCursor"])[:3] == ("43", False, True)
    assert page(last=1, before=info["startCursor"])[:3] == ("3", True, True)
    assert page(first=0)[0] == ""


def test_counts_stop_at_one_more_than_the_limit(
    cast: Cast, asker_of: AskerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        cast.job()
    erin = asker_of(cast.erin)
    assert erin.data(JOBS % "count(limit: 2) all: count")["project"]["jobs"] == {"count": 3, "all": 4}
    assert erin.errors(JOBS % "count(limit: 1001)") == ["`limit` is a number from 1 to 1000."]
    monkeypatch.setattr(job_lists, "COUNTED", 3)
    assert erin.data(JOBS % "count")["project"]["jobs"] == {"count": 4}


def test_a_count_of_which_not_all_was_looked_at_is_one_more_than_the_limit(
    cast: Cast, asker_of: AskerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lint", "build", "build", "lint"):
        cast.job(name=name)
    monkeypatch.setattr(job_walks, "COUNTED", 3)
    query = '{ project(fullPath: "acme/web") { jobs(name: "lint") { count two: count(limit: 2) } } }'
    assert asker_of(cast.erin).data(query)["project"]["jobs"] == {"count": 1001, "two": 3}
    monkeypatch.setattr(job_walks, "COUNTED", 4)
    assert asker_of(cast.erin).data(query)["project"]["jobs"] == {"count": 2, "two": 2}


def test_a_runners_jobs_are_those_that_the_asker_may_see_and_its_count_is_of_all(
    cast: Cast, asker_of: AskerOf, machine: Machine, session: Session
) -> None:
    secret = cast.project("secret", cast.acme)
    for scope, name in ((cast.web, "seen"), (secret, "hidden"), (cast.web, "waits")):
        cast.job(scope, name=name)
    machine.ask_for_job().finish()
    machine.ask_for_job()
    wanted = """jobExecutionStatus jobCount done: jobCount(statuses: [SUCCESS]) other: jobCount(statuses: [MANUAL])
        jobs { count nodes { name } }"""
    runner_id = runner_of(session).id
    counted = {"jobExecutionStatus": "ACTIVE", "jobCount": 2, "done": 1, "other": 0}
    assert of_runner(asker_of(cast.bob), runner_id, wanted) == {
        **counted,
        "jobs": {"count": 1, "nodes": [{"name": "seen"}]},
    }
    assert of_runner(asker_of(cast.alice), runner_id, wanted) == {
        **counted,
        "jobs": {"count": 2, "nodes": [{"name": "hidden"}, {"name": "seen"}]},
    }


def test_a_check_belongs_to_no_project_and_its_page_is_its_runners(
    cast: Cast, asker_of: AskerOf, machine: Machine, session: Session
) -> None:
    check = cast.check(runner_of(session))
    machine.ask_for_job()
    wanted = "jobs { nodes { id status webPath project { id } userPermissions { cancelBuild } } }"
    assert of_runner(asker_of(cast.alice), runner_of(session).id, wanted)["jobs"]["nodes"] == [
        {
            "id": gid("Ci::Build", check.id),
            "status": "RUNNING",
            "webPath": f"/groups/acme/-/runners/{runner_of(session).id}/checks/{check.id}",
            "project": None,
            "userPermissions": {"cancelBuild": True},
        }
    ]
    assert of_runner(asker_of(cast.bob), runner_of(session).id, wanted)["jobs"]["nodes"] == []
    assert one(asker_of(cast.alice), check.id, "id") is None  # it is none of this project's


def test_jobs_are_asked_of_one_runner_at_a_time(cast: Cast, asker_of: AskerOf) -> None:
    for _ in range(2):
        cast.runner(settings=EVERYTHING)
    query = '{ group(fullPath: "acme") { runners { nodes { jobs { count } } } } }'
    said = "'jobs' can be asked of one CiRunner at a time: start from runner(id: …) for each."
    assert asker_of(cast.alice).errors(query) == [said]


def test_the_same_project_of_many_jobs_answers_with_the_same_list(
    cast: Cast, asker_of: AskerOf, session: Session
) -> None:
    for number in range(3):
        cast.job(name=str(number))
    wanted = "nodes { project { jobs(first: 1) { nodes { name } } } }"
    found = asker_of(cast.erin).data(JOBS % wanted)["project"]["jobs"]["nodes"]
    assert found == [{"project": {"jobs": {"nodes": [{"name": "2"}]}}}] * 3


def test_machines_of_a_runner_tell_which_of_them_works(
    cast: Cast, asker_of: AskerOf, machine: Machine, session: Session
) -> None:
    cast.job()
    machine.ask_for_job(system_id="r_works")
    machine.poll(system_id="r_waits")
    wanted = "managers { nodes { systemId jobExecutionStatus } }"
    found = of_runner(asker_of(cast.alice), runner_of(session).id, wanted)["managers"]["nodes"]
    assert {each["systemId"]: each["jobExecutionStatus"] for each in found} == {
        "r_works": "ACTIVE",
        "r_waits": "IDLE",
    }


# ---- who sees them


def test_a_projects_jobs_are_for_reporters_and_above(cast: Cast, asker_of: AskerOf, visitor: Asker) -> None:
    job = cast.job()
    gina, rita = cast.person("gina"), cast.person("rita")
    cast.member(gina, cast.web, Role.GUEST)
    cast.member(rita, cast.web, Role.REPORTER)
    cast.session.commit()
    for user in (rita, cast.erin, cast.bob, cast.alice, cast.dana):
        assert listed(asker_of(user)) == ["build"]
        assert one(asker_of(user), job.id, "name") == {"name": "build"}
    guest = asker_of(gina).whole(JOBS % "count")
    assert guest["data"] == {"project": {"jobs": None}}
    assert [each["message"] for each in guest["errors"]] == [NOT_AVAILABLE]
    assert one(asker_of(gina), job.id, "name") is None
    for stranger in (asker_of(cast.charlie), visitor):
        assert stranger.data(JOBS % "count") == {"project": None}


def test_a_job_is_found_in_its_own_project_only(cast: Cast, asker_of: AskerOf) -> None:
    elsewhere = cast.job(cast.project("api", cast.acme))
    assert one(asker_of(cast.dana), elsewhere.id, "name") is None
    assert one(asker_of(cast.dana), 999_999, "name") is None


def test_what_one_may_do_with_a_job_is_told(cast: Cast, asker_of: AskerOf, session: Session) -> None:
    open_, closed = cast.job(), cast.job(protected=True)
    rita = cast.person("rita")
    cast.member(rita, cast.web, Role.REPORTER)
    session.commit()
    wanted = "userPermissions { readBuild readJobArtifacts updateBuild cancelBuild }"

    def able(user: Any, job: Job) -> bool:
        found = one(asker_of(user), job.id, wanted)["userPermissions"]
        assert (found["readBuild"], found["readJobArtifacts"]) == (True, True)
        assert found["updateBuild"] is found["cancelBuild"]
        return bool(found["cancelBuild"])

    assert [able(user, open_) for user in (rita, cast.erin, cast.bob)] == [False, True, True]
    assert [able(user, closed) for user in (rita, cast.erin, cast.bob)] == [False, False, True]


# ---- mutations


def trail(session: Session) -> list[str]:
    session.expire_all()
    query = select(AuditEvent.action).where(AuditEvent.action.like("job_%")).order_by(AuditEvent.id)
    return [each for each in session.scalars(query) if each != "job_submitted"]


def test_a_job_is_canceled(cast: Cast, asker_of: AskerOf, session: Session) -> None:
    job = cast.job()
    payload = asker_of(cast.erin).change("jobCancel", "job { id status finishedAt }", id=gid("Ci::Build", job.id))
    assert payload["job"].pop("finishedAt") is not None
    assert payload == {
        "clientMutationId": None,
        "errors": [],
        "job": {"id": gid("Ci::Build", job.id), "status": "CANCELED"},
    }
    assert trail(session) == ["job_canceled"]
    again = asker_of(cast.erin).change("jobCancel", "job { id }", id=gid("Ci::Build", job.id))
    assert (again["job"], again["errors"]) == (None, ["This job is over already (canceled)."])


def test_a_running_job_is_asked_to_stop_or_stopped_at_once(cast: Cast, asker_of: AskerOf, machine: Machine) -> None:
    job = cast.job()
    machine.info = machines.info_of("18.6.6")
    assert machine.ask_for_job().report("running").status == 200
    erin, given = asker_of(cast.erin), gid("Ci::Build", job.id)
    assert erin.change("jobCancel", "job { status }", id=given)["job"] == {"status": "CANCELING"}
    assert erin.change("jobCancel", "job { status }", id=given, force=True)["job"] == {"status": "CANCELED"}


def test_a_job_that_is_over_is_run_again_as_another_one(
    cast: Cast, asker_of: AskerOf, machine: Machine, session: Session
) -> None:
    job = cast.job(script=("make",))
    machine.ask_for_job().finish(state="failed", failure_reason="script_failure")
    erin = asker_of(cast.erin)
    payload = erin.change("jobRetry", "job { id name status }", id=gid("Ci::Build", job.id))
    assert payload["job"].pop("id") != gid("Ci::Build", job.id)
    assert payload["job"] == {"name": "build", "status": "PENDING"}
    assert one(erin, job.id, "retried retryable") == {"retried": True, "retryable": False}
    assert machine.ask_for_job().payload["steps"][0]["script"] == ["make"]
    assert trail(session) == ["job_retried"]
    twice = erin.change("jobRetry", "job { id }", id=gid("Ci::Build", job.id))
    assert twice["errors"] == ["This job was run again already. Run the newest one again."]


def test_the_variables_of_gitlabs_own_mutations_fit(cast: Cast, asker_of: AskerOf) -> None:
    job, erin = cast.job(), asker_of(cast.erin)
    cancel = "mutation($id: CiBuildID!) { jobCancel(input: {id: $id}) { job { id } errors } }"
    retry = "mutation($id: CiProcessableID!) { jobRetry(input: {id: $id}) { job { id } errors } }"
    assert erin.data(cancel, id=gid("Ci::Build", job.id))["jobCancel"]["errors"] == []
    assert erin.data(retry, id=gid("Ci::Build", job.id))["jobRetry"]["errors"] == []


@pytest.mark.parametrize("mutation", ["jobCancel", "jobRetry"])
def test_who_may_not_hears_the_same_as_for_no_job(
    cast: Cast, asker_of: AskerOf, visitor: Asker, session: Session, mutation: str
) -> None:
    protected, check = cast.job(protected=True), cast.check(cast.runner(settings=EVERYTHING).runner)
    rita = cast.person("rita")
    cast.member(rita, cast.web, Role.REPORTER)
    session.commit()
    askers = [asker_of(cast.charlie), asker_of(rita), asker_of(cast.erin), visitor]
    for asker in askers:
        for number in (protected.id, check.id, 999_999):
            assert asker.refused(mutation, id=gid("Ci::Build", number)) == [NOT_AVAILABLE]
    session.expire_all()
    assert {each.state for each in session.scalars(select(Job))} == {JobStatus.PENDING}


def test_a_check_is_canceled_and_run_again_by_who_looks_after_the_runner(
    cast: Cast, asker_of: AskerOf, session: Session
) -> None:
    check = cast.check(cast.runner(INSTANCE, EVERYTHING).runner)
    given = gid("Ci::Build", check.id)
    assert asker_of(cast.alice).refused("jobCancel", id=given) == [NOT_AVAILABLE]
    dana = asker_of(cast.dana)
    assert dana.change("jobCancel", "job { status }", id=given)["job"] == {"status": "CANCELED"}
    assert dana.change("jobRetry", "job { status project { id } }", id=given)["job"] == {
        "status": "PENDING",
        "project": None,
    }
