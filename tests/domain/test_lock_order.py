"""Everybody locks the runner first, then its machines, then its tokens: real threads on the same runners."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine, create_engine, event, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import scopes
from portal.domain.bulk import bulk_acts
from portal.domain.bulk.bulk_changes import Act, Wanted
from portal.domain.deletions import deletion_purge, deletions, restores
from portal.domain.errors import NotFound, Refusal
from portal.domain.groups import groups
from portal.domain.groups.groups import Naming
from portal.domain.machines import runner_managers, silent_machines
from portal.domain.machines.runner_managers import Contact
from portal.domain.people import person_deletion
from portal.domain.people.person_deletion import Runners
from portal.domain.runners import ended_tokens, runner_projects, runner_tokens, runners
from portal.models import WITH_DELETED, Runner, User
from tests.cast import SYSTEM, TAGGED, Cast
from tests.domain.all_at_once import AllAtOnce

GRACE = timedelta(hours=24)
MACHINES = 3


@pytest.fixture
def engine(own_database: str) -> Iterator[Engine]:
    made = create_engine(own_database, pool_size=12)
    yield made
    made.dispose()


def contact(runner_id: int, token_id: int, system_xid: str = "s_0") -> Contact:
    return Contact(runner_id, token_id, system_xid, now(), "192.0.2.1", True, None)


def beat(session: Session, contacts: list[Contact]) -> set[tuple[int, str]]:
    return runner_managers.write_heartbeats(session, contacts, lambda value: orjson.dumps(value).decode()).missing


class Fleet(AllAtOnce):
    """Runners with machines, and what threads do to them all at once."""

    def __init__(self, engine: Engine, runners_: int) -> None:
        super().__init__(engine)
        self.tokens: dict[int, tuple[int, str]] = {}
        with Session(engine) as session:
            cast = Cast(session)
            self.group_id = cast.acme.id
            self.api = cast.project("api", cast.other).full_path
            for number in range(runners_):
                issued = cast.runner(cast.web if number % 3 == 0 else cast.acme)
                self.tokens[issued.runner.id] = (issued.record.id, issued.token)
                for machine in range(MACHINES):
                    given = contact(issued.runner.id, issued.record.id, f"s_{machine}")
                    runner_managers.record_contact(session, given)
            session.commit()

    def some(self, session: Session, chance: random.Random) -> Runner:
        runner = session.get(Runner, chance.choice(list(self.tokens)))
        if runner is None:
            raise NotFound("It is deleted.")
        return runner

    def heartbeats(self, session: Session, chance: random.Random) -> None:
        known = sorted(self.tokens.items())
        beat(session, [contact(each, it[0], f"s_{n}") for each, it in known for n in range(MACHINES)])

    def first_use(self, session: Session, chance: random.Random) -> None:
        runner = self.some(session, chance)
        token_id, _ = self.tokens[runner.id]
        runner_managers.record_contact(session, contact(runner.id, token_id, f"s_{chance.randrange(MACHINES)}"))

    def rotate(self, session: Session, chance: random.Random) -> None:
        runner_id = chance.choice(list(self.tokens))
        issued = runner_tokens.reset_token_by_machine(session, self.tokens[runner_id][1], grace=GRACE)
        fresh = issued.record.id, issued.token
        session.commit()
        self.tokens[runner_id] = fresh

    def end(self, session: Session, chance: random.Random) -> None:
        runner = self.some(session, chance)
        family = runner_tokens.family(session, runner)
        if len(family) > 1:
            runner_tokens.end_token(session, SYSTEM, runner, family[-1].id)

    def reset(self, session: Session, chance: random.Random) -> None:
        runner = self.some(session, chance)
        issued = runner_tokens.reset_token(session, SYSTEM, runner, seen_token_id=None)
        runner_id, fresh = runner.id, (issued.record.id, issued.token)
        session.commit()
        self.tokens[runner_id] = fresh

    def unregister(self, session: Session, chance: random.Random) -> None:
        runner = self.some(session, chance)
        runner_managers.remove(session, SYSTEM, runner, f"s_{chance.randrange(MACHINES)}")

    def prune(self, session: Session, chance: random.Random) -> None:
        ended_tokens.prune(session, now() + ended_tokens.KEPT_FOR, batch=5)
        silent_machines.prune(session, at=now() + timedelta(days=1), silent_for=timedelta(days=1), batch=2)

    def delete(self, session: Session, chance: random.Random) -> None:
        time.sleep(0.3)
        runners.delete_runner(session, SYSTEM, self.some(session, chance))

    def restore(self, session: Session, chance: random.Random) -> None:
        time.sleep(0.5)
        deleted = select(Runner.deletion_id).where(Runner.deletion_id.is_not(None)).order_by(Runner.id).limit(1)
        deletion_id = session.scalar(deleted, execution_options=WITH_DELETED)
        restores.restore(session, SYSTEM, deletion_id or 0, GRACE)

    def share(self, session: Session, chance: random.Random) -> None:
        runner, api = self.some(session, chance), scopes.find_project(session, self.api)
        if not self.unshare(session, runner, api):
            runner_projects.assign(session, SYSTEM, runner, api)

    @staticmethod
    def unshare(session: Session, runner: Runner, project: scopes.Scope) -> bool:
        try:
            runner_projects.unassign(session, SYSTEM, runner, project)
        except NotFound:
            return False
        return True

    def give_away(self, session: Session, chance: random.Random) -> None:
        """Delete a project that shares runners, and restore it: they are another's by then."""
        time.sleep(0.4)
        path = chance.choice([self.api, "acme/web"])
        deletion_id = groups.delete(session, SYSTEM, scopes.find_project(session, path)).id
        session.commit()
        restores.restore(session, SYSTEM, deletion_id, GRACE)

    def bulk(self, session: Session, chance: random.Random) -> None:
        dana = Cast.as_(session.scalars(select(User).where(User.username == "dana")).one())
        ids = chance.sample(list(self.tokens), 5)
        wanted = Wanted(chance.choice([Act.PAUSE, Act.RESUME]))
        act_id = bulk_acts.draft(session, dana, scopes.INSTANCE, wanted, ids).id
        bulk_acts.start(session, dana, act_id)
        session.commit()
        bulk_acts.take_batch(session, act_id)

    def leave(self, session: Session, chance: random.Random) -> None:
        """Somebody who created a runner is deleted, and somebody else gets it."""
        time.sleep(0.3)
        cast = Cast.__new__(Cast)
        cast.session = session
        person = cast.person(f"p{chance.randrange(10**9)}")
        self.some(session, chance).creator = person
        session.commit()
        dana = Cast.as_(session.scalars(select(User).where(User.username == "dana")).one())
        person_deletion.delete_person(session, dana, person, created=chance.choice([Runners.KEEP, Runners.PAUSE]))

    def purge(self, session: Session, chance: random.Random) -> None:
        time.sleep(0.9)
        if deletion_purge.purge(session, now() + 2 * GRACE, GRACE) == 0:
            raise NotFound("Nothing is deleted.")


def test_whatever_is_done_to_runners_at_once_nobody_waits_in_a_circle_and_nothing_is_lost(engine: Engine) -> None:
    fleet = Fleet(engine, 12)
    until = time.monotonic() + 4
    acts = (fleet.heartbeats, fleet.first_use, fleet.rotate, fleet.end, fleet.reset, fleet.unregister)
    others = (fleet.prune, fleet.delete, fleet.restore, fleet.purge)
    others += (fleet.share, fleet.give_away, fleet.bulk, fleet.leave)
    threads = [fleet.keep_doing(act, until) for act in (*acts, fleet.heartbeats, *others)]
    for thread in threads:
        thread.join()
    assert fleet.failures == []
    assert {act.__name__ for act in (*acts, *others)} - {"restore", "purge"} <= set(fleet.did)
    with Session(engine) as session:
        left = set(session.scalars(select(Runner.id)))
        assert left
        assert len(left) == 12 - fleet.did["delete"] + fleet.did["restore"]
        for runner_id in left:
            token_id, _ = fleet.tokens[runner_id]
            given = contact(runner_id, token_id, "s_last")
            runner_managers.record_contact(session, given)
            assert beat(session, [given]) == set()


ACTS: dict[str, Callable[[Session, Runner, int], Any]] = {
    "end": lambda session, runner, token_id: runner_tokens.end_token(session, SYSTEM, runner, token_id),
    "reset": lambda session, runner, _: runner_tokens.reset_token(session, SYSTEM, runner, seen_token_id=None),
    "delete": lambda session, runner, _: runners.delete_runner(session, SYSTEM, runner),
    "unregister": lambda session, runner, _: runner_managers.remove(session, SYSTEM, runner, "s_0"),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("calls", ["heartbeat", "first use"])
def test_who_holds_the_runner_is_not_met_by_a_call_that_holds_what_comes_next(
    engine: Engine, act: str, calls: str
) -> None:
    """The call waits for the runner before it locks anything, so that the other can go on."""
    runner_id, (token_id, _) = next(iter(Fleet(engine, 1).tokens.items()))
    failures: list[Exception] = []

    def call() -> None:
        with Session(engine) as session:
            try:
                if calls == "heartbeat":
                    beat(session, [contact(runner_id, token_id)])
                else:
                    runner_managers.record_contact(session, contact(runner_id, token_id))
                session.commit()
            except (OperationalError, Refusal) as failure:
                failures.append(failure)

    with Session(engine) as session:
        runner = session.get_one(Runner, runner_id)
        runner_tokens.hold(session, runner_id)
        calling = threading.Thread(target=call)
        calling.start()
        wait_for_a_waiting(engine)
        ACTS[act](session, runner, token_id)
        session.commit()
    calling.join()
    assert not [failure for failure in failures if isinstance(failure, OperationalError)]


def test_the_deletion_of_a_group_holds_all_its_runners_in_the_one_order(engine: Engine) -> None:
    """Runners of projects come after those of groups when the database deletes by itself; heartbeats go by id."""
    fleet = Fleet(engine, 6)
    first = min(fleet.tokens)
    with Session(engine) as session:
        runner_tokens.hold(session, first)
        failures: list[Exception] = []

        def delete() -> None:
            with Session(engine) as other:
                try:
                    group = scopes.find_group(other, "acme")
                    groups.delete(other, SYSTEM, group)
                    other.commit()
                except OperationalError as failure:
                    failures.append(failure)

        deleting = threading.Thread(target=delete)
        deleting.start()
        wait_for_a_waiting(engine)
        beat(session, [contact(each, it[0]) for each, it in sorted(fleet.tokens.items())])
        session.commit()
        deleting.join()
    assert failures == []
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(Runner)) == 0


def wait_for_a_waiting(engine: Engine) -> None:
    """Until somebody waits for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with engine.connect() as connection:
            if connection.exec_driver_sql(query).scalar():
                return
        time.sleep(0.02)
    raise AssertionError("nobody waits")


def test_a_reset_of_a_runner_that_is_being_deleted_is_refused(engine: Engine) -> None:
    runner_id, (_, token) = next(iter(Fleet(engine, 1).tokens.items()))
    refused: list[str] = []

    def rotate() -> None:
        with Session(engine) as session:
            try:
                runner_tokens.reset_token_by_machine(session, token, grace=GRACE)
            except Refusal as refusal:
                refused.append(type(refusal).__name__)

    with Session(engine) as session:
        runners.delete_runner(session, SYSTEM, session.get_one(Runner, runner_id))
        rotating = threading.Thread(target=rotate)
        rotating.start()
        wait_for_a_waiting(engine)
        session.commit()
    rotating.join()
    assert refused == ["RunnerDeleted"]


class Couple:
    """Two who do things at once: the first stops halfway, the second runs into it, the first goes on."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.failures: list[Exception] = []
        self.refused: list[Refusal] = []

    def second(self, act: Callable[[Session], object]) -> threading.Thread:
        def run() -> None:
            with Session(self.engine) as session:
                try:
                    act(session)
                    session.commit()
                except Refusal as refusal:
                    self.refused.append(refusal)
                except Exception as failure:
                    self.failures.append(failure)

        thread = threading.Thread(target=run)
        thread.start()
        return thread


def delete_person(username: str, created: Runners = Runners.KEEP) -> Callable[[Session], object]:
    def act(session: Session) -> object:
        dana, leaving = (
            session.scalars(select(User).where(User.username == each)).one() for each in ("dana", username)
        )
        actor = Cast.as_(dana)
        return person_deletion.delete_person(session, actor, leaving, created=created, leave_groups=True)

    return act


def of_alice(engine: Engine) -> tuple[int, int]:
    """A runner of acme that Alice has created, and Alice."""
    with Session(engine) as session:
        cast = Cast(session)
        runner = runners.create_runner(session, cast.as_(cast.alice), cast.acme, TAGGED).runner
        session.commit()
        return runner.id, cast.alice.id


@pytest.mark.parametrize("created", Runners)
def test_a_person_who_deletes_a_runner_of_theirs_while_they_are_deleted_themselves(
    engine: Engine, created: Runners
) -> None:
    runner_id, alice_id = of_alice(engine)
    couple = Couple(engine)
    with Session(engine) as session:
        alice = Cast.as_(session.get_one(User, alice_id))
        runner_tokens.hold(session, runner_id)
        deleting = couple.second(delete_person("alice", created))
        wait_for_a_waiting(engine)
        runners.delete_runner(session, alice, session.get_one(Runner, runner_id))
        session.commit()
    deleting.join()
    assert (couple.failures, couple.refused) == ([], [])


def test_a_restoring_and_the_deletion_of_the_person_who_had_deleted_it(engine: Engine) -> None:
    runner_id, alice_id = of_alice(engine)
    with Session(engine) as session:
        alice = Cast.as_(session.get_one(User, alice_id))
        deletion_id = runners.delete_runner(session, alice, session.get_one(Runner, runner_id)).id
        session.commit()
    couple = Couple(engine)
    with Session(engine) as session:
        deletions.hold(session, deletion_id, GRACE)
        deleting = couple.second(delete_person("alice"))
        wait_for_a_waiting(engine)
        restores.restore(session, SYSTEM, deletion_id, GRACE)
        session.commit()
    deleting.join()
    assert (couple.failures, couple.refused) == ([], [])


def shared(engine: Engine) -> int:
    """A runner of acme/web that serves other/api too."""
    with Session(engine) as session:
        cast = Cast(session)
        runner = cast.runner(cast.web).runner
        runner_projects.assign(session, SYSTEM, runner, cast.project("api", cast.other))
        session.commit()
        return runner.id


def delete_project(path: str) -> Callable[[Session], object]:
    return lambda session: groups.delete(session, SYSTEM, scopes.find_project(session, path))


@pytest.mark.parametrize(("first", "then"), [("acme/web", "other/api"), ("other/api", "acme/web")])
def test_two_projects_that_share_a_runner_and_are_deleted_at_once_leave_no_runner_behind(
    engine: Engine, first: str, then: str
) -> None:
    shared(engine)
    couple = Couple(engine)
    with Session(engine) as session:
        delete_project(first)(session)
        deleting = couple.second(delete_project(then))
        wait_for_a_waiting(engine)
        session.commit()
    deleting.join()
    assert (couple.failures, couple.refused) == ([], [])
    with Session(engine) as session:
        assert session.scalars(select(Runner)).all() == []


def test_a_runner_that_is_unassigned_meanwhile_goes_with_its_project(engine: Engine) -> None:
    runner_id = shared(engine)
    couple = Couple(engine)
    with Session(engine) as session:
        api = scopes.find_project(session, "other/api")
        runner_projects.unassign(session, SYSTEM, session.get_one(Runner, runner_id), api)
        deleting = couple.second(delete_project("acme/web"))
        wait_for_a_waiting(engine)
        session.commit()
    deleting.join()
    assert (couple.failures, couple.refused) == ([], [])
    with Session(engine) as session:
        assert session.scalars(select(Runner)).all() == []


def test_the_projects_of_a_runner_are_changed_while_one_of_them_is_deleted(engine: Engine) -> None:
    """What is unassigned is waited for by who deletes, so who assigns afterwards must not wait for them."""
    runner_id = shared(engine)
    couple = Couple(engine)
    with Session(engine) as session:
        acme = scopes.find_group(session, "acme")
        docs = scopes.of_project(groups.create_project(session, SYSTEM, acme, Naming("Docs", "docs")))
        session.commit()
        runner = session.get_one(Runner, runner_id)

        deleting: list[threading.Thread] = []

        def delete_meanwhile(*_: object) -> None:
            """Begins as soon as the assignment is taken away, before the next one is made."""
            if not deleting:
                deleting.append(couple.second(delete_project("acme/web")))
                wait_for_a_waiting(engine)

        event.listen(session, "after_flush", delete_meanwhile)
        runner_projects.set_projects(session, SYSTEM, runner, [docs])
        session.commit()
    deleting[0].join()
    assert (couple.failures, couple.refused) == ([], [])
    with Session(engine) as session:
        assert scopes.of_runner(session.get_one(Runner, runner_id)).full_path == "acme/docs"
