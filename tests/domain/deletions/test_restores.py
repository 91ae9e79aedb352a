"""Restoring: who may, what comes back as it was, and what must come back first."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.deletions import deletion_purge, deletions, restores
from portal.domain.deletions.restores import restore
from portal.domain.errors import Invalid, LimitReached, NotFound, Stale
from portal.domain.groups import groups, scope_settings
from portal.domain.groups.groups import Naming
from portal.domain.runners import runner_access, runners
from portal.domain.scopes import Scope, find_group, find_project
from portal.models import (
    WITH_DELETED,
    AuditEvent,
    Deletion,
    Group,
    Membership,
    Project,
    Role,
    Runner,
    RunnerManager,
    RunnerProject,
    RunnerToken,
    User,
)
from tests.cast import SYSTEM, Cast

KEPT = timedelta(days=7)


def delete(session: Session, cast: Cast, runner: Runner, who: User | None = None) -> Deletion:
    deletion = runners.delete_runner(session, cast.as_(who or cast.dana), runner)
    session.commit()
    return deletion


def newest_event(session: Session) -> AuditEvent:
    return session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc()).limit(1)).one()


def everything(session: Session) -> list[list[tuple[object, ...]]]:
    """All that is there, deleted or not, but for the marks of deletions."""
    session.expire_all()
    return [
        sorted([tuple(row) for row in session.execute(query, execution_options=WITH_DELETED)], key=str)
        for query in (
            select(Runner.id, Runner.description, Runner.group_id, Runner.project_id, Runner.deletion_id),
            select(RunnerToken.id, RunnerToken.digest, RunnerToken.cut, RunnerToken.ends_at),
            select(RunnerManager.id, RunnerManager.system_xid, RunnerManager.contacted_at),
            select(Group.id, Group.path, Group.deletion_id),
            select(Project.id, Project.path, Project.deletion_id),
            select(Membership.user_id, Membership.access_level),
        )
    ]


@pytest.mark.parametrize("who", ["charlie", "bob", "erin"])
def test_who_could_not_delete_the_runner_cannot_restore_it(session: Session, cast: Cast, who: str) -> None:
    deletion = delete(session, cast, cast.runner().runner)
    with pytest.raises(NotFound):
        restore(session, cast.as_(getattr(cast, who)), deletion.id, KEPT)


@pytest.mark.parametrize("who", ["charlie", "bob", "erin"])
@pytest.mark.parametrize("place", ["web", "platform", "acme"])
def test_who_could_not_delete_the_scope_cannot_restore_it(session: Session, cast: Cast, who: str, place: str) -> None:
    deletion = groups.delete(session, SYSTEM, getattr(cast, place))
    with pytest.raises(NotFound):
        restore(session, cast.as_(getattr(cast, who)), deletion.id, KEPT)


def test_the_owner_of_a_subgroup_does_not_restore_what_was_deleted_with_its_parent(
    session: Session, cast: Cast
) -> None:
    cast.member(cast.charlie, cast.platform, Role.OWNER)
    deletion = groups.delete(session, cast.as_(cast.alice), cast.acme)
    with pytest.raises(NotFound):
        restore(session, cast.as_(cast.charlie), deletion.id, KEPT)
    assert restore(session, cast.as_(cast.alice), deletion.id, KEPT).scope is not None


def test_after_its_time_nothing_is_restored(session: Session, cast: Cast) -> None:
    deletion = delete(session, cast, cast.runner().runner)
    deletion.created_at = now() - KEPT
    session.flush()
    with pytest.raises(NotFound):
        restore(session, cast.as_(cast.dana), deletion.id, KEPT)


def test_nothing_is_restored_twice(session: Session, cast: Cast) -> None:
    deletion = delete(session, cast, cast.runner().runner)
    restore(session, cast.as_(cast.alice), deletion.id, KEPT)
    with pytest.raises(NotFound):
        restore(session, cast.as_(cast.alice), deletion.id, KEPT)


def test_a_runner_comes_back_as_it_was(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    session.add(RunnerManager(runner_id=issued.runner.id, system_xid="s_1", contacted_at=now()))
    session.commit()
    before = everything(session)
    deletion = delete(session, cast, issued.runner, cast.alice)
    restored = restore(session, cast.as_(cast.alice), deletion.id, KEPT)
    session.commit()
    assert [runner.id for runner in restored.runners] == [issued.runner.id]
    assert everything(session) == before
    event = newest_event(session)
    assert (event.action, event.target_id, event.changes) == (
        "runner_restored",
        issued.runner.id,
        {"machines": [0, 1]},
    )


@pytest.mark.parametrize("place", ["acme", "platform", "web"])
def test_a_scope_comes_back_as_it_was_with_all_below(session: Session, cast: Cast, place: str) -> None:
    cast.project("api", cast.platform)
    for where in (cast.acme, cast.platform, cast.web):
        runner = cast.runner(where).runner
        session.add(RunnerManager(runner_id=runner.id, system_xid="s_1"))
    session.commit()
    before, scope = everything(session), getattr(cast, place)
    path = scope.full_path
    deletion = groups.delete(session, cast.as_(cast.alice), scope)
    session.commit()
    assert restore(session, cast.as_(cast.alice), deletion.id, KEPT).scope == scope
    session.commit()
    assert everything(session) == before
    assert scope.full_path == path
    event = newest_event(session)
    assert (event.action, event.target_name, event.scope_path) == (f"{scope.kind}_restored", path, path)


def test_a_restored_group_says_how_much_came_back(session: Session, cast: Cast) -> None:
    cast.runner(cast.web)
    deletion = groups.delete(session, cast.as_(cast.alice), cast.acme)
    restore(session, cast.as_(cast.alice), deletion.id, KEPT)
    assert newest_event(session).changes == {"groups": [0, 1], "projects": [0, 1], "runners": [0, 1]}


def test_the_path_is_free_while_a_group_is_deleted_and_another_is_asked_for_when_it_is_taken(
    session: Session, cast: Cast
) -> None:
    deletion = groups.delete(session, SYSTEM, cast.acme)
    cast.group("Acme")
    assert restores.path_is_taken(session, deletion)
    with pytest.raises(Invalid) as refused:
        restore(session, cast.as_(cast.dana), deletion.id, KEPT)
    assert "already" in refused.value.problems["path"][0]
    restore(session, cast.as_(cast.dana), deletion.id, KEPT, path="acme-again")
    assert find_project(session, "acme-again/web") == cast.web
    assert newest_event(session).changes["path"] == ["acme", "acme-again"]


@pytest.mark.parametrize("path", ["", "no spaces", "x" * 256, "admin", "a/b", "a~deleted-7"])
def test_another_path_must_be_one(session: Session, cast: Cast, path: str) -> None:
    deletion = groups.delete(session, SYSTEM, cast.acme)
    with pytest.raises(Invalid):
        restore(session, cast.as_(cast.dana), deletion.id, KEPT, path=path)


def test_nobody_can_take_the_path_that_a_deleted_group_stands_at(session: Session, cast: Cast) -> None:
    with pytest.raises(Invalid):
        groups.create_group(session, SYSTEM, cast.acme, Naming("Trap", f"web{groups.MADE_ROOM}1"))


def test_a_deleted_path_of_the_greatest_length_can_be_stored_and_comes_back(session: Session, cast: Cast) -> None:
    scope = cast.acme
    for letter in "abc":
        scope = cast.group(letter * 254, inside=scope)
    scope = cast.group("d" * (groups.LONGEST_PATH - len(scope.full_path) - 1), inside=scope)
    assert len(longest := scope.full_path) == groups.LONGEST_PATH
    inner = groups.delete(session, SYSTEM, scope)
    outer = groups.delete(session, SYSTEM, cast.acme)
    for deletion in (outer, inner):
        restore(session, cast.as_(cast.dana), deletion.id, KEPT)
    assert find_group(session, longest) == scope


def test_a_project_deleted_before_its_group_waits_for_the_group(session: Session, cast: Cast) -> None:
    alice = cast.as_(cast.alice)
    project = groups.delete(session, alice, cast.web)
    group = groups.delete(session, alice, cast.acme)
    with pytest.raises(Stale, match=r"group that it belongs to was deleted too \(acme\)"):
        restore(session, alice, project.id, KEPT)
    restore(session, alice, group.id, KEPT)
    with pytest.raises(NotFound):
        find_project(session, "acme/web")
    restore(session, alice, project.id, KEPT)
    assert find_project(session, "acme/web") == cast.web


def test_a_group_that_was_renamed_meanwhile_has_the_project_back_at_its_new_path(
    session: Session, cast: Cast
) -> None:
    deletion = groups.delete(session, SYSTEM, cast.web)
    groups.rename(session, SYSTEM, cast.acme, Naming("Acme", "umbrella"))
    restore(session, cast.as_(cast.dana), deletion.id, KEPT)
    assert find_project(session, "umbrella/web") == cast.web
    assert newest_event(session).changes["path"] == ["acme/web", "umbrella/web"]


def test_a_runner_deleted_before_its_project_stays_deleted_and_waits_for_it(session: Session, cast: Cast) -> None:
    runner = cast.runner(cast.web).runner
    first = delete(session, cast, runner)
    second = groups.delete(session, SYSTEM, cast.web)
    with pytest.raises(Stale, match=r"project that it belongs to was deleted too \(acme/web\)"):
        restore(session, cast.as_(cast.dana), first.id, KEPT)
    restore(session, cast.as_(cast.dana), second.id, KEPT)
    assert session.scalars(select(Runner.id)).all() == []
    restore(session, cast.as_(cast.dana), first.id, KEPT)
    assert session.scalars(select(Runner.id)).all() == [runner.id]


def batch(session: Session, cast: Cast, *scopes: Scope) -> tuple[Deletion, list[Runner]]:
    """Runners of these scopes, deleted by one act."""
    made = [cast.runner(scope).runner for scope in scopes]
    deletion = deletions.begin(session, cast.as_(cast.dana), "runners", f"{len(made)} runners")
    for runner in made:
        runners.delete_runner(session, cast.as_(cast.dana), runner, deletion=deletion)
    session.commit()
    return deletion, made


def test_runners_of_one_act_come_back_together_or_one_by_one(session: Session, cast: Cast) -> None:
    deletion, (one, two, three) = batch(session, cast, cast.acme, cast.web, cast.other)
    restore(session, cast.as_(cast.dana), deletion.id, KEPT, runner_id=two.id)
    assert session.scalars(select(Runner.id)).all() == [two.id]
    restore(session, cast.as_(cast.dana), deletion.id, KEPT)
    assert set(session.scalars(select(Runner.id))) == {one.id, two.id, three.id}


def test_everybody_restores_their_own_part_of_an_act(session: Session, cast: Cast) -> None:
    deletion, (mine, bobs, others) = batch(session, cast, cast.acme, cast.web, cast.other)
    with pytest.raises(NotFound):
        restore(session, cast.as_(cast.bob), deletion.id, KEPT, runner_id=others.id)
    restore(session, cast.as_(cast.bob), deletion.id, KEPT)
    assert set(session.scalars(select(Runner.id))) == {bobs.id}
    restore(session, cast.as_(cast.alice), deletion.id, KEPT)
    assert set(session.scalars(select(Runner.id))) == {mine.id, bobs.id}


def test_of_one_act_those_come_back_whose_owner_is_there(session: Session, cast: Cast) -> None:
    deletion, (mine, _) = batch(session, cast, cast.acme, cast.web)
    groups.delete(session, SYSTEM, cast.web)
    restored = restore(session, cast.as_(cast.dana), deletion.id, KEPT)
    assert ([runner.id for runner in restored.runners], restored.left) == ([mine.id], 1)


def test_a_runner_of_several_projects_is_restored_by_administrators_only(session: Session, cast: Cast) -> None:
    runner = cast.runner(cast.web).runner
    further = cast.project("api", cast.acme)
    session.add(RunnerProject(runner_id=runner.id, project_id=further.id))
    deletion = delete(session, cast, runner)
    with pytest.raises(NotFound):
        restore(session, cast.as_(cast.bob), deletion.id, KEPT)
    restore(session, cast.as_(cast.dana), deletion.id, KEPT)
    assert [project.id for project in runner_access.further_projects(session, runner)] == [further.id]


def test_a_runner_that_came_from_a_deleted_project_is_restored_by_those_who_could_delete_it(
    session: Session, cast: Cast
) -> None:
    runner, api = cast.runner(cast.web).runner, cast.project("api", cast.acme)
    cast.member(cast.charlie, api, Role.MAINTAINER)
    session.add(RunnerProject(runner_id=runner.id, project_id=api.id))
    groups.delete(session, SYSTEM, cast.web)  # which stays its further project, for when that is restored
    deletion = delete(session, cast, runner, cast.charlie)
    restored = restore(session, cast.as_(cast.charlie), deletion.id, KEPT)
    assert [each.id for each in restored.runners] == [runner.id]


def test_deleting_creating_and_restoring_does_not_lead_past_a_limit(session: Session, cast: Cast) -> None:
    scope_settings.own_for_update(session, cast.acme).ci_registered_group_runners = 1
    deletion = delete(session, cast, cast.runner().runner)
    instead = cast.runner().runner
    with pytest.raises(LimitReached):
        restore(session, cast.as_(cast.alice), deletion.id, KEPT)
    delete(session, cast, instead)
    restore(session, cast.as_(cast.alice), deletion.id, KEPT)


def test_what_was_given_up_is_not_restored(session: Session, cast: Cast) -> None:
    deletion = delete(session, cast, cast.runner().runner)
    deletion_purge.end(session, cast.as_(cast.alice), deletion.id, KEPT)
    with pytest.raises(NotFound):
        restore(session, cast.as_(cast.alice), deletion.id, KEPT)
    assert session.scalar(select(func.count()).select_from(Runner), execution_options=WITH_DELETED) == 0
