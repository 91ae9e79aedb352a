"""A day of the queue in minutes: jobs come and are claimed all the time, and its table stays small and quick."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from time import perf_counter, sleep

import psycopg
from sqlalchemy import text
from sqlalchemy.orm import Session

from bench import long_queues
from bench.figures import Figure
from bench.long_queues import MACHINE, Queue
from bench.pgbench import Pgbench, claim_as_sql, claim_values
from bench.runs import Run
from portal.domain.jobs import pending_jobs

WAITING = 5_000  # jobs at any time
CLASSES = 20
PARTS = 10
MOST_SIZE, MOST_COST, MOST_DEAD = 2.0, 1.5, 0.2
# A job comes: a row for its project, its two groups and the instance, with a turn as the portal gives it; then one is
# claimed. It ends at once, so that the table of jobs has as many that run as a portal has.
DAY = """
\\set place random(0, 999)
\\set class_id random(2, 21)
BEGIN;
INSERT INTO ci_builds (partition_id, project_id, definition_id, name, ref, ref_protected, tag_list, timeout, status,
  retries_left, created_at, queued_at)
SELECT 100, (SELECT min(id) FROM projects WHERE path = 'p1') + :place, (SELECT min(id) FROM p_ci_job_definitions),
  'build', 'main', false, tag_list, 3600, 'pending', 0, now(), now()
FROM ci_job_classes WHERE id = :class_id RETURNING id AS new_id, project_id \\gset
INSERT INTO ci_pending_builds (scope_kind, scope_id, class_id, turn, job_id)
SELECT s.kind, s.id, :class_id, coalesce(greatest(
  (SELECT turn FROM ci_pending_builds WHERE scope_kind = 1 AND scope_id = 0 AND class_id = :class_id
   ORDER BY turn LIMIT 1),
  (SELECT turn + 1 FROM ci_pending_builds WHERE scope_kind = 3 AND scope_id = :project_id AND class_id = :class_id
   ORDER BY turn DESC LIMIT 1)), 0), :new_id
FROM projects p JOIN namespaces g ON g.id = p.namespace_id CROSS JOIN LATERAL (
  SELECT 1 AS kind, 0 AS id UNION ALL SELECT 2, unnest(g.traversal_ids) UNION ALL SELECT 3, p.id
) AS s WHERE p.id = :project_id;
END;
BEGIN;
{claim}
END;
UPDATE ci_builds SET status = 'success', finished_at = now(), claim_digest = NULL WHERE id = :job_id;
"""
_SIZE = "SELECT pg_total_relation_size('ci_pending_builds')"
_STATE = "SELECT n_dead_tup, autovacuum_count FROM pg_stat_user_tables WHERE relname = 'ci_pending_builds'"


@dataclass(frozen=True, slots=True)
class Look:
    """The queue at one moment: bytes with indexes, dead rows, vacuums so far, and what a claim's search costs.

    `cost` is in milliseconds; `pages` is how many pages of the database it looks at, which no busy machine changes.
    """

    size: int
    dead: int
    vacuums: int
    cost: float
    pages: int


def figures(run: Run) -> Iterator[Figure]:
    """The size of the queue's table, its dead rows and the cost of a claim after a day, against its first tenth."""
    seconds = 90 if run.full else 6  # of each tenth
    with long_queues.filled(run, 1) as queue, _quick_autovacuum(queue), run.session(queue.url) as session:
        day = Day(run, queue, session)
        looks = [day.pass_by(seconds) for _ in range(PARTS)]
        first, last, worst = looks[0], looks[-1], max(looks, key=lambda look: look.dead)
        died = day.jobs * 4
        note = f"{first.size / 2**20:.1f} to {last.size / 2**20:.1f} MB, {died:,} rows gone, {last.vacuums} vacuums"
        yield Figure("queue_day_size_growth", round(last.size / first.size, 2), MOST_SIZE, "lower", note=note)
        share = worst.dead / died
        yield Figure("queue_day_dead_share", round(share, 3), MOST_DEAD, "lower", note=f"at most {worst.dead:,} dead")
        cost = f"{first.cost:.2f} to {last.cost:.2f} ms"
        yield Figure("queue_day_claim_growth", round(last.cost / first.cost, 2), MOST_COST, "lower", note=cost)
        pages = f"{first.pages} to {last.pages} pages"
        yield Figure("queue_day_pages_growth", round(last.pages / first.pages, 2), MOST_COST, "lower", note=pages)
        yield from held_up(day, last, seconds)


def held_up(day: Day, before: Look, seconds: int) -> Iterator[Figure]:
    """A transaction that stays open, as a backup's does, keeps what is gone from being cleared away meanwhile."""
    with psycopg.connect(long_queues.plain(day.queue.url)) as backup:
        backup.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        backup.execute("SELECT 1 FROM ci_builds LIMIT 1")
        held = [day.pass_by(seconds) for _ in range(2)][-1]
    sleep(5)  # the next vacuum
    day.pass_by(seconds)
    after = day.pass_by(seconds)
    note = f"{before.pages}, then {held.pages} pages with {held.dead:,} dead rows, {after.pages} afterwards"
    growth = round(after.pages / before.pages, 2)
    yield Figure("queue_day_pages_growth_after_a_backup", growth, MOST_COST, "lower", note=note)


class Day:
    """The queue while jobs come and go."""

    def __init__(self, run: Run, queue: Queue, session: Session) -> None:
        self.run, self.queue, self.session, self.jobs = run, queue, session, 0
        self.pgbench = Pgbench(queue.url, run.folder)
        self.classes = range(2, 2 + CLASSES)
        offer = queue.offers["all_tags"]
        self.offer, self.values = offer, claim_values(offer.runner_id, self.classes)
        self._fill()

    def _fill(self) -> None:
        """As many jobs as wait at any time."""
        only_comes = DAY[: DAY.index("BEGIN;\n{claim}")]
        begun = perf_counter()
        while (waiting := self._number("SELECT count(DISTINCT job_id) FROM ci_pending_builds")) < WAITING:
            self.pgbench.run(only_comes, 4, 2)
            assert perf_counter() - begun < 300, f"only {waiting} jobs wait"

    def pass_by(self, seconds: int) -> Look:
        """Let jobs come and go for so long, and look."""
        self.jobs += round(self.pgbench.run(DAY.format(claim=claim_as_sql()), 4, seconds, self.values) * seconds)
        with psycopg.connect(long_queues.plain(self.queue.url), autocommit=True) as connection:
            row = connection.execute(_STATE).fetchone()
        assert row is not None
        look = Look(self._number(_SIZE), row[0], row[1], self._cost(), self._pages())
        self.run.say(
            f"{self.jobs:>9,} jobs: {look.size / 2**20:.1f} MB, {look.dead:,} dead, "
            f"{look.vacuums} vacuums, {look.cost:.2f} ms, {look.pages} pages"
        )
        return look

    def _number(self, statement: str) -> int:
        with psycopg.connect(long_queues.plain(self.queue.url), autocommit=True) as connection:
            row = connection.execute(statement).fetchone()
        return int(row[0]) if row else 0

    def _pages(self) -> int:
        explained = text("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + pending_jobs.TAKE_FROM_ONE)
        values = {**self.values, "classes": list(self.classes), "digest": b""}
        plan = self.session.execute(explained, values).scalar_one()[0]["Plan"]
        self.session.commit()
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])

    def _cost(self) -> float:
        took = []
        for _ in range(60):
            begun = perf_counter()
            pending_jobs.take(self.session, self.offer, self.classes, MACHINE, b"\0" * 32)
            self.session.commit()
            took.append((perf_counter() - begun) * 1000)
        return median(took[10:])


@contextmanager
def _quick_autovacuum(queue: Queue) -> Iterator[None]:
    """The day goes by about a hundred times quicker: so autovacuum looks every second, not every minute.

    What is committed is written to disk a moment later here, or the day would take hours.
    """
    with psycopg.connect(long_queues.plain(queue.url), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET autovacuum_naptime = 1")
        connection.execute("ALTER SYSTEM SET synchronous_commit = off")
        connection.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET autovacuum_naptime")
            connection.execute("ALTER SYSTEM RESET synchronous_commit")
            connection.execute("SELECT pg_reload_conf()")
