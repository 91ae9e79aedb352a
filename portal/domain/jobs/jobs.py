"""Jobs as people and scripts handle them, and as runners report them: submit, find, cancel, retry, finish."""

from __future__ import annotations

import re
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit, permissions
from portal.domain.actors import Actor
from portal.domain.errors import NOTHING_HERE, Invalid, JobRefused, KeyReused, NotFound, Stale
from portal.domain.jobs import job_definitions, job_logs, job_needs, job_partitions, pending_jobs
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.jobs.job_needs import Standing
from portal.domain.permissions import Action
from portal.domain.runners import runner_access
from portal.domain.scopes import Scope, is_there, of_project, of_runner
from portal.domain.vault import Vault
from portal.models import (
    Job,
    JobDefinition,
    JobLog,
    JobMachine,
    JobStatus,
    Project,
    ProjectSettings,
    Runner,
    RunnerManager,
)

MOST_PENDING_CHECKS = 20  # of one runner
CHECK_TIMEOUT = 600  # seconds
CHECK_SCRIPT = (
    'echo "Hello from $(hostname 2>/dev/null || echo this machine)"',
    'echo "It is $(date 2>/dev/null), and this runner takes jobs."',
)
CHECK = NewJob(name="Runner check", script=CHECK_SCRIPT, ref="main", timeout=CHECK_TIMEOUT)
UNKNOWN_FAILURE = "unknown_failure"  # GitLab's word, as are the next ones
STUCK = "stuck_or_timeout_failure"
MISSING_DEPENDENCY = "missing_dependency_failure"
UNREADABLE = "data_integrity_failure"
USER_BLOCKED = "user_blocked"
# What would go wrong once more, however often the job runs again.
FOR_GOOD = frozenset({MISSING_DEPENDENCY, UNREADABLE, USER_BLOCKED})
LONGEST_REASON = 64


def is_protected(ref: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns, in which `*` stands for anything, fits the whole ref."""
    return any(re.fullmatch(_pattern(each), ref) for each in patterns)


def _pattern(written: str) -> str:
    """The pattern as an expression. Each part is looked for once (atomic groups): many `*` cost no more than few."""
    first, *others = (re.escape(part) for part in written.split("*"))
    return first + "".join(f"(?>.*?{part})" for part in others[:-1]) + "".join(f".*{part}" for part in others[-1:])


def settings_of(session: Session, project: Project) -> ProjectSettings:
    """The project's settings; as installed where nobody has stored any."""
    return session.get(ProjectSettings, project.id) or ProjectSettings(project_id=project.id)


def counts_as_protected(session: Session, project: Project, ref: str, said: bool | None) -> bool:
    """Whether a job on this ref is on a protected one: as it was said, or as the project's patterns say."""
    return is_protected(ref, settings_of(session, project).protected_refs) if said is None else said


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
    if request_key is not None and (made := _made_before(session, project, request_key, request_digest)):
        return made
    job_needs.require(session, project, new.needs)
    definition = job_definitions.stored(new, vault)
    session.add(definition)
    protected = _protection(session, actor, scope, new)
    job = _make(session, new, definition, project, protected)
    job.user_id, job.request_key, job.request_digest = _person(actor), request_key, request_digest
    _save(session, job, new.needs)
    audit.record(session, actor, "job_submitted", job, scope, {"job": (None, job.id), "ref": (None, job.ref)})
    _queue(session, job)
    return job


def _queue(session: Session, job: Job) -> None:
    """Put the job into the queue, unless it waits for others: it comes there when they have succeeded."""
    if job_needs.standing(session, job) is Standing.MET:
        pending_jobs.put(session, job)


def _person(actor: Actor) -> int | None:
    return actor.user.id if actor.user is not None else None


def is_submitted(session: Session, request_key: UUID) -> bool:
    """Whether a request with this key has made a job or a check."""
    return session.scalar(select(Job.id).where(Job.request_key == request_key)) is not None


def _made_before(session: Session, of: Project | Runner, key: UUID, digest: bytes | None) -> Job | None:
    made = session.scalar(select(Job).where(Job.request_key == key))
    if made is None:
        return None
    its = made.project_id if isinstance(of, Project) else made.checks_runner_id
    if its != of.id or made.request_digest != digest:
        raise KeyReused
    return made


def _protection(session: Session, actor: Actor, scope: Scope, new: NewJob) -> bool:
    """Whether the job's ref counts as protected. Raises NotAllowed for who may not run jobs on such refs.

    What is protected by the project's patterns may be run unprotected (fewer runners take it), not the other way
    round without the right to it: a protected runner may hold secrets.
    """
    assert scope.project is not None  # noqa: S101
    protected = counts_as_protected(session, scope.project, new.ref, new.protected)
    if protected:
        permissions.require(session, actor, Action.WRITE_PROTECTED_JOBS, scope)
    return protected


def _make(session: Session, new: NewJob, definition: JobDefinition, project: Project | None, protected: bool) -> Job:
    default = settings_of(session, project).build_timeout if project is not None else CHECK_TIMEOUT
    return Job(
        partition_id=job_partitions.current(session, now()),
        project=project,
        definition=definition,
        name=new.name.strip(),
        ref=new.ref,
        ref_protected=protected,
        tag_list=sorted(set(new.tags)),
        timeout=new.timeout or default,
        retries_left=new.retry,
    )


def _save(session: Session, job: Job, needs: Sequence[int]) -> None:
    """Write the job. Raises Stale when the same request is just being answered elsewhere."""
    try:
        with session.begin_nested():
            session.add(job)
            session.flush()
    except IntegrityError:
        raise Stale("This was sent twice at the same moment. Send it again to hear the first answer.") from None
    job_needs.link(session, job, needs)


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
    if request_key is not None and (made := _made_before(session, runner, request_key, request_digest)):
        return made
    _require_may_wait(session, runner)
    definition = job_definitions.stored(CHECK, vault)
    job = _make(session, CHECK, definition, None, protected=False)
    job.checks_runner_id, job.user_id = runner.id, _person(actor)
    job.system_xid = manager.system_xid if manager is not None else None
    job.request_key, job.request_digest = request_key, request_digest
    session.add(definition)
    _save(session, job, ())
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


def find_check(session: Session, runner: Runner, job_id: int) -> Job:
    """The check of the runner with this number; the caller has asked who may read the runner. Raises NotFound."""
    found = session.scalar(select(Job).where(Job.id == job_id, Job.checks_runner_id == runner.id))
    if found is None:
        raise NotFound(NOTHING_HERE)
    return found


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
        permissions.require(session, actor, _writing(job), of_project(job.project))


def _writing(job: Job) -> Action:
    return Action.WRITE_PROTECTED_JOBS if job.ref_protected else Action.WRITE_JOBS


def scope_of(job: Job) -> Scope:
    """Where the job belongs: its project, or what owns the runner that it checks."""
    if job.project is not None:
        return of_project(job.project)
    assert job.checks_runner is not None  # noqa: S101
    return of_runner(job.checks_runner)


def hold(session: Session, job_id: int) -> Job:
    """The job as it stands now, held until the transaction ends: whoever changes its status asks here first."""
    query = select(Job).where(Job.id == job_id).with_for_update(of=Job)
    found = session.scalar(query.execution_options(populate_existing=True))
    if found is None:
        raise NotFound(NOTHING_HERE)
    return found


def cancel(session: Session, actor: Actor, job: Job, *, force: bool = False) -> Job:
    """Stop the job. Raises NotFound, NotAllowed, or Stale when it is over.

    One that waits is canceled at once. One that runs is told to stop: a runner that can (gitlab-runner 16.11 and
    newer) runs its after script first, and the job is canceling until then; `force` does not wait for that.
    """
    require_write(session, actor, job)
    job = hold(session, job.id)
    before = job.state
    if before.is_over:
        raise Stale(f"This job is over already ({before}).")
    if before is JobStatus.CANCELING and not force:
        return job
    asked = before is JobStatus.RUNNING and not force and job.acknowledged_at is not None
    gentle = asked and _stops_gently(session, job)
    _end(session, job, JobStatus.CANCELING if gentle else JobStatus.CANCELED)
    told = {"job": (job.id, job.id), "status": (before.value, job.status)}
    audit.record(session, actor, "job_canceled", job, scope_of(job), told)
    return job


def _stops_gently(session: Session, job: Job) -> bool:
    """Whether the job's machine understands that a job is canceling."""
    machine = machine_of(session, job)
    manager = session.get(RunnerManager, machine.runner_machine_id) if machine is not None else None
    return manager is not None and manager.runtime_features.get("cancel_gracefully") is True


def machine_of(session: Session, job: Job) -> JobMachine | None:
    """Which machine has, or had, the job; None while nobody has."""
    return session.get(JobMachine, (job.partition_id, job.id))


def _end(session: Session, job: Job, status: JobStatus, again: Job | None = None) -> None:
    """Give a job that is held its new status; over, it waits no more, and those that wait for it hear so.

    `again` is the run that comes after it by itself.
    """
    job.status = status
    if status.is_over:
        _close(session, job)
        ready = _tell_dependents(session, job, again)
        for each in ([again] if again is not None else []) + ready:  # last, as everybody waits for who announces
            pending_jobs.put(session, each)


def _close(session: Session, job: Job) -> None:
    job.finished_at, job.claim_digest = now(), None
    if job.started_at is not None:
        job_logs.settle(session, job.id)
    pending_jobs.take_out(session, job.id)


def _tell_dependents(session: Session, job: Job, again: Job | None) -> list[Job]:
    """The jobs that waited for this one and can run now. Those that cannot any more fail, and so on down the line.

    Those that need a job which runs again by itself wait for that run.
    """
    ready: list[Job] = []
    session.flush()
    ended = [job]
    while ended:
        over = ended.pop()
        for dependent in job_needs.dependents(session, over):
            if again is not None and over is job:
                job_needs.replace(session, dependent, job, again)
            elif over.state is not JobStatus.SUCCESS:
                dependent.status, dependent.failure_reason = JobStatus.FAILED, MISSING_DEPENDENCY
                _close(session, dependent)
                ended.append(dependent)
            elif job_needs.standing(session, dependent) is Standing.MET:
                dependent.queued_at = now()
                ready.append(dependent)
        session.flush()
    return ready


def retry(session: Session, actor: Actor, job: Job, vault: Vault) -> Job:
    """Run the same once more, as a job of its own.

    Raises NotFound, NotAllowed, Invalid, or Stale when it is not over.
    """
    require_write(session, actor, job)
    job = hold(session, job.id)
    if not job.state.is_over:
        raise Stale("This job is not over yet. Cancel it first, or wait.")
    if job.checks_runner is not None:
        return check(session, actor, job.checks_runner, vault, _aimed_at(session, job))
    if job.retried:
        raise Stale("This job was run again already. Run the newest one again.")
    again = _again(session, job, retries=0)
    again.user_id = _person(actor)
    if job_needs.standing(session, again) is Standing.BROKEN:
        raise Stale("A job that this one needs has not succeeded. Run that one again first.")
    told = {"job": (job.id, again.id)}
    audit.record(session, actor, "job_retried", again, scope_of(again), told)
    _queue(session, again)
    return again


def _aimed_at(session: Session, job: Job) -> RunnerManager | None:
    if job.system_xid is None:
        return None
    mine = (RunnerManager.runner_id == job.checks_runner_id) & (RunnerManager.system_xid == job.system_xid)
    found = session.scalar(select(RunnerManager).where(mine))
    if found is None:
        raise Invalid({"runner": ["The machine that this check was for is gone. Check the runner instead."]})
    return found


def _again(session: Session, job: Job, *, retries: int) -> Job:
    """A new job that runs what this one ran; this one counts as retried. It is not in the queue yet."""
    made = Job(
        partition_id=job_partitions.current(session, now()),
        project_id=job.project_id,
        checks_runner_id=job.checks_runner_id,
        system_xid=job.system_xid,
        definition_id=job.definition_id,
        user_id=job.user_id,
        name=job.name,
        ref=job.ref,
        ref_protected=job.ref_protected,
        tag_list=list(job.tag_list),
        timeout=job.timeout,
        retries_left=retries,
        retry_of_id=job.id,
    )
    job.retried = True
    _save(session, made, job_needs.newest(session, job_needs.of(session, job)))
    return made


def hear(session: Session, job: Job, *, over: bool = False) -> Job:
    """The job's machine spoke of it: from now on it has it for sure. The job is held until the transaction ends.

    Raises JobRefused when it was taken back, or has ended, after the machine's token was looked at; `over` lets
    one that has ended be spoken of.
    """
    token_digest = job.token_digest
    job = hold(session, job.id)
    if job.token_digest != token_digest or (job.state.is_over and not over):
        raise JobRefused(f"This job is {job.status}: it is not its machine's any more.", status=job.status)
    if job.state.is_over:
        return job
    moment = now()
    if job.acknowledged_at is None:
        job.acknowledged_at, job.claim_digest = moment, None  # the answer was read: it is not given again
    session.execute(update(JobLog).where(JobLog.job_id == job.id).values(heard_at=moment))
    return job


def finish(
    session: Session, job: Job, *, success: bool, failure_reason: str | None = None, exit_code: int | None = None
) -> Job:
    """The job ended as its machine, or whoever gives up on it, says. One that fails runs again while it has retries.

    A runner knows no canceled jobs: one that was canceling and ends, however, is canceled. The same report sent again
    changes nothing. Raises JobRefused for a job that is over and ended otherwise.
    """
    job = hold(session, job.id)
    ended = JobStatus.SUCCESS if success else JobStatus.FAILED
    if job.state is JobStatus.CANCELING:
        ended = JobStatus.CANCELED
    if job.state.is_over:
        if job.state is ended:
            return job
        raise JobRefused(f"This job is over: {job.status}.", status=job.status)
    job.exit_code = _in_32_bits(exit_code) if exit_code is not None else (0 if success else None)
    if not success:
        job.failure_reason = (failure_reason or UNKNOWN_FAILURE)[:LONGEST_REASON]
    again = None
    if ended is JobStatus.FAILED and job.retries_left > 0 and job.failure_reason not in FOR_GOOD:
        again = _again(session, job, retries=job.retries_left - 1)
    _end(session, job, ended, again)
    return job


def _in_32_bits(exit_code: int) -> int | None:
    """The code as the database holds it: what Windows says without a sign (0xC0000005) with one; None for no code."""
    if not -(2**31) <= exit_code < 2**32:
        return None
    return exit_code - 2**32 if exit_code >= 2**31 else exit_code


def take_back(session: Session, job: Job, *, most: int = 3) -> Job:
    """Put a job into the queue again whose machine never said a word of it; after `most` times it fails.

    The token that the machine was given is worth nothing from now on.
    """
    job = hold(session, job.id)
    if job.state not in (JobStatus.RUNNING, JobStatus.CANCELING) or job.acknowledged_at is not None:
        return job
    if job.state is JobStatus.CANCELING:
        _end(session, job, JobStatus.CANCELED)
        return job
    if job.taken_back >= most:
        return finish(session, job, success=False, failure_reason=STUCK)
    forget_machine(session, job)
    job.status, job.taken_back = JobStatus.PENDING, job.taken_back + 1
    pending_jobs.put(session, job, first=True)
    return job


def forget_machine(session: Session, job: Job) -> None:
    """Nobody has the job: no runner, no machine, no token."""
    if (machine := machine_of(session, job)) is not None:
        session.delete(machine)
    job.runner_id = job.runner_type = job.token_digest = job.claim_digest = None
    job.started_at = job.effective_timeout = None
    session.flush()
