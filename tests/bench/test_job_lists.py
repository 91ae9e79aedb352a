"""Pages of jobs in a tiny form: a small database is filled, and every page of the walk is answered."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from bench import job_lists, long_job_lists
from bench.page_walks import Seen
from bench.runs import Run
from portal.models import Job, JobStatus, Runner


@pytest.fixture(scope="module")
def seen() -> list[Seen]:
    run = Run()
    try:
        with long_job_lists.filled(run, pending=1200, finished=1500, machines=40) as url:
            with run.session(url) as session:
                taken = session.scalar(select(func.count()).where(Job.runner_id.is_not(None)))
                waiting = session.scalar(select(func.count()).where(Job.status == JobStatus.PENDING))
                runners = session.scalar(select(func.count()).select_from(Runner))
            assert (taken, waiting) == (1500, 1200)
            assert runners is not None
            assert runners > 40
            return job_lists.walked(run, url, rounds=1)
    finally:
        run.close()


def test_lists_pages_and_both_doors_are_walked(seen: list[Seen]) -> None:
    names = {each.asked.name for each in seen}
    for part in (
        "project jobs: deep, after, a rare ref",
        "a job that waits: why",
        "could take",
        "machine jobs: deep",
    ):
        assert part in names
    assert {name.split()[0] for name in names} >= {"REST", "GraphQL"}


def test_no_page_makes_more_queries_than_the_target(seen: list[Seen]) -> None:
    assert {each.asked.name: each.queries for each in seen if each.queries > job_lists.MOST_QUERIES} == {}
