"""The rules and the queue agree, whatever runners and jobs there are: what the rules allow is handed out, no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from flask import Flask
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from portal.database import db
from portal.domain import scopes
from portal.domain.jobs import job_rules, pending_jobs, runner_offers, stuck_jobs, takeable_jobs
from portal.domain.jobs.job_matching import obstacle
from portal.domain.jobs.job_rules import JobRules
from portal.domain.runners import runner_projects, runners
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import Job, Runner, RunnerManager, RunnerType
from tests.cast import Cast

MACHINE = "s_0123456789ab"
TAGS = ("docker", "linux", "gpu")
SLOWLY = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.fixture
def session(session_beside: Session) -> Session:
    return session_beside


@dataclass(frozen=True)
class RunnerDrawn:
    """A runner: where it is, what else it serves, and how it is set."""

    kind: RunnerType
    place: int
    further: frozenset[int]
    settings: RunnerSettings


@dataclass(frozen=True)
class JobDrawn:
    """A job of a project, or a check of the runner or of another one (`aimed` at that machine or another)."""

    project: int
    tags: tuple[str, ...]
    protected: bool
    check: str
    aimed: str


some_tags = st.sets(st.sampled_from(TAGS)).map(lambda tags: tuple(sorted(tags)))


@st.composite
def runner_settings(draw: st.DrawFn) -> RunnerSettings:
    tags = draw(some_tags)
    return RunnerSettings(
        description="drawn",
        tags=tags,
        run_untagged=draw(st.booleans()) or not tags,
        paused=draw(st.integers(0, 5)) == 0,
        protected=draw(st.booleans()),
    )


drawn_runners = st.builds(
    RunnerDrawn,
    kind=st.sampled_from(RunnerType),
    place=st.integers(0, 2),
    further=st.frozensets(st.integers(0, 3), max_size=2),
    settings=runner_settings(),
)
drawn_jobs = st.builds(
    JobDrawn,
    project=st.integers(0, 3),
    tags=some_tags,
    protected=st.booleans(),
    check=st.sampled_from(["", "", "", "", "this", "other"]),
    aimed=st.sampled_from(["", MACHINE, "s_ffffffffffff"]),
)
switches = st.lists(
    st.builds(JobRules, shared_runners_enabled=st.booleans(), group_runners_enabled=st.booleans()),
    min_size=4,
    max_size=4,
)


OPEN = RunnerSettings(description="takes all", run_untagged=True)
PLAIN = JobDrawn(0, (), protected=False, check="", aimed="")
ON, OFF = [JobRules()] * 4, [JobRules(shared_runners_enabled=False, group_runners_enabled=False)] * 4


class World:
    """The groups acme, acme/platform and other with four projects; the last of them shares nothing with the rest."""

    def __init__(self, app: Flask, cast: Cast) -> None:
        self.app, self.cast, self.session, self.dana = app, cast, cast.session, cast.as_(cast.dana)
        deep, api = cast.project("deep", cast.platform), cast.project("api", cast.acme)
        self.projects = [cast.web, deep, api, cast.project("far", cast.other)]
        self.groups = [cast.acme, cast.platform, cast.other]
        self.another = cast.runner(scopes.INSTANCE).runner
        self.session.commit()

    def rule(self, rules: list[JobRules]) -> None:
        for project, each in zip(self.projects, rules, strict=True):
            job_rules.change(self.session, self.dana, project, each)
        self.session.commit()

    def runner(self, drawn: RunnerDrawn) -> tuple[Runner, str]:
        places = {
            RunnerType.INSTANCE: scopes.INSTANCE,
            RunnerType.GROUP: self.groups[drawn.place % 3],
            RunnerType.PROJECT: self.projects[drawn.place],
        }
        issued = self.cast.runner(places[drawn.kind], drawn.settings)
        for number in drawn.further if drawn.kind is RunnerType.PROJECT else ():
            if self.projects[number].id != issued.runner.project_id:
                runner_projects.assign(self.session, self.dana, issued.runner, self.projects[number])
        for system_xid in (MACHINE, "s_ffffffffffff"):
            self.session.add(RunnerManager(runner_id=issued.runner.id, system_xid=system_xid))
        self.session.commit()
        return issued.runner, issued.token

    def job(self, drawn: JobDrawn, runner: Runner) -> Job:
        if not drawn.check:
            return self.cast.job(self.projects[drawn.project], tags=drawn.tags, protected=drawn.protected)
        checked = runner if drawn.check == "this" else self.another
        paused = checked.paused
        checked.active = True  # only a runner that is not paused can be checked; it may be paused afterwards
        found = self.cast.check(checked)
        found.system_xid, checked.active = drawn.aimed or None, not paused
        self.session.commit()
        return found

    def handed_out(self, token: str) -> set[int]:
        """The numbers of all jobs that the runner's machine gets, asking until there are no more."""
        found: set[int] = set()
        self.session.commit()
        while True:
            self.app.extensions["known_runners"].forget_all(listening=False)
            self.app.extensions["known_classes"].forget()
            asked = {"token": token, "system_id": MACHINE}
            answer = self.app.test_client().post("/api/v4/jobs/request", json=asked)
            if answer.status_code == 204:
                self.session.expire_all()
                return found
            assert answer.status_code == 201, answer.get_data(as_text=True)
            found.add(answer.get_json()["id"])

    def allowed(self, runner: Runner, submitted: list[Job]) -> set[int]:
        """The numbers of those jobs that the rules allow that machine of the runner."""
        offer = runner_offers.offer_of(self.session, runner)
        return {
            job.id for job in submitted if obstacle(pending_jobs.demand_of(self.session, job), offer, MACHINE) is None
        }

    def explained(self, runner: Runner, submitted: list[Job]) -> set[int]:
        """The numbers of those jobs that, as people are told, the runner can take."""
        found = set()
        for job in submitted:
            can = stuck_jobs.of_job(self.session, self.dana, job).can
            found |= {job.id for each in can if each.runner.id == runner.id}
        return found

    def takeable(self, runner: Runner) -> set[int]:
        """The numbers of the jobs that the runner's page names."""
        rows = takeable_jobs.takeable(self.session, self.dana, runner, limit=100).page.rows
        return set() if runner.paused else {job.id for job in rows}


@contextmanager
def forgotten(world: World) -> Iterator[None]:
    """What happens inside is undone: the next example begins with the same world."""
    connection = world.session.get_bind()
    assert isinstance(connection, Connection)
    world.session.commit()
    before = connection.begin_nested()
    try:
        yield
    finally:
        world.session.rollback()
        db.session.remove()
        before.rollback()
        world.session.expire_all()


def agree(world: World, runner: Runner, token: str, submitted: list[Job]) -> None:
    """The rules, both explanations and the queue say the same of each job."""
    allowed = world.allowed(runner, submitted)
    of_other_machines = {job.id for job in submitted if job.system_xid not in (None, MACHINE)}
    assert world.explained(runner, submitted) - of_other_machines == allowed
    assert world.takeable(runner) - of_other_machines == allowed
    assert world.handed_out(token) == allowed


@pytest.fixture
def world(app: Flask, cast: Cast) -> World:
    return World(app, cast)


@SLOWLY
@given(drawn=drawn_runners, wanted=st.lists(drawn_jobs, min_size=1, max_size=5), rules=switches)
def test_a_runner_gets_exactly_the_jobs_that_the_rules_allow_it(
    world: World, drawn: RunnerDrawn, wanted: list[JobDrawn], rules: list[JobRules]
) -> None:
    with forgotten(world):
        world.rule(rules)
        runner, token = world.runner(drawn)
        submitted = [world.job(each, runner) for each in wanted]
        agree(world, runner, token, submitted)


@SLOWLY
@given(
    drawn=drawn_runners,
    wanted=st.lists(drawn_jobs, min_size=1, max_size=4),
    rules=switches,
    changed=runner_settings(),
    later=switches,
)
@example(
    drawn=RunnerDrawn(RunnerType.INSTANCE, 0, frozenset(), OPEN), wanted=[PLAIN], rules=OFF, changed=OPEN, later=ON
)
@example(drawn=RunnerDrawn(RunnerType.GROUP, 0, frozenset(), OPEN), wanted=[PLAIN], rules=OFF, changed=OPEN, later=ON)
@example(
    drawn=RunnerDrawn(RunnerType.INSTANCE, 0, frozenset(), OPEN), wanted=[PLAIN], rules=ON, changed=OPEN, later=OFF
)
@example(drawn=RunnerDrawn(RunnerType.GROUP, 0, frozenset(), OPEN), wanted=[PLAIN], rules=ON, changed=OPEN, later=OFF)
def test_they_still_agree_when_runner_and_switches_are_changed_while_jobs_wait(
    world: World,
    drawn: RunnerDrawn,
    wanted: list[JobDrawn],
    rules: list[JobRules],
    changed: RunnerSettings,
    later: list[JobRules],
) -> None:
    with forgotten(world):
        world.rule(rules)
        runner, token = world.runner(drawn)
        submitted = [world.job(each, runner) for each in wanted]
        runners.update_runner(world.session, world.dana, runner, changed)
        world.session.commit()
        world.rule(later)
        agree(world, runner, token, submitted)
