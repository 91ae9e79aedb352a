"""Why is it stuck, for scripts: a job's runners, runners for what no job asks yet, and a runner's pending jobs."""

from __future__ import annotations

import pytest

from portal.domain import scopes
from portal.domain.jobs import jobs
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import Job, Runner
from tests.api.for_users.conftest import ScriptOf
from tests.cast import Cast
from tests.runners import heard_of


@pytest.fixture
def runner(cast: Cast) -> Runner:
    return heard_of(cast)


@pytest.fixture
def job(cast: Cast, runner: Runner) -> Job:
    """A job of acme/web with a mistyped tag."""
    return cast.job(tags=("dcoker",))


def test_a_jobs_runners_have_their_reasons_with_codes_words_and_nearest_tags(
    script_of: ScriptOf, cast: Cast, runner: Runner, job: Job
) -> None:
    found = script_of(cast.bob).get(f"/projects/acme%2Fweb/jobs/{job.id}/runners")
    assert found["headline"] == "No runner can take it. Change the tag “dcoker” to “docker”, and 1 runner takes it."
    assert (found["can_take"], found["tag_list"], found["jobs_before"]) == (0, ["dcoker"], 0)
    assert found["remedy"] == {
        "change": "change_tags",
        "message": "Change the tag “dcoker” to “docker”, and 1 runner takes it.",
        "runner_ids": [runner.id],
        "changed_runner_id": None,
        "tag_list": ["docker"],
    }
    (only,) = found["runners"]
    assert (only["runner"]["id"], only["can_take"], only["readiness"]) == (runner.id, False, "ready")
    assert only["reason"] == {
        "code": "tags_missing",
        "message": "It lacks the tag “dcoker” (its nearest is “docker”).",
        "change": "Give the job “docker” in place of “dcoker”, or the runner the tag “dcoker”.",
        "nearest_tags": [{"tag": "dcoker", "nearest": "docker"}],
    }


def test_a_runner_that_takes_it_has_no_reason(script_of: ScriptOf, cast: Cast, runner: Runner) -> None:
    job = cast.job(tags=("docker",))
    found = script_of(cast.bob).get(f"/projects/{cast.web.id}/jobs/{job.id}/runners")
    assert [(each["can_take"], each["reason"]) for each in found["runners"]] == [(True, None)]
    assert (found["remedy"], found["can_take"]) == (None, 1)


def test_a_job_that_is_over_is_judged_as_if_it_were_run_again(script_of: ScriptOf, cast: Cast, job: Job) -> None:
    jobs.cancel(cast.session, cast.as_(cast.dana), job)
    cast.session.commit()
    found = script_of(cast.bob).get(f"/projects/acme%2Fweb/jobs/{job.id}/runners")
    assert (found["jobs_before"], len(found["runners"])) == (None, 1)


def test_a_developer_hears_of_runners_that_they_may_not_see_by_their_number_only(
    script_of: ScriptOf, cast: Cast, runner: Runner
) -> None:
    shared = heard_of(cast, scopes.INSTANCE)
    heard_of(cast, cast.web, RunnerSettings("secret", tags=("gpu",)))
    job = cast.job(tags=("docker",))
    found = script_of(cast.erin).get(f"/projects/acme%2Fweb/jobs/{job.id}/runners")
    assert [each["runner"]["id"] for each in found["runners"]] == [shared.id]
    assert (found["can_take"], found["hidden_can_take"], found["hidden_others"]) == (2, 1, 1)


def test_runners_are_found_for_tags_and_a_ref_without_a_job(script_of: ScriptOf, cast: Cast, runner: Runner) -> None:
    address = "/projects/acme%2Fweb/matching_runners"
    script = script_of(cast.erin, "read_api")
    assert script.get(address, tag_list="docker,linux")["can_take"] == 1
    found = script.get(address, tag_list="docker", ref="release/1", protected="true")
    assert (found["ref"], found["protected"], found["jobs_before"]) == ("release/1", True, None)
    assert script.get(address)["tag_list"] == []


def test_what_no_job_can_ask_is_refused_by_the_names_of_the_parameters(script_of: ScriptOf, cast: Cast) -> None:
    script = script_of(cast.bob)
    many = ",".join(f"t{number}" for number in range(60))
    refused = script.get("/projects/acme%2Fweb/matching_runners", expect=400, tag_list=many, ref="a b")
    assert set(refused["message"]) == {"tag_list", "ref"}


def test_a_runners_pending_jobs_are_those_that_it_could_take(script_of: ScriptOf, cast: Cast, runner: Runner) -> None:
    waiting = [cast.job(tags=("docker",)).id for _ in range(3)]
    cast.job(tags=("gpu",))
    script = script_of(cast.alice)
    found = script.get(f"/runners/{runner.id}/pending_jobs", per_page=2)
    assert [each["id"] for each in found["jobs"]] == waiting[:2]
    assert (found["total"], found["next_page"], found["left_out"]) == (3, 2, [])
    rest = script.get(f"/runners/{runner.id}/pending_jobs", per_page=2, page=2)
    assert ([each["id"] for each in rest["jobs"]], rest["next_page"]) == (waiting[2:], None)


def test_a_runner_that_takes_none_says_what_the_jobs_ask_for(
    script_of: ScriptOf, cast: Cast, runner: Runner, job: Job
) -> None:
    found = script_of(cast.alice).get(f"/runners/{runner.id}/pending_jobs")
    assert (found["jobs"], found["paused"]) == ([], False)
    (only,) = found["left_out"]
    assert (only["count"], only["tag_list"], only["reason"]["code"]) == (1, ["dcoker"], "tags_missing")


def test_a_token_that_manages_runners_reads_a_runners_pending_jobs_and_no_jobs_runners(
    script_of: ScriptOf, cast: Cast, runner: Runner, job: Job
) -> None:
    script = script_of(cast.alice, "manage_runner")
    script.get(f"/runners/{runner.id}/pending_jobs")
    script.get(f"/projects/acme%2Fweb/jobs/{job.id}/runners", expect=403)


@pytest.mark.parametrize("after", ["jobs/{job}/runners", "matching_runners"])
def test_who_may_not_see_the_project_finds_nothing(script_of: ScriptOf, cast: Cast, job: Job, after: str) -> None:
    address = f"/projects/acme%2Fweb/{after.format(job=job.id)}"
    script_of(cast.charlie).get(address, expect=404)
    script_of(cast.bob).get("/projects/acme%2Fweb/jobs/999999/runners", expect=404)
