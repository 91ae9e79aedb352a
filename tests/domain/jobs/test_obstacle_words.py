"""What is said of a runner that does not take a job, and the one change that would help most."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.jobs import obstacle_words, remedies
from portal.domain.jobs.job_matching import Demand, Obstacle, Offer, obstacle
from portal.domain.jobs.obstacle_words import Likeness, is_slip
from portal.domain.jobs.remedies import Change, Remedy
from portal.models import RunnerType

PROJECT, GROUP = 7, 3
DOCKER = Offer(1, RunnerType.INSTANCE, frozenset({"docker", "linux"}), run_untagged=False)


def job(*tags: str, **more: object) -> Demand:
    return replace(Demand(frozenset(tags), project_id=PROJECT, group_ids=(GROUP,)), **more)  # type: ignore[arg-type]


def said(demand: Demand, runner: Offer, ref: str = "") -> tuple[str, str]:
    code = obstacle(demand, runner)
    assert code is not None
    reason = obstacle_words.reason(demand, runner, code, Likeness(), ref)
    assert reason.code is code
    return reason.message, reason.change


def advice(demand: Demand, *offers: Offer, ref: str = "") -> Remedy | None:
    titles = {each.runner_id: f"Runner {each.runner_id}" for each in offers}
    return remedies.cheapest(demand, offers, Likeness(), titles, ref=ref)


def test_a_mistyped_tag_is_named_with_the_nearest_one() -> None:
    assert said(job("dcoker"), DOCKER) == (
        "It lacks the tag “dcoker” (its nearest is “docker”).",
        "Give the job “docker” in place of “dcoker”, or the runner the tag “dcoker”.",
    )


def test_all_missing_tags_are_named_and_each_has_its_nearest() -> None:
    reason = obstacle_words.reason(job("dcoker", "gpu", "linux"), DOCKER, Obstacle.TAGS_MISSING, Likeness())
    assert reason.message == "It lacks the tags “dcoker” (its nearest is “docker”) and “gpu”."
    assert reason.change == "Give the runner the tags “dcoker” and “gpu”, or run the job without."
    assert reason.nearest_tags == {"dcoker": "docker", "gpu": None}


def test_a_tag_that_the_job_has_already_is_no_nearest_one() -> None:
    reason = obstacle_words.reason(job("docker", "docker2"), DOCKER, Obstacle.TAGS_MISSING, Likeness())
    assert reason.nearest_tags == {"docker2": None}


@pytest.mark.parametrize(
    ("demand", "offer", "message", "change"),
    [
        (job("docker"), replace(DOCKER, paused=True), "It is paused.", "Resume it."),
        (
            job(),
            DOCKER,
            "The job has no tags, and it takes tagged jobs only.",
            "Give the job one of its tags, such as “docker” or “linux”, or let the runner take untagged jobs.",
        ),
        (
            job("docker"),
            replace(DOCKER, protected=True),
            "It takes jobs on protected refs only, and “topic” does not count as protected.",
            "Run the job on a protected ref, add “topic” to the project’s protected refs and run it again, or let "
            "the runner take any ref.",
        ),
        (
            job("docker", instance_runners=False),
            DOCKER,
            "The project takes no instance runners.",
            "Let instance runners take its jobs, in the project’s job settings.",
        ),
        (
            job("docker", group_runners=False),
            replace(DOCKER, type=RunnerType.GROUP, group_id=GROUP),
            "The project takes no group runners.",
            "Let group runners take its jobs, in the project’s job settings.",
        ),
        (
            job("docker"),
            replace(DOCKER, type=RunnerType.GROUP, group_id=99),
            "It belongs to a group that the project is not in.",
            "Use a runner of the project, of a group above it, or of the instance.",
        ),
        (
            job("docker"),
            replace(DOCKER, type=RunnerType.PROJECT, project_ids=frozenset({99})),
            "It serves other projects.",
            "Assign it to this project too.",
        ),
        (
            job("docker", runner_id=99),
            DOCKER,
            "The job is a check of another runner, or of another machine.",
            "Check this runner instead.",
        ),
    ],
)
def test_each_rule_has_words_and_what_would_change_it(
    demand: Demand, offer: Offer, message: str, change: str
) -> None:
    assert said(demand, offer, "topic") == (message, change)


@pytest.mark.parametrize(
    ("demand", "offer", "change"),
    [
        (
            job("gpu"),
            replace(DOCKER, paused=True),
            "Resume it. That alone would not do: it lacks the tag “gpu”.",
        ),
        (
            job(instance_runners=False),
            DOCKER,
            "Let instance runners take its jobs, in the project’s job settings. That alone would not do: the job has "
            "no tags, and it takes tagged jobs only.",
        ),
        (
            job("docker", group_runners=False),
            replace(DOCKER, type=RunnerType.GROUP, group_id=GROUP, paused=True),
            "Let group runners take its jobs, in the project’s job settings. That alone would not do: it is paused.",
        ),
    ],
)
def test_a_change_that_is_not_enough_says_so(demand: Demand, offer: Offer, change: str) -> None:
    assert said(demand, offer)[1] == change


def test_a_protected_ref_alone_may_not_be_enough_either() -> None:
    assert said(job("gpu"), replace(DOCKER, protected=True))[1].endswith(
        "That alone would not do: it lacks the tag “gpu”."
    )


@pytest.mark.parametrize("code", Obstacle)
@pytest.mark.parametrize("kind", RunnerType)
def test_no_rule_is_without_words(code: Obstacle, kind: RunnerType) -> None:
    reason = obstacle_words.reason(job("a"), replace(DOCKER, type=kind), code, Likeness())
    assert reason.message.endswith(".")
    assert reason.change.endswith(".")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dcoker", "docker"),
        ("dockr", "docker"),
        ("dockerr", "docker"),
        ("Docker", "docker"),
        ("docker-x", "docker_x"),
    ],
)
def test_one_slip_of_the_finger_is_one(one: str, other: str) -> None:
    assert is_slip(one, other)
    assert is_slip(other, one)


@pytest.mark.parametrize(
    ("one", "other"), [("gpu", "cpu"), ("linux-1", "linux-2"), ("amd64", "arm64"), ("docker", "rocket"), ("", "abcd")]
)
def test_another_word_is_no_slip(one: str, other: str) -> None:
    assert not is_slip(one, other)


@given(st.text("abcd-", min_size=4, max_size=12), st.data())
def test_any_single_slip_in_a_word_is_recognised(word: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(word) - 1))
    letter = data.draw(st.sampled_from("xyz"))
    assert is_slip(word, word[:at] + letter + word[at:])
    assert is_slip(word, word[:at] + letter + word[at + 1 :])
    assert is_slip(word, word[:at] + word[at + 1 :]) or len(word) == 4
    assert is_slip(word, word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :]) or at == 0


def test_comparing_tags_ends_at_some_point() -> None:
    likeness = Likeness()
    many = [f"tag-{number}" for number in range(obstacle_words.MOST_COMPARED)]
    assert likeness.nearest("tag_1", many) is not None
    assert likeness.nearest("docker", ["dokcer"]) is None


def test_a_slip_is_the_cheapest_to_mend_and_says_how_many_take_the_job_then() -> None:
    found = advice(job("dcoker"), DOCKER, replace(DOCKER, runner_id=2), replace(DOCKER, runner_id=3, paused=True))
    assert found is not None
    assert found.sentence == "Change the tag “dcoker” to “docker”, and 2 runners take it."
    assert (found.change, found.runner_ids) == (Change.TAGS, (1, 2))


def test_several_slips_are_mended_together() -> None:
    found = advice(job("dcoker", "linxu"), DOCKER)
    assert found is not None
    assert found.sentence == "Change the tags “dcoker” and “linxu” to “docker” and “linux”, and 1 runner takes it."


@pytest.mark.parametrize(
    ("demand", "offer", "sentence"),
    [
        (job("docker"), replace(DOCKER, paused=True), "Resume “Runner 1”, and it takes the job."),
        (
            job("docker", instance_runners=False),
            DOCKER,
            "Let instance runners take the project’s jobs, in its job settings, and 1 runner takes it.",
        ),
        (
            job("docker", group_runners=False),
            replace(DOCKER, type=RunnerType.GROUP, group_id=GROUP),
            "Let group runners take the project’s jobs, in its job settings, and 1 runner takes it.",
        ),
        (
            job("docker"),
            replace(DOCKER, protected=True),
            "Run it on a protected ref, or add “topic” to the project’s protected refs and run it again, and 1 "
            "runner takes it.",
        ),
        (job(), replace(DOCKER, tags=frozenset({"docker"})), "Give it the tag “docker”, and 1 runner takes it."),
        (job("docker", "gpu"), DOCKER, "Without the tag “gpu” 1 runner takes it."),
        (
            job("gpu"),
            replace(DOCKER, tags=frozenset(), run_untagged=True),
            "Without the tag “gpu” 1 runner takes it.",
        ),
    ],
)
def test_each_change_that_alone_is_enough_is_proposed(demand: Demand, offer: Offer, sentence: str) -> None:
    found = advice(demand, offer, ref="topic")
    assert found is not None
    assert found.sentence == sentence


def test_more_runners_that_could_be_resumed_are_counted() -> None:
    paused = [replace(DOCKER, runner_id=number, paused=True) for number in (1, 2, 3)]
    found = advice(job("docker"), *paused)
    assert found is not None
    assert found.sentence == ("Resume “Runner 1”, and it takes the job. 2 others would too, if they were resumed.")


def test_nothing_is_proposed_where_no_single_change_helps() -> None:
    assert advice(job("gpu"), replace(DOCKER, paused=True, protected=True)) is None
    assert advice(job("docker")) is None


tags = st.frozensets(st.sampled_from(["docker", "dcoker", "linux", "gpu"]))
offers = st.builds(
    Offer,
    runner_id=st.integers(1, 9),
    type=st.sampled_from(RunnerType),
    tags=tags,
    run_untagged=st.booleans(),
    protected=st.booleans(),
    paused=st.booleans(),
    group_id=st.sampled_from([GROUP, 99]),
    project_ids=st.frozensets(st.sampled_from([PROJECT, 99])),
)
demands = st.builds(
    Demand,
    tags=tags,
    ref_protected=st.booleans(),
    project_id=st.just(PROJECT),
    group_ids=st.just((GROUP,)),
    instance_runners=st.booleans(),
    group_runners=st.booleans(),
)


@given(demands, st.lists(offers, max_size=6, unique_by=lambda each: each.runner_id))
def test_a_change_that_is_proposed_does_help(demand: Demand, some: list[Offer]) -> None:
    waiting = [each for each in some if obstacle(demand, each) is not None]
    found = advice(demand, *waiting)
    if found is None:
        return
    assert found.runner_ids
    changed = {each.runner_id: each for each in waiting}
    if found.runner_id is not None:
        one = changed[found.runner_id]
        resumed = found.change is Change.RESUME
        changed[one.runner_id] = replace(one, paused=False) if resumed else replace(one, run_untagged=True)
    assert all(obstacle(found.demand, changed[number]) is None for number in found.runner_ids)
