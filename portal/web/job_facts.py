"""What the page of a job says, wherever the page stands: how it goes, which machine has it, why it failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from portal.addresses import url_in
from portal.database import db, now
from portal.domain import permissions
from portal.domain.jobs import failure_reasons, job_definitions, job_needs, job_rows, job_times, jobs, lost_jobs
from portal.domain.jobs.job_definitions import Undecryptable, masked_url
from portal.domain.permissions import Action
from portal.domain.runners import runner_lists
from portal.domain.scopes import Scope, of_project
from portal.models import Job, JobMachine, JobStatus, Runner, RunnerManager
from portal.requests import job_vault, settings
from portal.web import guards, refreshing

SILENT_AFTER = 60  # seconds; gitlab-runner speaks at least every 30
AddressOf = Callable[[Job], str]


@dataclass(frozen=True, slots=True)
class Silence:
    """Since how long the machine of a running job has not spoken, and after how long it is given up; in seconds."""

    lasts: int
    most: int


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What the templates below jobs/ need, as `facts`. `base` is the address of the job's page.

    `manager` is None when the machine is forgotten by now, `runner_address` empty for who may not open the runner.
    `before` and `again` are the runs of the same job before and after this one.
    `repository` is the address without what is secret in it: empty for none, None where it can be read no more.
    """

    job: Job
    base: str
    asked: Mapping[str, Any]
    machine: JobMachine | None
    manager: RunnerManager | None
    runner_address: str
    before: Job | None
    again: Job | None
    needs: Sequence[Job]
    needed_by: Sequence[Job]
    repository: str | None
    stops_gently: bool
    silence: Silence | None
    address_of: AddressOf
    writable: bool

    @property
    def is_over(self) -> bool:
        return self.job.state.is_over

    @property
    def waited(self) -> int:
        """Seconds until it was taken, or until now."""
        return int(job_times.waited(self.job, now()))

    @property
    def ran(self) -> int | None:
        """Seconds since it was taken, until its end or now; None when it never ran."""
        seconds = job_times.ran(self.job, now())
        return None if seconds is None else int(seconds)

    @property
    def reason(self) -> tuple[str, str] | None:
        """Why it failed, and what to do."""
        if self.job.state is not JobStatus.FAILED:
            return None
        return failure_reasons.told(self.job.failure_reason)

    @property
    def seen(self) -> str:
        """Differs when something on the page does that refreshes itself."""
        job, again = self.job, self.again and self.again.id
        state = (job.status, job.started_at, job.acknowledged_at, job.finished_at, job.runner_id, again, job.retried)
        others = [(each.id, each.status) for each in (*self.needs, *self.needed_by)]
        return refreshing.seen(state, others, self.silence and self.silence.lasts // 60)


def facts(job: Job, address_of: AddressOf, scope: Scope) -> JobFacts:
    """What stands of the job, for its page in this scope; `address_of` tells where a job's page is."""
    session = db.session()
    machine = job_rows.machine_of(session, job)
    return JobFacts(
        job=job,
        base=address_of(job),
        asked=job.definition.config,
        machine=machine,
        manager=session.get(RunnerManager, machine.runner_machine_id) if machine is not None else None,
        runner_address=runner_address(scope, job.runner, openable(scope, [job])),
        before=session.get(Job, job.retry_of_id) if job.retry_of_id is not None else None,
        again=newer(job),
        needs=job_needs.needed(session, job),
        needed_by=job_needs.needing(session, job),
        repository=_repository(job),
        stops_gently=jobs.stops_gently(session, job),
        silence=_silence(job),
        address_of=address_of,
        writable=jobs.may_write(session, guards.actor(), job),
    )


def newer(job: Job) -> Job | None:
    """The next run of the same job."""
    query = select(Job).where(Job.retry_of_id == job.id).order_by(Job.id.desc()).limit(1)
    return db.session().scalar(query) if job.retried else None


def _repository(job: Job) -> str | None:
    try:
        asked = job_definitions.opened(job.definition, job_vault())
    except Undecryptable:
        return None
    return masked_url(asked.repository.url) if asked.repository else ""


def _silence(job: Job) -> Silence | None:
    """What is said once the machine has not spoken for longer than machines do; None before."""
    heard = lost_jobs.heard_at(db.session(), job)
    lasts = int((now() - heard).total_seconds()) if heard is not None else 0
    return Silence(lasts, int(settings().job_silent.total_seconds())) if lasts > SILENT_AFTER else None


def shown_rows(shown: Sequence[Job]) -> list[tuple[object, ...]]:
    """What a list shows of these jobs that changes while somebody looks at it."""
    return [(job.id, job.status, job.runner_id, job.retried) for job in shown]


def remember_projects(shown: Sequence[Job]) -> None:
    """Look up with one query what the reader may do in the projects of these jobs, which are named beside them."""
    projects = [of_project(job.project) for job in shown if job.project is not None]
    permissions.remember_roles(db.session(), guards.actor(), projects)


def openable(scope: Scope, shown: Sequence[Job]) -> set[int]:
    """The numbers of those runners of these jobs that the reader may open in the scope; one query at most."""
    ids = {job.runner_id for job in shown if job.runner_id is not None}
    if not ids or not guards.allowed(Action.READ_RUNNERS, scope):
        return set()
    there = runner_lists.shown_in(scope, inherited=True)
    return set(db.session().scalars(select(Runner.id).where(Runner.id.in_(ids), there)))


def runner_address(scope: Scope, runner: Runner | None, open_: set[int]) -> str:
    """Where the runner's page is; nothing for who may not open it."""
    return url_in(scope, "runners.show", runner_id=runner.id) if runner is not None and runner.id in open_ else ""
