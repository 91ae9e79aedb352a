"""Project runners in further projects: who may assign and unassign them, and what that changes."""

from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.orm import Session

from portal.domain.actors import Actor
from portal.domain.errors import Invalid, LimitReached, NotAllowed, NotFound
from portal.domain.groups import groups, scope_settings
from portal.domain.groups.groups import Naming
from portal.domain.permissions import Action
from portal.domain.runners import runner_access, runner_handover, runner_lists, runner_projects, runners
from portal.domain.runners.runner_lists import RunnerFilter
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE, Scope, of_project
from portal.models import AuditEvent, Role, Runner, RunnerProject
from tests.api.processes import Process
from tests.cast import SYSTEM, Cast
from tests.domain.queries import asked

TEN_THOUSAND = text(
    "WITH made AS (INSERT INTO projects (namespace_id, name, path, description, created_at) "
    "SELECT :group_id, 'P' || n, 'p-' || lpad(n::text, 5, '0'), '', now() FROM generate_series(1, 10000) n "
    "RETURNING id, path) INSERT INTO routes (path, project_id) SELECT 'acme/' || path, id FROM made"
)


@pytest.fixture
def api(cast: Cast) -> Scope:
    """A second project of acme; Bob maintains it too."""
    project = cast.project("api", cast.acme)
    cast.member(cast.bob, project, Role.MAINTAINER)
    return project


@pytest.fixture
def runner(cast: Cast) -> Runner:
    return cast.runner(cast.web, RunnerSettings(description="Web runner", tags=("web",))).runner


def shown(session: Session, scope: Scope) -> set[str]:
    page = runner_lists.page(session, scope, RunnerFilter())
    return {row.runner.title for row in page.rows}


def lock(session: Session, runner: Runner) -> None:
    runner.locked = True
    session.flush()


def test_bob_assigns_his_runner_to_his_other_project(
    session: Session, cast: Cast, api: Scope, runner: Runner
) -> None:
    assert shown(session, api) == set()
    runner_projects.assign(session, cast.as_(cast.bob), runner, api)
    assert shown(session, api) == {"Web runner"}
    event = session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc())).first()
    assert event is not None
    assert (event.action, event.actor_name, event.scope_path) == ("runner_assigned", "Bob Ray", "acme/api")
    assert event.changes == {"project": [None, "acme/api"], "owner": [None, "acme/web"]}


def test_a_runner_is_not_assigned_to_a_project_that_the_person_does_not_maintain(
    session: Session, cast: Cast, runner: Runner
) -> None:
    docs, secret = cast.project("docs", cast.acme), cast.project("secret", cast.other)
    cast.member(cast.bob, docs, Role.DEVELOPER)
    with pytest.raises(NotAllowed):
        runner_projects.assign(session, cast.as_(cast.bob), runner, docs)
    with pytest.raises(NotFound):
        runner_projects.assign(session, cast.as_(cast.bob), runner, secret)


def test_who_does_not_look_after_the_runner_does_not_assign_it(
    session: Session, cast: Cast, api: Scope, runner: Runner
) -> None:
    cast.member(cast.charlie, api, Role.OWNER)
    with pytest.raises(NotFound):
        runner_projects.assign(session, cast.as_(cast.charlie), runner, api)


@pytest.mark.parametrize("scope", ["instance", "group"])
def test_only_a_projects_runner_is_assigned(session: Session, cast: Cast, api: Scope, scope: str) -> None:
    runner = cast.runner(INSTANCE if scope == "instance" else cast.acme).runner
    with pytest.raises(Invalid, match=f"{scope}'s runner: only a project's"):
        runner_projects.assign(session, cast.as_(cast.dana), runner, api)


def test_a_locked_runner_is_assigned_and_unassigned_by_administrators_only(
    session: Session, cast: Cast, api: Scope, runner: Runner
) -> None:
    lock(session, runner)
    with pytest.raises(NotAllowed, match="locked"):
        runner_projects.assign(session, cast.as_(cast.bob), runner, api)
    runner_projects.assign(session, cast.as_(cast.dana), runner, api)
    with pytest.raises(NotAllowed, match="locked"):
        runner_projects.unassign(session, cast.as_(cast.bob), runner, api)
    runner_projects.unassign(session, cast.as_(cast.dana), runner, api)
    assert shown(session, api) == set()


def test_a_project_has_a_runner_once_and_never_its_own_twice(
    session: Session, cast: Cast, api: Scope, runner: Runner
) -> None:
    bob = cast.as_(cast.bob)
    with pytest.raises(Invalid, match="owns this runner already"):
        runner_projects.assign(session, bob, runner, cast.web)
    runner_projects.assign(session, bob, runner, api)
    with pytest.raises(Invalid, match="has this runner already"):
        runner_projects.assign(session, bob, runner, api)
    with pytest.raises(Invalid, match="projects only"):
        runner_projects.assign(session, cast.as_(cast.dana), runner, cast.acme)


def test_a_runner_is_made_to_serve_exactly_these_projects(
    session: Session, cast: Cast, api: Scope, runner: Runner
) -> None:
    alice, docs = cast.as_(cast.alice), cast.project("docs", cast.acme)

    def serve(*projects: Scope) -> tuple[bool, list[str]]:
        changed = runner_projects.set_projects(session, alice, runner, projects)
        return changed, [each.full_path for each in runner_access.further_projects(session, runner)]

    assert serve(api) == (True, ["acme/api"])
    assert serve(cast.web, docs, api) == (True, ["acme/api", "acme/docs"])
    assert serve(docs, api, docs) == (False, ["acme/api", "acme/docs"])
    assert serve() == (True, [])
    with pytest.raises(NotFound):
        runner_projects.set_projects(session, cast.as_(cast.bob), runner, [docs])


def test_a_runner_is_not_unassigned_from_its_owner_nor_from_where_it_is_not(
    session: Session, cast: Cast, api: Scope, runner: Runner
) -> None:
    with pytest.raises(NotAllowed, match="project that owns it"):
        runner_projects.unassign(session, cast.as_(cast.dana), runner, cast.web)
    with pytest.raises(NotFound, match="not assigned"):
        runner_projects.unassign(session, cast.as_(cast.dana), runner, api)


def test_a_project_that_may_hold_no_runners_gets_none(
    session: Session, cast: Cast, api: Scope, runner: Runner
) -> None:
    settings = scope_settings.own_for_update(session, INSTANCE)
    settings.valid_runner_registrars = ["group"]
    session.flush()
    with pytest.raises(NotAllowed, match="create runners"):
        runner_projects.assign(session, cast.as_(cast.bob), runner, api)
    settings.valid_runner_registrars, settings.ci_registered_project_runners = ["group", "project"], 1
    session.flush()
    cast.runner(api)
    with pytest.raises(LimitReached):
        runner_projects.assign(session, cast.as_(cast.bob), runner, api)


def maintainer_of(cast: Cast, project: Scope) -> Actor:
    cast.member(cast.charlie, project, Role.MAINTAINER)
    return cast.as_(cast.charlie)


def test_a_maintainer_of_a_further_project_changes_the_runner_but_does_not_delete_it(
    session: Session, cast: Cast, api: Scope, runner: Runner
) -> None:
    charlie = maintainer_of(cast, api)
    with pytest.raises(NotFound):
        runners.set_paused(session, charlie, runner, True)
    runner_projects.assign(session, cast.as_(cast.bob), runner, api)
    assert runners.set_paused(session, charlie, runner, True)
    assert runner_access.may(session, charlie, Action.READ_RUNNERS, runner)
    with pytest.raises(NotAllowed, match="Unassign it from your project"):
        runner_access.require_delete(session, charlie, runner)
    runner_projects.unassign(session, charlie, runner, api)
    with pytest.raises(NotFound):
        runners.set_paused(session, charlie, runner, False)


def test_a_runner_of_several_projects_is_deleted_by_administrators_only(
    session: Session, cast: Cast, api: Scope, runner: Runner
) -> None:
    runner_projects.assign(session, cast.as_(cast.bob), runner, api)
    with pytest.raises(NotAllowed, match="also serves acme/api"):
        runners.delete_runner(session, cast.as_(cast.bob), runner)
    runner_projects.unassign(session, cast.as_(cast.bob), runner, api)
    runners.delete_runner(session, cast.as_(cast.bob), runner)
    assert shown(session, cast.web) == set()


def test_who_may_not_delete_it_hears_of_no_project_that_they_may_not_see(
    session: Session, cast: Cast, api: Scope, runner: Runner
) -> None:
    bob, dana = cast.as_(cast.bob), cast.as_(cast.dana)
    for name in ("secret", "hidden"):
        runner_projects.assign(session, dana, runner, cast.project(name, cast.other))
    with pytest.raises(NotAllowed, match=r"^This runner also serves projects that you may not see\. "):
        runners.delete_runner(session, bob, runner)
    runner_projects.assign(session, bob, runner, api)
    with pytest.raises(NotAllowed, match=r"^This runner also serves acme/api and 2 more\. "):
        runners.delete_runner(session, bob, runner)


def test_a_runner_that_somebody_locks_meanwhile_is_not_assigned(process: Process) -> None:
    with process.session() as ours, process.session() as theirs:
        cast = Cast(ours)
        runner, api = cast.runner(cast.web).runner, cast.project("api", cast.acme)
        ours.commit()
        assert not runner.locked
        lock(theirs, theirs.get_one(Runner, runner.id))
        theirs.commit()
        with pytest.raises(NotAllowed, match="is locked"):
            runner_projects.assign(ours, cast.as_(cast.alice), runner, api)


def test_an_administrator_deletes_a_runner_of_several_projects(
    session: Session, cast: Cast, api: Scope, runner: Runner
) -> None:
    runner_projects.assign(session, cast.as_(cast.bob), runner, api)
    runners.delete_runner(session, cast.as_(cast.dana), runner)
    assert shown(session, api) == set()


def test_the_owner_of_the_runner_takes_it_away_from_a_project_where_somebody_else_rules(
    session: Session, cast: Cast, runner: Runner
) -> None:
    secret = cast.project("secret", cast.other)
    runner_projects.assign(session, cast.as_(cast.dana), runner, secret)
    bob = cast.as_(cast.bob)
    assert runner_projects.assigned(session, bob, runner) == []  # he does not see that project
    runner_projects.unassign(session, bob, runner, secret)
    assert runner_access.further_projects(session, runner) == []


def test_the_oldest_assignment_becomes_the_owner_when_the_owner_goes(
    session: Session, cast: Cast, api: Scope, runner: Runner
) -> None:
    docs = cast.project("docs", cast.acme)
    for project in (api, docs):
        runner_projects.assign(session, cast.as_(cast.dana), runner, project)
    assert cast.web.project is not None
    assert runner_handover.hand_over(session, cast.as_(cast.dana), [cast.web.project]) == 1
    session.refresh(runner)
    assert runner.project == api.project
    assert [each.full_path for each in runner_access.further_projects(session, runner)] == ["acme/web", "acme/docs"]


def test_a_deleted_group_gives_its_shared_runners_to_a_project_that_stays(
    session: Session, cast: Cast, runner: Runner
) -> None:
    secret = cast.project("secret", cast.other)
    runner_projects.assign(session, cast.as_(cast.dana), runner, secret)
    number = runner.id
    groups.delete(session, cast.as_(cast.dana), cast.acme)
    session.expire_all()
    found = session.get_one(Runner, number)
    assert found.project == secret.project
    assert shown(session, secret) == {"Web runner"}


def test_candidates_are_the_projects_whose_runners_one_looks_after(
    session: Session, cast: Cast, api: Scope, runner: Runner
) -> None:
    docs = cast.project("docs", cast.acme)
    cast.member(cast.bob, docs, Role.DEVELOPER)
    cast.project("secret", cast.other)

    def found(user: str, words: str = "") -> list[str]:
        actor = cast.as_(getattr(cast, user))
        return [each.full_path for each in runner_projects.candidates(session, actor, runner, words).projects]

    assert found("bob") == ["acme/api"]
    assert found("alice") == ["acme/api", "acme/docs"]
    assert found("dana") == ["acme/api", "acme/docs", "other/secret"]
    assert found("dana", " SEC") == ["other/secret"]
    assert found("dana", "nothing like it") == []
    runner_projects.assign(session, cast.as_(cast.bob), runner, api)
    assert found("bob") == []


def test_ten_thousand_projects_are_searched_by_pages_with_a_fixed_number_of_queries(
    session: Session, cast: Cast, runner: Runner
) -> None:
    group = cast.acme.group
    assert group is not None
    session.execute(TEN_THOUSAND, {"group_id": group.id})
    alice, _ = cast.as_(cast.alice), runner.project_id
    with asked(session) as statements:
        first = runner_projects.candidates(session, alice, runner)
        second = runner_projects.candidates(session, alice, runner, after=first.after or "")
        last = runner_projects.candidates(session, alice, runner, "09998")
    assert len(first.projects) == len(second.projects) == runner_projects.PAGE_SIZE
    assert first.after == "acme/p-00020"
    assert second.projects[0].full_path == "acme/p-00021"
    assert ([each.full_path for each in last.projects], last.after) == (["acme/p-09998"], None)
    assert len(statements) == 3


def test_the_search_reads_projects_in_the_order_of_an_index_and_sorts_nothing(
    session: Session, cast: Cast, runner: Runner
) -> None:
    connection, sent = session.connection(), []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        sent.append((statement, parameters))

    alice, _ = cast.as_(cast.alice), runner.project_id
    event.listen(connection, "before_cursor_execute", note)
    try:
        for words in ("", "web"):
            runner_projects.candidates(session, alice, runner, words, after="acme/a")
    finally:
        event.remove(connection, "before_cursor_execute", note)
    session.execute(text("SET LOCAL enable_sort = off"))  # so that it sorts only if no index has that order
    for statement, parameters in sent:
        plan = "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters))
        assert "uq_routes_path_lower" in plan
        assert "Sort" not in plan, plan
    assert len(sent) == 2


def test_more_projects_of_a_runner_ask_the_database_no_more_often(
    session: Session, cast: Cast, runner: Runner
) -> None:
    def statements(projects: range) -> int:
        for number in projects:
            runner_projects.assign(session, SYSTEM, runner, cast.project(f"q-{number}", cast.acme))
        session.commit()
        with asked(session) as found:
            runner_projects.assigned(session, cast.as_(cast.alice), runner)
        return len(found)

    assert statements(range(2)) == statements(range(2, 12))


def test_what_the_portal_itself_does_is_above_the_lock(
    session: Session, cast: Cast, api: Scope, runner: Runner
) -> None:
    lock(session, runner)
    runner_projects.assign(session, SYSTEM, runner, api)
    assert session.scalars(select(RunnerProject.project_id)).all() == [api.id]


def test_a_new_project_is_a_candidate_at_once(session: Session, cast: Cast, runner: Runner) -> None:
    made = groups.create_project(session, cast.as_(cast.alice), cast.acme, Naming("Fresh", "fresh"))
    assert runner_projects.candidates(session, cast.as_(cast.alice), runner, "fresh").projects == [made]
    assert of_project(made).full_path == "acme/fresh"
