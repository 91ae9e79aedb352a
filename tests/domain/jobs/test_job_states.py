"""Whatever people, machines and time do with jobs, in whatever order, late and twice: what must hold holds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask.testing import FlaskClient
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import tokens
from portal.domain.deletions import restores
from portal.domain.errors import Refusal
from portal.domain.groups import groups
from portal.domain.jobs import job_reports, job_rows, jobs, lost_jobs
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.jobs.lost_jobs import Look, Patience
from portal.domain.jobs.pending_jobs import PARKED
from portal.domain.runners import runners
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import Job, JobMachine, JobStatus, PendingJob, QueueScope
from tests.api.machines import Job as MachineJob
from tests.api.machines import Machine, info_of, through
from tests.cast import JOB_VAULT, Cast
from tests.domain.clock import let_pass

KEPT = timedelta(days=7)
PATIENCE = Patience(unspoken=timedelta(minutes=2), silent=timedelta(minutes=10))
RUNS = (JobStatus.RUNNING, JobStatus.CANCELING)


class JobsOfAProject(RuleBasedStateMachine):
    """One project, machines of one instance runner, and everything that may happen to the project's jobs."""

    submitted = Bundle("submitted")
    taken = Bundle("taken")
    names = iter(f"p{number}" for number in range(10_000))

    def __init__(self, cast: Cast, client: FlaskClient) -> None:
        super().__init__()
        self.cast, self.session, self.client = cast, cast.session, client
        self.dana = cast.as_(cast.dana)
        self.project = cast.project(next(self.names), cast.other)
        self.project_id = self.project.id
        self.deletion_id: int | None = None
        self.ended: dict[int, tuple[Any, ...]] = {}  # jobs that are over, as they were first seen so
        self.given: dict[int, list[str]] = {}  # by job, the tokens that its machines were given
        self.new_runner()

    def new_runner(self) -> None:
        issued = self.cast.runner(self.project, RunnerSettings(run_untagged=True))
        self.runner, self.machine = issued.runner, Machine(through(self.client), issued.token)

    def job(self, job_id: int) -> Job:
        self.session.expire_all()
        return self.session.get_one(Job, job_id)

    def attempt(self, act: Any) -> Any:
        """What the act returns; None when it was refused, and then it has changed nothing."""
        self.session.commit()  # what was read so far is no part of the act, nor of its undoing
        try:
            found = act()
        except Refusal:
            self.session.rollback()
            return None
        self.session.commit()
        return found

    @rule(target=submitted, retry=st.integers(0, 2))
    def submit(self, retry: int) -> Any:
        new = NewJob("build", ("make",), retry=retry)
        made = self.attempt(lambda: jobs.submit(self.session, self.dana, self.project, new, JOB_VAULT))
        assert (made is None) == (self.deletion_id is not None)
        return multiple() if made is None else made.id

    @rule(target=taken, version=st.sampled_from(["13.12.0", "17.11.4", "18.6.6"]), again=st.booleans())
    def poll(self, version: str, again: bool) -> Any:
        """Ask for a job; now and then the answer is lost and the same request is sent again."""
        self.machine.info, self.machine.headers = info_of(version), {"X-Request-Id": next(self.names).zfill(32)}
        answers = [self.machine.poll() for _ in range(2 if again else 1)]
        if self.deletion_id is not None:
            assert {answer.status for answer in answers} == {403}  # the project's runners are deleted with it
            return multiple()
        waiting = select(PendingJob.job_id).where(PendingJob.scope_id == self.project_id)
        assert {answer.status for answer in answers} <= ({201} if answers[0].status == 201 else {204})
        if answers[0].status == 204:
            assert self.session.scalars(waiting.where(PendingJob.scope_kind == QueueScope.PROJECT)).all() == []
            return multiple()
        given = [MachineJob(self.machine, answer.json) for answer in answers]
        assert len({job.id for job in given}) == 1
        for each in given:
            self.given.setdefault(each.id, []).append(each.token)
        return multiple(*given)

    def may_speak(self, taken: MachineJob, *, over: bool = False) -> bool:
        """Whether the portal must listen to this machine."""
        job = self.job(taken.id)
        mine = job.token_digest == tokens.digest(taken.token) and self.deletion_id is None
        return mine and (job.state in RUNS or (over and job.state.is_over))

    @rule(job=taken)
    def say_that_it_runs(self, job: MachineJob) -> None:
        expected = 200 if self.may_speak(job) else 403
        assert job.report("running").status == expected

    @rule(job=taken)
    def write(self, job: MachineJob) -> None:
        expected = {202, 416} if self.may_speak(job) else {403}
        assert job.write(b"hello\n").status in expected

    @rule(job=taken, state=st.sampled_from(["success", "failed"]))
    def finish(self, job: MachineJob, state: str) -> None:
        may, before = self.may_speak(job, over=True), self.job(job.id).state
        status = job.report(state).status
        assert status == (200 if may and (before in RUNS or before == state) else 403)
        if may and before in RUNS:
            expected = JobStatus.CANCELED if before is JobStatus.CANCELING else JobStatus(state)
            assert self.job(job.id).state is expected

    @rule(job_id=submitted, force=st.booleans())
    def cancel(self, job_id: int, force: bool) -> None:
        before = self.job(job_id).state
        canceled = self.attempt(lambda: jobs.cancel(self.session, self.dana, self.job(job_id), force=force))
        if self.deletion_id is None:
            assert (canceled is None) == before.is_over

    @rule(target=submitted, job_id=submitted)
    def retry(self, job_id: int) -> Any:
        before = self.job(job_id)
        may = before.state.is_over and not before.retried and self.deletion_id is None
        again = self.attempt(lambda: jobs.retry(self.session, self.dana, self.job(job_id), JOB_VAULT))
        assert (again is not None) == may
        return multiple() if again is None else again.id

    @rule(minutes=st.sampled_from([1, 3, 11, 90]))
    def time_passes(self, minutes: int) -> None:
        let_pass(self.session, timedelta(minutes=minutes))
        self.session.commit()
        look = Look(now(), now() - timedelta(days=1), PATIENCE)
        for job_id in lost_jobs.find(self.session, look):
            assert lost_jobs.give_up(self.session, job_id, look) is not None
            self.session.commit()
        assert lost_jobs.find(self.session, look) == []

    @rule(job_id=submitted)
    def take_back(self, job_id: int) -> None:
        job_reports.take_back(self.session, self.job(job_id))
        self.session.commit()

    @rule()
    def delete_the_runner(self) -> None:
        if self.deletion_id is None:
            runners.delete_runner(self.session, self.dana, self.session.merge(self.runner))
            self.session.commit()
            self.new_runner()

    @rule()
    def delete_or_restore_the_project(self) -> None:
        if self.deletion_id is None:
            self.deletion_id = groups.delete(self.session, self.dana, self.project).id
        else:
            restores.restore(self.session, self.dana, self.deletion_id, KEPT)
            self.deletion_id = None
        self.session.commit()

    @invariant()
    def a_job_is_in_the_queue_exactly_while_it_waits(self) -> None:
        queued: dict[int, list[int]] = {}
        for row in self.session.scalars(select(PendingJob).order_by(PendingJob.scope_kind)):
            queued.setdefault(row.job_id, []).append(row.scope_kind)
        live = [QueueScope.INSTANCE, QueueScope.GROUP, QueueScope.PROJECT]
        for job in self.all():
            expected = live if self.deletion_id is None else [PARKED]
            assert queued.get(job.id, []) == (expected if job.state is JobStatus.PENDING else []), job.status

    @invariant()
    def who_runs_a_job_is_known_and_has_the_one_good_token(self) -> None:
        for job in self.all():
            machine = job_rows.machine_of(self.session, job)
            good = [token for token in self.given.get(job.id, []) if tokens.digest(token) == job.token_digest]
            if job.state is JobStatus.PENDING:
                assert (machine, job.runner_id, job.token_digest, job.claim_digest) == (None,) * 4
                assert (job.started_at, job.acknowledged_at, job.effective_timeout) == (None,) * 3
                assert good == []
            elif job.state in RUNS:
                assert isinstance(machine, JobMachine)
                assert job.runner_id is not None
                assert job.started_at is not None
                assert len(good) == 1
            assert len(good) <= 1

    @invariant()
    def what_is_over_is_over_for_good(self) -> None:
        for job in self.all():
            assert (job.finished_at is not None) == job.state.is_over
            if job.state.is_over:
                facts = (job.status, job.failure_reason, job.exit_code)
                assert self.ended.setdefault(job.id, facts) == facts
            assert job.id not in self.ended or job.state.is_over

    @invariant()
    def each_job_runs_again_at_most_once(self) -> None:
        again: dict[int, int] = {}
        for job in self.all():
            if job.retry_of_id is not None:
                again[job.retry_of_id] = again.get(job.retry_of_id, 0) + 1
        for job in self.all():
            assert again.get(job.id, 0) == (1 if job.retried else 0)
            if job.retried:
                assert job.state.is_over

    def all(self) -> list[Job]:
        self.session.expire_all()
        return list(self.session.scalars(select(Job).where(Job.project_id == self.project_id)))


def test_what_must_hold_holds_in_every_order(client: FlaskClient, session_beside: Session) -> None:
    cast = Cast(session_beside)
    run_state_machine_as_test(
        lambda: JobsOfAProject(cast, client),
        settings=settings(
            max_examples=8,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
