"""A report that arrives while something else is being written of its job is to be sent again, and does not wait."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import select

from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import Job, JobStatus
from tests.api.processes import Process
from tests.cast import Cast


@pytest.fixture
def process(own_database: str) -> Iterator[Process]:
    process = Process(own_database)
    yield process
    process.close()


def test_the_last_report_is_accepted_and_asked_for_again_while_the_job_is_held(process: Process) -> None:
    with process.session() as session:
        cast = Cast(session)
        machine = process.machine(cast.runner(settings=RunnerSettings(run_untagged=True)).token)
        job_id = cast.job().id
    given = machine.ask_for_job()
    with process.session() as elsewhere:
        elsewhere.execute(select(Job.id).where(Job.id == job_id).with_for_update())
        waiting = given.finish()
        assert (waiting.status, waiting.headers["Job-Status"]) == (202, "running")
        assert waiting.headers["X-GitLab-Trace-Update-Interval"] == "1"
    assert given.finish().status == 200
    with process.session() as session:
        assert session.get_one(Job, job_id).state is JobStatus.SUCCESS
