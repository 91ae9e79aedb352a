"""A million jobs in few hands: one project, one runner and one machine have most; a queue and a fleet beside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from bench import long_queues
from bench.runs import Run
from portal.database import now
from portal.domain import scopes
from portal.domain.runners import runners as runners_
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE
from portal.models import JobDefinition, Project, RunnerManager, User
from tests.cast import Cast

# What is rare among the jobs of the project, each at one job only.
RARE_REF, RARE_TAG, RARE_NAME = "release/7", "fpga", "zebra"

# Most jobs are over, and most of those well; a few thousand run, a few are canceled. Names and refs are a project's
# usual ones. One job of each thousand was run again.
_FILL = """
SET LOCAL session_replication_role = replica;
CREATE TEMPORARY TABLE over ON COMMIT DROP AS
SELECT 3000000 + n AS id, CASE WHEN n > {finished} - 200 THEN 'running' WHEN n % 5000 = 0 THEN 'canceling'
  WHEN n % 9 = 0 THEN 'failed' WHEN n % 31 = 0 THEN 'canceled' ELSE 'success' END AS status, n
FROM generate_series(1, {finished}) AS n;
INSERT INTO ci_builds (id, partition_id, project_id, definition_id, user_id, name, ref, ref_protected, tag_list,
  timeout, status, failure_reason, retries_left, retried, runner_id, runner_type, created_at, queued_at, started_at,
  acknowledged_at, finished_at)
SELECT id, 100, CASE WHEN n % 20 = 0 THEN {other} ELSE {project} END, {definition}, {user},
  CASE WHEN n = 1000 THEN '{rare_name}'
    ELSE (ARRAY['build', 'unit tests', 'browser tests', 'lint', 'package', 'deploy'])[1 + n % 6] END,
  CASE WHEN n = 1001 THEN '{rare_ref}' WHEN n % 3 = 0 THEN 'main' ELSE 'feature/' || n % 5000 END, n % 3 = 0,
  CASE WHEN n = 1002 THEN '{{{rare_tag}}}'::varchar[] WHEN n % 2 = 0 THEN '{{docker}}' ELSE '{{docker,linux}}' END,
  3600, status, CASE WHEN status = 'failed' THEN 'script_failure' END, 0, n % 1000 = 0, {runner}, 2,
  moment, moment, moment + interval '1 minute', moment + interval '1 minute',
  CASE WHEN status NOT IN ('running', 'canceling') THEN moment + interval '5 minutes' END
FROM (SELECT over.*, now() - ({finished} - n) * interval '20 seconds' AS moment FROM over) AS each;
INSERT INTO p_ci_runner_machine_builds (partition_id, build_id, runner_machine_id, system_xid)
SELECT 100, id, CASE WHEN n % 10 = 0 THEN {second} ELSE {machine} END,
  CASE WHEN n % 10 = 0 THEN '{second_name}' ELSE '{machine_name}' END FROM over;
INSERT INTO ci_runners (runner_type, namespace_id, creator_id, registration_type, creation_state, description,
  maintenance_note, active, locked, run_untagged, access_level, tag_list, created_at, updated_at, contacted_at,
  config)
SELECT r.runner_type, r.namespace_id, r.creator_id, r.registration_type, r.creation_state, 'Runner ' || n, '',
  n % 50 <> 0, false, n % 7 = 0, n % 11 / 10,
  (ARRAY['{{docker}}', '{{docker,linux}}', '{{linux,x86}}', '{{gpu}}'])[1 + n % 4]::varchar[],
  now(), now(), CASE WHEN n % 10 <> 0 THEN now() - abs(hashint4(n)) % 2000000 * interval '1 second' END,
  r.config
FROM ci_runners r
JOIN generate_series(1, {runners}) AS n ON r.id = CASE WHEN n % 50 = 0 THEN {shared} ELSE {runner} END;
SELECT setval(pg_get_serial_sequence('ci_builds', 'id'), (SELECT max(id) FROM ci_builds) + 1);
"""


@contextmanager
def filled(run: Run, *, pending: int, finished: int, machines: int) -> Iterator[str]:
    """The URL of a database of its own in which so many jobs wait and so many were taken, beside so many runners."""
    with run.database() as url, run.session(url) as session:
        long_queues.fill(session, url, pending)
        fill(session, finished=finished, runners=machines)
        session.close()
        with (
            run.engine(url) as engine,
            engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        ):
            connection.execute(text("VACUUM ANALYZE"))
            connection.execute(text("CHECKPOINT"))
        yield url


def fill(session: Session, *, finished: int, runners: int) -> None:
    """Add jobs that were taken, nearly all of acme/web by one machine of a runner of acme, and more runners."""
    dana = session.scalars(select(User).where(User.username == "dana")).one()
    web = scopes.find_project(session, "acme/web")
    tagged = RunnerSettings("Deep runner", tags=("docker", "linux"), run_untagged=True)
    group = scopes.find_group(session, "acme")
    owned, shared = (
        runners_.create_runner(session, Cast.as_(dana), each, tagged).runner for each in (group, INSTANCE)
    )
    names = ("s_first0000001", "s_second000002")
    first, second = (RunnerManager(runner_id=owned.id, system_xid=name, contacted_at=now()) for name in names)
    session.add_all([first, second])
    session.flush()
    values = {
        "finished": finished, "runners": runners, "project": web.id, "runner": owned.id, "shared": shared.id,
        "other": session.scalar(select(func.max(Project.id))), "user": dana.id,
        "definition": session.scalar(select(func.min(JobDefinition.id))),
        "machine": first.id, "second": second.id, "machine_name": names[0], "second_name": names[1],
        "rare_ref": RARE_REF, "rare_tag": RARE_TAG, "rare_name": RARE_NAME,
    }  # fmt: skip
    driver = session.connection().connection.driver_connection
    assert driver is not None
    driver.execute(_FILL.format(**values))  # many statements at once, which only the driver itself takes
    session.commit()
