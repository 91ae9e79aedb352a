"""Pages of jobs: by number and by cursor, either way round, and those of one machine."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from portal.domain.errors import BadRequest
from portal.domain.jobs import job_lists, job_paging, job_walks
from portal.domain.jobs.job_lists import JobFilter
from portal.models import Job, JobMachine, Runner, RunnerManager
from tests.cast import Cast


def test_the_same_jobs_come_by_number_and_by_cursor(session: Session, cast: Cast) -> None:
    made = [cast.job().id for _ in range(5)]
    query = job_lists.of_project(cast.web)
    for oldest_first in (False, True):
        expected = made if oldest_first else made[::-1]
        numbered = [
            job.id
            for offset in (0, 2, 4)
            for job in job_paging.by_number(session, query, offset=offset, limit=2, oldest_first=oldest_first).jobs
        ]
        walked, after = [], None
        for _ in range(3):
            found = job_paging.by_cursor(session, query, after=after, limit=2, oldest_first=oldest_first)
            walked += [job.id for job in found.jobs]
            after = found.after
        assert (numbered, walked, after) == (expected, expected, None)


@pytest.mark.parametrize("cursor", ["x", "é", "am9i", "am9ifi0x", "aWR-MQ", "am9ifjk5OTk5OTk5OTk5OTk5OTk5OTk"])
def test_a_cursor_of_nothing_is_refused(session: Session, cast: Cast, cursor: str) -> None:
    with pytest.raises(BadRequest, match="no cursor"):
        job_paging.by_cursor(session, job_lists.of_project(cast.web), after=cursor, limit=2)


def test_a_count_stops_where_it_is_told(session: Session, cast: Cast) -> None:
    for _ in range(3):
        cast.job()
    query = job_lists.of_project(cast.web)
    assert [job_paging.count(session, query, most=most) for most in (2, 3)] == [None, 3]


def test_jobs_of_a_machine_are_found_by_its_system_id_in_their_own_partition(session: Session, cast: Cast) -> None:
    ours, other = cast.job(), cast.job()
    runner = cast.runner().runner
    for job, system_xid in ((ours, "s_one"), (other, "s_two")):
        machine = JobMachine(partition_id=job.partition_id, job_id=job.id, runner_machine_id=1, system_xid=system_xid)
        session.add(machine)
    session.flush()
    for job in (ours, other):
        job.runner_id = runner.id
    session.flush()
    found = job_lists.of_system(session, cast.as_(cast.dana), runner, "s_one")
    assert [job.id for job in job_paging.by_number(session, found, offset=0, limit=9).jobs] == [ours.id]
    elsewhere = job_lists.of_system(session, cast.as_(cast.dana), cast.runner().runner, "s_one")
    assert job_paging.by_number(session, elsewhere, offset=0, limit=9).jobs == []


@pytest.mark.parametrize("known", [True, False], ids=["a machine that is there", "one that is forgotten"])
def test_a_runners_jobs_are_not_hidden_by_those_of_other_runners_machines_with_the_same_system_id(
    session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    monkeypatch.setattr(job_walks, "LOOKED_AT_FIRST", 2)
    monkeypatch.setattr(job_walks, "LOOKED_THROUGH", 2)
    runner, other = cast.runner().runner, cast.runner().runner
    machines = [RunnerManager(runner_id=each.id, system_xid="<legacy>") for each in (runner, other)]
    session.add_all(machines)
    session.flush()
    (ours,) = ran(cast, runner, machines[0], 1)
    ran(cast, other, machines[1], 3)
    if not known:
        session.delete(machines[0])
        session.flush()
    found = job_lists.of_system(session, cast.as_(cast.dana), runner, "<legacy>")
    assert list(job_paging.by_number(session, found, offset=0, limit=9).jobs) == [ours]
    never = job_lists.of_system(session, cast.as_(cast.dana), runner, "s_never")
    assert list(job_paging.by_number(session, never, offset=0, limit=9).jobs) == []


def ran(cast: Cast, runner: Runner, manager: RunnerManager, count: int) -> list[Job]:
    jobs = [cast.job() for _ in range(count)]
    for job in jobs:
        job.runner_id = runner.id
        place = {"partition_id": job.partition_id, "job_id": job.id}
        cast.session.add(JobMachine(**place, runner_machine_id=manager.id, system_xid=manager.system_xid))
    cast.session.flush()
    return jobs


def test_where_places_end_before_the_list_a_cursor_leads_on(
    session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_walks, "LOOKED_THROUGH", 3)
    monkeypatch.setattr(job_walks, "LOOKED_AT_FIRST", 2)
    lint = [cast.job(name=name) for name in ("lint", "build", "lint", "build", "lint")][::-2]
    jobs = job_lists.narrowed(job_lists.of_project(cast.web), JobFilter(words="lint"))
    first = job_paging.by_number(session, jobs, offset=0, limit=1)
    second = job_paging.by_number(session, jobs, offset=1, limit=1)
    assert [first.jobs, second.jobs] == [lint[:1], lint[1:2]]
    assert [first.more, second.more, first.after] == [True, False, None]
    last = job_paging.by_cursor(session, jobs, after=second.after, limit=1)
    assert ([*last.jobs], last.after) == (lint[2:], None)
