"""No query per row: a page of a hundred runners takes as many statements as a page of one."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from portal.database import now
from portal.domain.runners import runner_projects
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import (
    CreationState,
    Executor,
    Job,
    JobMachine,
    Project,
    Role,
    Runner,
    RunnerManager,
    RunnerProject,
)
from tests.api.graphql.conftest import AskerOf
from tests.api.graphql.queries import Asker
from tests.cast import Cast
from tests.domain.queries import asked

# What a list page asks for, and everything that a client could add to it within the limits.
NODE = """id shortSha description runnerType status paused tagList contactedAt createdAt tokenExpiresAt
    version ipAddress executorName createdBy { id username webUrl } maintenanceNote
    jobExecutionStatus jobCount done: jobCount(statuses: [SUCCESS, FAILED])
    userPermissions { readRunner updateRunner deleteRunner assignRunner }
    ownerProject { fullPath group { fullPath } } projectCount
    groups(first: 1) { nodes { id name webUrl } } projects(first: 5) { count nodes { id fullPath group { id } } }
    managers(first: 3) { count nodes {
        id systemId status version ipAddress executorName jobExecutionStatus runner { id } } }"""
JOBS = """jobs(first: %d) { count nodes { id name status duration webPath failureMessage artifacts { count }
    runner { id description status jobCount groups(first: 1) { nodes { id } } }
    runnerManager { systemId status jobExecutionStatus ipAddress }
    project { id fullPath group { id } } userPermissions { updateBuild cancelBuild } } pageInfo { endCursor } }"""
LIST = "runners(first: %d, sort: %s) { count edges { webUrl editUrl } nodes { %s } pageInfo { endCursor } }"


@pytest.fixture
def fleet(cast: Cast) -> Cast:
    """A hundred and four runners of groups and projects, with machines; some serve further projects."""
    projects = [cast.project(f"p{number}", cast.acme) for number in range(10)]
    groups = [cast.group(f"g{number}", inside=cast.acme) for number in range(10)]
    untagged = RunnerSettings(run_untagged=True, token_expiration_interval=7200)
    for number in range(104):
        scope = (projects if number % 2 else groups)[number // 2 % 10]
        runner = cast.runner(scope, untagged).runner
        if number % 4 == 1:
            runner_projects.assign(cast.session, cast.as_(cast.dana), runner, cast.web)
        for machine in range(3):
            row = RunnerManager(runner_id=runner.id, system_xid=f"s_{machine}", version="17.5.0")
            row.contacted_at, row.creation_state, row.executor_type = now(), CreationState.FINISHED, Executor.SHELL
            cast.session.add(row)
    cast.member(cast.bob, projects[0], Role.MAINTAINER)
    cast.session.commit()
    return cast


def statements_of(cast: Cast, asker: Asker, query: str) -> tuple[int, list[Any]]:
    with asked(cast.session) as statements:
        data = asker.data(query)
    found = data["runners"] if "runners" in data else next(iter(data.values()))["runners"]
    return len(statements), found["nodes"]


@pytest.mark.parametrize(
    ("who", "where"),
    [
        ("dana", "LIST"),
        ("alice", 'group(fullPath: "acme") { LIST }'),
        ("bob", 'project(fullPath: "acme/web") { LIST }'),
    ],
)
@pytest.mark.parametrize("sort", ["CREATED_DESC", "TOKEN_EXPIRES_AT_ASC"])
def test_a_long_page_takes_as_many_statements_as_a_short_one(
    fleet: Cast, asker_of: AskerOf, who: str, where: str, sort: str
) -> None:
    asker = asker_of(getattr(fleet, who))
    counts = {}
    for size in (2, 100):
        query = f"{{ {where.replace('LIST', LIST % (size, sort, NODE))} }}"
        counts[size], nodes = statements_of(fleet, asker, query)
        assert len(nodes) == (min(size, 26) if who == "bob" else size)
        assert all(len(each["managers"]["nodes"]) == 3 for each in nodes)
    assert counts[100] <= counts[2] + 1  # a page of two may happen to have no runner of a project
    assert counts[100] <= 25


def run_jobs(cast: Cast, project: Project, runner_of: Callable[[int], Runner], *, check: bool = False) -> None:
    """A hundred jobs that run on machines of these runners."""
    definition_id = cast.job().definition_id
    for number in range(100):
        runner = runner_of(number)
        job = Job(partition_id=100, definition_id=definition_id, name=f"j{number}", timeout=3600, status="running")
        job.project_id, job.checks_runner_id = (None, runner.id) if check else (project.id, None)
        job.runner_id, job.runner_type, job.started_at = runner.id, runner.runner_type, now()
        cast.session.add(job)
        cast.session.flush()
        mine = select(RunnerManager).where(RunnerManager.runner_id == runner.id).limit(1)
        machine = cast.session.scalars(mine).one()
        link = {"runner_machine_id": machine.id, "system_xid": machine.system_xid}
        cast.session.add(JobMachine(partition_id=100, job_id=job.id, **link))
    cast.session.commit()


@pytest.mark.parametrize("who", ["dana", "alice", "bob", "erin"])
def test_a_long_page_of_jobs_takes_as_many_statements_as_a_short_one(
    fleet: Cast, asker_of: AskerOf, who: str
) -> None:
    runners = fleet.session.scalars(select(Runner).order_by(Runner.id)).all()
    assert fleet.web.project is not None
    run_jobs(fleet, fleet.web.project, lambda number: runners[number + 2])
    asker, counts = asker_of(getattr(fleet, who)), {}
    for size in (2, 100):
        with asked(fleet.session) as statements:
            found = asker.data(f'{{ project(fullPath: "acme/web") {{ {JOBS % size} }} }}')["project"]["jobs"]
        counts[size] = len(statements)
        assert len(found["nodes"]) == size
        assert (found["nodes"][0]["runner"] is None) is (who == "erin")
    assert counts[100] <= counts[2]
    assert counts[100] <= 25


def test_a_long_page_of_a_runners_checks_takes_as_many_statements_as_a_short_one(
    fleet: Cast, asker_of: AskerOf
) -> None:
    """Bob looks after them by a project that the runner serves besides its owner."""
    runner = fleet.session.scalars(select(Runner).where(Runner.id.in_(select(RunnerProject.runner_id)))).first()
    assert runner is not None
    assert fleet.web.project is not None
    run_jobs(fleet, fleet.web.project, lambda _: runner, check=True)
    asker, counts = asker_of(fleet.bob), {}
    for size in (2, 100):
        with asked(fleet.session) as statements:
            query = f'{{ runner(id: "gid://gitlab/Ci::Runner/{runner.id}") {{ {JOBS % size} }} }}'
            found = asker.data(query)["runner"]["jobs"]["nodes"]
        counts[size] = len(statements)
        assert len(found) == size
        assert found[0]["userPermissions"]["cancelBuild"]
    assert counts[100] <= counts[2]
    assert counts[100] <= 25


def test_a_bulk_pause_tells_of_its_runners_with_as_many_queries_for_many(fleet: Cast, asker_of: AskerOf) -> None:
    ids = [
        each["id"]
        for each in asker_of(fleet.dana).data("{ runners(first: 50) { nodes { id } } }")["runners"]["nodes"]
    ]
    reading = {}
    for chosen in (ids[:2], ids):
        with asked(fleet.session) as statements:
            asker_of(fleet.dana).change(
                "runnerBulkPause", f"updatedCount updatedRunners {{ {NODE} }}", ids=chosen, paused=False
            )
        reading[len(chosen)] = len(statements)
    each = (reading[50] - reading[2]) / 48
    assert each <= 4  # what pausing one takes: a savepoint, its row, and the savepoint's end
