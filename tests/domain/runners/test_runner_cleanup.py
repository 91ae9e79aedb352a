"""Stale runners: which they are, to the second; which are kept; and that none goes without a trace."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit
from portal.domain.errors import Invalid, NotAllowed, NotFound
from portal.domain.machines import runner_managers, silent_machines
from portal.domain.machines.runner_managers import Contact
from portal.domain.runners import runner_cleanup, runner_tokens
from portal.domain.runners.runner_cleanup import Criteria, change, delete_stale, preview, set_protected
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.domain.scopes import INSTANCE, Scope
from portal.models import (
    AuditEvent,
    Deletion,
    GroupSettings,
    RegistrationType,
    Role,
    Runner,
    RunnerManager,
)
from tests.cast import SYSTEM, Cast
from tests.domain.clock import let_pass

SECOND, HOUR, WEEK = timedelta(seconds=1), timedelta(hours=1), timedelta(days=7)
A_WEEK, A_MONTH = Criteria(7), Criteria(30)


def call(session: Session, issued: IssuedRunner, *, polled: bool = True, system_xid: str = "s_1") -> None:
    """A machine polls, or only verifies its token."""
    contact = Contact(issued.runner.id, issued.record.id, system_xid, now(), "192.0.2.1", polled, None)
    runner_managers.record_contact(session, contact)


def would_go(session: Session, scope: Scope, criteria: Criteria = A_WEEK, *, age: timedelta = WEEK) -> list[int]:
    """The ids of those that would go if so much time went by from now on."""
    session.flush()
    return [runner.id for runner in preview(session, scope, criteria, now() + age).runners]


def clean(session: Session, scope: Scope, criteria: Criteria = A_WEEK, **more: Any) -> list[int]:
    """Clean up now, by the portal itself. Returns the ids of what went, in order."""
    return [gone.id for gone in delete_stale(session, SYSTEM, scope, criteria, now(), **more)]


def events(session: Session, scope: Scope, action: str) -> list[AuditEvent]:
    session.flush()
    return [event for event in session.scalars(audit.of_scope(scope)) if event.action == action]


# Which are stale


@pytest.mark.parametrize(("age", "stale"), [(WEEK - SECOND, False), (WEEK, True), (WEEK + SECOND, True)])
@pytest.mark.parametrize("contact", ["none", "poll"])
def test_a_runner_is_stale_exactly_seven_days_after_its_creation_or_its_last_poll(
    session: Session, cast: Cast, contact: str, age: timedelta, stale: bool
) -> None:
    issued = cast.runner()
    moment = now()
    runner, token = issued.runner, issued.record
    runner.created_at = token.created_at = moment if contact == "none" else moment - WEEK
    runner.contacted_at = None if contact == "none" else moment
    session.flush()
    found = preview(session, cast.acme, A_WEEK, moment + age)
    assert [each.id for each in found.runners] == ([runner.id] if stale else [])
    assert found.total == int(stale)


@pytest.mark.parametrize("silent", [timedelta(0), WEEK - SECOND])
def test_a_machine_that_polled_or_only_verified_in_between_keeps_the_runner(
    session: Session, cast: Cast, silent: timedelta
) -> None:
    polled, verified, absent = cast.runner(), cast.runner(), cast.runner()
    call(session, polled)
    let_pass(session, 3 * WEEK)
    call(session, polled)
    call(session, verified, polled=False)
    assert would_go(session, cast.acme, age=silent) == [absent.runner.id]


def test_a_machine_that_was_registered_and_not_heard_of_since_keeps_it_for_a_week(
    session: Session, cast: Cast
) -> None:
    runner = cast.runner().runner
    let_pass(session, 2 * WEEK)
    session.add(RunnerManager(runner_id=runner.id, system_xid="s_1", created_at=now(), contacted_at=None))
    assert would_go(session, cast.acme, age=WEEK - SECOND) == []
    assert would_go(session, cast.acme, age=WEEK) == [runner.id]


def test_a_machine_that_only_verified_counts_also_when_it_is_forgotten_already(session: Session, cast: Cast) -> None:
    settings = RunnerSettings("Pods", run_untagged=True, machines_forgotten_after=3600)
    issued = cast.runner(settings=settings)
    let_pass(session, 2 * WEEK)
    call(session, issued, polled=False)
    let_pass(session, 2 * HOUR)
    assert silent_machines.prune(session) == 1
    assert clean(session, cast.acme) == []


def test_a_token_that_a_person_made_anew_waits_for_its_machine(session: Session, cast: Cast) -> None:
    runner = cast.runner().runner
    let_pass(session, 2 * WEEK)
    runner_tokens.reset_token(session, cast.as_(cast.alice), runner, seen_token_id=None)
    assert would_go(session, cast.acme, age=WEEK - HOUR) == []
    assert would_go(session, cast.acme, age=WEEK) == [runner.id]


def test_of_the_runners_registered_by_a_token_alone(session: Session, cast: Cast) -> None:
    legacy, made = cast.runner().runner, cast.runner().runner
    legacy.registration_type = RegistrationType.REGISTRATION_TOKEN
    assert would_go(session, cast.acme, Criteria(7, legacy_only=True)) == [legacy.id]
    assert set(would_go(session, cast.acme, A_WEEK)) == {legacy.id, made.id}


def test_a_group_covers_what_is_below_it_and_nothing_beside_or_above(session: Session, cast: Cast) -> None:
    ids = {
        scope: cast.runner(scope).runner.id for scope in (INSTANCE, cast.acme, cast.platform, cast.web, cast.other)
    }
    assert set(would_go(session, cast.acme)) == {ids[cast.acme], ids[cast.platform], ids[cast.web]}
    assert would_go(session, cast.platform) == [ids[cast.platform]]
    assert set(would_go(session, INSTANCE)) == set(ids.values())


def test_the_longest_silent_stand_first_and_a_cut_list_keeps_the_numbers(session: Session, cast: Cast) -> None:
    runners = [cast.runner() for _ in range(3)]
    let_pass(session, WEEK)
    for issued in (runners[2], runners[0]):
        call(session, issued)
        let_pass(session, WEEK)
    found = preview(session, cast.acme, A_WEEK, now(), limit=2)
    assert [runner.id for runner in found.runners] == [runners[1].runner.id, runners[2].runner.id]
    assert (found.total, found.machines) == (3, 2)


@pytest.mark.parametrize("days", [0, 6, 3651, -7])
def test_days_that_make_no_sense_are_refused_everywhere(session: Session, cast: Cast, days: int) -> None:
    wrong = Criteria(days)
    acts: list[Callable[[], object]] = [
        lambda: preview(session, cast.acme, wrong, now()),
        lambda: change(session, SYSTEM, cast.acme, wrong),
        lambda: delete_stale(session, SYSTEM, cast.acme, wrong, now()),
    ]
    for act in acts:
        with pytest.raises(Invalid, match="from 7 to 3650"):
            act()


# What goes


def test_a_clean_up_deletes_by_one_act_that_can_be_undone_and_reports_it(session: Session, cast: Cast) -> None:
    issued, other = cast.runner(cast.web), cast.runner(cast.other)
    call(session, issued)
    let_pass(session, WEEK)
    assert clean(session, cast.acme) == [issued.runner.id]
    assert session.scalars(select(Runner.id)).all() == [other.runner.id]
    (deletion,) = session.scalars(select(Deletion))
    assert (deletion.kind, deletion.name, deletion.actor_name) == ("runners", "stale runners of acme", "tests")
    (report,) = runner_cleanup.reports(session, cast.acme)
    assert report.changes == {
        "runners": [None, 1],
        "days_of_silence": [None, 7],
        "only_registered_by_token": [None, False],
        "names": [None, [f"Linux build fleet (#{issued.runner.id})"]],
    }
    (deleted,) = events(session, cast.web, "runner_deleted")
    assert deleted.changes == {"machines": [1, 0], "by_the_clean_up_of": [None, "acme"]}
    assert (deleted.target_id, deleted.scope_path) == (issued.runner.id, "acme/web")
    assert runner_cleanup.reports(session, INSTANCE) == []


def test_a_clean_up_that_finds_nothing_leaves_no_trace(session: Session, cast: Cast) -> None:
    cast.runner()
    before = session.scalars(select(AuditEvent.id)).all()
    assert clean(session, cast.acme) == []
    session.flush()
    assert session.scalars(select(AuditEvent.id)).all() == before


def test_it_takes_one_batch_at_a_time_and_reports_each(session: Session, cast: Cast) -> None:
    for _ in range(5):
        cast.runner()
    let_pass(session, WEEK)
    assert [len(clean(session, INSTANCE, batch=2)) for _ in range(4)] == [2, 2, 1, 0]
    assert [report.changes["runners"][1] for report in runner_cleanup.reports(session, INSTANCE)] == [1, 2, 2]
    assert len(events(session, INSTANCE, "runner_deleted")) == 5


def test_a_report_names_fifty_and_a_long_description_is_cut(session: Session, cast: Cast) -> None:
    for _ in range(runner_cleanup.NAMED + 1):
        cast.runner(settings=RunnerSettings("x" * 1024, run_untagged=True))
    nameless = cast.runner(settings=RunnerSettings(run_untagged=True)).runner
    let_pass(session, WEEK)
    assert len(clean(session, cast.acme)) == runner_cleanup.NAMED + 2
    (report,) = runner_cleanup.reports(session, cast.acme)
    names = report.changes["names"][1]
    assert len(names) == runner_cleanup.NAMED
    assert max(map(len, names)) < 100
    assert runner_cleanup.name_of(nameless) == f"Runner #{nameless.id}"


def test_nothing_goes_that_was_not_on_the_list_that_the_person_saw(session: Session, cast: Cast) -> None:
    first, second = cast.runner(), cast.runner()
    let_pass(session, HOUR)
    for row in (second.runner, second.record):
        row.created_at = now()
    session.flush()
    let_pass(session, WEEK - HOUR)
    seen_at = now()
    let_pass(session, HOUR)
    gone = delete_stale(session, cast.as_(cast.alice), cast.acme, A_WEEK, seen_at - HOUR)
    assert [each.id for each in gone] == [first.runner.id]
    assert clean(session, cast.acme) == [second.runner.id]


def test_a_moment_to_come_counts_as_now(session: Session, cast: Cast) -> None:
    cast.runner()
    assert delete_stale(session, cast.as_(cast.alice), cast.acme, A_WEEK, now() + 2 * WEEK) == []


# The protect list


def test_a_protected_runner_is_kept_by_every_clean_up_until_it_is_taken_off(session: Session, cast: Cast) -> None:
    runner = cast.runner(cast.web).runner
    set_protected(session, cast.as_(cast.alice), cast.acme, runner.id, kept=True)
    let_pass(session, 100 * WEEK)
    assert [found.id for found in runner_cleanup.protected(session, INSTANCE).runners] == [runner.id]
    assert clean(session, cast.acme) + clean(session, INSTANCE) == []
    set_protected(session, cast.as_(cast.alice), cast.acme, runner.id, kept=False)
    assert runner_cleanup.protected(session, INSTANCE).total == 0
    assert clean(session, INSTANCE) == [runner.id]


def test_protecting_twice_changes_and_tells_it_once(session: Session, cast: Cast) -> None:
    runner = cast.runner().runner
    alice = cast.as_(cast.alice)
    changes = [set_protected(session, alice, cast.acme, runner.id, kept)[1] for kept in (False, True, True, False)]
    assert changes == [False, True, False, True]
    assert len(events(session, cast.acme, "runner_protected")) == 1
    assert len(events(session, cast.acme, "runner_unprotected")) == 1


def test_a_runner_of_elsewhere_cannot_be_protected_here(session: Session, cast: Cast) -> None:
    for scope in (INSTANCE, cast.other):
        runner = cast.runner(scope).runner
        with pytest.raises(Invalid, match=f"no runner #{runner.id} here"):
            set_protected(session, cast.as_(cast.alice), cast.acme, runner.id, kept=True)
        assert not runner.kept_when_stale


# The switch


def own(session: Session, scope: Scope) -> Criteria | None:
    return runner_cleanup.settled(session, scope)[-1].criteria


@pytest.mark.parametrize("where", ["acme", "the instance"])
def test_it_is_off_until_somebody_turns_it_on_and_each_change_is_told(
    session: Session, cast: Cast, where: str
) -> None:
    scope, actor = (cast.acme, cast.as_(cast.alice)) if where == "acme" else (INSTANCE, cast.as_(cast.dana))
    assert own(session, scope) is None
    wishes = [None, A_MONTH, A_MONTH, Criteria(7, legacy_only=True), None]
    assert [change(session, actor, scope, each) for each in wishes] == [False, True, False, True, True]
    told = [(event.target_name, event.changes) for event in events(session, scope, "stale_runner_cleanup_changed")]
    assert told[::-1] == [
        (where, {"days_of_silence": [None, 30]}),
        (where, {"days_of_silence": [30, 7], "only_registered_by_token": [False, True]}),
        (where, {"days_of_silence": [7, None]}),
    ]
    assert own(session, scope) is None


def test_a_group_sees_what_is_settled_above_it(session: Session, cast: Cast) -> None:
    change(session, SYSTEM, INSTANCE, A_MONTH)
    change(session, SYSTEM, cast.acme, A_WEEK)
    settled = runner_cleanup.settled(session, cast.platform)
    assert [(each.scope.title, each.criteria) for each in settled] == [
        ("the instance", A_MONTH),
        ("acme", A_WEEK),
        ("acme/platform", None),
    ]


def test_a_project_has_none_of_its_own(session: Session, cast: Cast) -> None:
    with pytest.raises(Invalid, match="that of its groups covers it"):
        change(session, cast.as_(cast.alice), cast.web, A_WEEK)


@pytest.mark.parametrize(
    ("who", "refusal"), [("bob", NotFound), ("charlie", NotFound), ("erin", NotAllowed), ("gwen", NotAllowed)]
)
def test_only_owners_and_administrators_may(session: Session, cast: Cast, who: str, refusal: type[Exception]) -> None:
    people = {user.username: user for user in (cast.bob, cast.charlie, cast.erin, cast.person("gwen"))}
    cast.member(people["gwen"], cast.acme, Role.MAINTAINER)
    actor, runner = cast.as_(people[who]), cast.runner().runner
    acts: list[Callable[[], object]] = [
        lambda: change(session, actor, cast.acme, A_WEEK),
        lambda: delete_stale(session, actor, cast.acme, A_WEEK, now()),
        lambda: set_protected(session, actor, cast.acme, runner.id, kept=True),
    ]
    for act in acts:
        with pytest.raises(refusal):
            act()


# Running by itself


def test_a_scope_is_due_when_it_is_on_and_an_hour_after_its_last_run(session: Session, cast: Cast) -> None:
    group_id = cast.acme.id
    assert runner_cleanup.turned_on(session) == []
    for scope in (INSTANCE, cast.acme):
        change(session, SYSTEM, scope, A_WEEK)
    assert runner_cleanup.due(session, now()) == runner_cleanup.turned_on(session) == [None, group_id]
    ran_at = now()
    runner_cleanup.note_run(session, None, ran_at)
    assert runner_cleanup.due(session, ran_at + HOUR - SECOND) == [group_id]
    assert runner_cleanup.due(session, ran_at + HOUR) == [None, group_id]
    change(session, SYSTEM, cast.acme, None)
    assert runner_cleanup.due(session, ran_at) == []


def test_a_run_does_what_is_settled_and_nothing_once_it_is_off(session: Session, cast: Cast) -> None:
    ids = [cast.runner().runner.id for _ in range(2)]
    let_pass(session, WEEK)
    assert runner_cleanup.run(session, cast.acme.id, now()) == []
    change(session, SYSTEM, cast.acme, A_WEEK)
    assert [gone.id for gone in runner_cleanup.run(session, cast.acme.id, now(), batch=1)] == ids[:1]
    change(session, SYSTEM, cast.acme, None)
    assert runner_cleanup.run(session, cast.acme.id, now()) == []
    assert session.scalars(select(Runner.id)).all() == ids[1:]
    (report,) = runner_cleanup.reports(session, cast.acme)
    assert (report.actor_kind, report.actor_name) == ("system", "clean-up")


def test_a_run_for_a_group_that_is_gone_does_nothing(session: Session, cast: Cast) -> None:
    change(session, SYSTEM, cast.other, A_WEEK)
    group_id = cast.other.id
    assert group_id is not None
    session.delete(cast.other.group)
    session.flush()
    session.expire_all()
    assert runner_cleanup.run(session, group_id, now()) == []
    runner_cleanup.note_run(session, group_id, now())
    assert session.get(GroupSettings, group_id) is None
