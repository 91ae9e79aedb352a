"""What the page of a job does, wherever the page stands: it refreshes itself, stops the job, runs it again.

The page of a project's job is in project_jobs.py; other blueprints mount the same acts below a page of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from portal.database import db
from portal.domain.errors import Invalid, Stale
from portal.domain.jobs import jobs
from portal.models import Job
from portal.requests import job_vault
from portal.web import guards, job_artifact_pages, job_log_pages
from portal.web.forms import EmptyForm
from portal.web.job_facts import AddressOf, JobFacts, facts, newer

FindJob = Callable[..., Job]


def shown(job: Job, address_of: AddressOf) -> dict[str, Any]:
    """What the templates of a job's page need; `jobs/_live.html` is all of it that refreshes itself."""
    found: JobFacts = facts(job, address_of, guards.scope())
    left = job_artifact_pages.shown(job)
    return {"scope": guards.scope(), "facts": found, "left": left, "form": EmptyForm()}


def live(job: Job, address_of: AddressOf) -> Response:
    """The parts of the page that refresh themselves. 204 while nothing has changed."""
    page = shown(job, address_of)
    if request.args.get("seen") == page["facts"].seen:
        return Response(status=204)
    return make_response(render_template("jobs/_live.html", **page))


def cancel(job: Job, address_of: AddressOf) -> BaseResponse:
    """Stop the job; `force` in the form does not wait for the machine."""
    try:
        after = jobs.cancel(db.session(), guards.actor(), job, force=request.form.get("force") == "true")
    except Stale as over:
        db.session.rollback()
        flash(str(over), "warning")
        return redirect(address_of(job), 303)
    db.session.commit()
    # The page itself says how a job goes that is still being canceled, and goes on saying what is true then.
    if after.state.is_over:
        flash("The job is canceled.")
    return redirect(address_of(after), 303)


def retry(job: Job, address_of: AddressOf) -> BaseResponse:
    """Run the same once more; sent twice, it leads to the run that the first sending made."""
    try:
        again = jobs.retry(db.session(), guards.actor(), job, job_vault())
    except (Invalid, Stale) as refused:
        db.session.rollback()
        later = newer(job)
        flash(f"It was run again already: this is {later.title}." if later else str(refused), "warning")
        return redirect(address_of(later or job), 303)
    db.session.commit()
    flash(f"It runs again, as #{again.id}.")
    return redirect(address_of(again), 303)


def mount(blueprint: Blueprint, find: FindJob, address_of: AddressOf, at: str = "/<int:job_id>") -> None:
    """Give a blueprint what goes with the page of a job: its live parts, cancel, retry, and the log.

    `find` gets what the address names, and returns the job or refuses; `address_of` tells where a job's page is.
    """

    def live_parts(**place: Any) -> Response:
        """How the job stands at this moment."""
        return live(find(**place), address_of)

    def cancel_job(**place: Any) -> BaseResponse:
        """Stop the job."""
        return cancel(find(**place), address_of)

    def retry_job(**place: Any) -> BaseResponse:
        """Run the job again."""
        return retry(find(**place), address_of)

    blueprint.add_url_rule(f"{at}/live", "live", live_parts)
    blueprint.add_url_rule(f"{at}/cancel", "cancel", cancel_job, methods=["POST"])
    blueprint.add_url_rule(f"{at}/retry", "retry", retry_job, methods=["POST"])
    job_log_pages.mount(blueprint, find, at)
