"""What was deleted stays hidden from every query that does not ask for it."""

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session, aliased

from portal.models import WITH_DELETED, Deletion, Group, Project, Runner, RunnerManager
from tests.cast import Cast


def hide(session: Session, *things: Runner | Group | Project) -> None:
    deletion = Deletion(kind="runner", name="x", actor_name="Tests")
    for thing in things:
        thing.deletion = deletion
    session.flush()
    session.expire_all()


def test_a_deleted_runner_is_in_no_query_whatever_its_shape(session: Session, cast: Cast) -> None:
    runner = cast.runner().runner
    session.add(RunnerManager(runner_id=runner.id, system_xid="s_1"))
    hide(session, runner)
    number = runner.id
    other = aliased(Runner)
    session.expunge_all()
    queries = [
        select(Runner),
        select(Runner.id),
        select(func.count()).select_from(Runner),
        select(other.id),
        select(RunnerManager.id).join(Runner, Runner.id == RunnerManager.runner_id),
        select(RunnerManager.id).where(RunnerManager.runner_id.in_(select(Runner.id))),
        select(RunnerManager.id).where(exists(select(Runner.id).where(Runner.id == RunnerManager.runner_id))),
        select(select(Runner.id).subquery().c.id),
        select(Runner.id).union_all(select(Runner.id)),
    ]
    assert [[each for each in session.execute(query).scalars() if each] for query in queries] == [[]] * len(queries)
    assert session.get(Runner, number) is None
    assert session.execute(update(Runner).values(description="seen")).rowcount == 0
    assert session.scalar(select(func.count(Runner.id)), execution_options=WITH_DELETED) == 1
    assert session.get(Runner, number, execution_options=WITH_DELETED) is not None


def test_a_deleted_group_and_its_project_are_in_no_query_and_still_known_to_what_they_hold(
    session: Session, cast: Cast
) -> None:
    runner = cast.runner(cast.web).runner
    group, project = cast.acme.group, cast.web.project
    assert group is not None
    assert project is not None
    number, ids = runner.id, (group.id, project.id)
    hide(session, group, project)
    session.expunge_all()
    assert session.get(Group, ids[0]) is None
    assert session.get(Project, ids[1]) is None
    found = session.get_one(Runner, number)
    assert found.project is not None
    assert found.project.group.full_path == "acme"
