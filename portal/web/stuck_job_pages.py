"""Why a job waits, as a part of its page that refreshes itself; and the page of the jobs that a runner could take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, g, make_response, render_template, request

from portal.database import db
from portal.domain.jobs import stuck_jobs, takeable_jobs
from portal.domain.jobs.stuck_jobs import Explanation
from portal.domain.permissions import Action
from portal.domain.runners import runner_access
from portal.domain.scopes import of_runner
from portal.models import Job, JobStatus
from portal.web import guards, refreshing, runner_job_pages
from portal.web.job_facts import remember_projects
from portal.web.numbers import number

FURTHEST = 10_000  # jobs into a list


def why(job: Job) -> Explanation | None:
    """What `jobs/_stuck.html` says of a job that waits; None for one that does not, and for a check.

    Found out once in a request: the view asks, and then its template.
    """
    if job.state is not JobStatus.PENDING or job.is_check:
        return None
    known: dict[int, Explanation] = g.setdefault("why_stuck", {})
    if job.id not in known:
        known[job.id] = stuck_jobs.of_job(db.session(), guards.actor(), job)
    return known[job.id]


def seen(explanation: Explanation) -> str:
    """Differs when something is said that was not said before; the times on the page go on by themselves."""
    rows = [(each.runner.id, each.readiness, each.status, each.reason) for each in explanation.can]
    others = [(each.runner.id, each.reason and each.reason.message, each.status) for each in explanation.others]
    counts = (explanation.hidden_takers, explanation.hidden_others, explanation.beyond, explanation.elsewhere)
    return refreshing.seen(explanation.headline, rows, others, counts)


def mount(blueprint: Blueprint, find: Callable[..., Job], address_of: Callable[[Job], str], at: str) -> None:
    """Give the blueprint of a job's page the part that says why it waits."""

    def stuck(**place: Any) -> Response:
        """Which runners can take the job. 204 while nothing has changed, 286 when it waits no more."""
        job = find(**place)
        explanation = why(job)
        if explanation is not None and request.args.get("seen") == seen(explanation):
            return Response(status=204)
        page = render_template("jobs/_stuck.html", scope=guards.scope(), job=job, base=address_of(job))
        return make_response(page, 200 if explanation is not None else refreshing.STOP_POLLING)

    blueprint.add_url_rule(f"{at}/stuck", "stuck", stuck)


def pending(runner_id: int) -> str:
    """The jobs that wait and that the runner could take, in the order of their turns."""
    runner, session = guards.runner(runner_id), db.session()
    offset = min(number("from") or 0, FURTHEST)
    found = takeable_jobs.takeable(session, guards.actor(), runner, offset=offset)
    remember_projects(found.page.rows)
    return render_template(
        "runners/pending.html",
        scope=guards.scope(),
        runner=runner,
        found=found,
        jobs_total=runner_job_pages.count(runner),
        writable=runner_access.may(session, guards.actor(), Action.WRITE_RUNNERS, runner),
        owner=of_runner(runner),
        offset=offset,
        size=takeable_jobs.PAGE_SIZE,
        listed=takeable_jobs.LISTED,
    )


def mount_on_runners(blueprint: Blueprint) -> None:
    """Give a scope's blueprint of runners the page of the jobs that one could take."""
    blueprint.add_url_rule("/<int:runner_id>/pending", "pending", pending)
