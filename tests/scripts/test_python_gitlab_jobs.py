"""python-gitlab goes through every call that it has for jobs; submission, which is ours, goes by its plain HTTP."""

from __future__ import annotations

import gitlab
import pytest
from gitlab.exceptions import GitlabGetError, GitlabHttpError, GitlabJobCancelError, GitlabJobRetryError

from tests.api.for_users.test_jobs import DETAILS, JOB
from tests.api.machines import Job, Machine, over_http
from tests.cast import Cast
from tests.portals import RunningPortal

PROJECT = "acme/web"
SUBMIT = "/projects/acme%2Fweb/jobs"


def submit(who: gitlab.Gitlab, **wanted: object) -> int:
    """The library has no call for it; this is how its users ask."""
    answer = who.http_post(SUBMIT, post_data={"name": "build", "script": ["make"], **wanted})
    assert isinstance(answer, dict)
    return int(answer["id"])


@pytest.fixture
def machine(running_portal: RunningPortal, stage: Cast) -> Machine:
    return Machine(over_http(running_portal.url), stage.runner(stage.web).token)


def took(machine: Machine) -> Job:
    job = machine.wait_for_job()
    assert job.report("running").status == 200
    return job


def test_jobs_are_submitted_listed_and_read(dana: gitlab.Gitlab, stage: Cast) -> None:
    made = [submit(dana, tag_list=["docker"], variables={"LEVEL": "debug"}) for _ in range(5)]
    project = dana.projects.get(PROJECT)
    assert [each.id for each in project.jobs.list(get_all=True, per_page=2)] == made[::-1]
    assert [each.id for each in project.jobs.list(scope=["pending", "running"], iterator=True)] == made[::-1]
    assert project.jobs.list(scope="success") == []
    keyset = project.jobs.list(pagination="keyset", order_by="id", per_page=2, iterator=True)
    assert [each.id for each in keyset] == made[::-1]
    job = project.jobs.get(made[0])
    assert set(job.attributes) - {"project_id"} == JOB | DETAILS  # which the library adds
    assert (job.status, job.tag_list, job.user["username"]) == ("pending", ["docker"], "dana")


def test_a_job_runs_and_its_log_is_read_as_it_grows(dana: gitlab.Gitlab, machine: Machine) -> None:
    number = submit(dana, tag_list=["docker"])
    held, job = took(machine), dana.projects.get(PROJECT).jobs.get(number)
    held.write(b"one\n")
    assert job.trace() == b"one\n"
    held.write(b"two\n", 4)
    held.finish(b"one\ntwo\n")
    assert b"".join(job.trace(iterator=True)) == b"one\ntwo\n"
    job.refresh()
    assert (job.status, job.runner_manager["system_id"]) == ("success", "r_machine00001")
    (listed,) = dana.runners.get(job.runner["id"]).jobs.list(status="success", order_by="id", sort="asc")
    assert (listed.id, listed.project["path_with_namespace"]) == (number, PROJECT)
    with pytest.raises(GitlabGetError):
        job.artifacts()  # it left none


def test_a_job_is_canceled_run_again_and_erased(dana: gitlab.Gitlab, machine: Machine) -> None:
    project = dana.projects.get(PROJECT)
    job = project.jobs.get(submit(dana, tag_list=["docker"]))
    assert job.cancel()["status"] == "canceled"
    with pytest.raises(GitlabJobCancelError, match="over already"):
        job.cancel()
    second = project.jobs.get(job.retry()["id"])
    with pytest.raises(GitlabJobRetryError, match="not over yet"):
        second.retry()
    held = took(machine)
    held.write(b"a secret by mistake\n")
    held.finish(b"a secret by mistake\n")
    second.erase()
    second.refresh()
    assert (second.erased_at is not None, second.trace()) == (True, b"")


def test_what_is_wrong_is_told_in_its_exceptions(dana: gitlab.Gitlab, alice: gitlab.Gitlab, stage: Cast) -> None:
    with pytest.raises(GitlabHttpError, match="script is missing"):
        dana.http_post(SUBMIT, post_data={"name": "build"})
    with pytest.raises(GitlabHttpError, match="letters, digits and _"):
        submit(dana, variables={"1A": "x"})
    with pytest.raises(GitlabGetError, match="404 Job Not Found"):
        alice.projects.get(PROJECT).jobs.get(999_999)


def test_a_project_settles_its_jobs(alice: gitlab.Gitlab, stage: Cast) -> None:
    project = alice.projects.get(PROJECT)
    project.shared_runners_enabled, project.build_timeout = False, 7200
    project.save()
    again = alice.projects.get(PROJECT)
    assert (again.shared_runners_enabled, again.group_runners_enabled, again.build_timeout) == (False, True, 7200)
