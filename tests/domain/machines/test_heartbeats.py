"""The memory of heartbeats: what may wait for the next write, and what is never lost."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from portal.domain.errors import BadRequest
from portal.domain.machines import heartbeats as module
from portal.domain.machines.heartbeats import Heartbeats
from portal.domain.machines.machine_facts import MachineFacts, read_facts
from portal.domain.machines.runner_managers import Contact

AT = datetime(2026, 1, 1, tzinfo=UTC)
INFO = {"version": "18.5.0"}


def contact(system_xid: str = "s_1", *, runner_id: int = 1, **changes: Any) -> Contact:
    return Contact(runner_id, 10, system_xid, AT, "192.0.2.1", True, None)._replace(**changes)


@pytest.fixture
def beats() -> Heartbeats:
    """A memory that knows machine s_1 of runner 1, which has polled."""
    made = Heartbeats()
    made.remember(contact(), None)
    return made


def test_a_machine_that_is_new_here_is_to_be_recorded_at_once(beats: Heartbeats) -> None:
    assert not beats.note(contact("s_2"), None)
    assert not beats.note(contact(runner_id=2), None)
    assert beats.take() == []


def test_a_known_machine_may_wait(beats: Heartbeats) -> None:
    assert beats.note(contact(), None)
    assert beats.take() == [contact()]
    assert beats.take() == []


def test_another_token_than_before_is_recorded_at_once(beats: Heartbeats) -> None:
    assert not beats.note(contact(token_id=11), None)


def test_the_first_poll_after_a_verification_is_recorded_at_once() -> None:
    beats = Heartbeats()
    beats.remember(contact(polled=False), None)
    assert beats.note(contact(polled=False), None)
    assert not beats.note(contact(polled=True), None)


def test_of_many_contacts_the_newest_is_kept_with_what_only_an_older_one_told(beats: Heartbeats) -> None:
    facts, later = MachineFacts(version="18.5.0"), AT + timedelta(seconds=1)
    beats.note(contact(facts=facts), INFO)
    beats.note(contact(at=later, polled=False, address="192.0.2.2"), None)
    assert beats.take() == [contact(at=later, polled=True, address="192.0.2.2", facts=facts)]


def test_contacts_are_handed_over_in_one_order(beats: Heartbeats) -> None:
    several = [contact("s_2", runner_id=2), contact("s_1", runner_id=2), contact("s_9")]
    for each in several:
        beats.remember(each, None)
        beats.note(each, None)
    assert beats.take() == [contact("s_9"), contact("s_1", runner_id=2), contact("s_2", runner_id=2)]


def test_a_failed_write_loses_nothing_and_overwrites_nothing_newer(beats: Heartbeats) -> None:
    facts, later = MachineFacts(version="18.5.0"), AT + timedelta(seconds=5)
    beats.remember(contact("s_2"), None)
    beats.note(contact(facts=facts), INFO)
    beats.note(contact("s_2"), None)
    taken = beats.take()
    beats.note(contact(at=later), None)
    beats.put_back(taken)
    assert beats.take() == [contact(at=later, facts=facts), contact("s_2")]


def test_what_a_machine_is_goes_with_its_heartbeat_when_it_is_new_or_long_ago(
    beats: Heartbeats, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: clock)
    facts = MachineFacts(version="18.5.0")

    def written(told: MachineFacts) -> list[MachineFacts | None]:
        beats.note(contact(facts=told), INFO)
        return [each.facts for each in beats.take()]

    assert written(facts) == [facts]  # it has said nothing of itself before
    assert written(facts) == [None]
    clock += module.TELL_AGAIN - 1
    assert written(facts) == [None]
    clock += 1
    assert written(facts) == [facts]
    assert written(facts) == [None]
    newer = MachineFacts(version="19.0.0")
    assert written(newer) == [newer]
    assert written(newer) == [None]


@pytest.mark.parametrize("reported", [False, True])
def test_what_could_not_be_written_of_a_machine_goes_with_its_next_heartbeat(
    beats: Heartbeats, reported: bool
) -> None:
    facts = MachineFacts(version="18.5.0")
    beats.note(contact(facts=facts), INFO)
    taken = beats.take()
    if reported:
        beats.tell_again({(1, "s_1"), (7, "s_unknown")})
    else:
        beats.put_back(taken)
    beats.note(contact(facts=facts), INFO)
    assert [each.facts for each in beats.take()] == [facts]
    beats.note(contact(facts=facts), INFO)
    assert [each.facts for each in beats.take()] == [None]


def test_what_is_known_of_a_machine_from_its_first_call_goes_with_its_next_heartbeat_too(beats: Heartbeats) -> None:
    facts = MachineFacts(version="18.5.0")
    beats.remember(contact("s_2", facts=facts), INFO)  # another process may have written something newer before
    for told in (facts, None):
        beats.note(contact("s_2", facts=facts), INFO)
        assert [each.facts for each in beats.take()] == [told]


def test_the_same_info_is_read_once(beats: Heartbeats) -> None:
    facts = beats.facts_of(1, "s_1", INFO)
    assert facts == MachineFacts(version="18.5.0")
    beats.remember(contact(facts=facts), INFO)
    assert beats.facts_of(1, "s_1", dict(INFO)) is facts
    assert beats.facts_of(1, "s_1", {"version": "19.0.0"}) == MachineFacts(version="19.0.0")


def test_changed_info_is_remembered_with_the_contact_that_told_it(beats: Heartbeats) -> None:
    newer = {"version": "19.0.0"}
    facts = read_facts(newer)
    assert beats.note(contact(facts=facts), newer)
    assert beats.facts_of(1, "s_1", dict(newer)) is facts


def test_wrong_info_is_refused_however_well_known_the_machine_is(beats: Heartbeats) -> None:
    with pytest.raises(BadRequest):
        beats.facts_of(1, "s_1", "no object")


def test_a_machine_without_a_row_is_recorded_at_once_next_time(beats: Heartbeats) -> None:
    beats.forget({(1, "s_1"), (7, "s_unknown")})
    assert not beats.note(contact(), None)


def test_forgetting_a_runner_forgets_what_its_machines_said_and_nobody_elses(beats: Heartbeats) -> None:
    beats.remember(contact(runner_id=2), None)
    for runner_id in (1, 2):
        beats.note(contact(runner_id=runner_id), None)
    beats.forget_runner(1)
    assert beats.take() == [contact(runner_id=2)]
    assert not beats.note(contact(), None)
    assert beats.note(contact(runner_id=2), None)


def test_forgetting_all_still_writes_what_waits(beats: Heartbeats) -> None:
    beats.note(contact(), None)
    beats.forget_all()
    assert beats.take() == [contact()]
    assert not beats.note(contact(), None)


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_MACHINES", 10)
    beats = Heartbeats()
    for n in range(100):
        beats.remember(contact(f"s_{n}"), None)
    assert sum(beats.note(contact(f"s_{n}"), None) for n in range(100)) <= 10
    assert beats.note(contact("s_99"), None)


def test_no_contact_is_lost_between_threads_that_note_and_one_that_takes() -> None:
    beats, seen = Heartbeats(), set()
    machines = [[contact(f"s_{n}", runner_id=thread) for n in range(500)] for thread in range(4)]
    for each in (contact for several in machines for contact in several):
        beats.remember(each, None)

    def note(several: list[Contact]) -> None:
        for each in several:
            beats.note(each, None)

    threads = [threading.Thread(target=note, args=(several,)) for several in machines]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen.update((each.runner_id, each.system_xid) for each in beats.take())
    seen.update((each.runner_id, each.system_xid) for each in beats.take())
    assert len(seen) == 4 * 500
