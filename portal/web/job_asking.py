"""What the forms of jobs and templates have in common: what they begin with, what stands beside the fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from portal.database import db
from portal.domain.errors import Invalid, NotAllowed, Stale
from portal.domain.jobs import job_definitions, job_rules, job_templates, jobs
from portal.domain.jobs.job_definitions import NewJob, Undecryptable
from portal.domain.permissions import Action
from portal.domain.runners import runner_lists
from portal.models import Job, JobStatus
from portal.requests import job_vault
from portal.web import guards
from portal.web.numbers import number

SUGGESTED = 40  # tags
Made = TypeVar("Made")


def from_address() -> NewJob | None:
    """What the job (`?from=`) or template (`?template=`) in the address asked for, for who may run it.

    With its secrets, which are in their reach already. Raises NotFound, NotAllowed, Invalid.
    """
    session, scope = db.session(), guards.scope()
    if (job_id := number("from")) is not None:
        return _asked_in(jobs.find(session, guards.actor(), scope, job_id))
    if (template_id := number("template")) is not None:
        template = job_templates.find(session, guards.actor(), scope, template_id)
        job_templates.require_write(session, guards.actor(), template)
        return job_templates.opened(template, job_vault())
    return None


def waiting() -> Job | None:
    """The job in the address (`?from=`), if it still waits: the new one may come in its place."""
    job_id = number("from")
    job = jobs.find(db.session(), guards.actor(), guards.scope(), job_id) if job_id is not None else None
    return job if job is not None and job.state is JobStatus.PENDING else None


def usual_ref() -> str:
    """The ref that an empty form begins with; none where that is protected and the person may not run such jobs."""
    session, project = db.session(), guards.scope().project
    assert project is not None  # noqa: S101
    usual = NewJob(name="", script=()).ref
    protected = job_rules.counts_as_protected(session, project, usual, None)
    return "" if protected and not guards.allowed(Action.WRITE_PROTECTED_JOBS) else usual


def _asked_in(job: Job) -> NewJob:
    jobs.require_write(db.session(), guards.actor(), job)
    try:
        return job_definitions.opened(job.definition, job_vault())
    except Undecryptable:
        raise Invalid(
            {
                "job": [
                    "What is secret in this job cannot be read any more: its encryption key is gone. Write it anew."
                ]
            }
        ) from None


def sent_once(submit: Callable[[], Made]) -> Made:
    """The job of a form. Of two sendings at the same moment the later finds what the earlier has made."""
    try:
        return submit()
    except Stale:
        db.session.rollback()
        return submit()


def beside_the_ref(refused: Invalid | NotAllowed) -> Invalid:
    """The refusal for a form that may be sent, only not for this ref: nothing that was typed is to be lost for it."""
    if isinstance(refused, Invalid):
        return refused
    way_out = (
        "Or write another branch, or choose “No” beside it: then runners that are protected do not take the job."
    )
    return Invalid({"ref": [f"{refused} {way_out}"]})


def words(before: NewJob | None) -> dict[str, Any]:
    """What every such form needs besides its fields: suggestions, the project's rules, which secrets go on."""
    session, scope = db.session(), guards.scope()
    assert scope.project is not None  # noqa: S101
    return {
        "scope": scope,
        "suggested": runner_lists.tags_in(session, scope, limit=SUGGESTED),
        "rules": job_rules.settings_of(session, scope.project),
        "usual_ref": usual_ref(),
        "may_protect": guards.allowed(Action.WRITE_PROTECTED_JOBS),
        "masked_before": {each.key for each in before.variables if each.masked} if before else set(),
        "most_retries": job_definitions.MOST_RETRIES,
    }
