"""The demo: a whole organisation by one command, and nothing of anybody else's touched."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session

from portal.commands import DEMO_PASSWORD
from portal.config import ROOT
from portal.database import db, now
from portal.demo import demo_story
from portal.demo.demo_job_tables import PROTECTED, TEMPLATES
from portal.demo.demo_tables import LATER, LEFT, MEMBERS, PEOPLE, RETIRED, RUNNERS, SHORT_LIVED, SIGNED_IN
from portal.domain import actors
from portal.domain.deletions import deletion_lists
from portal.domain.errors import Invalid
from portal.domain.jobs import (
    job_artifacts,
    job_lists,
    job_logs,
    job_matching,
    pending_jobs,
    runner_offers,
    stuck_jobs,
)
from portal.domain.people import accounts
from portal.domain.registration.registration import Configured
from portal.domain.runners import runner_lists, runner_projects, runner_status, runner_tokens
from portal.domain.runners.runner_lists import RunnerFilter
from portal.domain.runners.runner_status import Status
from portal.domain.scopes import INSTANCE
from portal.domain.vault import Vault
from portal.models import (
    WITH_DELETED,
    AuditEvent,
    BulkAct,
    Group,
    Job,
    JobStatus,
    JobTemplate,
    PendingJob,
    Project,
    ProjectSettings,
    Role,
    Runner,
    RunnerManager,
    RunnerProject,
    RunnerToken,
    User,
)
from tests import databases
from tests.cast import JOB_VAULT, Cast, csrf_of, sign_in
from tests.demos import ROOT_PASSWORD, look_at, with_demo

KEYS = Configured(enforced=False, vault=Vault([databases.ENCRYPTION_KEY]))
KEPT = timedelta(days=7)
TABLES = (User, Group, Project, Runner, RunnerManager, RunnerToken, AuditEvent, Job)


def command(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PORTAL_")}
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "app", "demo", "fill", *words],
        cwd=ROOT,
        env={
            **kept,
            "DATABASE_URL": url,
            "SECRET_KEY": databases.SECRET_KEY,
            "PORTAL_DATA_DIR": str(databases.DATA_DIR),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def sizes(session: Session) -> dict[str, int]:
    return {table.__name__: session.scalar(select(func.count()).select_from(table)) or 0 for table in TABLES}


def whole_row(session: Session, username: str) -> tuple[object, ...]:
    """Every column of a person, as stored."""
    return tuple(session.execute(select(*User.__table__.columns).where(User.username == username)).one())


def events(session: Session, action: str) -> Sequence[AuditEvent]:
    """What the demo tells of this, the oldest first."""
    told = select(AuditEvent).where(AuditEvent.action == action, AuditEvent.request_id.like("demo-%"))
    return session.scalars(told.order_by(AuditEvent.id)).all()


@pytest.fixture(scope="module")
def filled(postgres: databases.Server) -> Iterator[Flask]:
    """An app whose database was filled once; the tests here only look at it, or sign in."""

    def keep_root(app: Flask) -> None:
        app.config["ROOT_BEFORE"] = whole_row(db.session(), "root")

    with with_demo(postgres, before=keep_root) as app:
        yield app


@pytest.fixture
def stored(filled: Flask) -> Iterator[Session]:
    """A fresh look at the filled database."""
    with look_at(filled) as session:
        yield session


@pytest.mark.parametrize("status", Status)
def test_a_list_has_runners_of_every_status(stored: Session, status: Status) -> None:
    assert runner_lists.counts(stored, INSTANCE, RunnerFilter()).by_status[status] > 0


def test_machines_have_every_status_and_some_were_only_registered(stored: Session) -> None:
    machines = stored.scalars(select(RunnerManager)).all()
    assert {runner_status.of_manager(machine, now()) for machine in machines} == set(Status)
    assert any(not machine.has_polled for machine in machines)


def test_runners_stand_in_all_three_scopes_with_one_to_sixty_machines(stored: Session) -> None:
    kinds = stored.execute(select(Runner.runner_type, func.count()).group_by(Runner.runner_type)).all()
    assert {kind for kind, _ in kinds} == {1, 2, 3}
    assert sum(count for _, count in kinds) == len(RUNNERS)
    each = select(func.count().label("n")).select_from(RunnerManager).group_by(RunnerManager.runner_id).subquery()
    assert stored.execute(select(func.min(each.c.n), func.max(each.c.n))).one() == (1, 60)


def test_some_runners_are_paused_protected_locked_annotated_and_open_to_untagged_jobs(stored: Session) -> None:
    everything = stored.scalars(select(Runner)).all()
    for trait in ("paused", "protected", "locked", "run_untagged", "maintenance_note", "maximum_timeout"):
        having = [runner for runner in everything if getattr(runner, trait)]
        assert 0 < len(having) < len(everything), trait


def test_nothing_is_older_than_what_it_belongs_to_or_newer_than_now(stored: Session) -> None:
    for table in TABLES:
        assert stored.scalar(select(func.max(table.created_at))) <= now(), table.__name__
    too_old = [
        select(Runner.id).join(Runner.group).where(Runner.created_at < Group.created_at),
        select(Runner.id).join(Runner.project).where(Runner.created_at < Project.created_at),
        select(RunnerManager.id).join(Runner).where(RunnerManager.created_at < Runner.created_at),
        select(RunnerManager.id).where(RunnerManager.contacted_at < RunnerManager.created_at),
        select(RunnerToken.id).where(RunnerToken.first_used_at < RunnerToken.created_at),
    ]
    for query in too_old:
        assert stored.scalars(query).all() == []


def test_the_trail_tells_what_happened_in_order_and_ends_before_now(stored: Session) -> None:
    events = stored.scalars(select(AuditEvent).where(AuditEvent.request_id.like("demo-%"))).all()
    told = [event.created_at for event in sorted(events, key=lambda event: event.id)]
    assert told == sorted(told)
    assert told[0].date() < told[-1].date() <= now().date()
    happened = {event.action for event in events}
    assert happened >= {"runner_created", "runner_paused", "runner_updated", "runner_token_reset", "runner_deleted"}
    assert len(events) > len(RUNNERS) + len(LATER)


def test_one_runner_has_a_family_of_two_tokens_that_its_machines_use(stored: Session) -> None:
    used = select(RunnerManager.runner_id, func.count(RunnerManager.token_id.distinct()).label("tokens"))
    by_runner = used.group_by(RunnerManager.runner_id).subquery()
    runner_id = stored.scalars(select(by_runner.c.runner_id).where(by_runner.c.tokens == 2)).one()
    family = runner_tokens.family(stored, stored.get_one(Runner, runner_id))
    assert [token.ends_at is None for token in family] == [True, False]


@pytest.mark.parametrize("username", [username for username, _, _ in PEOPLE])
def test_the_people_of_the_demo_sign_in_and_need_no_new_password(filled: Flask, username: str) -> None:
    client = sign_in(filled.test_client(), username, DEMO_PASSWORD)
    assert client.get("/").status_code == 200


def test_there_is_somebody_with_each_role_and_no_administrator_among_them(stored: Session) -> None:
    assert {role for _, _, role, *_ in MEMBERS} == set(Role) - {Role.NONE}
    for username, _, _ in PEOPLE:
        person = accounts.find(stored, username)
        assert person is not None
        assert not person.admin


def test_somebody_has_left_and_does_not_come_in(filled: Flask, stored: Session) -> None:
    person = stored.scalars(select(User).where(User.blocked_at.is_not(None))).one()
    assert person.username == LEFT[0]
    assert person.last_signed_in_at < person.blocked_at < now() - timedelta(days=17)
    told = stored.scalars(select(AuditEvent).where(AuditEvent.action == "person_blocked")).one()
    assert (told.target_id, told.created_at, told.actor_name) == (person.id, person.blocked_at, "Administrator")
    client = filled.test_client()
    csrf = csrf_of(client.get("/-/sign-in").get_data(as_text=True))
    typed = {"csrf_token": csrf, "login": person.username, "password": DEMO_PASSWORD}
    assert client.post("/-/sign-in", data=typed).status_code in (401, 403, 422)


def test_a_runner_was_deleted_by_alice_two_days_ago_and_can_be_restored_with_its_machines(stored: Session) -> None:
    alice = accounts.find(stored, "alice")
    assert alice is not None
    entry = deletion_lists.page(stored, actors.person(alice), KEPT).entries[0]
    assert (entry.title, entry.machines, entry.deletion.actor_name) == (RETIRED.description, 2, "Alice Lam")
    assert timedelta(days=1.9) < now() - entry.deletion.created_at < timedelta(days=2.1)
    heard_of = select(RunnerManager.contacted_at).join(Runner).where(Runner.deletion_id == entry.deletion.id)
    contacts = stored.scalars(heard_of, execution_options=WITH_DELETED).all()
    assert len(contacts) == 2
    assert now() - KEPT < min(contacts) < max(contacts) < entry.deletion.created_at
    deleted = select(Runner.description).where(Runner.deletion_id.is_not(None))
    assert stored.scalars(deleted, execution_options=WITH_DELETED).all() == [RETIRED.description]
    assert [event.target_name for event in events(stored, "deleted_for_good")] == [SHORT_LIVED.description]


def test_a_project_runner_serves_a_second_project(stored: Session) -> None:
    shared = stored.scalars(select(RunnerProject)).one()
    runner = stored.get_one(Runner, shared.runner_id)
    bob = accounts.find(stored, "bob")
    assert bob is not None
    assigned = runner_projects.assigned(stored, actors.person(bob), runner)
    assert [each.scope.full_path for each in assigned] == ["acme/platform/gateway"]
    assert [event.created_at for event in events(stored, "runner_assigned")] == [shared.created_at]


def test_an_act_on_many_is_over_and_stands_on_the_trail_and_above_the_list(filled: Flask, stored: Session) -> None:
    act = stored.scalars(select(BulkAct)).one()
    assert act.done == act.total == act.changed > 5
    assert act.finished_at is not None
    assert now() - timedelta(days=1) < act.finished_at < now()
    begun, ended = events(stored, "bulk_act_started")[0], events(stored, "bulk_act_finished")[0]
    assert begun.created_at == ended.created_at == act.finished_at
    same = stored.scalars(select(AuditEvent).where(AuditEvent.request_id == act.request_id)).all()
    assert len([event for event in same if event.action == "runner_updated"]) == act.changed
    page = sign_in(filled.test_client(), "alice", DEMO_PASSWORD).get("/groups/acme/data/-/runners")
    assert f'href="/-/bulk/{act.id}">{act.changed} runners changed' in page.get_data(as_text=True)


def test_the_trail_tells_of_refused_sign_ins_and_refused_acts(stored: Session) -> None:
    refused = [(event.target_name, event.changes["reason"][1]) for event in events(stored, "sign_in_refused")]
    assert refused == [("Jonas Weber", "blocked"), ("Bob Ray", "wrong password"), ("Bob Ray", "wrong password")]
    acts = [(event.actor_name, event.changes["answer"][1]) for event in events(stored, "act_refused")]
    assert acts == [("Erin Day", "not allowed"), ("Nora Lind", "not found")]


def test_people_have_signed_in_before_the_last_thing_they_did(stored: Session) -> None:
    told = {event.actor_name: event.created_at for event in events(stored, "signed_in")}
    assert len(told) == len(SIGNED_IN) < len(PEOPLE) + 1
    for person in stored.scalars(select(User).where(User.name.in_(told))):
        assert person.last_signed_in_at >= told[person.name]  # later where a test here has signed them in
        theirs = (AuditEvent.actor_kind == "user", AuditEvent.actor_id == person.id)
        done = select(AuditEvent.created_at).where(*theirs, AuditEvent.request_id.like("demo-%"))
        last = max(stored.scalars(done))
        assert told[person.name] <= last < told[person.name] + timedelta(days=7)


def test_a_second_fill_changes_nothing(stored: Session) -> None:
    before = sizes(stored)
    assert demo_story.fill(stored, DEMO_PASSWORD, KEYS, JOB_VAULT) is None
    assert sizes(stored) == before


def test_names_of_others_are_left_alone_and_named(session: Session, cast: Cast) -> None:
    before = sizes(session)
    with pytest.raises(Invalid, match=r"acme, alice, bob, charlie, erin\. Nothing was changed"):
        demo_story.fill(session, DEMO_PASSWORD, KEYS, JOB_VAULT)
    assert sizes(session) == before


def test_who_was_there_before_stays_as_they_were(filled: Flask, stored: Session) -> None:
    assert whole_row(stored, "root") == filled.config["ROOT_BEFORE"]
    page = sign_in(filled.test_client(), "root", ROOT_PASSWORD).get("/admin/runners").get_data(as_text=True)
    assert f"{len(RUNNERS)} runners" in page


def test_the_command_fills_says_how_to_sign_in_and_is_harmless_the_second_time(own_database: str) -> None:
    first = command(own_database, "--password", "a password to try")
    assert first.returncode == 0, first.stderr
    assert f"{len(RUNNERS)} runners" in first.stdout
    assert "alice    owner of acme" in first.stdout
    assert "'a password to try'" in first.stdout
    second = command(own_database)
    assert second.returncode == 0, second.stderr
    assert "here already; nothing was changed" in second.stdout
    assert DEMO_PASSWORD not in second.stdout
    engine = create_engine(own_database)
    with Session(engine) as session:
        assert accounts.signed_in(session, "alice", "a password to try") is not None
        assert session.scalar(select(func.count()).select_from(Runner)) == len(RUNNERS)
    engine.dispose()


def test_a_password_that_is_too_short_fills_nothing(own_database: str) -> None:
    refused = command(own_database, "--password", "short")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: It is too short")
    engine = create_engine(own_database)
    with Session(engine) as session:
        assert set(sizes(session).values()) == {0}
    engine.dispose()


# ---- jobs


def all_jobs(session: Session) -> Sequence[Job]:
    return session.scalars(select(Job).order_by(Job.id)).all()


def log_of(session: Session, job: Job) -> bytes:
    extent = job_logs.extent(session, job.id)
    return job_logs.read(session, extent, 0, extent.size)


def job_called(session: Session, name: str, status: JobStatus) -> Job:
    return session.scalars(select(Job).where(Job.name == name, Job.status == status).order_by(Job.id.desc())).first()


def test_there_are_jobs_of_every_status_and_their_times_fit(stored: Session) -> None:
    found = all_jobs(stored)
    assert {job.state for job in found} == set(JobStatus)
    for job in found:
        times = [job.created_at, job.queued_at, job.started_at, job.finished_at]
        known = [each for each in times if each is not None]
        assert known == sorted(known), job.title
        assert known[-1] <= now()
        assert (job.finished_at is not None) is job.state.is_over


def test_every_job_was_taken_by_a_runner_that_may_take_it_on_a_machine_of_that_runner(stored: Session) -> None:
    taken = [job for job in all_jobs(stored) if job.runner is not None]
    machines = job_lists.machines_of(stored, taken)
    assert len(taken) > 40
    for job in taken:
        demand = pending_jobs.demand_of(stored, job)
        assert job_matching.obstacle(demand, runner_offers.offer_of(stored, job.runner)) is None, job.title
        machine = stored.get_one(RunnerManager, machines[job.id].runner_machine_id)
        assert (machine.runner_id, machine.system_xid) == (job.runner_id, machines[job.id].system_xid)
        assert machine.created_at <= job.started_at


def test_jobs_wait_for_reasons_that_differ(stored: Session) -> None:
    waiting = [job for job in all_jobs(stored) if job.state is JobStatus.PENDING]
    assert set(stored.scalars(select(PendingJob.job_id))) == {job.id for job in waiting}
    root = actors.system("test")
    headlines = {job.name: stuck_jobs.of_job(stored, root, job).headline for job in waiting if not job.is_check}
    assert "“docker”" in headlines["build image"]
    assert "Resume" in headlines["load test"]
    assert "protected" in headlines["deploy to staging"]
    assert len(set(headlines.values())) >= 5
    (check,) = [job for job in waiting if job.is_check]
    assert check.checks_runner is not None
    assert check.checks_runner.description == "Office Mac minis"


def test_logs_have_colours_sections_and_bars_and_end_as_the_job_did(stored: Session) -> None:
    done = log_of(stored, job_called(stored, "package", JobStatus.SUCCESS))
    for part in (
        b"\x1b[32;1m$ npm ci",
        b"section_start:",
        b"section_end:",
        b"\rRendering chunks [####",
        b"Job succeeded",
    ):
        assert part in done
    failed = job_called(stored, "unit tests", JobStatus.FAILED)
    assert b"ERROR: Job failed: exit code 1" in log_of(stored, failed)
    running = log_of(stored, job_called(stored, "unit tests", JobStatus.RUNNING))
    assert running.count(b"section_start:") == running.count(b"section_end:") + 1


def test_what_a_job_left_can_be_downloaded(filled: Flask, stored: Session) -> None:
    job = job_called(stored, "package", JobStatus.SUCCESS)
    archive, report = job_artifacts.of_job(stored, job, now())
    assert (archive.file_type, report.file_type) == ("archive", "junit")
    with filled.extensions["artifact_store"].open(archive.key, archive.size) as file, zipfile.ZipFile(file) as whole:
        assert "dist/index.html" in whole.namelist()


def test_a_job_that_failed_ran_again_by_itself(stored: Session) -> None:
    retried = [job for job in all_jobs(stored) if job.retried]
    assert retried
    for job in retried:
        again = stored.scalars(select(Job).where(Job.retry_of_id == job.id)).one()
        assert (job.state, again.state) == (JobStatus.FAILED, JobStatus.SUCCESS)


def test_projects_keep_jobs_to_run_again_and_some_protect_refs(stored: Session) -> None:
    assert len(stored.scalars(select(JobTemplate)).all()) == len(TEMPLATES)
    protecting = stored.scalars(select(ProjectSettings).where(ProjectSettings.protected_refs != []))
    assert len(protecting.all()) == len(PROTECTED)
