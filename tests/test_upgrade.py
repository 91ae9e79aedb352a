"""From the last release to this one: migrations go up with data in place, and nothing is lost."""

from collections.abc import Iterator
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
from portal.domain.jobs import job_checks, job_partitions, job_rules, jobs
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.jobs.job_rules import JobRules
from portal.domain.people import access_tokens
from portal.domain.people.access_tokens import NewAccessToken
from portal.domain.registration import registration
from portal.domain.runners import runner_tokens
from portal.domain.scopes import INSTANCE, find_group, find_project
from portal.domain.trail import audit_chain
from portal.models import AuditEvent, JobClass, JobMachine, JobPartition, ProjectSettings, Runner, User
from tests import databases

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


def test_the_way_back_keeps_what_the_last_release_knew(old: Flask) -> None:
    upgrade()
    downgrade(revision="0001")
    found = db.session.execute(text("SELECT description FROM ci_runners")).scalar_one()
    assert found == "Old fleet"
    db.session.remove()
    upgrade()
