"""One act on many runners: what it would do, what it does, whom it refuses, and that it does everything once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import scopes
from portal.domain.bulk import bulk_acts, bulk_preview
from portal.domain.bulk.bulk_changes import Act, Wanted
from portal.domain.deletions import deletion_purge, restores
from portal.domain.errors import Invalid, NotAllowed, NotFound, Refusal
from portal.domain.groups import memberships
from portal.domain.runners import runner_search, runners
from portal.domain.runners.runner_lists import RunnerFilter
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import AuditEvent, BulkAct, Deletion, Membership, Role, Runner, RunnerManager, User
from tests.cast import TAGGED, Cast
from tests.domain.queries import asked

PAUSE = Wanted(Act.PAUSE)
EVERYTHING = RunnerFilter(inherited=True)


def drafted(
    session: Session,
    cast: Cast,
    wanted: Wanted = PAUSE,
    chosen: RunnerFilter | set[int] = EVERYTHING,
    who: str = "alice",
) -> BulkAct:
    user = getattr(cast, who)
    scope = cast.web if who == "bob" else cast.acme
    return bulk_acts.draft(session, cast.as_(user), scope, wanted, chosen)


def carry_out(session: Session, cast: Cast, act: BulkAct, *, size: int = 2) -> BulkAct:
    bulk_acts.start(session, cast.as_(act.user), act.id)
    while bulk_acts.take_batch(session, act.id, size=size):
        session.commit()
    session.refresh(act)
    return act


def numbers(act: BulkAct) -> tuple[int, int, int]:
    return act.changed, act.unchanged, act.refusals


def told(session: Session, action: str) -> list[AuditEvent]:
    return list(session.scalars(select(AuditEvent).where(AuditEvent.action == action).order_by(AuditEvent.id)))


# What is refused


def test_an_act_on_no_runner_or_with_no_tag_is_no_act(session: Session, cast: Cast) -> None:
    cast.runner()
    with pytest.raises(Invalid, match="Choose at least one runner"):
        drafted(session, cast, chosen=set())
    with pytest.raises(Invalid, match="Write a tag to add"):
        drafted(session, cast, Wanted(Act.TAGS))
    with pytest.raises(Invalid, match="“a” cannot be added and removed"):
        drafted(session, cast, Wanted(Act.TAGS, ("a",), ("a",)))
    with pytest.raises(Invalid, match="too long"):
        drafted(session, cast, Wanted(Act.TAGS, ("x" * 256,)))
    with pytest.raises(Invalid, match="Too many tags"):
        drafted(session, cast, Wanted(Act.TAGS, (), tuple(map(str, range(51)))))


def test_more_runners_than_the_limit_are_refused(
    session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        cast.runner()
    monkeypatch.setattr(bulk_acts, "MOST", 2)
    with pytest.raises(Invalid, match="more than 2 runners"):
        drafted(session, cast)


def test_a_search_of_which_not_all_was_looked_at_is_refused(
    session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_search, "MOST_LOOKED_AT", 2)
    runner = cast.runner().runner
    session.add_all(RunnerManager(runner_id=runner.id, system_xid=f"s_{number}") for number in range(3))
    session.flush()
    with pytest.raises(Invalid, match=r"begin with “s_” that not all were looked at.*Search for more of the word"):
        drafted(session, cast, chosen=RunnerFilter(words=" s_"))
    assert drafted(session, cast, chosen=RunnerFilter(words="s_1")).runner_ids == [runner.id]
    assert drafted(session, cast, chosen={runner.id}).runner_ids == [runner.id]


def test_a_stranger_drafts_nothing_and_chooses_nothing_that_the_list_does_not_show(
    session: Session, cast: Cast
) -> None:
    mine, hidden = cast.runner().runner, cast.runner(cast.other).runner
    with pytest.raises(NotFound):
        drafted(session, cast, who="charlie")
    with pytest.raises(NotAllowed):
        drafted(session, cast, who="erin")
    assert drafted(session, cast, chosen={mine.id, hidden.id, 10**17}).runner_ids == [mine.id]


def test_nobody_but_the_person_and_administrators_sees_an_act_and_only_the_person_starts_it(
    session: Session, cast: Cast
) -> None:
    cast.runner()
    act = drafted(session, cast)
    cast.member(cast.charlie, cast.acme, Role.OWNER)
    for who in (cast.bob, cast.charlie):
        with pytest.raises(NotFound):
            bulk_acts.find(session, cast.as_(who), act.id)
        with pytest.raises(NotFound):
            bulk_acts.start(session, cast.as_(who), act.id)
    assert bulk_acts.find(session, cast.as_(cast.dana), act.id) is act
    with pytest.raises(NotAllowed, match="only Alice Lam can start"):
        bulk_acts.start(session, cast.as_(cast.dana), act.id)
    assert bulk_acts.take_batch(session, act.id) is False


def test_who_is_no_member_any_more_finds_their_act_no_more(session: Session, cast: Cast) -> None:
    cast.runner()
    act = drafted(session, cast)
    session.execute(Membership.__table__.delete())
    with pytest.raises(NotFound):
        bulk_acts.find(session, cast.as_(cast.alice), act.id)


def test_inherited_runners_are_refused_with_the_reason_and_the_others_done(session: Session, cast: Cast) -> None:
    mine, groups, shared = cast.runner(cast.web).runner, cast.runner().runner, cast.runner(scopes.INSTANCE).runner
    act = carry_out(session, cast, drafted(session, cast, who="bob"))
    assert numbers(act) == (1, 0, 2)
    assert [mine.paused, groups.paused, shared.paused] == [True, False, False]
    assert act.refused == [
        [each.id, each.title, f"This runner belongs to {place}: those who look after its runners may do that."]
        for each, place in ((groups, "acme"), (shared, "the instance"))
    ]


def test_the_rules_on_tags_are_those_of_a_single_change(session: Session, cast: Cast) -> None:
    bare = cast.runner(settings=RunnerSettings("Bare", tags=("docker",))).runner
    untagged = cast.runner(settings=RunnerSettings("Untagged", tags=("docker",), run_untagged=True)).runner
    full = cast.runner(settings=RunnerSettings("Full", tags=tuple(f"t{n}" for n in range(50)))).runner
    act = carry_out(session, cast, drafted(session, cast, Wanted(Act.TAGS, remove=("docker",))))
    assert numbers(act) == (1, 1, 1)
    assert act.refused[0][0] == bare.id
    assert "no job could ever match" in act.refused[0][2]
    assert (bare.tag_list, untagged.tag_list) == (["docker"], [])
    act = carry_out(session, cast, drafted(session, cast, Wanted(Act.TAGS, add=("gpu",), remove=("docker",))))
    assert [entry[0] for entry in act.refused] == [full.id]
    assert "Too many tags: 51" in act.refused[0][2]
    assert (bare.tag_list, untagged.tag_list) == (["gpu"], ["gpu"])


def test_who_is_blocked_meanwhile_does_nothing_more(session: Session, cast: Cast) -> None:
    made = [cast.runner().runner for _ in range(4)]
    act = drafted(session, cast)
    bulk_acts.start(session, cast.as_(cast.alice), act.id)
    bulk_acts.take_batch(session, act.id, size=2)
    cast.alice.blocked_at = now()
    session.commit()
    carry_out(session, cast, act)
    assert [runner.paused for runner in made] == [True, True, False, False]
    assert numbers(act) == (2, 0, 2)
    assert {entry[2] for entry in act.refused} == {"The account of Alice Lam was blocked meanwhile."}


def test_who_loses_the_role_meanwhile_is_refused_the_rest(session: Session, cast: Cast) -> None:
    made = [cast.runner().runner for _ in range(4)]
    act = drafted(session, cast)
    bulk_acts.start(session, cast.as_(cast.alice), act.id)
    bulk_acts.take_batch(session, act.id, size=2)
    cast.member(cast.charlie, cast.acme, Role.OWNER)
    memberships.change_role(session, cast.as_(cast.dana), cast.acme, cast.alice.id, Role.DEVELOPER)
    session.commit()
    while bulk_acts.take_batch(session, act.id):
        session.commit()
    session.refresh(act)
    assert [runner.paused for runner in made] == [True, True, False, False]
    assert "You may not create, change or delete its runners (acme)" in act.refused[0][2]


def test_a_runner_that_was_deleted_meanwhile_is_refused(session: Session, cast: Cast) -> None:
    kept, gone = cast.runner().runner, cast.runner().runner
    act = drafted(session, cast)
    runners.delete_runner(session, cast.as_(cast.dana), gone)
    found = bulk_preview.preview(session, act)
    assert (found.changes.total, found.reasons) == (1, Counter({"It was deleted meanwhile.": 1}))
    carry_out(session, cast, act)
    assert (kept.paused, act.refused) == (True, [[gone.id, f"Runner #{gone.id}", "It was deleted meanwhile."]])


# What is done


@pytest.mark.parametrize(
    ("wanted", "action", "changes"),
    [
        (PAUSE, "runner_paused", {"paused": [False, True]}),
        (
            Wanted(Act.TAGS, ("gpu",), ("docker",)),
            "runner_updated",
            {"tags": [["docker", "linux"], ["linux", "gpu"]]},
        ),
        (Wanted(Act.ACCESS, protected=True), "runner_updated", {"protected": [False, True]}),
        (Wanted(Act.DELETE), "runner_deleted", {"machines": [0, 0]}),
    ],
)
def test_each_runner_has_its_event_as_if_it_was_changed_alone(
    session: Session, cast: Cast, wanted: Wanted, action: str, changes: dict[str, object]
) -> None:
    made = {cast.runner().runner.id for _ in range(3)}
    act = carry_out(session, cast, drafted(session, cast, wanted))
    events = told(session, action)
    assert {event.target_id for event in events} == made
    assert all(event.changes == changes and event.request_id == act.request_id for event in events)
    assert {(event.actor_id, event.address, event.scope_path) for event in events} == {
        (cast.alice.id, "192.0.2.7", "acme")
    }
    assert numbers(act) == (3, 0, 0)


def test_the_beginning_and_the_end_stand_on_the_trail_with_the_numbers(session: Session, cast: Cast) -> None:
    cast.runner()
    cast.runner(settings=RunnerSettings("Paused", tags=("a",), paused=True))
    act = drafted(session, cast)
    carry_out(session, cast, act)
    begun, ended = told(session, "bulk_act_started")[0], told(session, "bulk_act_finished")[0]
    assert begun.changes == {"number": [None, act.id], "act": [None, "pause"], "runners": [None, 2]}
    assert ended.changes == {
        "number": [None, act.id],
        "act": [None, "pause"],
        "changed": [None, 1],
        "unchanged": [None, 1],
        "refused": [None, 0],
    }


def test_a_filter_is_looked_through_once_and_nothing_comes_in_later(session: Session, cast: Cast) -> None:
    first = cast.runner().runner
    cast.runner(settings=RunnerSettings("Other", tags=("other",)))
    act = drafted(session, cast, chosen=RunnerFilter(tags=("docker",)))
    late = cast.runner().runner
    carry_out(session, cast, act)
    assert (act.total, first.paused, late.paused) == (1, True, False)


def test_what_is_so_already_is_left_alone(session: Session, cast: Cast) -> None:
    runner = cast.runner(settings=RunnerSettings("Paused", tags=("a",), paused=True)).runner
    seen = runner.updated_at
    assert numbers(carry_out(session, cast, drafted(session, cast))) == (0, 1, 0)
    assert runner.updated_at == seen
    assert told(session, "runner_paused") == []
    resumed = carry_out(session, cast, drafted(session, cast, Wanted(Act.RESUME)))
    assert (numbers(resumed), runner.paused) == ((1, 0, 0), False)


def test_a_change_made_meanwhile_is_kept_beside_that_of_the_act(session: Session, cast: Cast) -> None:
    runner = cast.runner().runner
    act = drafted(session, cast, Wanted(Act.TAGS, ("gpu",)))
    runners.update_runner(session, cast.as_(cast.dana), runner, RunnerSettings("New", tags=("arm",)))
    carry_out(session, cast, act)
    assert (runner.description, runner.tag_list) == ("New", ["arm", "gpu"])


def test_all_that_one_act_deletes_goes_by_one_deletion(session: Session, cast: Cast) -> None:
    made = [cast.runner().runner for _ in range(5)]
    session.add(RunnerManager(runner_id=made[0].id, system_xid="s_1"))
    session.commit()
    act = drafted(session, cast, Wanted(Act.DELETE))
    assert bulk_preview.preview(session, act).machines == 1
    carry_out(session, cast, act)
    deletion = session.scalars(select(Deletion)).one()
    assert (act.deletion_id, deletion.kind, deletion.name) == (deletion.id, "runners", "runners of acme")
    assert session.scalar(select(func.count(Runner.id))) == 0
    assert {runner.deletion_id for runner in made} == {deletion.id}
    assert Counter(tuple(event.changes["machines"]) for event in told(session, "runner_deleted")) == {
        (1, 0): 1,
        (0, 0): 4,
    }


def test_what_goes_after_somebody_deleted_the_rest_for_good_can_be_restored_still(
    session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [cast.runner().runner for _ in range(5)]
    act = drafted(session, cast, Wanted(Act.DELETE))
    bulk_acts.start(session, cast.as_(cast.alice), act.id)
    assert bulk_acts.take_batch(session, act.id, size=3)
    first = act.deletion_id or 0
    monkeypatch.setattr(deletion_purge, "BATCH", 2)  # so the act that was given up is there for a while
    deletion_purge.end(session, cast.as_(cast.alice), first, timedelta(days=7))
    assert bulk_acts.take_batch(session, act.id, size=3)
    assert act.deletion_id != first
    back = restores.restore(session, cast.as_(cast.alice), act.deletion_id or 0, timedelta(days=7))
    assert [runner.id for runner in back.runners] == [runner.id for runner in made[3:]]


def test_who_may_not_see_the_runners_any_more_does_not_see_what_was_chosen(session: Session, cast: Cast) -> None:
    cast.runner()
    act = drafted(session, cast)
    session.scalars(select(Membership).where(Membership.user_id == cast.alice.id)).one().access_level = Role.DEVELOPER
    with pytest.raises(NotAllowed):
        bulk_acts.find(session, cast.as_(cast.alice), act.id)


def test_starting_twice_does_it_once(session: Session, cast: Cast) -> None:
    cast.runner()
    act = drafted(session, cast)
    assert bulk_acts.start(session, cast.as_(cast.alice), act.id) is True
    assert bulk_acts.start(session, cast.as_(cast.alice), act.id) is False
    carry_out(session, cast, act)
    assert bulk_acts.start(session, cast.as_(cast.alice), act.id) is False
    assert bulk_acts.take_batch(session, act.id) is False
    assert len(told(session, "bulk_act_started")) == len(told(session, "runner_paused")) == 1


def test_an_act_is_stopped_between_two_batches(session: Session, cast: Cast) -> None:
    made = [cast.runner().runner for _ in range(4)]
    act = drafted(session, cast)
    assert bulk_acts.stop(session, cast.as_(cast.alice), act.id) is False
    bulk_acts.start(session, cast.as_(cast.alice), act.id)
    bulk_acts.take_batch(session, act.id, size=2)
    assert bulk_acts.stop(session, cast.as_(cast.dana), act.id) is True
    assert bulk_acts.stop(session, cast.as_(cast.alice), act.id) is False
    assert bulk_acts.take_batch(session, act.id) is False
    assert [runner.paused for runner in made] == [True, True, False, False]
    event = told(session, "bulk_act_stopped")[0]
    assert (event.actor_name, event.changes["changed"], event.changes["not_done"]) == (
        "Dana Kay",
        [None, 2],
        [None, 2],
    )


def test_a_preview_says_what_the_act_then_does(session: Session, cast: Cast) -> None:
    cast.runner(cast.web)
    cast.runner(cast.web, RunnerSettings("Has it", tags=("gpu",)))
    cast.runner()
    act = drafted(session, cast, Wanted(Act.TAGS, ("gpu",)), who="bob")
    found = bulk_preview.preview(session, act)
    assert (found.changes.total, found.unchanged.total, found.refused.total) == (1, 1, 1)
    assert [(line.tags, line.becomes) for line in found.changes.first] == [
        (("docker", "linux"), ("docker", "linux", "gpu"))
    ]
    assert told(session, "runner_updated") == []
    assert numbers(carry_out(session, cast, act)) == (1, 1, 1)


def test_old_drafts_and_old_reports_are_forgotten_and_no_other(session: Session, cast: Cast) -> None:
    cast.runner()
    old_draft, young_draft, running, old, young = (drafted(session, cast) for _ in range(5))
    moment = now()
    old_draft.created_at = moment - timedelta(days=1)
    for act in (running, old, young):
        act.created_at = act.started_at = moment - timedelta(days=40)
    old.finished_at, young.finished_at = moment - timedelta(days=30), moment - timedelta(days=29)
    session.flush()
    assert bulk_acts.prune(session, moment) == 2
    assert set(session.scalars(select(BulkAct.id))) == {young_draft.id, running.id, young.id}


# Many at once


@pytest.fixture
def engine(own_database: str) -> Iterator[Engine]:
    made = create_engine(own_database, pool_size=12)
    yield made
    made.dispose()


@pytest.mark.parametrize("who", ["alice", "dana"])
def test_more_runners_ask_the_database_no_more_often(engine: Engine, who: str) -> None:
    """Neither to look at them nor to change them, whatever the act is and though each belongs to another project."""
    with Session(engine) as session:
        cast = Cast(session)
        projects = [cast.project(f"p{number}", cast.acme) for number in range(12)]
        asking: dict[str, list[tuple[int, int]]] = {act: [] for act in Act}
        for act in Act:
            wanted = Wanted(act, ("gpu",) if act is Act.TAGS else (), protected=True)
            settings = RunnerSettings("One", tags=("docker",), paused=act is Act.RESUME)
            for many in (4, 12):
                chosen = {cast.runner(projects[number], settings).runner.id for number in range(many)}
                drawn = drafted(session, cast, wanted, chosen, who)
                bulk_acts.start(session, cast.as_(getattr(cast, who)), drawn.id)
                session.commit()
                looking, doing = statements_for(engine, drawn.id)
                session.refresh(drawn)
                assert numbers(drawn) == (many, 0, 0)
                asking[act].append((looking, doing))
    assert {act: few for act, (few, many) in asking.items() if few != many} == {}
    assert max(looking for few in asking.values() for looking, _ in few) <= 10, asking
    assert max(doing for few in asking.values() for _, doing in few) <= 20, asking


def statements_for(engine: Engine, act_id: int) -> tuple[int, int]:
    """How many statements the preview takes, and how many the batch."""
    with Session(engine) as fresh, asked(fresh) as looking:
        bulk_preview.preview(fresh, fresh.get_one(BulkAct, act_id))
    with Session(engine) as fresh, asked(fresh) as doing:
        assert bulk_acts.take_batch(fresh, act_id)
        fresh.commit()
    return len(looking), len(doing)


class Started:
    """A started act of Alice's on many runners of acme, and threads beside it."""

    def __init__(self, engine: Engine, wanted: Wanted, many: int = 60) -> None:
        self.engine, self.failures = engine, list[str]()
        with Session(engine) as session:
            cast = Cast(session)
            self.runner_ids = [cast.runner(settings=TAGGED).runner.id for _ in range(many)]
            act = drafted(session, cast, wanted)
            bulk_acts.start(session, cast.as_(cast.alice), act.id)
            session.commit()
            self.act_id, self.dana = act.id, cast.dana.id

    def work(self) -> None:
        """Batches until the act is over, as every server process does it."""
        while self.unfinished():
            with Session(self.engine) as session:
                bulk_acts.take_batch(session, self.act_id, size=5)
                session.commit()

    def unfinished(self) -> bool:
        with Session(self.engine) as session:
            return bool(bulk_acts.unfinished(session))

    def delete_singly(self) -> None:
        for runner_id in reversed(self.runner_ids[::3]):
            with Session(self.engine) as session:
                runner = session.get(Runner, runner_id)
                if runner is None:
                    continue
                try:
                    runners.delete_runner(session, Cast.as_(session.get_one(User, self.dana)), runner)
                    session.commit()
                except Refusal:
                    session.rollback()

    def together(self, *acts: str) -> None:
        def run(name: str) -> None:
            try:
                getattr(self, name)()
            except Exception as failure:
                self.failures.append(f"{name}: {failure!r}")

        threads = [threading.Thread(target=run, args=(name,)) for name in acts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert self.failures == []


def test_several_processes_share_an_act_and_do_no_runner_twice(engine: Engine) -> None:
    started = Started(engine, PAUSE)
    started.together("work", "work", "work", "work")
    with Session(engine) as session:
        act = session.get_one(BulkAct, started.act_id)
        assert (act.done, *numbers(act)) == (60, 60, 0, 0)
        assert Counter(event.target_id for event in told(session, "runner_paused")) == Counter(started.runner_ids)
        assert len(told(session, "bulk_act_finished")) == 1


@pytest.mark.parametrize("wanted", [Wanted(Act.DELETE), PAUSE], ids=["delete", "pause"])
def test_an_act_and_single_deletions_at_once_wait_in_no_circle_and_lose_nothing(
    engine: Engine, wanted: Wanted
) -> None:
    started = Started(engine, wanted)
    started.together("work", "delete_singly", "work")
    with Session(engine) as session:
        act = session.get_one(BulkAct, started.act_id)
        assert act.done == act.changed + act.unchanged + act.refusals == 60
        deleted = Counter(event.target_id for event in told(session, "runner_deleted"))
        assert set(deleted.values()) == {1}
        singly = [event for event in told(session, "runner_deleted") if event.actor_name == "Dana Kay"]
        alone = session.scalar(select(func.count(Deletion.id)).where(Deletion.kind == "runner"))
        assert len(singly) == alone
        if wanted.act is Act.DELETE:
            assert sorted(deleted) == started.runner_ids
            assert act.refusals == len(singly)
        else:
            assert len(told(session, "runner_paused")) == act.changed


def test_a_person_is_blocked_only_between_batches(engine: Engine) -> None:
    started = Started(engine, PAUSE, 10)
    with Session(engine) as batch, Session(engine) as blocking:
        assert bulk_acts.take_batch(batch, started.act_id, size=5)
        ended: list[float] = []

        def block() -> None:
            user = blocking.scalars(select(User).where(User.username == "alice")).one()
            user.blocked_at = now()
            blocking.commit()
            ended.append(time.monotonic())

        thread = threading.Thread(target=block)
        thread.start()
        thread.join(0.3)
        assert ended == []
        batch.commit()
        thread.join(10)
        assert ended
    started.work()
    with Session(engine) as session:
        assert numbers(session.get_one(BulkAct, started.act_id)) == (5, 0, 5)
