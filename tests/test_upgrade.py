"""From the last release to this one: migrations go up with data in place, and nothing is lost."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from flask import Flask
from flask_migrate import downgrade, upgrade
from sqlalchemy import func, select, text

from portal import create_app
from portal.database import db, now
from portal.domain import actors, tokens
from portal.domain.groups import groups
from portal.domain.jobs import job_checks, job_definitions, job_partitions, job_rules, jobs
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.jobs.job_rules import JobRules
from portal.domain.people import access_tokens
from portal.domain.people.access_tokens import NewAccessToken
from portal.domain.registration import registration
from portal.domain.runners import runner_tokens
from portal.domain.scopes import INSTANCE, find_group, find_project
from portal.domain.trail import audit_chain, trail_pages
from portal.domain.trail.trail_filters import TrailFilter
from portal.models import (
    AuditEvent,
    Job,
    JobClass,
    JobMachine,
    JobPartition,
    JobStatus,
    ProjectSettings,
    Runner,
    User,
)
from tests import databases
from tests.api.machines import until

TOKEN = "glrt-Xq7Lm2PdT8sVb31KdQeR"
DATA = """
INSERT INTO users (username, name, email, password_digest, must_change_password, admin, session_epoch, created_at)
  VALUES ('root', 'Root', 'root@acme.example', 'x', false, true, 0, now());
INSERT INTO namespaces (name, path, description, traversal_ids, created_at) VALUES ('Acme', 'acme', '', '{1}', now());
INSERT INTO projects (namespace_id, name, path, description, created_at) VALUES (1, 'Web', 'web', '', now());
INSERT INTO routes (path, namespace_id) VALUES ('acme', 1);
INSERT INTO routes (path, project_id) VALUES ('acme/web', 1);
INSERT INTO ci_runners (runner_type, project_id, creator_id, registration_type, creation_state, description,
    maintenance_note, active, locked, run_untagged, access_level, tag_list, created_at, updated_at, config)
  VALUES (3, 1, 1, 1, 100, 'Old fleet', '', true, true, true, 0, '{docker}', now(), now(), '{}');
INSERT INTO ci_runner_machines (runner_id, system_xid, creation_state, created_at, contacted_at)
  VALUES (1, 's_1', 100, now(), now());
INSERT INTO audit_events (created_at, actor_kind, actor_name, action, target_kind, target_name, scope_kind,
    scope_path, group_ids, address, request_id, changes)
  VALUES (now(), 'user', 'Root', 'runner_created', 'runner', 'Old fleet', 'project', 'acme/web', '{1}', '', '', '{}');
"""
EVENTS = r"""
INSERT INTO audit_events (created_at, actor_kind, actor_id, actor_name, action, target_kind, target_id, target_name,
    scope_kind, scope_path, group_ids, project_id, address, request_id, changes)
  VALUES ('2024-02-29 23:59:59.999999+00', 'user', 1, 'Root', 'runner_updated', 'runner', 1, 'Ünïcode "quoted" \ 🦊',
      'project', 'acme/web', '{1}', 1, '2001:db8::1', 'r',
      '{"tags": [["a", "b"], []], "maximum_timeout": [null, 3600]}'),
    ('2024-01-01 00:00:00+14', 'system', NULL, 'clean-up', 'stale_runners_deleted', 'instance', NULL, 'one',
      'instance', '', '{}', NULL, '', '', '{"é": [1.50, {"zz": true, "a": null}], "b\n": [0, -1]}');
INSERT INTO audit_events (created_at, actor_kind, actor_name, action, target_kind, target_name, scope_kind,
    scope_path, group_ids, address, request_id, changes)
  SELECT now(), 'visitor', 'somebody', 'x', 'instance', 'the instance', 'instance', '', '{}', '', '', '{}'
  FROM generate_series(1, 2);
"""
STORED = """
INSERT INTO ci_runner_tokens (runner_id, digest, short, origin, created_at) VALUES (1, :digest, 'Xq7Lm2PdT', 0, now())
"""


@pytest.fixture
def old(postgres: databases.Server) -> Iterator[Flask]:
    """An app on a database as the first release left it, with something in every table."""
    name = f"{postgres.name}_old"
    app = create_app(databases.settings(postgres.create(name)))
    with app.app_context():
        upgrade(revision="0001")
        db.session.execute(text(DATA))
        db.session.execute(text(STORED), {"digest": tokens.digest(TOKEN)})
        db.session.commit()
        db.session.remove()  # an open transaction would hold the migration up
        yield app
        db.session.remove()
        db.engine.dispose()
    postgres.drop(name)


def test_what_the_last_release_stored_is_there_and_works(old: Flask) -> None:
    upgrade()
    session = db.session()
    runner = session.get_one(Runner, 1)
    assert (runner.description, runner.tag_list, runner.locked) == ("Old fleet", ["docker"], True)
    assert (runner.machines_forgotten, runner.kept_when_stale, runner.token_expiration_interval) == (0, False, None)
    assert runner_tokens.token_row(session, TOKEN).expires_at is None
    for scope in (INSTANCE, find_project(session, "acme/web")):
        assert registration.decision(session, scope, old.extensions["registration"]).allowed
    answer = old.test_client().post("/api/v4/jobs/request", json={"token": TOKEN, "system_id": "s_1"})
    assert answer.status_code == 204


@pytest.fixture
def before_the_chain(old: Flask) -> Flask:
    """The release before the trail was chained, with events in every form that it wrote."""
    upgrade(revision="0002")
    db.session.execute(text(EVENTS))
    db.session.commit()
    db.session.remove()
    return old


def test_events_from_before_the_chain_are_chained_as_they_stand(before_the_chain: Flask) -> None:
    upgrade()
    checked = audit_chain.verify(db.session())
    assert (checked.broken, checked.count, checked.first) == (None, 5, 1)
    assert [event.target_name for event in db.session.scalars(select(AuditEvent).order_by(AuditEvent.id))][1:3] == [
        'Ünïcode "quoted" \\ 🦊',
        "one",
    ]


def test_the_way_back_from_the_chain_keeps_events_and_lets_go_what_was_deleted(before_the_chain: Flask) -> None:
    upgrade()
    actor, acme = actors.system("test"), find_group(db.session(), "acme")
    groups.delete(db.session(), replace(actor, user=db.session.get_one(User, 1)), acme)
    db.session.commit()
    db.session.remove()
    downgrade(revision="0002")
    count = (
        "SELECT (SELECT count(*) FROM audit_events), (SELECT count(*) FROM namespaces), (SELECT count(*) FROM users)"
    )
    assert db.session.execute(text(count)).one() == (6, 0, 1)
    db.session.execute(text("DELETE FROM audit_events WHERE target_name = 'one'"))  # nothing refuses it any more
    db.session.commit()
    db.session.remove()
    upgrade()
    checked = audit_chain.verify(db.session())
    assert (checked.broken, checked.count) == (None, 5)


KNOWN_TO_0003 = """
INSERT INTO user_sessions (user_id, digest, method, second_factor, address, user_agent, created_at, confirmed_at,
    last_used_at) VALUES (1, sha256('a'), 'password', false, '', '', now(), now(), now());
INSERT INTO audit_events (created_at, actor_kind, actor_id, actor_name, action, target_kind, target_id, target_name,
    scope_kind, scope_path, group_ids, address, request_id, changes)
  VALUES (now(), 'user', 1, 'Root', 'signed_in', 'person', 1, 'Root', 'instance', '', '{}', '', '', '{}');
"""


@pytest.fixture
def before_the_doors(old: Flask) -> Flask:
    """Release 0.3.0: with sessions and a chained trail, before there were access tokens."""
    upgrade(revision="0003")
    db.session.execute(text(KNOWN_TO_0003))
    db.session.commit()
    db.session.remove()
    return old


def test_a_portal_of_release_0_3_0_gets_doors_for_scripts(before_the_doors: Flask) -> None:
    upgrade()
    checked = audit_chain.verify(db.session())
    assert (checked.broken, checked.count) == (None, 2)
    root = db.session.get_one(User, 1)
    wanted = NewAccessToken("first", ("api",), now().date() + timedelta(days=1))
    actor = actors.system("test")
    issued = access_tokens.create(db.session(), actor, root, wanted, longest=timedelta(days=2))
    db.session.commit()
    answer = before_the_doors.test_client().get("/api/v4/runners/1", headers={"PRIVATE-TOKEN": issued.token})
    assert answer.get_json()["description"] == "Old fleet"


def test_the_way_back_from_the_doors_lets_go_of_tokens_only(before_the_doors: Flask) -> None:
    upgrade()
    db.session.remove()
    downgrade(revision="0003")
    count = "SELECT (SELECT count(*) FROM ci_runners), (SELECT count(*) FROM user_sessions)"
    assert db.session.execute(text(count)).one() == (1, 1)
    db.session.remove()
    upgrade()


KNOWN_TO_0004 = """
INSERT INTO projects (namespace_id, name, path, description, created_at) VALUES (1, 'Shop', 'shop', '', now());
INSERT INTO routes (path, project_id) VALUES ('acme/shop', 2);
INSERT INTO project_ci_cd_settings (project_id, allow_runner_registration_token, runner_token_expiration_interval)
  VALUES (1, false, 86400);
"""


@pytest.fixture
def before_jobs(before_the_doors: Flask) -> Flask:
    """Release 0.4.0: a project whose settings somebody has stored, another with those as installed, and no jobs."""
    upgrade(revision="0004")
    db.session.execute(text(KNOWN_TO_0004))
    db.session.commit()
    db.session.remove()
    return before_the_doors


def test_settings_of_projects_stay_and_those_for_jobs_are_as_installed(before_jobs: Flask) -> None:
    upgrade()
    session = db.session()
    stored = session.get_one(ProjectSettings, 1)
    assert (stored.allow_runner_registration_token, stored.runner_token_expiration_interval) == (False, 86_400)
    for path in ("acme/web", "acme/shop"):
        assert job_rules.of_project(session, find_project(session, path)) == JobRules()
    assert JobRules() == JobRules((), 3600, shared_runners_enabled=True, group_runners_enabled=True)
    checked = audit_chain.verify(session)
    assert (checked.broken, checked.count) == (None, 2)


def test_a_runner_of_the_last_release_takes_the_first_job(before_jobs: Flask) -> None:
    upgrade()
    session = db.session()
    partitions = session.execute(select(JobPartition.id)).scalars().all()
    assert partitions == [job_partitions.FIRST]
    assert session.scalar(select(func.count()).select_from(JobClass)) == 1
    assert session.scalar(text("SELECT nextval('ci_queue_marks')")) == 1
    assert job_partitions.make_ahead(session, now()) >= job_partitions.MONTHS_AHEAD
    root = replace(actors.system("test"), user=session.get_one(User, 1))
    new = NewJob("build", ("make",), tags=("docker",))
    job = jobs.submit(session, root, find_project(session, "acme/web"), new, before_jobs.extensions["job_vault"])
    session.commit()
    answer = before_jobs.test_client().post("/api/v4/jobs/request", json={"token": TOKEN, "system_id": "s_1"})
    assert (answer.status_code, answer.get_json()["id"]) == (201, job.id)
    machine = session.execute(select(JobMachine.partition_id, JobMachine.runner_machine_id)).one()
    assert machine == (job.partition_id, 1)


def test_the_way_back_from_jobs_lets_go_of_jobs_only(before_jobs: Flask) -> None:
    upgrade()
    session = db.session()
    job_partitions.make_ahead(session, now())
    job_checks.check(session, actors.system("test"), session.get_one(Runner, 1), before_jobs.extensions["job_vault"])
    session.commit()
    db.session.remove()
    downgrade(revision="0004")
    kept = "SELECT allow_runner_registration_token, runner_token_expiration_interval FROM project_ci_cd_settings"
    assert db.session.execute(text(kept)).one() == (False, 86_400)
    left = "SELECT count(*) FROM pg_class WHERE relname ~ '^(p_)?ci_(build|job|pend|part|queue|runner_machine_b)'"
    assert db.session.execute(text(left)).scalar_one() == 0
    db.session.remove()
    upgrade()
    checked = audit_chain.verify(db.session())
    assert (checked.broken, checked.count) == (None, 3)  # that a runner was checked stays on the trail


KNOWN_TO_0005 = """
INSERT INTO namespaces (parent_id, name, path, description, traversal_ids, created_at)
  VALUES (1, 'Platform', 'platform', '', '{1,2}', now());
INSERT INTO projects (namespace_id, name, path, description, created_at) VALUES (2, 'Edge', 'edge', '', now());
INSERT INTO routes (path, namespace_id) VALUES ('acme/platform', 2);
INSERT INTO routes (path, project_id) VALUES ('acme/platform/edge', 3);
INSERT INTO ci_runners (runner_type, namespace_id, project_id, registration_type, creation_state, description,
    maintenance_note, active, locked, run_untagged, access_level, tag_list, created_at, updated_at, config)
  SELECT kind, namespace_id, project_id, 1, 100, description, '', true, false, true, 0, '{}', now(), now(), '{}'
  FROM (VALUES (1, NULL::bigint, NULL::bigint, 'of all'), (2, 1, NULL, 'of acme'), (2, 2, NULL, 'of platform'),
    (3, NULL, 3, 'of edge')) AS r(kind, namespace_id, project_id, description);
INSERT INTO ci_runner_machines (runner_id, system_xid, creation_state, version, created_at, contacted_at)
  SELECT id, 's_' || id, 100, '17.5.0', now(), now() FROM ci_runners WHERE id > 1;
INSERT INTO audit_events (created_at, actor_kind, actor_name, action, target_kind, target_name, scope_kind,
    scope_path, group_ids, address, request_id, changes)
  VALUES (now() - interval '1 day', 'system', 'late', 'x', 'group', 'Platform', 'group', 'acme/platform', '{1,2}',
    '', '', '{}');
"""
# One of each status, all of acme/web; the two that wait can be found through the project, its group and the instance.
JOBS_OF_0005 = """
INSERT INTO p_ci_job_definitions (config, ciphertext, created_at) VALUES (CAST(:config AS jsonb), :ciphertext, now());
"""
MORE_OF_0005 = """
INSERT INTO ci_builds (partition_id, project_id, definition_id, user_id, name, ref, ref_protected, tag_list, timeout,
    status, retries_left, runner_id, runner_type, created_at, queued_at, started_at, finished_at)
  SELECT 100, 1, 1, 1, 'build', 'main', false, '{}', 3600, status, 0, CASE WHEN status <> 'pending' THEN 1 END,
    CASE WHEN status <> 'pending' THEN 3 END, now(), now(), CASE WHEN status <> 'pending' THEN now() END,
    CASE WHEN status IN ('success', 'failed', 'canceled') THEN now() END
  FROM unnest(ARRAY['success', 'failed', 'canceled', 'running', 'canceling', 'pending', 'pending']) AS status;
INSERT INTO p_ci_runner_machine_builds (partition_id, build_id, runner_machine_id, system_xid)
  SELECT 100, id, 1, 's_1' FROM ci_builds WHERE runner_id IS NOT NULL;
INSERT INTO ci_job_logs (job_id, heard_at) SELECT id, now() FROM ci_builds WHERE runner_id IS NOT NULL;
INSERT INTO ci_pending_builds (scope_kind, scope_id, class_id, turn, job_id)
  SELECT kind, CASE kind WHEN 1 THEN 0 ELSE 1 END, 1, id, id
  FROM ci_builds, generate_series(1, 3) AS kind WHERE status = 'pending';
"""


@pytest.fixture
def before_speed(before_jobs: Flask) -> Flask:
    """Release 0.5.0: runners with machines in every kind of place, and jobs in every state."""
    upgrade(revision="0005")
    session = db.session()
    job_partitions.make_ahead(session, now())
    session.execute(text(KNOWN_TO_0005))
    made = job_definitions.stored(NewJob("build", ("make",)), before_jobs.extensions["job_vault"])
    session.execute(text(JOBS_OF_0005), {"config": json.dumps(made.config), "ciphertext": made.ciphertext})
    session.execute(text(MORE_OF_0005))
    session.commit()
    db.session.remove()
    return before_jobs


def test_runners_of_release_0_5_0_name_their_groups_also_after_a_change(before_speed: Flask) -> None:
    upgrade()
    session = db.session()
    rows = session.execute(select(Runner.description, Runner.group_ids))
    named = {row.description: row.group_ids for row in rows}
    wanted = {"Old fleet": [1], "of all": [], "of acme": [1], "of platform": [1, 2], "of edge": [1, 2]}
    assert named == wanted
    session.execute(text("UPDATE ci_runners SET project_id = 3 WHERE description = 'Old fleet'"))
    assert session.scalar(select(Runner.group_ids).where(Runner.description == "Old fleet")) == [1, 2]


def test_the_trail_of_release_0_5_0_is_read_in_the_order_of_time_and_is_unbroken(before_speed: Flask) -> None:
    upgrade()
    session = db.session()
    checked = audit_chain.verify(session)
    assert (checked.broken, checked.count) == (None, 3)
    events = trail_pages.page(session, select(AuditEvent), TrailFilter(), before=None, limit=10).events
    assert [event.id for event in events] == [2, 1, 3]  # the last one that was written tells of the day before
    below = trail_pages.page(session, select(AuditEvent), TrailFilter(path="acme"), before=None, limit=10).events
    assert [event.id for event in below] == [1, 3]


def test_each_partition_of_release_0_5_0_is_indexed_and_a_job_that_waits_is_taken(before_speed: Flask) -> None:
    upgrade()
    session = db.session()
    partitions = session.scalars(select(JobPartition.id)).all()
    indexed = "SELECT count(*) FROM pg_indexes WHERE tablename ~ '^p_ci_runner_machine_builds_' AND indexdef ~ 'xid'"
    assert session.scalar(text(indexed)) == len(partitions) > 1
    first = session.scalar(select(func.min(Job.id)).where(Job.status == JobStatus.PENDING))
    answer = before_speed.test_client().post("/api/v4/jobs/request", json={"token": TOKEN, "system_id": "s_1"})
    assert (answer.status_code, answer.get_json()["id"]) == (201, first)
    session.rollback()
    machine = select(JobMachine.runner_machine_id, JobMachine.system_xid).where(JobMachine.job_id == first)
    assert session.execute(machine).one() == (1, "s_1")
    assert session.scalar(text("SELECT count(DISTINCT job_id) FROM ci_pending_builds")) == 1


WAITS = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = CAST('audit_events' AS regclass)"


def test_runners_are_read_and_heard_while_the_upgrade_is_at_the_trail(before_speed: Flask) -> None:
    def run() -> None:
        with before_speed.app_context():
            upgrade()

    with db.engine.connect() as writer, db.engine.connect() as reader, ThreadPoolExecutor(1) as pool:
        writer.execute(text("LOCK TABLE audit_events IN ROW EXCLUSIVE MODE"))  # as who writes an event
        upgrading = pool.submit(run)
        try:
            until(lambda: reader.scalar(text(WAITS)) == 1, seconds=60, why="the upgrade waits for the trail")
            reader.execute(text("SET LOCAL lock_timeout = '1s'"))
            assert reader.scalar(text("SELECT count(*) FROM ci_runners")) == 5
            reader.execute(text("UPDATE ci_runners SET contacted_at = now()"))
        finally:
            reader.commit()
            writer.commit()
        upgrading.result()
    assert db.session.scalar(select(Runner.group_ids).where(Runner.description == "of edge")) == [1, 2]


def test_an_upgrade_that_was_interrupted_between_two_steps_goes_on(before_speed: Flask) -> None:
    upgrade()
    db.session.execute(text("UPDATE alembic_version SET version_num = '0005'"))
    db.session.execute(text("DROP INDEX ix_ci_runner_machines_version_runner_id"))
    db.session.commit()
    db.session.remove()
    upgrade()
    there = "SELECT count(*) FROM pg_class WHERE relname = 'ix_ci_runner_machines_version_runner_id'"
    assert db.session.execute(text(there)).scalar_one() == 1


def test_the_way_back_from_speed_lets_go_of_indexes_only(before_speed: Flask) -> None:
    indexes = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
    functions = "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1"
    count = "SELECT (SELECT count(*) FROM ci_runners), (SELECT count(*) FROM ci_builds), count(*) FROM audit_events"
    asked = [text(each) for each in (indexes, functions, count)]
    before = [db.session.execute(each).all() for each in asked]
    db.session.remove()
    upgrade()
    assert [db.session.execute(each).all() for each in asked][:2] != before[:2]
    db.session.remove()
    downgrade(revision="0005")
    assert [db.session.execute(each).all() for each in asked] == before
    db.session.remove()
    upgrade()
    checked = audit_chain.verify(db.session())
    assert (checked.broken, checked.count) == (None, 3)


def test_the_way_back_keeps_what_the_last_release_knew(old: Flask) -> None:
    upgrade()
    downgrade(revision="0001")
    found = db.session.execute(text("SELECT description FROM ci_runners")).scalar_one()
    assert found == "Old fleet"
    db.session.remove()
    upgrade()
