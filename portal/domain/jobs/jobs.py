"""Jobs as people and scripts handle them: submit, find, cancel, run again."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain import audit, permissions
from portal.domain.actors import Actor
from portal.domain.errors import NOTHING_HERE, NotFound, Stale
from portal.domain.jobs import job_checks, job_definitions, job_needs, job_rows, job_rules, pending_jobs
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.jobs.job_needs import Standing
from portal.domain.permissions import Action
from portal.domain.runners import runner_access
from portal.domain.scopes import Scope, is_there, of_project, of_runner
from portal.domain.vault import Vault
from portal.models import Job, JobStatus, RunnerManager


def submit(
    session: Session,
    actor: Actor,
    scope: Scope,
    new: NewJob,
    vault: Vault,
    *,
    request_key: UUID | None = None,
    request_digest: bytes | None = None,
) -> Job:
    """Put a new job of the project into the queue.

    The same `request_key` sent again gives the first job again. Raises Invalid, NotAllowed, NotFound, or KeyReused
    when the key was used for something else.
    """
    permissions.require(session, actor, Action.WRITE_JOBS, scope)
    project = scope.project
    if project is None or not is_there(session, scope):
        raise NotFound(NOTHING_HERE)
    new.check()
    if request_key is not None and (made := job_rows.made_before(session, project, request_key, request_digest)):
        return made
    job_needs.require(session, project, new.needs)
    definition = job_definitions.stored(new, vault)
    session.add(definition)
    protected = _protection(session, actor, scope, new)
    job = job_rows.make(session, new, definition, project, protected)
    job.user_id, job.request_key, job.request_digest = job_rows.person(actor), request_key, request_digest
    job_rows.save(session, job, new.needs)
    audit.record(session, actor, "job_submitted", job, scope, {"job": (None, job.id), "ref": (None, job.ref)})
    _queue(session, job)
    return job


def _queue(session: Session, job: Job) -> None:
    """Put the job into the queue, unless it waits for others: it comes there when they have succeeded."""
    if job_needs.standing(session, job) is Standing.MET:
        pending_jobs.put(session, job)


def _protection(session: Session, actor: Actor, scope: Scope, new: NewJob) -> bool:
    """Whether the job's ref counts as protected. Raises NotAllowed for who may not run jobs on such refs.

    What is protected by the project's patterns may be run unprotected (fewer runners take it), not the other way
    round without the right to it: a protected runner may hold secrets.
    """
    assert scope.project is not None  # noqa: S101
    protected = job_rules.counts_as_protected(session, scope.project, new.ref, new.protected)
    if protected:
        permissions.require(session, actor, Action.WRITE_PROTECTED_JOBS, scope)
    return protected


def find(session: Session, actor: Actor, scope: Scope, job_id: int) -> Job:
    """The job of the project with this number, if the actor may see its jobs. Raises NotFound or NotAllowed."""
    permissions.require(session, actor, Action.READ_JOBS, scope)
    found = session.scalar(select(Job).where(Job.id == job_id, Job.project_id == scope.id))
    if found is None or scope.project is None:
        raise NotFound(NOTHING_HERE)
    return found


def readable(session: Session, actor: Actor, job_id: int) -> Job:
    """The job with this number, wherever it is, if the actor may see it. Raises NotFound or NotAllowed."""
    found = session.scalar(select(Job).where(Job.id == job_id))
    if found is None or _is_deleted(found):
        raise NotFound(NOTHING_HERE)
    if found.checks_runner is not None:
        runner_access.require(session, actor, Action.READ_RUNNERS, found.checks_runner)
    elif found.project is not None:
        permissions.require(session, actor, Action.READ_JOBS, of_project(found.project))
    return found


def _is_deleted(job: Job) -> bool:
    """Whether the job's project, or the runner that it checks, is deleted and can be restored."""
    belongs_to = job.checks_runner or job.project
    return belongs_to is None or belongs_to.deletion_id is not None


def may_write(session: Session, actor: Actor, job: Job) -> bool:
    """Whether the actor may cancel the job, run it again and delete what it left."""
    if _is_deleted(job):
        return False
    if job.checks_runner is not None:
        return runner_access.may(session, actor, Action.CHECK_RUNNERS, job.checks_runner)
    return job.project is not None and permissions.may(session, actor, _writing(job), of_project(job.project))


def require_write(session: Session, actor: Actor, job: Job) -> None:
    """Refuse who may not. Raises NotFound or NotAllowed."""
    if _is_deleted(job):
        raise NotFound(NOTHING_HERE)
    if job.checks_runner is not None:
        runner_access.require(session, actor, Action.CHECK_RUNNERS, job.checks_runner)
    elif job.project is not None:
        permissions.require(session, actor, Action.WRITE_JOBS, of_project(job.project))
        permissions.require(session, actor, _writing(job), of_project(job.project))


def _writing(job: Job) -> Action:
    return Action.WRITE_PROTECTED_JOBS if job.ref_protected else Action.WRITE_JOBS


def scope_of(job: Job) -> Scope:
    """Where the job belongs: its project, or what owns the runner that it checks."""
    if job.project is not None:
        return of_project(job.project)
    assert job.checks_runner is not None  # noqa: S101
    return of_runner(job.checks_runner)


def cancel(session: Session, actor: Actor, job: Job, *, force: bool = False) -> Job:
    """Stop the job. Raises NotFound, NotAllowed, or Stale when it is over.

    One that waits is canceled at once. One that runs is told to stop: a runner that can (gitlab-runner 16.11 and
    newer) runs its after script first, and the job is canceling until then; `force` does not wait for that.
    """
    require_write(session, actor, job)
    job = job_rows.hold(session, job.id)
    before = job.state
    if before.is_over:
        raise Stale(f"This job is over already ({before}).")
    if before is JobStatus.CANCELING and not force:
        return job
    gentle = not force and stops_gently(session, job)
    job_rows.end(session, job, JobStatus.CANCELING if gentle else JobStatus.CANCELED)
    told = {"job": (job.id, job.id), "status": (before.value, job.status)}
    audit.record(session, actor, "job_canceled", job, scope_of(job), told)
    return job


def withdraw(session: Session, actor: Actor, job: Job) -> bool:
    """Cancel the job if it still waits. Returns whether it is over now; one that runs goes on.

    To be called before another is submitted in its place: a new job comes into the queue last in a transaction.
    Raises NotFound or NotAllowed.
    """
    require_write(session, actor, job)
    held = job_rows.hold(session, job.id)
    return (cancel(session, actor, held) if held.state is JobStatus.PENDING else held).state.is_over


def stops_gently(session: Session, job: Job) -> bool:
    """Whether a cancel lets the job's after script run: it runs, and its machine understands that it is canceling."""
    if job.state is not JobStatus.RUNNING or job.acknowledged_at is None:
        return False
    machine = job_rows.machine_of(session, job)
    manager = session.get(RunnerManager, machine.runner_machine_id) if machine is not None else None
    return manager is not None and manager.runtime_features.get("cancel_gracefully") is True


def retry(session: Session, actor: Actor, job: Job, vault: Vault) -> Job:
    """Run the same once more, as a job of its own.

    Raises NotFound, NotAllowed, Invalid, or Stale when it is not over.
    """
    require_write(session, actor, job)
    job = job_rows.hold(session, job.id)
    if not job.state.is_over:
        raise Stale("This job is not over yet. Cancel it first, or wait.")
    if job.checks_runner is not None:
        return job_checks.check(session, actor, job.checks_runner, vault, job_checks.aimed_at(session, job))
    if job.retried:
        raise Stale("This job was run again already. Run the newest one again.")
    again = job_rows.again(session, job, needs=job_needs.for_another_run(session, job), retries=0)
    again.user_id = job_rows.person(actor)
    told = {"job": (job.id, again.id)}
    audit.record(session, actor, "job_retried", again, scope_of(again), told)
    _queue(session, again)
    return again
