"""Lost jobs: their machine never spoke of them, fell silent, or is not done when it must be. Each is given up."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    Select,
    SQLColumnExpression,
    String,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    text,
)
from sqlalchemy.orm import Session

from portal.domain.jobs import failure_reasons, job_reports
from portal.models import Job, JobLog, JobMachine, RunnerManager

ACKNOWLEDGES = "two_phase_job_commit"  # gitlab-runner 18.5 and newer: it speaks of a job before anything else
ACKNOWLEDGED_WITHIN = timedelta(seconds=30)  # by those; it tries five times
OVERTIME = timedelta(minutes=15)  # after the timeout: the runner ends the job itself, and sends what is left
LONGEST_GAP = timedelta(minutes=1)  # between two looks
MOST = 100  # jobs, in one look


class Loss(enum.StrEnum):
    """How a job was lost, as it is told in the log of the portal."""

    UNSPOKEN = "its machine never spoke of it"
    SILENT = "its machine fell silent"
    OVERTIME = "it runs longer than it may"


# GitLab's words for why a job failed. One that nobody spoke of runs on another machine instead.
REASONS = {Loss.SILENT: failure_reasons.STUCK, Loss.OVERTIME: "job_execution_timeout"}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a machine may be silent: `unspoken` before it speaks of its job at all, `silent` afterwards."""

    unspoken: timedelta
    silent: timedelta


class Attention:
    """Since when one process has been there to hear machines, without a gap.

    While the portal or its database was down, machines spoke in vain: their silence counts from the end of that.
    """

    def __init__(self) -> None:
        self._since: datetime | None = None
        self._last: datetime | None = None

    def since(self, at: datetime) -> datetime:
        """To be asked at every look; after a long time without one it begins anew."""
        if self._since is None or self._last is None or at - self._last > LONGEST_GAP:
            self._since = at
        self._last = at
        return self._since

    def lapse(self) -> None:
        """The look failed: nobody knows who spoke."""
        self._since = None


@dataclass(frozen=True, slots=True)
class Look:
    """One look for lost jobs: `at` is now, `since` from when on silence counts."""

    at: datetime
    since: datetime
    patience: Patience

    def _passed(self, moment: SQLColumnExpression[datetime | None], limit: timedelta) -> ColumnElement[bool]:
        return func.greatest(moment, self.since) < self.at - limit

    def losses(self) -> Select[int, str]:
        """The jobs that are lost, with how."""
        acknowledges = RunnerManager.runtime_features[ACKNOWLEDGES].as_boolean().is_(True)
        started, heard = Job.started_at, func.coalesce(JobLog.heard_at, Job.started_at)
        unspoken = or_(
            self._passed(started, self.patience.unspoken),
            and_(acknowledges, self._passed(started, ACKNOWLEDGED_WITHIN)),
        )
        timeout = func.coalesce(Job.effective_timeout, Job.timeout)
        ends = Job.started_at + func.make_interval(0, 0, 0, 0, 0, 0, timeout)
        loss = case(
            (and_(Job.acknowledged_at.is_(None), unspoken), literal(Loss.UNSPOKEN.name, String)),
            (and_(Job.acknowledged_at.is_not(None), self._passed(heard, self.patience.silent)), Loss.SILENT.name),
            (and_(Job.acknowledged_at.is_not(None), self._passed(ends, OVERTIME)), Loss.OVERTIME.name),
        )
        machine = and_(JobMachine.partition_id == Job.partition_id, JobMachine.job_id == Job.id)
        # In the words of the index of the few that run, which a parameter would hide.
        running = text("ci_builds.status IN ('running', 'canceling')")
        return (
            select(Job.id, loss)
            .outerjoin(JobLog, JobLog.job_id == Job.id)
            .outerjoin(JobMachine, machine)
            .outerjoin(RunnerManager, RunnerManager.id == JobMachine.runner_machine_id)
            .where(running, loss.is_not(None))
        )


def heard_at(session: Session, job: Job) -> datetime | None:
    """When the machine of a job that runs last spoke of it; None when it has not yet, or the job does not run."""
    if job.started_at is None or job.acknowledged_at is None or job.state.is_over:
        return None
    return session.scalar(select(JobLog.heard_at).where(JobLog.job_id == job.id)) or job.started_at


def find(session: Session, look: Look) -> list[int]:
    """The numbers of jobs that are lost, the oldest first; at most MOST of them."""
    return [row[0] for row in session.execute(look.losses().order_by(Job.id).limit(MOST))]


def give_up(session: Session, job_id: int, look: Look) -> Loss | None:
    """Take the job back from its machine, or let it fail; a canceling one is canceled. Returns how it was lost.

    None when it is not lost any more, or somebody has it in hands at this moment: its machine, which speaks after
    all, or another process that gives it up.
    """
    held = select(Job).where(Job.id == job_id).with_for_update(of=Job, skip_locked=True)
    job = session.scalar(held.execution_options(populate_existing=True))
    # Asked again now that nobody can speak of it: who spoke before has committed.
    found = session.execute(look.losses().where(Job.id == job_id)).one_or_none() if job is not None else None
    if job is None or found is None:
        return None
    loss = Loss[found[1]]
    if loss is Loss.UNSPOKEN:
        job_reports.take_back(session, job)
    else:
        job_reports.finish(session, job, success=False, failure_reason=REASONS[loss])
    return loss
