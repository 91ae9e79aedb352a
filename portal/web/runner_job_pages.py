"""The jobs of a runner, and of one of its machines, the same for every scope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response, make_response, render_template, request
from sqlalchemy import select

from portal.database import db, now
from portal.domain.errors import NOTHING_HERE, NotFound
from portal.domain.jobs import job_lists, job_times, job_walks
from portal.domain.jobs.job_lists import JobFilter
from portal.domain.jobs.job_walks import JobList
from portal.domain.permissions import Action
from portal.domain.runners import runner_access
from portal.models import Job, JobMachine, JobStatus, Runner, RunnerManager
from portal.web import guards
from portal.web.job_facts import remember_projects, shown_rows
from portal.web.numbers import number
from portal.web.refreshing import seen

PAGE_SIZE = 30
MOST_WAITING = 20  # checks that are named; there cannot be more by much
# What a list can be narrowed to. Jobs that wait are no runner's yet.
STATUSES: dict[str, tuple[JobStatus, ...]] = {
    "running": (JobStatus.RUNNING, JobStatus.CANCELING),
    "success": (JobStatus.SUCCESS,),
    "failed": (JobStatus.FAILED,),
    "canceled": (JobStatus.CANCELED,),
}


def jobs(runner_id: int) -> Response:
    """The jobs that the runner has or had, as far as the person may see them, and its checks that wait.

    `?show=checks` lists its checks instead, also those that no machine took. 204 for a page that has it all already.
    """
    runner, session = guards.runner(runner_id), db.session()
    trusted = runner_access.may(session, guards.actor(), Action.READ_RUNNERS, runner)
    if trusted and request.args.get("show") == "checks":
        return _page(runner, job_lists.checks_of(runner), trusted=True, checks=True)
    return _page(
        runner,
        job_lists.of_runner(session, guards.actor(), runner),
        trusted=trusted,
        waiting=_waiting(runner) if trusted else [],
        leaves_out=job_lists.leaves_out(session, guards.actor(), runner),
    )


def machine_jobs(runner_id: int, manager_id: int) -> Response:
    """The same of one machine."""
    runner, session = guards.runner(runner_id), db.session()
    manager = session.get(RunnerManager, manager_id)
    if manager is None or manager.runner_id != runner.id:
        raise NotFound(NOTHING_HERE)
    found = job_lists.of_manager(session, guards.actor(), manager)
    return _page(runner, found, manager=manager, leaves_out=job_lists.leaves_out(session, guards.actor(), runner))


def count(runner: Runner) -> str:
    """How many jobs of the runner the person may see: "12", or "1,000+"."""
    session = db.session()
    return str(job_lists.count(session, job_lists.of_runner(session, guards.actor(), runner)))


def _page(runner: Runner, found: JobList, *, waiting: Sequence[Job] = (), **more: Any) -> Response:
    session, status = db.session(), request.args.get("status", "")
    narrowed = job_lists.narrowed(found, JobFilter(statuses=STATUSES.get(status, ())))
    page = job_lists.page(session, narrowed, after=number("after"), before=number("before"), size=PAGE_SIZE)
    total = job_lists.count(session, narrowed)
    shown = seen(shown_rows(page.jobs), shown_rows(waiting), total)
    if request.args.get("seen") == shown:
        return Response(status=204)
    machines = job_lists.machines_of(session, page.jobs)
    remember_projects(page.jobs)
    return make_response(
        render_template(
            "runners/jobs.html",
            scope=guards.scope(),
            runner=runner,
            page=page,
            waiting=waiting,
            total=str(total),
            looked_through=job_walks.LOOKED_THROUGH,
            jobs_total=count(runner),
            machines=machines,
            known=_known(machines),
            status=status if status in STATUSES else "",
            statuses=STATUSES,
            address={name: each for name in ("after", "before") if (each := number(name)) is not None},
            seen=shown,
            times=job_times,
            moment=now(),
            **more,
        )
    )


def _waiting(runner: Runner) -> Sequence[Job]:
    found = job_lists.checks_of(runner).with_status([JobStatus.PENDING])
    return job_walks.walk(db.session(), found, size=MOST_WAITING).jobs


def _known(machines: dict[int, JobMachine]) -> set[int]:
    """The numbers of those machines that are there still."""
    ids = {each.runner_machine_id for each in machines.values()}
    return set(db.session().scalars(select(RunnerManager.id).where(RunnerManager.id.in_(ids)))) if ids else set()


def mount(blueprint: Blueprint) -> None:
    """Give a scope's blueprint these pages."""
    one = "/<int:runner_id>"
    blueprint.add_url_rule(f"{one}/jobs", "jobs", jobs)
    blueprint.add_url_rule(f"{one}/machines/<int:manager_id>/jobs", "machine_jobs", machine_jobs)
