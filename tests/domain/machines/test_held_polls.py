"""Whom an announcement wakes: those who could take the jobs, no more than there are, who waits longest first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from portal.domain.jobs.job_matching import Demand, Offer, obstacle, queue_scopes
from portal.domain.jobs.queue_news import Announcement
from portal.domain.machines.held_polls import HeldPoll, HeldPolls
from portal.domain.machines.known_runners import KnownRunner
from portal.models import QueueScope, RunnerType

TAGS = ("docker", "linux", "gpu")
DOCKER, UNTAGGED = 7, 1
CLASSES = {UNTAGGED: (frozenset[str](), False), DOCKER: (frozenset({"docker"}), False)}
INSTANCE = ((QueueScope.INSTANCE, 0), (QueueScope.GROUP, 1), (QueueScope.PROJECT, 10))


def runner(number: int, **taken: object) -> KnownRunner:
    offer = Offer(number, **{"type": RunnerType.INSTANCE, "tags": frozenset({"docker"}), **taken})  # type: ignore[arg-type]
    return KnownRunner(number, number, "short", True, None, None, f"v{number}", offer, tuple(offer.scopes()))


def may_take(offer: Offer, class_id: int) -> bool:
    return offer.takes(*CLASSES[class_id])


def held(*polls: HeldPoll) -> HeldPolls[HeldPoll]:
    found = HeldPolls[HeldPoll]()
    for poll in polls:
        found.add(poll)
    return found


def test_no_more_are_woken_than_there_are_jobs_and_who_waits_longest_is_first() -> None:
    polls = [HeldPoll(runner(number), "s_1") for number in range(10)]
    waiting = held(*reversed(polls))
    assert waiting.take_for(Announcement(DOCKER, INSTANCE, jobs=3), may_take) == list(reversed(polls))[:3]
    assert len(waiting) == 7
    assert waiting.take_for(Announcement(DOCKER, INSTANCE, jobs=100), may_take) == list(reversed(polls))[3:]
    assert waiting.take_for(Announcement(DOCKER, INSTANCE), may_take) == []
    assert (len(waiting), waiting.scopes()) == (0, [])


def test_who_does_not_take_the_class_sleeps_on() -> None:
    deaf = HeldPoll(runner(1, tags=frozenset({"gpu"}), run_untagged=False), "s_1")
    paused = HeldPoll(runner(2, paused=True), "s_1")
    waiting = held(deaf, paused, listens := HeldPoll(runner(3), "s_1"))
    assert waiting.take_for(Announcement(DOCKER, INSTANCE, jobs=9), may_take) == [listens]
    assert len(waiting) == 2


def test_who_is_elsewhere_sleeps_on() -> None:
    group = HeldPoll(runner(1, type=RunnerType.GROUP, group_id=1), "s_1")
    other = HeldPoll(runner(2, type=RunnerType.GROUP, group_id=2), "s_1")
    project = HeldPoll(runner(3, type=RunnerType.PROJECT, project_ids=frozenset({10, 11})), "s_1")
    waiting = held(group, other, project)
    assert set(waiting.take_for(Announcement(DOCKER, INSTANCE, jobs=9), may_take)) == {group, project}


def test_runners_are_woken_in_turn_however_many_machines_one_of_them_has() -> None:
    many = [HeldPoll(fleet := runner(1), f"s_{number}") for number in range(5)]
    few = [HeldPoll(runner(number), "s_1") for number in (2, 3)]
    assert fleet is not None
    waiting = HeldPolls[HeldPoll]()
    shared = many[0].known
    for poll in many:
        poll.known = shared
        waiting.add(poll)
    for poll in few:
        waiting.add(poll)
    assert set(waiting.take_for(Announcement(DOCKER, INSTANCE, jobs=3), may_take)) == {many[0], *few}


def test_a_check_wakes_its_runner_only_and_one_for_a_machine_that_machine_only() -> None:
    first, second = HeldPoll(runner(1, tags=frozenset()), "s_1"), HeldPoll(runner(1, tags=frozenset()), "s_2")
    other = HeldPoll(runner(2), "s_1")
    waiting = held(first, second, other)
    scope = ((QueueScope.RUNNER, 1),)
    assert waiting.take_for(Announcement(UNTAGGED, scope, system_xid="s_2"), may_take) == [second]
    assert waiting.take_for(Announcement(UNTAGGED, scope, system_xid="s_2"), may_take) == []
    assert waiting.take_for(Announcement(UNTAGGED, scope), may_take) == [first]
    assert len(waiting) == 1


def test_a_runner_that_changes_is_found_as_it_was_and_as_it_is() -> None:
    before, after = runner(1), runner(1, tags=frozenset({"gpu"}))
    after = KnownRunner(1, 1, "short", True, None, None, "later", after.offer, after.scopes)
    old, new = HeldPoll(before, "s_1"), HeldPoll(after, "s_2")
    waiting = held(old, new)
    assert waiting.take_of(1) == [old, new]
    assert waiting.take_of(1) == []
    assert not waiting.remove(old)
    assert len(waiting) == 0


OFFERS = st.builds(
    Offer,
    runner_id=st.integers(1, 4),
    type=st.sampled_from(RunnerType),
    tags=st.frozensets(st.sampled_from(TAGS)),
    run_untagged=st.booleans(),
    protected=st.booleans(),
    paused=st.booleans(),
    group_id=st.integers(1, 3),
    project_ids=st.frozensets(st.integers(10, 12), min_size=1),
)
DEMANDS = st.one_of(
    st.builds(
        Demand,
        tags=st.frozensets(st.sampled_from(TAGS)),
        ref_protected=st.booleans(),
        project_id=st.integers(10, 12),
        group_ids=st.lists(st.integers(1, 3), unique=True).map(tuple),
        instance_runners=st.booleans(),
        group_runners=st.booleans(),
    ),
    st.builds(Demand, runner_id=st.integers(1, 4), system_xid=st.sampled_from([None, "s_1", "s_2"])),
)


@given(st.lists(st.tuples(OFFERS, st.sampled_from(["s_1", "s_2"])), max_size=8), DEMANDS)
def test_all_and_only_those_are_woken_whom_no_rule_keeps_from_the_job(
    asking: list[tuple[Offer, str]], job: Demand
) -> None:
    polls = []
    for number, (offer, system_xid) in enumerate(asking):
        known = KnownRunner(1, offer.runner_id, "short", True, None, None, f"v{number}", offer, tuple(offer.scopes()))
        polls.append(HeldPoll(known, system_xid))
    waiting = held(*polls)
    said = Announcement(1, tuple(queue_scopes(job)), jobs=99, system_xid=job.system_xid or "")
    woken = waiting.take_for(said, lambda offer, _: offer.takes(job.tags, job.ref_protected))
    assert set(woken) == {poll for poll in polls if obstacle(job, poll.known.offer, poll.system_xid) is None}
    assert set(waiting.take_all()) == set(polls) - set(woken)


def test_a_runner_that_always_has_a_poll_waiting_does_not_get_every_job() -> None:
    first, second = runner(1), runner(2)
    waiting = held(HeldPoll(first, "s_1"), HeldPoll(first, "s_2"), HeldPoll(second, "s_1"))
    got = []
    for number in range(6):
        (poll,) = waiting.take_for(Announcement(DOCKER, INSTANCE), may_take)
        got.append(poll.known.runner_id)
        waiting.add(HeldPoll(poll.known, f"again_{number}"))
    assert sorted(got) == [1, 1, 1, 2, 2, 2]
