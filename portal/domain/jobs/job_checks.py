"""Checks: a small script that one runner, or one of its machines, runs to show that it works."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain import audit
from portal.domain.actors import Actor
from portal.domain.errors import NOTHING_HERE, Invalid, NotFound
from portal.domain.jobs import job_definitions, job_rows, pending_jobs
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.permissions import Action
from portal.domain.runners import runner_access
from portal.domain.scopes import of_runner
from portal.domain.vault import Vault
from portal.models import Job, JobStatus, Runner, RunnerManager

MOST_PENDING_CHECKS = 20  # of one runner
CHECK_SCRIPT = (
    'echo "Hello from $(hostname 2>/dev/null || echo this machine)"',
    'echo "It is $(date 2>/dev/null), and this runner takes jobs."',
)
CHECK = NewJob(name="Runner check", script=CHECK_SCRIPT, ref="main", timeout=job_rows.CHECK_TIMEOUT)


def check(
    session: Session,
    actor: Actor,
    runner: Runner,
    vault: Vault,
    manager: RunnerManager | None = None,
    *,
    request_key: UUID | None = None,
    request_digest: bytes | None = None,
) -> Job:
    """Let this runner, and no other, run a small script: the proof that it works. `manager` aims at one machine.

    The same `request_key` sent again gives the first check again. Raises NotFound, NotAllowed, Invalid when the
    runner is paused or has many checks waiting, or KeyReused when the key was used for something else.
    """
    runner_access.require(session, actor, Action.CHECK_RUNNERS, runner)
    if manager is not None and manager.runner_id != runner.id:
        raise NotFound(NOTHING_HERE)
    if request_key is not None and (made := job_rows.made_before(session, runner, request_key, request_digest)):
        return made
    _require_may_wait(session, runner)
    definition = job_definitions.stored(CHECK, vault)
    job = job_rows.make(session, CHECK, definition, None, protected=False)
    job.checks_runner_id, job.user_id = runner.id, job_rows.person(actor)
    job.system_xid = manager.system_xid if manager is not None else None
    job.request_key, job.request_digest = request_key, request_digest
    session.add(definition)
    job_rows.save(session, job, ())
    told = {"job": (None, job.id)} | ({"system_id": (None, job.system_xid)} if manager is not None else {})
    audit.record(session, actor, "runner_check_started", runner, of_runner(runner), told)
    pending_jobs.put(session, job)
    return job


def _require_may_wait(session: Session, runner: Runner) -> None:
    """Refuse a check that nobody would take, or one of too many."""
    if runner.paused:
        raise Invalid({"runner": ["This runner is paused, so it takes no jobs. Resume it first."]})
    waiting = select(Job.id).where(Job.checks_runner_id == runner.id, Job.status == JobStatus.PENDING)
    if len(session.scalars(waiting.limit(MOST_PENDING_CHECKS)).all()) >= MOST_PENDING_CHECKS:
        raise Invalid({"runner": [f"{MOST_PENDING_CHECKS} checks of this runner wait already. Cancel them first."]})


def find_check(session: Session, runner: Runner, job_id: int) -> Job:
    """The check of the runner with this number; the caller has asked who may read the runner. Raises NotFound."""
    found = session.scalar(select(Job).where(Job.id == job_id, Job.checks_runner_id == runner.id))
    if found is None:
        raise NotFound(NOTHING_HERE)
    return found


def aimed_at(session: Session, job: Job) -> RunnerManager | None:
    """The machine that the check was for; None where any of the runner's would do. Raises Invalid when it is gone."""
    if job.system_xid is None:
        return None
    mine = (RunnerManager.runner_id == job.checks_runner_id) & (RunnerManager.system_xid == job.system_xid)
    found = session.scalar(select(RunnerManager).where(mine))
    if found is None:
        raise Invalid({"runner": ["The machine that this check was for is gone. Check the runner instead."]})
    return found
