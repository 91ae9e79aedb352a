"""The demo's jobs: submitted, taken by its runners, ended or waiting, with logs, artifacts and their machines."""

from __future__ import annotations

import io
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.demo.demo_job_tables import (
    CHECKS,
    PROTECTED,
    ROUTINES,
    SINGLES,
    TEMPLATES,
    Check,
    Routine,
    Single,
)
from portal.demo.demo_logs import Written
from portal.domain.actors import Actor
from portal.domain.jobs import (
    job_artifacts,
    job_checks,
    job_logs,
    job_reports,
    job_rules,
    job_templates,
    jobs,
    pending_jobs,
)
from portal.domain.jobs.artifact_store import ArtifactStore
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.jobs.job_rules import JobRules
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.domain.scopes import Scope
from portal.domain.vault import Vault
from portal.models import CreationState, Job, JobLog, JobMachine, JobStatus, RunnerManager

MINUTES_A_DAY = 1440.0
ELSEWHERE = {"erin": "faster-builds"}  # whose jobs are on a branch: main is protected, and they are developers
AGAIN_AFTER = 3.0  # seconds until a job that failed and has retries is taken again
LIMIT = 1024 * 1024
Act = tuple[float, Callable[..., None], tuple[Any, ...]]


class Teller(Protocol):
    """The story that these jobs are part of: the moment it has come to, and who and what there is."""

    session: Session
    present: datetime
    at: datetime
    scopes: dict[str, Scope]
    issued: dict[str, IssuedRunner]

    def actor(self, username: str) -> Actor: ...


@dataclass
class Told:
    """One job of the story, from when it is submitted on; `again` is the run after it, when it fails and has one."""

    plan: Single
    job: Job | None = None
    again: Told | None = None

    @property
    def made(self) -> Job:
        assert self.job is not None  # noqa: S101  (the story is told in order)
        return self.job


class DemoJobs:
    """The jobs of one filling. What is secret in them is closed by `vault`; without a store none leaves files."""

    def __init__(self, story: Teller, vault: Vault, store: ArtifactStore | None) -> None:
        self.story, self.vault, self.store = story, vault, store
        self.told: list[Told] = []

    def acts(self) -> Iterator[Act]:
        """What happens, as (days before the filling, what is done, with what)."""
        yield from ((row[0], self.protect, row[1:]) for row in PROTECTED)
        yield from ((row[0], self.keep, row[1:]) for row in TEMPLATES)
        singles = [*SINGLES, *(each for routine in ROUTINES for each in _expanded(routine))]
        for plan in singles:
            yield from self._acts_of(plan, self.submit)
        for check in CHECKS:
            yield from self._acts_of(_as_single(check), self.check)

    def _acts_of(self, plan: Single, make: Callable[[Told], None]) -> Iterator[Act]:
        told = Told(plan)
        self.told.append(told)
        yield plan.minutes / MINUTES_A_DAY, make, (told,)
        at = plan.minutes - plan.waits / 60
        if plan.runner:
            yield at / MINUTES_A_DAY, self.begin, (told,)
        if plan.ends in ("pending", "running", "canceling"):
            return
        at -= plan.runs / 60
        yield at / MINUTES_A_DAY, self.end, (told,)
        if plan.ends == "script_failure" and plan.new.retry:
            told.again = Told(replace(plan, ends="success", code=0))
            self.told.append(told.again)
            at -= AGAIN_AFTER / 60
            yield at / MINUTES_A_DAY, self.begin, (told.again,)
            yield (at - plan.runs / 60) / MINUTES_A_DAY, self.end, (told.again,)

    def protect(self, by: str, path: str, patterns: tuple[str, ...]) -> None:
        """Settle which refs of a project are protected."""
        rules = JobRules(protected_refs=patterns)
        job_rules.change(self.story.session, self.story.actor(by), self.story.scopes[path], rules)

    def keep(self, by: str, path: str, new: NewJob) -> None:
        """Keep a named job in a project."""
        actor, scope = self.story.actor(by), self.story.scopes[path]
        job_templates.create(self.story.session, actor, scope, new, self.vault)

    def submit(self, told: Told) -> None:
        """Put the job into the queue."""
        plan, story = told.plan, self.story
        actor, scope = story.actor(plan.by), story.scopes[plan.scope]
        told.job = jobs.submit(story.session, actor, scope, plan.new, self.vault)
        told.job.queued_at = story.at

    def check(self, told: Told) -> None:
        """Check the runner that the plan names in the place of the job."""
        story, runner = self.story, self.story.issued[told.plan.scope].runner
        told.job = job_checks.check(story.session, story.actor(told.plan.by), runner, self.vault)
        told.job.queued_at = story.at

    def begin(self, told: Told) -> None:
        """Its runner takes it."""
        job, runner = told.made, self.story.issued[told.plan.runner].runner
        job.status, job.runner, job.runner_type = JobStatus.RUNNING, runner, runner.runner_type
        job.started_at = job.acknowledged_at = self.story.at
        job.effective_timeout = min(job.timeout, runner.maximum_timeout or job.timeout)
        self.story.session.flush()
        pending_jobs.take_out(self.story.session, job.id)

    def end(self, told: Told) -> None:
        """It ends as the plan says; one that fails is queued again while it has retries."""
        plan, session = told.plan, self.story.session
        if plan.ends == "canceled":
            job = jobs.cancel(session, self.story.actor(plan.stops), told.made)
        else:
            self._leave(told)
            failed = None if plan.ends == "success" else plan.ends
            code = plan.code or (1 if failed == "script_failure" else None)
            job = job_reports.finish(session, told.made, success=not failed, failure_reason=failed, exit_code=code)
        job.finished_at = self.story.at
        if told.again is not None:
            told.again.job = session.scalars(select(Job).where(Job.retry_of_id == job.id)).one()
            told.again.job.queued_at = self.story.at

    def _leave(self, told: Told) -> None:
        """The files that it keeps."""
        if self.store is None:
            return
        session = self.story.session
        for kind in told.plan.leaves:
            form, name, content = _FILES[kind]
            label = job_artifacts.labelled(
                artifact_type=kind, artifact_format=form, filename=name, expire_in="30 days"
            )
            with self.store.receive(len(content)) as incoming:
                incoming.write(content)
                file = self.store.put(incoming, job_artifacts.mark_of(session))
            job_artifacts.keep(session, told.made, label, file, at=self.story.at, usual=None)

    def settle(self) -> None:
        """Once the machines are there: which of them had each job, what it wrote; one is told to stop just now."""
        session = self.story.session
        taken = [told for told in self.told if told.plan.runner]
        machines = self._machines({self.story.issued[told.plan.runner].runner.id for told in taken})
        for number, told in enumerate(taken):
            self._ran_on(told, _chosen(machines[told.made.runner_id or 0], told.made, number))
        session.flush()
        self.story.at = self.story.present - timedelta(seconds=20)
        for told in taken:
            if told.plan.ends == "canceling":
                jobs.cancel(session, self.story.actor(told.plan.stops), told.made)

    def _machines(self, runner_ids: set[int]) -> Mapping[int, list[RunnerManager]]:
        """Those that have asked for jobs, by their runner; the one that was heard of last first."""
        polled = RunnerManager.creation_state == CreationState.FINISHED
        query = select(RunnerManager).where(RunnerManager.runner_id.in_(runner_ids), polled)
        found: dict[int, list[RunnerManager]] = defaultdict(list)
        for machine in self.story.session.scalars(query.order_by(RunnerManager.contacted_at.desc())):
            found[machine.runner_id].append(machine)
        return found

    def _ran_on(self, told: Told, machine: RunnerManager) -> None:
        session, job, issued = self.story.session, told.made, self.story.issued[told.plan.runner]
        link = {"runner_machine_id": machine.id, "system_xid": machine.system_xid}
        session.add(JobMachine(partition_id=job.partition_id, job_id=job.id, **link))
        written = Written(job, told.plan.new, machine, issued.runner.title, issued.record.short)
        job_logs.append(session, job.id, 0, written.text(), limit=LIMIT)
        if not job.state.is_over:
            session.get_one(JobLog, job.id).heard_at = self.story.present


def _chosen(machines: Sequence[RunnerManager], job: Job, number: int) -> RunnerManager:
    """One that was there when the job began, and was heard of since; a different one for each."""
    start = job.started_at or job.created_at
    there = [each for each in machines if each.created_at <= start <= (each.contacted_at or start)]
    return there[number % len(there)] if there else machines[0]


def _expanded(routine: Routine) -> Iterator[Single]:
    """The single runs of a routine."""
    chance = Random(f"{routine.scope} {routine.new.name}")  # noqa: S311  (the same story every time; no secret)
    for number in range(routine.times):
        by = routine.by[number % len(routine.by)]
        fails = chance.random() < routine.fails
        yield Single(
            routine.newest + number * routine.every + chance.uniform(0, 0.4 * routine.every) * bool(number),
            routine.scope,
            by,
            replace(routine.new, ref=ELSEWHERE.get(by, routine.new.ref)),
            "script_failure" if fails else "success",
            routine.runner,
            waits=chance.uniform(1, 25),
            runs=chance.uniform(*routine.seconds),
        )


def _as_single(check: Check) -> Single:
    runner = check.runner if check.ends != "pending" else ""
    asked = job_checks.CHECK
    return Single(check.minutes, check.runner, check.by, asked, check.ends, runner, waits=check.waits, runs=7)


def _zipped() -> bytes:
    """What the job that builds the site leaves."""
    files = {
        "dist/index.html": "<!doctype html>\n<title>Acme</title>\n<h1>Acme</h1>\n",
        "dist/assets/index-b7c1a0.css": "h1 { color: #1f6f5c }\n",
        "dist/assets/index-19fe22.js": "document.title += ' 4.2'\n",
    }
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return whole.getvalue()


_FILES = {
    "archive": ("zip", "site.zip", _zipped()),
    "junit": ("raw", "junit.xml", b'<testsuite name="web" tests="118" failures="0"/>\n'),
}
