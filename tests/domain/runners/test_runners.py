"""Runners: what a person may choose, and what creating, changing, pausing and deleting do."""

from uuid import uuid4

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from portal.domain import audit, scopes, tokens
from portal.domain.errors import AlreadyIssued, Invalid, NotAllowed, NotFound
from portal.domain.runners import runner_settings, runner_tokens, runners
from portal.domain.runners.runner_settings import RunnerSettings, split_tags
from portal.models import AccessLevel, AuditEvent, Runner, RunnerManager, RunnerToken, RunnerType
from tests.cast import TAGGED, Cast

UNTAGGED = RunnerSettings(run_untagged=True)


def count(session: Session, model: type) -> int:
    return session.scalar(select(func.count()).select_from(model)) or 0


def newest_event(session: Session) -> AuditEvent:
    return session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc()).limit(1)).one()


@pytest.mark.parametrize(
    ("settings", "field", "sentence"),
    [
        (RunnerSettings(), "tags", "at least one tag"),
        (RunnerSettings(tags=tuple(f"t{n}" for n in range(51))), "tags", "Too many tags: 51"),
        (RunnerSettings(tags=("ok", "x" * 256)), "tags", "too long"),
        (RunnerSettings(tags=("a\0b",)), "tags", "cannot be stored"),
        (RunnerSettings(run_untagged=True, description="x" * 1025), "description", "too long"),
        (RunnerSettings(run_untagged=True, description="a\0b"), "description", "cannot be stored"),
        (RunnerSettings(run_untagged=True, maintenance_note="x" * 1025), "maintenance_note", "too long"),
        (RunnerSettings(run_untagged=True, maintenance_note="\0"), "maintenance_note", "cannot be stored"),
        (RunnerSettings(run_untagged=True, maximum_timeout=599), "maximum_timeout", "600 seconds"),
        (RunnerSettings(run_untagged=True, maximum_timeout=-1), "maximum_timeout", "600 seconds"),
        (RunnerSettings(run_untagged=True, maximum_timeout=2**31), "maximum_timeout", ""),
    ],
)
def test_a_rule_that_is_broken_is_told_beside_its_field(
    session: Session, cast: Cast, settings: RunnerSettings, field: str, sentence: str
) -> None:
    with pytest.raises(Invalid) as refused:
        runners.create_runner(session, cast.as_(cast.alice), cast.acme, settings)
    assert list(refused.value.problems) == [field]
    assert sentence in refused.value.problems[field][0]
    assert count(session, Runner) == 0


def test_every_broken_rule_is_told_at_once() -> None:
    wrong = RunnerSettings(description="x" * 1025, maintenance_note="\0", maximum_timeout=1)
    assert set(wrong.problems()) == {"description", "maintenance_note", "tags", "maximum_timeout"}


@pytest.mark.parametrize(
    "settings",
    [
        UNTAGGED,
        RunnerSettings(tags=tuple(f"{n}".rjust(255, "t") for n in range(50))),
        RunnerSettings(run_untagged=True, description="ä" * 1024, maintenance_note="字" * 1024),
        RunnerSettings(run_untagged=True, maximum_timeout=600),
        RunnerSettings(run_untagged=True, maximum_timeout=2**31 - 1),
    ],
)
def test_values_just_inside_the_rules_are_stored(session: Session, cast: Cast, settings: RunnerSettings) -> None:
    made = runners.create_runner(session, cast.as_(cast.alice), cast.acme, settings).runner
    session.expire(made)
    assert runner_settings.settings_of(made) == settings


@pytest.mark.parametrize(
    ("typed", "tags"),
    [("", ()), (" , ,", ()), ("docker, linux", ("docker", "linux")), ("b,a,b , a", ("b", "a")), ("a b", ("a b",))],
)
def test_tags_are_trimmed_and_stand_once_in_the_order_written(typed: str, tags: tuple[str, ...]) -> None:
    assert split_tags(typed) == tags


def test_alice_creates_a_runner_with_a_token_of_its_own_kind(session: Session, cast: Cast) -> None:
    issued = runners.create_runner(session, cast.as_(cast.alice), cast.acme, TAGGED)
    runner = issued.runner
    assert (runner.type, runner.group, runner.project, runner.creator) == (
        RunnerType.GROUP,
        cast.acme.group,
        None,
        cast.alice,
    )
    assert runner.created_by_person
    assert runner.contacted_at is None
    assert issued.token.startswith("glrt-t2_")
    assert issued.record.digest == tokens.digest(issued.token)
    assert runner_tokens.token_row(session, issued.token).runner_id == runner.id


def test_each_kind_of_scope_makes_its_kind_of_runner(session: Session, cast: Cast) -> None:
    kinds = [(scopes.INSTANCE, "glrt-t1_", 1), (cast.acme, "glrt-t2_", 2), (cast.web, "glrt-t3_", 3)]
    for scope, prefix, kind in kinds:
        issued = cast.runner(scope)
        assert (issued.token[:8], issued.runner.runner_type) == (prefix, kind)
        assert scopes.of_runner(issued.runner) == scope


@pytest.mark.parametrize("kind", ["instance", "group", "project"])
def test_locked_is_kept_for_every_runner_as_it_was_said(session: Session, cast: Cast, kind: str) -> None:
    scope = {"instance": scopes.INSTANCE, "group": cast.acme, "project": cast.web}[kind]
    assert cast.runner(scope, RunnerSettings(run_untagged=True, locked=True)).runner.locked
    assert not cast.runner(scope, RunnerSettings(run_untagged=True)).runner.locked


def test_bob_creates_runners_for_his_project_only(session: Session, cast: Cast) -> None:
    bob = cast.as_(cast.bob)
    assert runners.create_runner(session, bob, cast.web, TAGGED).runner.project == cast.web.project
    with pytest.raises(NotFound):
        runners.create_runner(session, bob, cast.acme, TAGGED)


def test_erin_sees_the_group_and_may_not_create_its_runners(session: Session, cast: Cast) -> None:
    with pytest.raises(NotAllowed):
        runners.create_runner(session, cast.as_(cast.erin), cast.acme, TAGGED)
    assert count(session, Runner) == 0


def test_the_same_form_sent_again_issues_nothing_and_names_the_runner(session: Session, cast: Cast) -> None:
    key = uuid4()
    first = runners.create_runner(session, cast.as_(cast.alice), cast.acme, TAGGED, request_key=key)
    with pytest.raises(AlreadyIssued) as refused:
        runners.create_runner(session, cast.as_(cast.alice), cast.acme, TAGGED, request_key=key)
    assert refused.value.runner_id == first.runner.id
    assert first.token not in str(refused.value)
    assert (count(session, Runner), count(session, RunnerToken)) == (1, 1)


def test_an_issued_runner_does_not_print_its_token(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    assert issued.token not in f"{issued!r}{issued}"
    assert tokens.shorten(issued.token)[:8] not in repr(issued)


def test_creating_leaves_one_event_without_the_token(session: Session, cast: Cast) -> None:
    before = count(session, AuditEvent)
    issued = runners.create_runner(session, cast.as_(cast.alice), cast.acme, TAGGED)
    event = newest_event(session)
    assert count(session, AuditEvent) == before + 1
    assert (event.action, event.target_id, event.actor_name) == ("runner_created", issued.runner.id, "Alice Lam")
    assert (event.address, event.request_id) == ("192.0.2.7", "request-of-a-test")
    assert event.changes == {"description": [None, "Linux build fleet"], "tags": [None, ["docker", "linux"]]}


def test_an_update_changes_what_differs_and_tells_old_and_new(session: Session, cast: Cast) -> None:
    runner = cast.runner().runner
    before = runner.updated_at
    wanted = RunnerSettings("Windows", "ask Erin", ("vs",), True, False, True, False, 3600)
    assert runners.update_runner(session, cast.as_(cast.alice), runner, wanted)
    session.flush()
    session.expire(runner)
    assert runner_settings.settings_of(runner) == wanted
    assert runner.access_level == AccessLevel.REF_PROTECTED
    assert runner.updated_at > before
    event = newest_event(session)
    assert event.action == "runner_updated"
    assert event.changes["description"] == ["Linux build fleet", "Windows"]
    assert event.changes["maximum_timeout"] == [None, 3600]
    assert "paused" not in event.changes


def test_an_update_that_changes_nothing_writes_nothing(session: Session, cast: Cast) -> None:
    runner = cast.runner().runner
    before, updated = count(session, AuditEvent), runner.updated_at
    assert not runners.update_runner(session, cast.as_(cast.alice), runner, TAGGED)
    assert (count(session, AuditEvent), runner.updated_at) == (before, updated)


def test_an_update_that_only_pauses_is_told_as_a_pause(session: Session, cast: Cast) -> None:
    runner = cast.runner(settings=UNTAGGED).runner
    for paused, action in ((True, "runner_paused"), (False, "runner_resumed")):
        runners.update_runner(session, cast.as_(cast.alice), runner, RunnerSettings(run_untagged=True, paused=paused))
        assert newest_event(session).action == action


def test_a_wrong_update_leaves_the_runner_as_it_was(session: Session, cast: Cast) -> None:
    runner = cast.runner().runner
    with pytest.raises(Invalid):
        runners.update_runner(session, cast.as_(cast.alice), runner, RunnerSettings(description="new"))
    assert runner_settings.settings_of(runner) == TAGGED


def test_pausing_and_resuming_are_told_once_each(session: Session, cast: Cast) -> None:
    runner, alice = cast.runner().runner, cast.as_(cast.alice)
    assert runners.set_paused(session, alice, runner, True)
    assert runner.paused
    assert not runners.set_paused(session, alice, runner, True)
    assert runners.set_paused(session, alice, runner, False)
    assert not runner.paused
    told = [(event.action, event.changes) for event in session.scalars(audit.of_runner(runner).limit(2))]
    assert told == [("runner_resumed", {"paused": [True, False]}), ("runner_paused", {"paused": [False, True]})]


def test_what_was_changed_and_not_written_yet_is_not_forgotten(session: Session, cast: Cast) -> None:
    runner, dana = cast.runner().runner, cast.as_(cast.dana)
    runner.description = "Renamed"
    assert runners.set_paused(session, dana, runner, True)
    runner.maintenance_note = "Ask Dana"
    assert runners.change_settings(session, dana, runner, locked=True)
    session.commit()
    assert (runner.description, runner.maintenance_note) == ("Renamed", "Ask Dana")


def test_a_runner_that_is_gone_meanwhile_is_not_found(session: Session, cast: Cast) -> None:
    runner, dana = cast.runner().runner, cast.as_(cast.dana)
    session.refresh(runner)
    session.execute(text("DELETE FROM ci_runners"))
    with pytest.raises(NotFound, match="deleted meanwhile"):
        runners.set_paused(session, dana, runner, True)


def test_a_deleted_runner_is_hidden_and_keeps_its_machines_and_tokens(session: Session, cast: Cast) -> None:
    gone, stays = cast.runner(), cast.runner()
    session.add_all(RunnerManager(runner_id=gone.runner.id, system_xid=f"s_{n}") for n in range(2))
    session.add(RunnerManager(runner_id=stays.runner.id, system_xid="s_0"))
    session.flush()
    runner_id = gone.runner.id
    runners.delete_runner(session, cast.as_(cast.alice), gone.runner)
    event = newest_event(session)
    assert (event.action, event.target_id, event.changes) == ("runner_deleted", runner_id, {"machines": [2, 0]})
    assert session.scalars(select(Runner.id)).all() == [stays.runner.id]
    assert count(session, RunnerManager) == 3
    assert count(session, RunnerToken) == 2


@pytest.mark.parametrize(("who", "refusal"), [("charlie", NotFound), ("bob", NotFound), ("erin", NotAllowed)])
def test_nobody_else_changes_the_groups_runner(
    session: Session, cast: Cast, who: str, refusal: type[Exception]
) -> None:
    runner, actor = cast.runner().runner, cast.as_(getattr(cast, who))
    before = count(session, AuditEvent)
    with pytest.raises(refusal):
        runners.update_runner(session, actor, runner, UNTAGGED)
    with pytest.raises(refusal):
        runners.set_paused(session, actor, runner, True)
    with pytest.raises(refusal):
        runner_tokens.reset_token(session, actor, runner, seen_token_id=None)
    with pytest.raises(refusal):
        runners.delete_runner(session, actor, runner)
    assert runner_settings.settings_of(runner) == TAGGED
    assert (count(session, AuditEvent), count(session, RunnerToken)) == (before, 1)


def test_a_machine_never_deletes_a_runner_that_a_person_created(session: Session, cast: Cast) -> None:
    runner = cast.runner().runner
    with pytest.raises(NotFound):
        runners.unregister(session, cast.as_(cast.alice), runner)
    assert count(session, Runner) == 1
