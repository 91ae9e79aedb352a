"""Handing out: a runner asks for work and gets the job whose turn it is, once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import tokens
from portal.domain.deletions import deletions
from portal.domain.errors import LostRace
from portal.domain.jobs import failure_reasons, job_definitions, job_needs, job_reports, job_rows, pending_jobs
from portal.domain.jobs.job_definitions import NewJob, Undecryptable
from portal.domain.jobs.job_matching import Offer
from portal.domain.vault import Vault
from portal.models import Job, JobLog, JobMachine, JobStatus, Runner, RunnerManager

MOST_DROPPED = 10  # jobs that nobody could run, in one request


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


def claim(session: Session, claim: Claim, classes: Sequence[int], vault: Vault) -> HandedOut | None:
    """The job whose turn it is of those that the runner may take; None when there is none.

    The same request sent again gets the same job with a new token, since the first answer was lost. Raises LostRace
    when others took all that were found; what could not be run by anybody has failed by then, and is to be committed.
    Raises TokenUnknown when the runner was deleted a moment ago.
    """
    if again := _given_before(session, claim):
        return _hand_over(session, claim, again, vault)
    for _ in range(MOST_DROPPED):
        job = _next(session, claim, classes)
        if job is None:
            return None
        if _is_runnable(session, job) and (handed := _hand_over(session, claim, job, vault)):
            return handed
    raise LostRace("The jobs that were found could not be run by anybody. Ask again.")


def _given_before(session: Session, claim: Claim) -> Job | None:
    """The job that this request got, unless its machine has spoken of it since."""
    if claim.digest is None:
        return None
    mine = (Job.claim_digest == claim.digest) & (Job.status == JobStatus.RUNNING) & Job.acknowledged_at.is_(None)
    if session.scalar(select(Job.id).where(mine)) is None:
        return None
    _hold_runner(session, claim)
    return session.scalar(select(Job).where(mine).with_for_update(of=Job))


def _hold_runner(session: Session, claim: Claim) -> None:
    """Let nobody delete the runner until the transaction ends.

    It is held before its job: who deletes a group holds its runners, and then waits for the jobs that are pending.
    """
    held = select(Runner.id).where(Runner.id == claim.offer.runner_id)
    if session.scalar(held.with_for_update(read=True, key_share=True, of=Runner)) is None:
        raise deletions.refusal_of(session, claim.offer.runner_id)


def _next(session: Session, claim: Claim, classes: Sequence[int]) -> Job | None:
    heads = pending_jobs.heads(session, claim.offer, classes, claim.system_xid)
    if heads:
        _hold_runner(session, claim)
    for head in heads:
        job_id = pending_jobs.hold_next(session, head, claim.system_xid)
        if job_id is not None:
            return session.get_one(Job, job_id, populate_existing=True)
    if heads:
        raise LostRace("Others took the jobs that were found. Ask again.")
    return None


def _is_runnable(session: Session, job: Job) -> bool:
    """Whether who submitted it may still come in, and what it needs of others is there; it fails otherwise."""
    if job.user is not None and job.user.blocked_at is not None:
        reason = failure_reasons.USER_BLOCKED
    elif not job_needs.are_kept(session, job):
        reason = failure_reasons.MISSING_DEPENDENCY
    else:
        return True
    job_reports.finish(session, job, success=False, failure_reason=reason)
    return False


def _hand_over(session: Session, claim: Claim, job: Job, vault: Vault) -> HandedOut | None:
    """Give the job to the machine that asks. None for one whose variables cannot be read any more, which fails."""
    try:
        what = job_definitions.opened(job.definition, vault)
    except Undecryptable:
        job_reports.finish(session, job, success=False, failure_reason=failure_reasons.UNREADABLE)
        return None
    runner, token, moment = session.get_one(Runner, claim.offer.runner_id), tokens.make_for_job(), now()
    job.status, job.runner, job.runner_type = JobStatus.RUNNING, runner, runner.runner_type
    job.token_digest, job.claim_digest = tokens.digest(token), claim.digest
    job.started_at = moment
    job.effective_timeout = min(job.timeout, runner.maximum_timeout or job.timeout)
    _write(session)
    pending_jobs.take_out(session, job.id)
    _note_machine(session, claim, job)
    log = session.get(JobLog, job.id) or JobLog(job_id=job.id)
    log.heard_at = moment
    session.add(log)
    session.flush()
    return HandedOut(job, what, token, runner)


def _write(session: Session) -> None:
    """Write the claim. Raises LostRace when the same request is being answered at this moment elsewhere."""
    try:
        session.flush()
    except IntegrityError:
        raise LostRace("This request is just being answered. Ask again.") from None


def _note_machine(session: Session, claim: Claim, job: Job) -> None:
    """Write down which machine has the job."""
    mine = (RunnerManager.runner_id == claim.offer.runner_id) & (RunnerManager.system_xid == claim.system_xid)
    machine_id = session.scalar(select(RunnerManager.id).where(mine)) or 0
    found = job_rows.machine_of(session, job) or JobMachine(partition_id=job.partition_id, job_id=job.id)
    found.runner_machine_id, found.system_xid = machine_id, claim.system_xid
    session.add(found)
