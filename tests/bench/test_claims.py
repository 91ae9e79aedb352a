"""The parts that measure claims and the queue's day, in a tiny form: what they fill is what the portal would."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.orm import Session

from bench import claimers, long_queues
from bench.claimers import Task
from bench.long_queues import MACHINE, Queue
from bench.pgbench import claim_as_sql, claim_values
from portal.domain.jobs import pending_jobs
from portal.domain.jobs.job_matching import queue_scopes
from portal.models import Job, JobStatus, PendingJob


@pytest.fixture
def engine(own_database: str) -> Iterator[Engine]:
    made = create_engine(own_database)
    yield made
    made.dispose()


@pytest.fixture
def queue(own_database: str, engine: Engine) -> Queue:
    with Session(engine) as session:
        return long_queues.fill(session, own_database, 1000)


def test_a_queue_that_was_filled_fast_is_as_the_portal_fills_it(queue: Queue, engine: Engine) -> None:
    with Session(engine) as session:
        pending = session.scalars(select(Job).where(Job.status == JobStatus.PENDING)).all()
        assert len(pending) == 1000
        found: dict[int, set[tuple[int, int]]] = {}
        for row in session.scalars(select(PendingJob)):
            found.setdefault(row.job_id, set()).add((row.scope_kind, row.scope_id))
        for job_id, demand in pending_jobs.demands_of(session, pending).items():
            assert found[job_id] == {(int(kind), number) for kind, number in queue_scopes(demand)}


@pytest.mark.parametrize("way", claimers.WAYS)
def test_whoever_claims_leaves_the_queue_as_long_as_it_was(way: str, queue: Queue, engine: Engine) -> None:
    for kind, offer in queue.offers.items():
        done = claimers.run(engine, Task(queue.url, offer, queue.classes[kind], MACHINE, 2, way))
        assert len(done.took) == 2
    with Session(engine) as session:
        assert session.scalar(select(func.count(PendingJob.job_id.distinct()))) == 1000


def test_what_is_claimed_and_kept_does_not_wait_any_more(queue: Queue, engine: Engine) -> None:
    task = Task(queue.url, queue.offers["common_tags"], queue.classes["common_tags"], MACHINE, 3, "claim", keep=True)
    assert claimers.run(engine, task).rate > 0
    with Session(engine) as session:
        assert session.scalar(select(func.count(PendingJob.job_id.distinct()))) == 997


def test_the_script_for_pgbench_has_a_value_for_each_of_its_variables(queue: Queue) -> None:
    values = claim_values(queue.offers["common_tags"].runner_id, queue.classes["common_tags"])
    script = claim_as_sql()
    for name in sorted((*values, "job_id"), key=len, reverse=True):
        script = script.replace(f":{name}", "0")
    assert ":" not in script
