"""After its time, or when somebody says so, what was deleted is gone for good; and nothing else is."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.deletions import deletion_purge, deletions, restores
from portal.domain.deletions.deletion_purge import end, purge
from portal.domain.errors import NotFound
from portal.domain.groups import groups
from portal.domain.machines import silent_machines
from portal.domain.runners import runners
from portal.models import (
    WITH_DELETED,
    AuditEvent,
    Deletion,
    Group,
    Membership,
    Project,
    Route,
    Runner,
    RunnerManager,
    RunnerToken,
)
from tests.cast import SYSTEM, Cast

KEPT = timedelta(days=7)
LATER = timedelta(days=8)


def all_of(session: Session) -> dict[str, int]:
    kinds = (Runner, RunnerToken, RunnerManager, Group, Project, Route, Membership, Deletion)
    return {
        kind.__name__: session.scalar(select(func.count()).select_from(kind), execution_options=WITH_DELETED) or 0
        for kind in kinds
    }


def empty(session: Session, at: timedelta = LATER) -> int:
    """Purge as long as there is something to purge, as the task does. Returns how much went."""
    taken = 0
    while gone := purge(session, now() + at, KEPT):
        session.commit()
        taken += gone
    return taken


@pytest.mark.parametrize("who", ["charlie", "bob", "erin"])
def test_who_may_not_restore_may_not_delete_for_good(session: Session, cast: Cast, who: str) -> None:
    runner = cast.runner().runner
    one = runners.delete_runner(session, SYSTEM, runner)
    two = groups.delete(session, SYSTEM, cast.web)
    for deletion in (one, two):
        with pytest.raises(NotFound):
            end(session, cast.as_(getattr(cast, who)), deletion.id, KEPT)


def test_nothing_goes_before_its_time(session: Session, cast: Cast) -> None:
    runners.delete_runner(session, SYSTEM, cast.runner().runner)
    groups.delete(session, SYSTEM, cast.acme)
    before = all_of(session)
    assert empty(session, timedelta(days=6)) == 0
    assert all_of(session) == before


def test_a_runner_goes_with_its_tokens_and_machines_and_the_trail_stays(session: Session, cast: Cast) -> None:
    gone, stays = cast.runner(), cast.runner()
    session.add(RunnerManager(runner_id=gone.runner.id, system_xid="s_1"))
    number = gone.runner.id
    runners.delete_runner(session, SYSTEM, gone.runner)
    empty(session)
    left = all_of(session)
    assert (left["Runner"], left["RunnerToken"], left["RunnerManager"], left["Deletion"]) == (1, 1, 0, 0)
    assert session.scalars(select(Runner.id)).all() == [stays.runner.id]
    event = session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc()).limit(1)).one()
    assert (event.action, event.target_id, event.actor_name) == ("deleted_for_good", number, "clean-up")


def test_a_group_goes_with_everything_below_also_what_was_deleted_before(session: Session, cast: Cast) -> None:
    cast.project("api", cast.platform)
    for scope in (cast.acme, cast.platform, cast.web, cast.other):
        cast.runner(scope)
    groups.delete(session, SYSTEM, cast.web)
    deletion = groups.delete(session, SYSTEM, cast.acme)
    end(session, cast.as_(cast.alice), deletion.id, KEPT)
    left = all_of(session)
    assert {name: left[name] for name in ("Runner", "Group", "Project", "Route", "Membership")} == {
        "Runner": 1,
        "Group": 1,
        "Project": 0,
        "Route": 1,
        "Membership": 0,
    }
    event = session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc()).limit(1)).one()
    assert (event.action, event.target_name, event.actor_name) == ("deleted_for_good", "acme", "Alice Lam")
    empty(session)
    assert all_of(session)["Deletion"] == 0


def test_what_came_back_is_not_taken_when_the_time_of_its_deletion_is_over(session: Session, cast: Cast) -> None:
    runner, deletion = cast.runner().runner, groups.delete(session, SYSTEM, cast.acme)
    restores.restore(session, cast.as_(cast.alice), deletion.id, KEPT)
    session.commit()
    empty(session)
    assert session.get(Runner, runner.id) is not None
    assert all_of(session)["Deletion"] == 0


def test_a_large_act_goes_in_batches_and_its_group_last(
    session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        cast.runner(cast.other)
    deletion = groups.delete(session, SYSTEM, cast.other)
    monkeypatch.setattr(deletion_purge, "BATCH", 2)
    end(session, cast.as_(cast.dana), deletion.id, KEPT)
    assert (all_of(session)["Runner"], all_of(session)["Group"]) == (3, 3)
    with pytest.raises(NotFound):
        restores.restore(session, cast.as_(cast.dana), deletion.id, KEPT)
    while purge(session, now(), KEPT, batch=2):
        session.commit()
    assert (all_of(session)["Runner"], all_of(session)["Group"]) == (0, 2)


def test_everybody_gives_up_their_own_part_of_an_act(session: Session, cast: Cast) -> None:
    mine, bobs = cast.runner().runner, cast.runner(cast.web).runner
    deletion = deletions.begin(session, SYSTEM, "runners", "2 runners")
    for runner in (mine, bobs):
        runners.delete_runner(session, SYSTEM, runner, deletion=deletion)
    end(session, cast.as_(cast.bob), deletion.id, KEPT)
    restores.restore(session, cast.as_(cast.dana), deletion.id, KEPT)
    assert session.scalars(select(Runner.id), execution_options=WITH_DELETED).all() == [mine.id]


def test_machines_of_a_deleted_runner_are_not_forgotten_for_their_silence(session: Session, cast: Cast) -> None:
    runner = cast.runner().runner
    runner.created_at = old = now() - timedelta(days=30)
    special = cast.runner().runner
    special.machines_forgotten_after = 3600
    for each in (runner, special):
        heard = RunnerManager(runner_id=each.id, system_xid="s_1", created_at=old, contacted_at=now() - KEPT)
        never = RunnerManager(runner_id=each.id, system_xid="s_2", created_at=old)
        session.add_all([heard, never])
    deletion = deletions.begin(session, SYSTEM, "runners", "2 runners")
    for each in (runner, special):
        runners.delete_runner(session, SYSTEM, each, deletion=deletion)
    assert silent_machines.prune(session, at=now() + timedelta(hours=1)) == 0
    restores.restore(session, cast.as_(cast.dana), deletion.id, KEPT)
    assert silent_machines.prune(session, at=now() + timedelta(minutes=50)) == 0
    assert silent_machines.prune(session, at=now() + timedelta(minutes=70)) == 2
    assert silent_machines.prune(session, at=now() + timedelta(days=8)) == 2
