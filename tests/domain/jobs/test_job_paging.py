"""Pages of jobs: by number and by cursor, either way round, and those of one machine."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from portal.domain.errors import BadRequest
from portal.domain.jobs import job_lists, job_paging
from portal.models import JobMachine
from tests.cast import Cast


def test_the_same_jobs_come_by_number_and_by_cursor(session: Session, cast: Cast) -> None:
    made = [cast.job().id for _ in range(5)]
    query = job_lists.of_project(cast.web)
    for oldest_first in (False, True):
        expected = made if oldest_first else made[::-1]
        numbered = [
            job.id
            for offset in (0, 2, 4)
            for job in job_paging.by_number(session, query, offset=offset, limit=2, oldest_first=oldest_first)
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
    assert [job.id for job in job_paging.by_number(session, found, offset=0, limit=9)] == [ours.id]
    elsewhere = job_lists.of_system(session, cast.as_(cast.dana), cast.runner().runner, "s_one")
    assert job_paging.by_number(session, elsewhere, offset=0, limit=9) == []
