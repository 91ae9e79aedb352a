"""`/runners/:id/jobs` and `/runners/:id/checks`: what a runner and its machines ran, and whether they work."""

from __future__ import annotations

from flask import Response

from portal.api import credentials
from portal.api.for_users import job_shapes, jobs, runners
from portal.api.for_users.door import looking_for, operation
from portal.api.for_users.job_pages import ListedJobs, listed
from portal.api.for_users.job_parameters import JobsListed, Statuses, with_status
from portal.api.for_users.job_shapes import JobShape
from portal.api.for_users.parameters import Flag, Id, OptionalText, Text
from portal.api.for_users.runners import MANAGE, OneRunner
from portal.database import db
from portal.domain.jobs import job_checks, job_lists
from portal.domain.jobs import jobs as domain_jobs
from portal.domain.machines import runner_managers
from portal.domain.permissions import Action
from portal.models import Job, Runner, RunnerManager
from portal.requests import job_vault

ROOM = "Jobs"
CHECKS = "/runners/<int:runner_id>/checks"


class RunnerJobsListed(JobsListed, OneRunner):
    """Which of the runner's jobs."""

    status: Statuses | None = None

    @property
    def words(self) -> tuple[str, ...]:
        return (self.status,) if self.status else ()


class JobsAsked(RunnerJobsListed):
    """Which of the runner's jobs, of all its machines or of one."""

    system_id: OptionalText = None


class MachineJobsAsked(RunnerJobsListed):
    """Which of the jobs of one of the runner's machines."""

    system_id: Text


class CheckAsked(OneRunner):
    """A check of a runner, or of one of its machines."""

    system_id: OptionalText = None


class OneCheck(OneRunner):
    """One check of a runner."""

    check_id: Id


class CheckStopped(OneCheck):
    """One check of a runner, to be stopped."""

    force: Flag = False


@operation("GET", "/runners/<int:runner_id>/jobs", room=ROOM, opens=MANAGE, refuses=(400, 404))
def index(given: JobsAsked) -> ListedJobs:
    """The jobs that the runner has or had, as far as one may see them; of one machine with `system_id`.

    For others than administrators, and of one machine, pages by number are of the newest 5000 jobs; then the link to
    the next page leads on by cursor. Pages by cursor go through all jobs, 5000 at a time: one may be short and yet
    lead on.
    """
    session, runner = db.session(), runners.readable(given.runner_id)
    if not given.system_id:
        found = job_lists.of_runner(session, credentials.actor(), runner)
        return listed(with_status(found, given.words), given)
    found = job_lists.of_system(session, credentials.actor(), runner, given.system_id)
    return listed(with_status(found, given.words), given, counted=False)


@operation(
    "GET",
    "/runners/<int:runner_id>/managers/<path:system_id>/jobs",
    room=ROOM,
    opens=MANAGE,
    refuses=(400, 404),
)
def of_machine(given: MachineJobsAsked) -> ListedJobs:
    """The jobs that one machine of the runner has or had, as far as one may see them."""
    session, runner = db.session(), runners.readable(given.runner_id)
    found = job_lists.of_system(session, credentials.actor(), runner, given.system_id)
    answer = listed(with_status(found, given.words), given, counted=False)
    if not answer.body.items:  # of a machine that is forgotten, its jobs are known still
        _manager(runner, given.system_id)
    return answer


@operation("POST", "/runners/<int:runner_id>/check", room=ROOM, status=201, opens=MANAGE, refuses=(400, 404))
def check(given: CheckAsked) -> JobShape:
    """Let the runner, or one of its machines, run a small script: the proof that it works."""
    runner = runners.allowing(Action.CHECK_RUNNERS, given.runner_id)
    manager = _manager(runner, given.system_id) if given.system_id else None
    return jobs.after(job_checks.check(db.session(), credentials.actor(), runner, job_vault(), manager))


@operation("GET", CHECKS, room=ROOM, opens=MANAGE, refuses=(400, 404))
def checks(given: RunnerJobsListed) -> ListedJobs:
    """The checks of the runner, those that wait too, for who looks after it."""
    return listed(with_status(job_lists.checks_of(_looked_after(given)), given.words), given)


@operation("GET", f"{CHECKS}/<int:check_id>", room=ROOM, opens=MANAGE, refuses=(404,))
def show_check(given: OneCheck) -> JobShape:
    """One check of the runner."""
    return job_shapes.one(db.session(), credentials.actor(), _found(given))


@operation("GET", f"{CHECKS}/<int:check_id>/trace", room=ROOM, opens=MANAGE, refuses=(404,), media="text/plain")
def trace_check(given: OneCheck) -> Response:
    """The log of a check, as far as it has come."""
    return jobs.log_of(_found(given))


@operation("POST", f"{CHECKS}/<int:check_id>/cancel", room=ROOM, status=201, opens=MANAGE, refuses=(404, 409))
def cancel_check(given: CheckStopped) -> JobShape:
    """Stop a check."""
    return jobs.after(domain_jobs.cancel(db.session(), credentials.actor(), _found(given), force=given.force))


def _looked_after(given: OneRunner) -> Runner:
    """The runner, for who looks after it. Raises NotFound, or NotAllowed for who may only read of it."""
    return runners.allowing(Action.READ_RUNNERS, given.runner_id)


def _found(given: OneCheck) -> Job:
    runner = _looked_after(given)
    with looking_for("Check"):
        return job_checks.find_check(db.session(), runner, given.check_id)


def _manager(runner: Runner, system_id: str) -> RunnerManager:
    """The runner's machine with this system ID. Raises NotFound."""
    with looking_for("Runner Manager"):
        return runner_managers.find(db.session(), runner, system_id)
