"""Handing out: a runner asks for work and gets the job whose turn it is, once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, joinedload, load_only
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.util import identity_key

from portal.database import now
from portal.domain import tokens
from portal.domain.deletions import deletions
from portal.domain.errors import LostRace
from portal.domain.jobs import failure_reasons, job_definitions, job_needs, job_reports, pending_jobs
from portal.domain.jobs.job_classes import KnownClasses
from portal.domain.jobs.job_definitions import NewJob, Undecryptable
from portal.domain.jobs.job_matching import Offer
from portal.domain.jobs.queue_news import Announcement
from portal.domain.vault import Vault
from portal.models import Group, Job, JobLog, JobMachine, JobStatus, Project, QueueScope, Runner, RunnerManager, User

MOST_DROPPED = 10  # jobs that nobody could run, in one request
# All that a claim writes in one statement: the job is its machine's, nobody finds it any more, and its log begins.
GIVE = """
WITH found_no_more AS (
  DELETE FROM ci_pending_builds WHERE job_id = :job_id
), machine AS (
  INSERT INTO p_ci_runner_machine_builds (partition_id, build_id, runner_machine_id, system_xid)
  VALUES (:partition_id, :job_id, :machine_id, :system_xid)
  ON CONFLICT (partition_id, build_id)
  DO UPDATE SET runner_machine_id = excluded.runner_machine_id, system_xid = excluded.system_xid
), log AS (
  INSERT INTO ci_job_logs (job_id, heard_at) VALUES (:job_id, :started_at)
  ON CONFLICT (job_id) DO UPDATE SET heard_at = excluded.heard_at
)
UPDATE ci_builds
SET status = :status, runner_id = :runner_id, runner_type = :runner_type, token_digest = CAST(:token_digest AS bytea),
  claim_digest = CAST(:claim_digest AS bytea), started_at = :started_at, effective_timeout = :effective_timeout
WHERE id = :job_id
"""
_GIVE = text(GIVE)


@dataclass(frozen=True, slots=True)
class Claim:
    """Who asks: the runner as its token finds it, and the machine.

    `request_id` is the client's, the same in each retry of a request; empty where it sends none.
    """

    offer: Offer
    token_id: int
    system_xid: str
    request_id: str = ""

    @property
    def digest(self) -> bytes | None:
        """By which the same request sent again is known."""
        if not self.request_id:
            return None
        return hashlib.sha256(f"{self.token_id}\0{self.system_xid}\0{self.request_id}".encode()).digest()


@dataclass(frozen=True, slots=True)
class HandedOut:
    """A job on its way to a machine: the only type that carries a clear job token."""

    job: Job
    what: NewJob
    token: str = field(repr=False)
    runner: Runner


@dataclass(frozen=True, slots=True)
class Claimed:
    """What was handed out, by what was announced of it."""

    project_id: int | None
    runner_id: int | None
    tags: frozenset[str]
    ref_protected: bool

    @classmethod
    def of(cls, job: Job) -> Claimed:
        return cls(job.project_id, job.checks_runner_id, frozenset(job.tag_list), job.ref_protected)

    def is_of(self, said: Announcement, classes: KnownClasses) -> bool:
        """Whether this may be the job of the announcement, or as good as it: of the same place and class."""
        kind, number = said.scopes[-1]
        if kind is QueueScope.RUNNER or self.runner_id is not None:
            return kind is QueueScope.RUNNER and self.runner_id == number
        there = kind is not QueueScope.PROJECT or self.project_id == number
        return there and classes.is_class(said.class_id, self.tags, self.ref_protected)


def claim(session: Session, claim: Claim, classes: Sequence[int], vault: Vault) -> HandedOut | None:
    """The job whose turn it is of those that the runner may take; None when there is none.

    The same request sent again gets the same job with a new token, since the first answer was lost. Raises LostRace
    when others took all that were found; what could not be run by anybody has failed by then, and is to be committed.
    Raises TokenUnknown when the runner was deleted a moment ago.
    """
    for dropped in range(MOST_DROPPED):
        found = pending_jobs.take(session, claim.offer, classes, claim.system_xid, claim.digest)
        if (found.waits or found.given_before) and not found.runner_held:
            _hold_runner(session, claim)  # somebody else is at it; afterwards everything is looked at anew
        elif found.given_before is not None:
            if again := _given_before(session, claim):
                return _hand_over(session, claim, _about(session, claim, again.id), vault, keep=dropped > 0)
        elif found.job_id is not None:
            about = _about(session, claim, found.job_id)
            if not _is_runnable(session, about.job):
                continue
            if handed := _hand_over(session, claim, about, vault, keep=dropped > 0):
                return handed
        elif found.waits:
            raise LostRace("Others took the jobs that were found. Ask again.")
        else:
            return None
    raise LostRace("The jobs that were found could not be run by anybody. Ask again.")


def _hold_runner(session: Session, claim: Claim) -> None:
    """Wait for whoever holds the runner, such as to delete it, and hold it until the transaction ends.

    Raises TokenUnknown when it is deleted.
    """
    held = select(Runner.id).where(Runner.id == claim.offer.runner_id)
    if session.scalar(held.with_for_update(read=True, key_share=True, of=Runner)) is None:
        raise deletions.refusal_of(session, claim.offer.runner_id)


def _given_before(session: Session, claim: Claim) -> Job | None:
    """The job that this request got, held, unless its machine has spoken of it since. The runner is held already."""
    mine = (Job.claim_digest == claim.digest) & (Job.status == JobStatus.RUNNING) & Job.acknowledged_at.is_(None)
    return session.scalar(select(Job).where(mine).with_for_update(of=Job))


@dataclass(frozen=True, slots=True)
class _About:
    """A job that is held, the runner that asks for it, and the number of its machine; 0 for one that is not known."""

    job: Job
    runner: Runner
    machine_id: int


def _about(session: Session, claim: Claim, job_id: int) -> _About:
    """Everything that is asked of a job that is handed out, with one query."""
    mine = (RunnerManager.runner_id == claim.offer.runner_id) & (RunnerManager.system_xid == claim.system_xid)
    with_the_job = (
        joinedload(Job.definition, innerjoin=True),
        joinedload(Job.user).load_only(User.blocked_at),
        joinedload(Job.project).joinedload(Project.group, innerjoin=True).lazyload(Group.route),
        load_only(Runner.runner_type, Runner.maximum_timeout, Runner.description, Runner.tag_list),
    )
    query = (
        select(Job, Runner, RunnerManager.id)
        .select_from(Job)
        .join(Runner, Runner.id == claim.offer.runner_id)
        .outerjoin(RunnerManager, mine)
        .where(Job.id == job_id)
        .options(*with_the_job)
    )
    job, runner, machine_id = session.execute(query.execution_options(populate_existing=True)).one()
    return _About(job, runner, machine_id or 0)


def _is_runnable(session: Session, job: Job) -> bool:
    """Whether who submitted it may still come in, and what it needs of others is there; it fails otherwise."""
    if job.user is not None and job.user.blocked_at is not None:
        reason = failure_reasons.USER_BLOCKED
    elif job.definition.config["needs"] and not job_needs.are_kept(session, job):
        reason = failure_reasons.MISSING_DEPENDENCY
    else:
        return True
    job_reports.finish(session, job, success=False, failure_reason=reason)
    return False


def _hand_over(session: Session, claim: Claim, about: _About, vault: Vault, *, keep: bool) -> HandedOut | None:
    """Give the job to the machine that asks. None for one whose variables cannot be read any more, which fails.

    `keep` says that the transaction holds something already, which stays when this raises.
    """
    job, runner = about.job, about.runner
    try:
        what = job_definitions.opened(job.definition, vault)
    except Undecryptable:
        job_reports.finish(session, job, success=False, failure_reason=failure_reasons.UNREADABLE)
        return None
    token = tokens.make_for_job()
    changed = {
        "status": JobStatus.RUNNING.value,
        "runner_id": runner.id,
        "runner_type": runner.runner_type,
        "token_digest": tokens.digest(token),
        "claim_digest": claim.digest,
        "started_at": now(),
        "effective_timeout": min(job.timeout, runner.maximum_timeout or job.timeout),
    }
    _write(session, claim, about, changed, keep=keep)
    return HandedOut(job, what, token, runner)


def _write(session: Session, claim: Claim, about: _About, changed: Mapping[str, object], *, keep: bool) -> None:
    """Write the claim. Raises LostRace when the same request is being answered at this moment elsewhere.

    A savepoint is two statements more, so there is one only where there is something to keep: without it the database
    ends the transaction with a rollback, also where it is told to commit. It is the connection's, not the session's,
    which would take back what is to be announced.
    """
    job = about.job
    machine = {"machine_id": about.machine_id, "system_xid": claim.system_xid, "partition_id": job.partition_id}
    try:
        with session.connection().begin_nested() if keep else nullcontext():
            session.execute(_GIVE, {"job_id": job.id, **machine, **changed})
    except IntegrityError:
        raise LostRace("This request is just being answered. Ask again.") from None
    for name, value in changed.items():
        set_committed_value(job, name, value)
    set_committed_value(job, "runner", about.runner)
    for known in (identity_key(JobLog, job.id), identity_key(JobMachine, (job.partition_id, job.id))):
        if (row := session.identity_map.get(known)) is not None:
            session.expire(row)
