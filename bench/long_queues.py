"""A queue of any length, filled fast: projects in groups, jobs of many kinds, and runners that could take them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations

import psycopg
from sqlalchemy import select
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from bench.runs import Run
from portal.domain.jobs import job_classes, job_definitions, runner_offers
from portal.domain.jobs.job_definitions import JobVariable, NewJob
from portal.domain.jobs.job_matching import Offer
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE, Scope, of_group
from portal.models import Group, JobClass, Project, RunnerManager
from tests.cast import JOB_VAULT, Cast

MACHINE = "s_0123456789ab"
PROJECTS = 1000
GROUPS = 20  # below one at the top; a job is found through the instance, two groups and its project
SMALL = 3  # projects of the small group
# The sets of tags, the first ones common, the last one rare; nobody waits in the one after that.
COMMON = (("docker",), ("linux",), ("docker", "linux"))
_WORDS = [f"tag{number}" for number in range(21)]
OTHERS = tuple(combinations(_WORDS, 2))[:196]
RARE, NOBODYS = ("rare",), ("nobody's",)
TAG_SETS = (*COMMON, *OTHERS, RARE)  # 200
SERVED = 20  # jobs of each project that have run on an instance runner

_FILL = """
SET LOCAL session_replication_role = replica;
SET LOCAL work_mem = '256MB';
INSERT INTO projects (namespace_id, name, path, description, created_at)
SELECT ({groups})[CASE WHEN n <= {small} THEN 1 ELSE 2 + n % {others} END], 'Project ' || n, 'p' || n, '', now()
FROM generate_series(1, {projects}) AS n;
INSERT INTO routes (path, project_id)
SELECT 'acme/p' || p.id, p.id FROM projects p WHERE NOT EXISTS (SELECT 1 FROM routes r WHERE r.project_id = p.id);
CREATE TEMPORARY TABLE places ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY p.id) - 1 AS place, p.id, g.traversal_ids
FROM projects p JOIN namespaces g ON g.id = p.namespace_id WHERE p.path ~ '^p[0-9]+$';
-- Three of ten jobs have common tags, one of a thousand the rare one, the rest are of all other kinds alike.
CREATE TEMPORARY TABLE filled ON COMMIT DROP AS
SELECT f.id, f.project_id, f.class_id,
  row_number() OVER (PARTITION BY f.project_id, f.class_id ORDER BY f.id) - 1 AS turn, f.traversal_ids
FROM (
  SELECT 1000000 + n AS id, places.id AS project_id, places.traversal_ids, ({classes})[CASE
    WHEN n % 1000 = 0 THEN 200
    WHEN abs(hashint8(n + 5000000000)) % 10 < 3 THEN 1 + abs(hashint8(n + 6000000000)) % 3
    ELSE 4 + abs(hashint8(n + 7000000000)) % 196 END] AS class_id
  FROM generate_series(1, {pending}) AS n JOIN places ON places.place = abs(hashint8(n)) % {projects}
) AS f;
INSERT INTO ci_builds (id, partition_id, project_id, definition_id, user_id, name, ref, ref_protected, tag_list,
  timeout, status, retries_left, created_at, queued_at)
SELECT f.id, 100, f.project_id, {definition}, {user}, 'build', 'main', false, c.tag_list, 3600, 'pending', 0,
  now(), now()
FROM filled f JOIN ci_job_classes c ON c.id = f.class_id ORDER BY f.id;
INSERT INTO ci_builds (partition_id, project_id, definition_id, user_id, name, ref, ref_protected, tag_list,
  timeout, status, retries_left, runner_type, created_at, queued_at, started_at, finished_at)
OVERRIDING USER VALUE
SELECT 100, places.id, {definition}, {user}, 'build', 'main', false, '{{docker}}', 3600, 'success', 0, 1,
  now(), now(), now() - n * interval '1 minute' - places.place * interval '1 second', now()
FROM places, generate_series(1, {served}) AS n;
INSERT INTO ci_pending_builds (scope_kind, scope_id, class_id, turn, job_id)
SELECT s.kind, s.id, f.class_id, f.turn, f.id FROM filled f
CROSS JOIN LATERAL (
  SELECT 1 AS kind, 0 AS id UNION ALL SELECT 2, unnest(f.traversal_ids) UNION ALL SELECT 3, f.project_id
) AS s ORDER BY s.kind, s.id, f.class_id, f.turn, f.id;
SELECT setval(pg_get_serial_sequence('ci_builds', 'id'), (SELECT max(id) FROM ci_builds) + 1000000);
"""


@dataclass(frozen=True, slots=True)
class Queue:
    """A filled database: its address, how many jobs wait, and for each kind of runner what it offers and may take."""

    url: str
    pending: int
    offers: Mapping[str, Offer]
    classes: Mapping[str, tuple[int, ...]]


@contextmanager
def filled(run: Run, pending: int) -> Iterator[Queue]:
    """A database of its own in which so many jobs wait."""
    with run.database() as url, run.session(url) as session:
        queue = fill(session, url, pending)
        session.close()
        with psycopg.connect(plain(url), autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")
        yield queue


def plain(url: str) -> str:
    """The same address for the driver itself."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def fill(session: Session, url: str, pending: int) -> Queue:
    """Put so many jobs into an empty database, and make the runners."""
    cast = Cast(session)
    groups = [cast.group(f"g{number}", inside=cast.acme).id or 0 for number in range(GROUPS)]
    classes = [job_classes.class_of(session, tags, ref_protected=False) for tags in (*TAG_SETS, NOBODYS)]
    variables = (JobVariable("DEPLOY_KEY", "a value that is kept secret", masked=True),)
    definition = job_definitions.stored(NewJob("build", ("make", "make test"), variables=variables), JOB_VAULT)
    session.add(definition)
    session.flush()
    values = {
        "groups": _array(groups),
        "classes": _array(classes),
        "small": SMALL,
        "others": GROUPS - 1,
        "projects": PROJECTS,
        "pending": pending,
        "definition": definition.id,
        "user": cast.dana.id,
        "served": SERVED,
    }
    driver = session.connection().connection.driver_connection
    assert driver is not None
    driver.execute(_FILL.format(**values))  # many statements at once, which only the driver itself takes
    session.commit()
    offers = _offers(session, cast, groups[0])
    known = session.execute(select(JobClass.id, JobClass.tag_list, JobClass.ref_protected)).all()
    taken = {
        kind: tuple(row.id for row in known if offer.takes(frozenset(row.tag_list), row.ref_protected))
        for kind, offer in offers.items()
    }
    return Queue(url, pending, offers, taken)


def _array(numbers: Iterable[int]) -> str:
    return f"ARRAY[{','.join(map(str, numbers))}]::bigint[]"


def _offers(session: Session, cast: Cast, small_group: int) -> dict[str, Offer]:
    """The kinds of runners of reference/performance.md section 4, and one that serves a thousand projects."""
    every = RunnerSettings(tags=tuple(sorted({tag for tags in TAG_SETS for tag in tags})), run_untagged=True)
    small = of_group(session.get_one(Group, small_group))
    projects = session.scalars(select(Project.id).where(Project.path.regexp_match("^p[0-9]+$")))
    many, rare, nobodys = frozenset(projects), RunnerSettings(tags=RARE), RunnerSettings(tags=NOBODYS)
    return {
        "common_tags": _offer(session, cast, INSTANCE, RunnerSettings(tags=COMMON[2])),
        "rare_tag": _offer(session, cast, INSTANCE, RunnerSettings(tags=RARE)),
        "nothing_matching": _offer(session, cast, INSTANCE, RunnerSettings(tags=NOBODYS)),
        "all_tags": _offer(session, cast, INSTANCE, every),
        "small_group": _offer(session, cast, small, every),
        "many_projects": replace(_offer(session, cast, cast.web, every), project_ids=many),
        "many_projects_rare_tag": replace(_offer(session, cast, cast.web, rare), project_ids=many),
        "many_projects_nothing": replace(_offer(session, cast, cast.web, nobodys), project_ids=many),
    }


def _offer(session: Session, cast: Cast, scope: Scope, settings: RunnerSettings) -> Offer:
    runner = cast.runner(scope, settings).runner
    session.add(RunnerManager(runner_id=runner.id, system_xid=MACHINE))
    session.commit()
    return runner_offers.offer_of(session, runner)
