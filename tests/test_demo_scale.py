"""The large demo at its smallest: what it fills keeps to the product's rules, and it goes on when interrupted."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from flask import Flask
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session

from portal.database import db, now
from portal.demo import demo_scale, scale_progress
from portal.demo.demo_scale import Progress
from portal.domain import audit
from portal.domain.actors import system
from portal.domain.errors import Invalid
from portal.domain.groups import groups
from portal.domain.groups.groups import Naming
from portal.domain.jobs import job_definitions, job_matching, pending_jobs, runner_offers
from portal.domain.runners import runner_lists, runner_settings, runners
from portal.domain.runners.runner_lists import RunnerFilter
from portal.domain.runners.runner_status import Status
from portal.domain.scopes import INSTANCE, find_group
from portal.domain.trail import audit_chain
from portal.models import (
    AuditEvent,
    Group,
    Job,
    JobClass,
    JobLog,
    JobLogPiece,
    JobMachine,
    JobStatus,
    PendingJob,
    Project,
    Route,
    Runner,
    RunnerManager,
    User,
)
from tests import databases
from tests.cast import SYSTEM, TAGGED, Cast, sign_in
from tests.demos import ROOT_PASSWORD, look_at, with_demo
from tests.test_demo import command, sizes

SCALE = 0.1


def fill(app: Flask, scale: float = SCALE, *, stop_after: int | None = None) -> list[Progress]:
    """Fill as the command does; stop in the middle after so many pieces."""
    told = []
    with db.engine.connect() as connection, Session(connection) as session:
        for progress in demo_scale.fill(session, scale, app.extensions["job_vault"]):
            session.commit()
            told.append(progress)
            if len(told) == stop_after:
                break
    return told


@pytest.fixture(scope="module")
def filled(postgres: databases.Server) -> Iterator[Flask]:
    """An app whose database has the demo and a small large one, filled in two goes; the tests only look at it."""
    with with_demo(postgres) as app, pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_scale, "PIECE", 300)
        with app.app_context():
            app.config["FIRST_GO"] = fill(app, stop_after=8)
            app.config["SECOND_GO"] = fill(app)
        yield app


@pytest.fixture
def stored(filled: Flask) -> Iterator[Session]:
    """A fresh look at the filled database."""
    with look_at(filled) as session:
        yield session


def test_an_interrupted_filling_goes_on_where_it_stopped(filled: Flask, stored: Session) -> None:
    first, second = filled.config["FIRST_GO"], filled.config["SECOND_GO"]
    assert second[0].part == first[-1].part == "jobs"
    assert second[0].begun_at == first[-1].rows < first[-1].of
    large = select(func.count()).select_from(Job).where(Job.id >= stored.scalar(select(func.max(Job.id))) - 999)
    assert stored.scalar(large) == 1000


def test_what_is_whole_is_filled_no_further_and_another_scale_is_refused(filled: Flask) -> None:
    with filled.app_context():
        assert fill(filled) == []
        with pytest.raises(Invalid, match=r"SCALE=0\.1"):
            fill(filled, 0.2)


@pytest.mark.parametrize("scale", [0, -1, 0.01, 5000, float("nan")])
def test_a_scale_out_of_bounds_is_refused(app: Flask, session: Session, scale: float) -> None:
    with pytest.raises(Invalid, match="SCALE is a number from"):
        next(demo_scale.fill(session, scale, app.extensions["job_vault"]))


def test_a_portal_with_something_else_is_refused(app: Flask, session: Session, cast: Cast) -> None:
    with pytest.raises(Invalid, match="that are not the demo's"):
        next(demo_scale.fill(session, SCALE, app.extensions["job_vault"]))


def a_deleted_runner(session: Session) -> None:
    runners.delete_runner(session, SYSTEM, runners.create_runner(session, SYSTEM, INSTANCE, TAGGED).runner)


def a_group(session: Session) -> None:
    groups.create_group(session, SYSTEM, INSTANCE, Naming("Ours", "ours"))


def a_project_beside_the_demo(session: Session) -> None:
    groups.create_project(session, SYSTEM, find_group(session, "acme"), Naming("Ours", "ours"))


def a_runner_beside_the_demo(session: Session) -> None:
    runners.create_runner(session, SYSTEM, find_group(session, "acme"), replace(TAGGED, description="Ours"))


@pytest.mark.parametrize("there", [a_deleted_runner, a_group, a_project_beside_the_demo, a_runner_beside_the_demo])
def test_the_command_refuses_a_portal_with_something_else_before_it_fills_anything(
    own_database: str, there: Callable[[Session], None]
) -> None:
    """Also where no name that the demo needs is taken, and where the demo was filled beside it."""
    engine = create_engine(own_database)
    with Session(engine) as session:
        if "demo" in there.__name__:
            assert command(own_database).returncode == 0
        there(session)
        session.commit()
        before = sizes(session)
        session.commit()
        refused = command(own_database, "--scale", "0.1")
        assert refused.returncode == 1
        assert "that are not the demo's" in refused.stderr
        assert sizes(session) == before
    engine.dispose()


def test_the_trail_is_unbroken_and_tells_of_the_filling(stored: Session) -> None:
    checked = audit_chain.verify(stored)
    assert checked.broken is None
    assert checked.count > 10_000
    filled = select(func.count()).select_from(AuditEvent).where(AuditEvent.action == demo_scale.FILLED)
    assert stored.scalar(filled) == 1 + len(demo_parts(stored))


def demo_parts(stored: Session) -> list[object]:
    told = stored.scalars(select(AuditEvent.changes).where(AuditEvent.action == demo_scale.FILLED)).all()
    return [each["part"] for each in told if "part" in each]


def test_the_chain_goes_on_by_itself_afterwards(filled: Flask, stored: Session) -> None:
    before = audit_chain.verify(stored).count
    audit.record(stored, system("somebody later"), "act", INSTANCE, INSTANCE)
    stored.commit()
    with Session(db.engine) as session:
        checked = audit_chain.verify(session)
    assert (checked.broken, checked.count) == (None, before + 1)


@pytest.mark.parametrize("status", Status)
def test_a_list_has_runners_of_every_status(stored: Session, status: Status) -> None:
    assert runner_lists.counts(stored, INSTANCE, RunnerFilter()).by_status[status] > 0


def test_every_runner_keeps_to_the_rules_of_the_form(stored: Session) -> None:
    runners = stored.scalars(select(Runner)).all()
    assert len(runners) > 100
    assert {runner.type for runner in runners} == {1, 2, 3}
    for runner in runners:
        assert runner_settings.settings_of(runner).problems() == {}
    assert any(runner.paused for runner in runners)


def test_a_runner_was_heard_of_when_its_last_machine_was(stored: Session) -> None:
    newest = select(RunnerManager.runner_id, func.max(RunnerManager.contacted_at).label("at"))
    newest_of = newest.group_by(RunnerManager.runner_id).subquery()
    others = select(Runner.id).join(newest_of, newest_of.c.runner_id == Runner.id)
    large = Runner.description.regexp_match(r" \d+$")
    assert stored.scalars(others.where(large, Runner.contacted_at.is_distinct_from(newest_of.c.at))).all() == []


def test_nothing_is_older_than_what_it_belongs_to_or_newer_than_now(stored: Session) -> None:
    for table in (User, Group, Project, Runner, RunnerManager, AuditEvent, Job):
        assert stored.scalar(select(func.max(table.created_at))) <= now(), table.__name__
    too_old = [
        select(Runner.id).join(Runner.group).where(Runner.created_at < Group.created_at),
        select(Runner.id).join(Runner.project).where(Runner.created_at < Project.created_at),
        select(RunnerManager.id).join(Runner).where(RunnerManager.created_at < Runner.created_at),
        select(Job.id).join(Job.runner).where(Job.created_at < Runner.created_at),
        select(Job.id).where(Job.finished_at < Job.started_at),
    ]
    for query in too_old:
        assert stored.scalars(query).all() == []


def test_paths_follow_the_tree(stored: Session) -> None:
    groups = {group.id: group for group in stored.scalars(select(Group))}
    for group in groups.values():
        above = [groups[each].path for each in group.traversal_ids]
        assert group.full_path == "/".join(above)
        assert ([None, *group.traversal_ids])[-2] == group.parent_id
    for project in stored.scalars(select(Project)):
        assert project.full_path == f"{project.group.full_path}/{project.path}"
    assert stored.scalar(select(func.count()).select_from(Route)) == len(groups) + stored.scalar(
        select(func.count()).select_from(Project)
    )


def test_every_job_that_was_taken_could_be_taken_by_its_runner(stored: Session) -> None:
    jobs = stored.scalars(select(Job).where(Job.runner_id.is_not(None), Job.checks_runner_id.is_(None))).all()
    assert len(jobs) > 900
    demands = pending_jobs.demands_of(stored, jobs)
    offers = runner_offers.offers_of(stored, [job.runner for job in jobs if job.runner])
    large = [(job, job.runner) for job in jobs if job.runner and job.runner.description[-1].isdigit()]
    assert len(large) > 900
    found = {job_matching.obstacle(demands[job.id], offers[runner.id]) for job, runner in large}
    assert found <= {None, job_matching.Obstacle.PAUSED}  # which it may have been since


def test_every_job_keeps_what_it_ran_in_the_form_that_jobs_have(filled: Flask, stored: Session) -> None:
    vault = filled.extensions["job_vault"]
    for job in stored.scalars(select(Job).order_by(Job.id.desc()).limit(100)):
        new = job_definitions.opened(job.definition, vault)
        assert (new.problems(), new.name, new.tags, new.ref) == ({}, job.name, tuple(job.tag_list), job.ref)


def test_exactly_those_that_wait_stand_in_the_queue_in_their_scopes_and_class(stored: Session) -> None:
    waiting = {job.id: job for job in stored.scalars(select(Job).where(Job.status == JobStatus.PENDING))}
    classes = {each.id: each for each in stored.scalars(select(JobClass))}
    places: dict[int, set[tuple[int, int]]] = {}
    for row in stored.scalars(select(PendingJob)):
        places.setdefault(row.job_id, set()).add((row.scope_kind, row.scope_id))
        job = waiting[row.job_id]
        if not job.is_check:
            made = classes[row.class_id]
            assert (made.tag_list, made.ref_protected) == (sorted(job.tag_list), job.ref_protected)
    demands = pending_jobs.demands_of(stored, list(waiting.values()))
    assert places == {
        number: {(int(kind), scope) for kind, scope in job_matching.queue_scopes(demands[number])}
        for number in waiting
    }


def test_logs_and_machines_fit_their_jobs(stored: Session) -> None:
    wrong = select(JobLog.job_id).join(JobLogPiece, JobLogPiece.job_id == JobLog.job_id)
    assert (
        stored.scalars(wrong.where(func.length(JobLogPiece.data) != JobLog.size, JobLogPiece.start == 0)).all() == []
    )
    ran = select(Job.runner_id, RunnerManager.runner_id).join(JobMachine, JobMachine.job_id == Job.id)
    pairs = stored.execute(ran.join(RunnerManager, RunnerManager.id == JobMachine.runner_machine_id)).all()
    assert len(pairs) > 900
    assert all(of_job == of_machine for of_job, of_machine in pairs)


@pytest.mark.parametrize(
    "page",
    [
        "/",
        "/admin/runners",
        "/admin/people",
        "/admin/trail",
        "/groups/{group}",
        "/groups/{group}/-/runners",
        "/groups/{group}/-/trail",
        "/groups/{group}/-/members",
        "/{project}",
        "/{project}/-/runners",
        "/{project}/-/jobs",
        "/{project}/-/jobs/{over}",
        "/{project}/-/jobs/{waiting}",
    ],
)
def test_its_pages_open(filled: Flask, stored: Session, page: str) -> None:
    waiting = stored.scalars(select(Job).where(Job.status == JobStatus.PENDING).order_by(Job.id.desc())).first()
    assert waiting is not None
    assert waiting.project is not None
    theirs = select(Job.id).where(Job.project_id == waiting.project_id, Job.status == JobStatus.SUCCESS)
    project, over = waiting.project.full_path, stored.scalars(theirs).first()
    names = {"group": waiting.project.group.full_path, "project": project, "waiting": waiting.id, "over": over}
    client = sign_in(filled.test_client(), "root", ROOT_PASSWORD)
    client.post("/account/password", data={})
    assert client.get(page.format(**names)).status_code == 200


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_has_rows_rate_and_the_time_that_is_left() -> None:
    moments = iter((0.0, 2.0, 10.0))
    out = Terminal()
    teller = scale_progress.Teller(out, lambda: next(moments))
    teller.tell(Progress("jobs", 2000, 10_000, 0))
    teller.tell(Progress("jobs", 10_000, 10_000, 0))
    lines = out.getvalue().split("\r")
    assert lines[1].startswith("  jobs                 2,000 of 10,000 rows, 1,000 a second, 8 s left")
    assert "10,000 rows, 1,000 a second, 10 s" in lines[2]
    assert out.getvalue().endswith("\n")


def test_where_lines_stay_there_is_one_for_each_part_and_now_and_then_one_more() -> None:
    moments = iter((0.0, 2.0, 4.0, 15.0, 200.0))
    out = io.StringIO()
    teller = scale_progress.Teller(out, lambda: next(moments))
    for rows in (100, 200, 300, 20_000):
        teller.tell(Progress("trail", rows, 20_000, 0))
    assert [line.split(" rows")[0].split()[1] for line in out.getvalue().splitlines()] == ["300", "20,000"]
    assert "3 min 20 s" in out.getvalue()
