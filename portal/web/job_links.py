"""The address of a job that needs no scope, for lists, messages and scripts."""

from __future__ import annotations

from flask import Blueprint, redirect
from werkzeug.wrappers import Response

from portal.addresses import url_in
from portal.database import db
from portal.domain import permissions, scopes
from portal.domain.errors import NOTHING_HERE, NotFound
from portal.domain.permissions import Action
from portal.domain.runners import runner_access
from portal.models import Job, Runner
from portal.web import guards

blueprint = Blueprint("job_links", __name__, url_prefix="/-/jobs")
blueprint.before_request(guards.signed_in)


@blueprint.get("/<int:job_id>")
def show(job_id: int) -> Response:
    """To the job's page in its project, or in a scope of the runner that it checks, for who may see it there."""
    session = db.session()
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(NOTHING_HERE)
    if job.checks_runner is not None:
        return redirect(_of_check(job, job.checks_runner))
    if job.project is not None and job.project.deletion_id is None:
        place = scopes.of_project(job.project)
        if permissions.may(session, guards.actor(), Action.READ_JOBS, place):
            return redirect(url_in(place, "jobs.show", job_id=job.id))
    raise NotFound(NOTHING_HERE)


def _of_check(job: Job, runner: Runner) -> str:
    """The check's page where the person may see it. Raises NotFound."""
    if runner.deletion_id is not None:
        raise NotFound(NOTHING_HERE)
    place = runner_access.place_of(db.session(), guards.actor(), runner)
    return url_in(place, "runners.show_check", runner_id=runner.id, check_id=job.id)
