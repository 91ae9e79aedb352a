"""How far a check of a runner has come, and what keeps it from going on."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.jobs import job_lists, job_rows, job_times
from portal.domain.machines import refused_machines
from portal.models import Job, JobStatus, Runner, RunnerManager

POLLS_WITHIN = timedelta(minutes=1)  # a machine that runs asks every few seconds; who is silent for longer, stands


class Step(enum.StrEnum):
    """What is happening: the first six are of a check that waits, the others are the job's own status."""

    PAUSED = "paused"
    REFUSED = "refused"  # the tokens of all its machines are over
    FORGOTTEN = "forgotten"  # it is for a machine that is not there any more
    NO_MACHINE = "no_machine"  # none has ever asked for jobs
    SILENT = "silent"
    WAITING = "waiting"
    RUNNING = "running"
    CANCELING = "canceling"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_stuck(self) -> bool:
        """Whether somebody must do something before the check can begin."""
        return self in (Step.PAUSED, Step.REFUSED, Step.FORGOTTEN, Step.NO_MACHINE, Step.SILENT)


@dataclass(frozen=True, slots=True)
class Progress:
    """`machine` is the system ID of the one that has the check, or that it is for. `seconds` is how long it ran.

    `contacted_at` is when the machine, or any of the runner, was heard of last; `busy` how many jobs the runner runs.
    """

    step: Step
    machine: str | None = None
    contacted_at: datetime | None = None
    seconds: float | None = None
    busy: int = 0


def of(session: Session, job: Job, runner: Runner, at: datetime) -> Progress:
    """Where the check stands at this moment. The caller has asked who may see it."""
    if job.state is JobStatus.PENDING:
        return _waiting(session, job, runner, at)
    machine = job_rows.machine_of(session, job)
    return Progress(
        Step(job.status),
        machine.system_xid if machine is not None else job.system_xid,
        runner.contacted_at,
        job_times.ran(job, at),
    )


def _waiting(session: Session, job: Job, runner: Runner, at: datetime) -> Progress:
    manager = machine_meant(session, job)
    heard = manager.contacted_at if manager is not None else runner.contacted_at
    if runner.paused:
        step = Step.PAUSED
    elif job.system_xid is not None and manager is None:
        step = Step.FORGOTTEN
    elif refused_machines.cut_off(session, [runner.id]):
        step = Step.REFUSED
    elif heard is None or (manager is not None and not manager.has_polled):
        step = Step.NO_MACHINE
    else:
        step = Step.SILENT if heard < at - POLLS_WITHIN else Step.WAITING
    busy = job_lists.running_on(session, runner) if step is Step.WAITING else 0
    return Progress(step, job.system_xid, heard, busy=busy)


def machine_meant(session: Session, job: Job) -> RunnerManager | None:
    """The machine that the check is for; None where it is for any."""
    if job.system_xid is None:
        return None
    mine = (RunnerManager.runner_id == job.checks_runner_id) & (RunnerManager.system_xid == job.system_xid)
    return session.scalar(select(RunnerManager).where(mine))
