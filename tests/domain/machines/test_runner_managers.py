"""Machines: what they tell of themselves, their rows, and how the silent ones go."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import actors, audit
from portal.domain.errors import BadRequest, ManagerUnknown, TokenUnknown, TryLater
from portal.domain.machines import runner_managers, silent_machines
from portal.domain.machines.machine_facts import MachineFacts, read_facts, read_system_id
from portal.domain.machines.runner_managers import Contact
from portal.domain.runners import runner_tokens, runners
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.models import LEGACY, AuditEvent, CreationState, Executor, Runner, RunnerManager, RunnerToken
from tests.cast import Cast
from tests.domain.clock import let_pass
from tests.domain.queries import asked

SECOND = timedelta(seconds=1)
WEEK = timedelta(days=7)
FACTS = MachineFacts(
    "18.5.0", "abc123", "linux", "amd64", Executor.DOCKER, {"gpus": "all"}, {"cache": True}, {"a": "b"}
)


def contact(issued: IssuedRunner, system_xid: str = "s_1", **changes: Any) -> Contact:
    given = Contact(issued.runner.id, issued.record.id, system_xid, now(), "192.0.2.1", True, FACTS)
    return given._replace(**changes)


def only_manager(session: Session) -> RunnerManager:
    session.expire_all()
    return session.scalars(select(RunnerManager)).one()


def write(session: Session, *contacts: Contact) -> set[tuple[int, str]]:
    unwritten = runner_managers.write_heartbeats(session, contacts, lambda value: orjson.dumps(value).decode())
    session.expire_all()
    return unwritten.missing


# What a machine says


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_machine_that_sends_no_system_id_is_the_legacy_one(nothing: object) -> None:
    assert read_system_id(nothing) == LEGACY == "<legacy>"


def test_a_system_id_of_64_characters_is_the_longest() -> None:
    assert read_system_id("s_" + "x" * 62) == "s_" + "x" * 62


@pytest.mark.parametrize("wrong", ["x" * 65, "a\0b", 7, True, ["s_1"], {"s": 1}])
def test_a_system_id_that_cannot_be_stored_is_refused_by_name(wrong: object) -> None:
    with pytest.raises(BadRequest, match="system_id"):
        read_system_id(wrong)


def test_facts_are_read_and_unknown_keys_are_ignored() -> None:
    told = {
        "name": "gitlab-runner",
        "version": "18.5.0",
        "revision": "abc123",
        "platform": "linux",
        "architecture": "amd64",
        "executor": "docker",
        "config": {"gpus": "all"},
        "features": {"cache": True},
        "labels": {"a": "b"},
        "a key of some later release": {"deep": [1]},
    }
    assert read_facts(told) == FACTS


def test_no_info_is_no_facts_and_empty_info_is_empty_facts() -> None:
    assert read_facts(None) is None
    assert read_facts({}) == MachineFacts()
    assert read_facts({"version": None, "revision": "", "features": None, "executor": ""}) == MachineFacts()


@pytest.mark.parametrize(
    ("name", "executor"),
    [
        ("shell", Executor.SHELL),
        ("docker+machine", Executor.DOCKER_MACHINE),
        ("docker-ssh+machine", Executor.DOCKER_SSH_MACHINE),
        ("docker-windows", Executor.DOCKER_WINDOWS),
        ("docker-autoscaler", Executor.DOCKER_AUTOSCALER),
        ("kubernetes", Executor.KUBERNETES),
        ("one of a later release", Executor.UNKNOWN),
    ],
)
def test_an_executor_is_known_by_the_name_gitlab_runner_writes(name: str, executor: Executor) -> None:
    facts = read_facts({"executor": name})
    assert facts is not None
    assert facts.executor_type == executor


@pytest.mark.parametrize(
    ("info", "named"),
    [
        ("text", "info"),
        ([], "info"),
        ({"version": 18}, "info.version"),
        ({"version": "x" * 2049}, "info.version"),
        ({"revision": "x" * 256}, "info.revision"),
        ({"platform": "a\0b"}, "info.platform"),
        ({"architecture": ["amd64"]}, "info.architecture"),
        ({"executor": 3}, "info.executor"),
        ({"config": "gpus"}, "info.config"),
        ({"config": {"deep": {}}}, "info.config.deep"),
        ({"features": {"cache": "yes"}}, "info.features.cache"),
        ({"features": {str(n): True for n in range(257)}}, "info.features"),
        ({"labels": {"a": 1}}, "info.labels.a"),
        ({"labels": {"a": "x" * 1025}}, "info.labels.a"),
        ({"labels": {"x" * 256: "a"}}, "info.labels.xxx"),
        ({"labels": {"a\0": "b"}}, "info.labels.a"),
    ],
)
def test_info_that_cannot_be_stored_is_refused_by_name(info: object, named: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read_facts(info)
    assert str(refused.value).startswith(named)


def test_the_largest_values_that_are_taken_can_be_stored(session: Session, cast: Cast) -> None:
    facts = read_facts(
        {
            "version": "v" * 2048,
            "revision": "r" * 255,
            "platform": "ä" * 255,
            "architecture": "字" * 255,
            "labels": {f"{n}".rjust(255, "k"): "x" * 1024 for n in range(256)},
        }
    )
    issued = cast.runner()
    runner_managers.record_contact(session, contact(issued, "x" * 64, facts=facts))
    assert len(only_manager(session).labels) == 256
    assert not write(session, contact(issued, "x" * 64, facts=facts))


# A row at once


def test_a_verification_makes_a_machine_that_has_not_polled(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    runner_managers.record_contact(session, contact(issued, polled=False, facts=None))
    made = only_manager(session)
    assert (made.runner_id, made.system_xid, made.ip_address) == (issued.runner.id, "s_1", "192.0.2.1")
    assert not made.has_polled
    assert made.contacted_at is not None
    assert issued.runner.contacted_at is None
    assert (made.version, made.config, made.labels) == (None, {}, {})


def test_a_poll_makes_the_machine_and_its_runner_contacted(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    given = contact(issued)
    runner_managers.record_contact(session, given)
    made = only_manager(session)
    assert made.has_polled
    assert (made.version, made.executor_name, made.config, made.runtime_features, made.labels) == (
        "18.5.0",
        "docker",
        {"gpus": "all"},
        {"cache": True},
        {"a": "b"},
    )
    assert (issued.runner.contacted_at, issued.runner.creation_state) == (given.at, CreationState.FINISHED)
    assert made.token_id == issued.record.id
    assert issued.record.first_used_at is not None


def test_a_second_contact_refreshes_the_one_row(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    runner_managers.record_contact(session, contact(issued))
    later = contact(issued, address="192.0.2.2", facts=replace(FACTS, version="19.0.0"))
    runner_managers.record_contact(session, later)
    made = only_manager(session)
    assert (made.version, made.ip_address, made.contacted_at) == ("19.0.0", "192.0.2.2", later.at)


def test_a_verification_takes_nothing_back_that_a_poll_has_told(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    first = contact(issued)
    runner_managers.record_contact(session, first)
    runner_managers.record_contact(session, contact(issued, polled=False, facts=None, at=first.at - SECOND))
    made = only_manager(session)
    assert made.has_polled
    assert (made.version, made.contacted_at) == ("18.5.0", first.at)


def test_machines_without_a_system_id_share_one_row_per_runner(session: Session, cast: Cast) -> None:
    one, other = cast.runner(), cast.runner()
    for issued in (one, one, other):
        runner_managers.record_contact(session, contact(issued, read_system_id(None)))
    rows = session.execute(select(RunnerManager.runner_id, RunnerManager.system_xid)).all()
    assert sorted(rows) == [(one.runner.id, LEGACY), (other.runner.id, LEGACY)]


def test_a_machine_of_a_deleted_runner_is_told_so_and_the_transaction_goes_on(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    given = contact(issued)
    runners.delete_runner(session, cast.as_(cast.alice), issued.runner)
    with pytest.raises(TokenUnknown):
        runner_managers.record_contact(session, given)
    neighbour = cast.runner()
    with pytest.raises(TokenUnknown):
        runner_managers.record_contact(session, contact(neighbour, token_id=neighbour.record.id + 1000))
    assert session.scalar(select(func.count()).select_from(RunnerManager)) == 0


@pytest.mark.parametrize(("there", "refused"), [(999, False), (1000, True)])
def test_a_runner_gets_a_thousand_new_machines_in_ten_minutes(
    session: Session, cast: Cast, there: int, refused: bool
) -> None:
    issued = cast.runner()
    crowd(session, issued, there)
    if refused:
        with pytest.raises(TryLater, match="volume") as told:
            runner_managers.record_contact(session, contact(issued, "s_new"))
        assert told.value.seconds == 600
        runner_managers.record_contact(session, contact(issued, "s_1"))  # the ones it has go on
        runner_managers.record_contact(session, contact(cast.runner(), "s_new"))
    else:
        runner_managers.record_contact(session, contact(issued, "s_new"))
    names = session.scalars(select(RunnerManager.system_xid).where(RunnerManager.runner_id == issued.runner.id)).all()
    assert ("s_new" in names) is not refused


def test_ten_minutes_later_new_machines_are_welcome_again(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    crowd(session, issued, 1000)
    let_pass(session, runner_managers.NEW_ROWS_WINDOW + SECOND)
    runner_managers.record_contact(session, contact(issued, "s_new"))


def crowd(session: Session, issued: IssuedRunner, machines: int) -> None:
    session.execute(
        text(
            "INSERT INTO ci_runner_machines (runner_id, system_xid, creation_state, created_at, contacted_at) "
            "SELECT :runner_id, 's_' || n, 0, now(), now() FROM generate_series(1, :machines) n"
        ),
        {"runner_id": issued.runner.id, "machines": machines},
    )


# Heartbeats


def test_many_heartbeats_are_one_statement_after_their_runners_are_held(session: Session, cast: Cast) -> None:
    fleet = [cast.runner() for _ in range(3)]
    contacts = [contact(issued, f"s_{n}") for issued in fleet for n in range(5)]
    for each in contacts:
        runner_managers.record_contact(session, each)
    later = now() + SECOND
    told = replace(FACTS, version="19.1.0", labels={"site": "b"})
    with asked(session) as statements:
        write(session, *(each._replace(at=later, facts=told, address="192.0.2.9") for each in contacts))
    assert [each.split()[0] for each in statements] == ["SELECT", "WITH"]
    assert "ORDER BY id FOR NO KEY UPDATE" in statements[0]
    rows = session.scalars(select(RunnerManager)).all()
    assert len(rows) == 15
    assert {(row.contacted_at, row.version, row.ip_address) for row in rows} == {(later, "19.1.0", "192.0.2.9")}
    assert all(row.labels == {"site": "b"} for row in rows)
    assert {issued.runner.contacted_at for issued in fleet} == {later}


def test_what_a_machine_told_before_something_newer_was_known_of_it_is_reported_as_unwritten(
    session: Session, cast: Cast
) -> None:
    issued = cast.runner()
    first = contact(issued)
    runner_managers.record_contact(session, first)
    (machine_id,) = session.scalars(select(RunnerManager.id))
    runner_managers.write_job_contacts(session, {machine_id: (first.at + 2 * SECOND, "192.0.2.1")})
    told = first._replace(at=first.at + SECOND, facts=replace(FACTS, version="19.1.0"))
    unwritten = runner_managers.write_heartbeats(session, [told], lambda value: orjson.dumps(value).decode())
    assert (unwritten.missing, unwritten.late) == (set(), {(issued.runner.id, "s_1")})
    assert only_manager(session).version == FACTS.version
    told = told._replace(at=first.at + 2 * SECOND)
    unwritten = runner_managers.write_heartbeats(session, [told], lambda value: orjson.dumps(value).decode())
    assert (unwritten.missing, unwritten.late) == (set(), set())
    assert only_manager(session).version == "19.1.0"


def test_a_token_is_written_as_used_once_in_a_minute(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    given = contact(issued)
    runner_managers.record_contact(session, given)
    first = issued.record.last_used_at
    assert first is not None
    write(session, given._replace(at=first + 59 * SECOND))
    assert (issued.record.last_used_at, issued.runner.contacted_at) == (first, first + 59 * SECOND)
    write(session, given._replace(at=first + 60 * SECOND))
    assert issued.record.last_used_at == first + 60 * SECOND
    write(session, given)  # what comes late is no later use
    assert issued.record.last_used_at == first + 60 * SECOND


def test_a_heartbeat_that_tells_nothing_leaves_what_is_stored(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    runner_managers.record_contact(session, contact(issued))
    write(session, contact(issued, facts=None, polled=False))
    made = only_manager(session)
    assert (made.version, made.executor_type, made.config, made.has_polled) == ("18.5.0", 3, {"gpus": "all"}, True)


def test_a_late_heartbeat_never_turns_the_clock_back(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    first = contact(issued)
    runner_managers.record_contact(session, first)
    write(session, first._replace(at=first.at - 60 * SECOND))
    assert only_manager(session).contacted_at == first.at
    assert issued.runner.contacted_at == first.at


@pytest.mark.parametrize("how", ["a heartbeat", "a first contact of another process"])
def test_what_is_older_than_what_is_stored_says_nothing_of_the_machine_any_more(
    session: Session, cast: Cast, how: str
) -> None:
    issued = cast.runner()
    fresh = runner_tokens.reset_token_by_machine(session, issued.token, grace=WEEK)
    newer = contact(issued, token_id=fresh.record.id, address="192.0.2.2", facts=replace(FACTS, version="18.6.6"))
    runner_managers.record_contact(session, newer)
    late = contact(issued, at=newer.at - SECOND)
    if how == "a heartbeat":
        write(session, late)
    else:
        runner_managers.record_contact(session, late)
    manager = only_manager(session)
    assert (manager.token_id, manager.ip_address, manager.version) == (fresh.record.id, "192.0.2.2", "18.6.6")
    assert manager.contacted_at == newer.at


def test_a_verification_among_the_heartbeats_does_not_count_as_the_runners_contact(
    session: Session, cast: Cast
) -> None:
    issued = cast.runner()
    runner_managers.record_contact(session, contact(issued, polled=False))
    write(session, contact(issued, polled=False))
    assert issued.runner.contacted_at is None
    assert not only_manager(session).has_polled


def test_heartbeats_bring_no_machine_back_and_tell_which_had_no_row(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    runner_managers.record_contact(session, contact(issued, "s_there"))
    nobody = contact(issued, "s_there", runner_id=issued.runner.id + 1000, token_id=issued.record.id + 1000)
    missing = write(session, contact(issued, "s_gone"), nobody, contact(issued, "s_there"))
    assert missing == {(issued.runner.id, "s_gone"), (nobody.runner_id, "s_there")}
    assert only_manager(session).system_xid == "s_there"


def test_a_heartbeat_with_a_token_that_is_gone_is_written_without_it(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    runner_managers.record_contact(session, contact(issued))
    assert not write(session, contact(issued, token_id=issued.record.id + 1000, address="192.0.2.3"))
    assert (only_manager(session).token_id, only_manager(session).ip_address) == (None, "192.0.2.3")


# Going


def test_unregistering_removes_one_machine_and_leaves_the_runner(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    for name in ("s_1", "s_2"):
        runner_managers.record_contact(session, contact(issued, name))
    machine = actors.runner(issued.runner.id, issued.record.short)
    runner_managers.remove(session, machine, issued.runner, "s_1")
    assert only_manager(session).system_xid == "s_2"
    event = session.scalars(audit.of_runner(issued.runner).limit(1)).one()
    assert (event.action, event.changes) == ("machine_unregistered", {"system_id": ["s_1", None]})
    with pytest.raises(ManagerUnknown):
        runner_managers.remove(session, machine, issued.runner, "s_1")


@pytest.mark.parametrize(("there", "left"), [(1, 0), (2, 2)])
def test_a_client_that_names_no_machine_removes_it_only_if_it_is_clear_which(
    session: Session, cast: Cast, there: int, left: int
) -> None:
    issued = cast.runner()
    for n in range(there):
        runner_managers.record_contact(session, contact(issued, f"s_{n}"))
    runner_managers.remove_only_one(session, cast.as_(cast.alice), issued.runner)
    assert runner_managers.count(session, issued.runner) == left


@pytest.mark.parametrize(("silent", "gone"), [(WEEK - SECOND, 0), (WEEK + SECOND, 1)])
def test_a_machine_goes_after_seven_days_of_silence_and_its_runner_stays(
    session: Session, cast: Cast, silent: timedelta, gone: int
) -> None:
    issued = cast.runner()
    runner_managers.record_contact(session, contact(issued))
    let_pass(session, silent)
    assert silent_machines.prune(session) == gone
    assert runner_managers.count(session, issued.runner) == 1 - gone
    assert session.scalars(select(Runner.id)).all() == [issued.runner.id]
    assert session.scalars(select(RunnerToken.id)).all() == [issued.record.id]


@pytest.mark.parametrize(("age", "gone"), [(WEEK - SECOND, 0), (WEEK + SECOND, 1)])
def test_a_machine_that_was_never_heard_of_goes_by_its_age(
    session: Session, cast: Cast, age: timedelta, gone: int
) -> None:
    session.add(RunnerManager(runner_id=cast.runner().runner.id, system_xid="s_1", created_at=now() - age))
    session.flush()
    assert silent_machines.prune(session) == gone


def test_an_old_machine_that_is_still_heard_of_stays(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    runner_managers.record_contact(session, contact(issued))
    let_pass(session, 10 * WEEK)
    runner_managers.record_contact(session, contact(issued))
    assert silent_machines.prune(session) == 0


def test_a_prune_takes_one_batch_at_a_time(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    crowd(session, issued, 5)
    let_pass(session, 2 * WEEK)
    assert [silent_machines.prune(session, batch=3) for _ in range(3)] == [3, 2, 0]


def short_lived(cast: Cast, seconds: int = 3600) -> IssuedRunner:
    """A runner whose machines are forgotten after so many seconds."""
    settings = RunnerSettings("Pods", run_untagged=True, machines_forgotten_after=seconds)
    return cast.runner(settings=settings)


@pytest.mark.parametrize(
    ("own", "deadline"), [(None, WEEK), (3600, timedelta(hours=1)), (90 * 86_400, timedelta(days=90))]
)
@pytest.mark.parametrize(("tick", "gone"), [(-SECOND, 0), (timedelta(0), 1), (SECOND, 1)])
@pytest.mark.parametrize("heard", [True, False], ids=["heard of", "never heard of"])
def test_a_machine_goes_exactly_at_its_deadline_which_its_runner_may_choose(
    session: Session, cast: Cast, own: int | None, deadline: timedelta, tick: timedelta, gone: int, heard: bool
) -> None:
    runner = short_lived(cast, own).runner if own else cast.runner().runner
    moment = now()
    contacted = {"created_at": moment - 10 * WEEK, "contacted_at": moment} if heard else {"created_at": moment}
    session.add(RunnerManager(runner_id=runner.id, system_xid="s_1", **contacted))
    session.flush()
    assert silent_machines.prune(session, at=moment + deadline + tick) == gone
    assert runner_managers.count(session, runner) == 1 - gone


def test_a_machine_that_was_made_after_it_was_heard_of_counts_from_its_making(session: Session, cast: Cast) -> None:
    """Clocks differ; the later of the two counts."""
    moment = now()
    for n, issued in enumerate((cast.runner(), short_lived(cast))):
        row = {"created_at": moment, "contacted_at": moment - 2 * WEEK}
        session.add(RunnerManager(runner_id=issued.runner.id, system_xid=f"s_{n}", **row))
    session.flush()
    assert silent_machines.prune(session, at=moment + timedelta(minutes=59)) == 0
    assert silent_machines.prune(session, at=moment + WEEK - SECOND) == 1
    assert silent_machines.prune(session, at=moment + WEEK) == 1


def test_one_batch_is_filled_from_all_kinds_of_silence(session: Session, cast: Cast) -> None:
    usual, short = cast.runner(), short_lived(cast)
    crowd(session, usual, 2)
    crowd(session, short, 2)
    session.add(RunnerManager(runner_id=usual.runner.id, system_xid="s_never"))
    let_pass(session, 2 * WEEK)
    assert [silent_machines.prune(session, batch=4) for _ in range(3)] == [4, 1, 0]


def test_the_runner_counts_its_forgotten_machines_and_the_trail_tells_of_them_together(
    session: Session, cast: Cast
) -> None:
    usual, short, quiet = cast.runner(), short_lived(cast), cast.runner()
    for issued, number in ((usual, 2), (short, 3)):
        crowd(session, issued, number)
    changed = usual.runner.updated_at
    let_pass(session, 2 * WEEK)
    moment = now()
    assert silent_machines.prune(session, at=moment) == 5
    crowd(session, short, 1)
    let_pass(session, WEEK)
    assert silent_machines.prune(session) == 1
    session.expire_all()
    assert [each.runner.machines_forgotten for each in (usual, short, quiet)] == [2, 4, 0]
    assert usual.runner.machines_forgotten_at == moment - WEEK
    assert quiet.runner.machines_forgotten_at is None
    assert usual.runner.updated_at == changed - 3 * WEEK, "it is not a change of the runner's settings"
    told = session.scalars(
        select(AuditEvent).where(AuditEvent.action == "machines_forgotten").order_by(AuditEvent.id)
    )
    assert [(each.actor_kind, each.actor_name, each.target_id, each.changes) for each in told] == [
        ("system", "clean-up", usual.runner.id, {"machines": [None, 2]}),
        ("system", "clean-up", short.runner.id, {"machines": [None, 3]}),
        ("system", "clean-up", short.runner.id, {"machines": [None, 1]}),
    ]


def test_a_prune_of_nothing_leaves_no_trace(session: Session, cast: Cast) -> None:
    crowd(session, cast.runner(), 2)
    with asked(session) as statements:
        assert silent_machines.prune(session) == 0
    assert len(statements) == 3
    assert not [each for each in statements if not each.startswith("SELECT")]


def test_a_prune_finds_the_silent_by_indexes_and_reads_no_whole_table(session: Session, cast: Cast) -> None:
    short = short_lived(cast).runner
    session.execute(
        text(
            "INSERT INTO ci_runner_machines (runner_id, system_xid, creation_state, created_at, contacted_at) "
            "SELECT CASE WHEN n % 100 = 0 THEN CAST(:short AS bigint) ELSE CAST(:usual AS bigint) END, "
            "'s_' || n, 100, now(), now() FROM generate_series(1, 20000) n"
        ),
        {"short": short.id, "usual": cast.runner().runner.id},
    )
    session.execute(text("ANALYZE ci_runner_machines"))
    before = rows_read(session)
    silent_machines.prune(session)
    assert rows_read(session) == before
    session.execute(text("SELECT max(version) FROM ci_runner_machines"))
    assert rows_read(session) == before + 20_000, "such a reading would be seen"


def rows_read(session: Session) -> int:
    """How many rows of machines were read by going through the table from its beginning."""
    reading = "SELECT seq_tup_read FROM pg_stat_xact_all_tables WHERE relname = 'ci_runner_machines'"
    return session.scalar(text(reading)) or 0


def test_the_newest_contact_stands_on_top_and_silence_at_the_end(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    moment = now()
    for n, name in enumerate(("s_old", "s_new")):
        runner_managers.record_contact(session, contact(issued, name, at=moment + n * SECOND))
    session.add(RunnerManager(runner_id=issued.runner.id, system_xid="s_silent"))
    session.flush()
    names = [each.system_xid for each in runner_managers.of_runner_newest_first(session, issued.runner, 10)]
    assert names == ["s_new", "s_old", "s_silent"]


def test_a_machine_shows_which_token_it_used_last(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    runner_managers.record_contact(session, contact(issued))
    minted = runner_tokens.reset_token_by_machine(session, issued.token, grace=timedelta(hours=1)).record
    runner_managers.record_contact(session, contact(issued, token_id=minted.id))
    found = runner_managers.tokens_in_use(session, [only_manager(session)])
    assert [row.short for row in found.values()] == [minted.short]
    assert runner_managers.tokens_in_use(session, []) == {}


def test_what_is_said_of_a_job_refreshes_the_machine_unless_its_runner_is_deleted(
    session: Session, cast: Cast
) -> None:
    issued, at = cast.runner(), now()
    runner_managers.record_contact(session, contact(issued, at=at))
    machine_id = only_manager(session).id
    runner_managers.write_job_contacts(session, {machine_id: (at + SECOND, "192.0.2.8")})
    assert (only_manager(session).contacted_at, only_manager(session).ip_address) == (at + SECOND, "192.0.2.8")
    runner_managers.write_job_contacts(session, {machine_id: (at, "192.0.2.9")})  # late: another process was quicker
    assert (only_manager(session).contacted_at, only_manager(session).ip_address) == (at + SECOND, "192.0.2.8")
    runners.delete_runner(session, cast.as_(cast.dana), issued.runner)
    runner_managers.write_job_contacts(session, {machine_id: (at + 9 * SECOND, "192.0.2.9")})
    assert only_manager(session).contacted_at == at + SECOND
