"""The jobs of one project: list, the form for a new one, and the page of each."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from flask import Response, flash, make_response, redirect, render_template, request
from markupsafe import Markup
from werkzeug.wrappers import Response as BaseResponse

from portal.addresses import url_in
from portal.database import db, now
from portal.domain.errors import Invalid, KeyReused, NotAllowed
from portal.domain.jobs import job_definitions, job_lists, job_times, job_walks, jobs
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.jobs.job_lists import JobFilter
from portal.domain.jobs.job_walks import Count
from portal.domain.permissions import Action
from portal.domain.scopes import ScopeKind, of_project
from portal.models import Job, JobStatus
from portal.requests import job_vault
from portal.web import (
    guards,
    job_artifact_pages,
    job_asking,
    job_log_pages,
    job_pages,
    job_template_pages,
    scoped,
    stuck_job_pages,
)
from portal.web.errors import STATUS
from portal.web.forms import new_key
from portal.web.job_facts import openable, shown_rows
from portal.web.job_form import MORE_ROWS, JobForm
from portal.web.numbers import number
from portal.web.refreshing import seen

Page = str | BaseResponse | tuple[str, int]
FILTERS = ("status", "search", "ref", "tag", "retried")
LONGEST = 255  # characters of a filter; nothing is called by more


def index() -> Response:
    """The project's jobs, newest first. 204 for a page that has these jobs and counts as they stand already."""
    session, scope = db.session(), guards.scope()
    wanted = _filter_from_address()
    everything = job_lists.of_project(scope)
    page = job_lists.page(
        session, job_lists.narrowed(everything, wanted), after=number("after"), before=number("before")
    )
    counts = job_lists.counts(session, job_lists.narrowed(everything, _of_any_status(wanted)))
    shown = seen(shown_rows(page.jobs), counts)
    if request.args.get("seen") == shown:
        return Response(status=204)
    kept = {name: value for name in FILTERS if (value := request.args.get(name, "")[:LONGEST])}
    return make_response(
        render_template(
            "jobs/index.html",
            scope=scope,
            wanted=wanted,
            page=page,
            machines=job_lists.machines_of(session, page.jobs),
            open_runners=openable(scope, page.jobs),
            counts=counts,
            counted=_counted(counts, wanted),
            looked_through=job_walks.LOOKED_THROUGH,
            counted_among=job_walks.COUNTED,
            statuses=JobStatus,
            kept=kept,
            address={**kept, **{name: each for name in ("after", "before") if (each := number(name)) is not None}},
            seen=shown,
            times=job_times,
            moment=now(),
        )
    )


def _counted(counts: Mapping[JobStatus, Count], wanted: JobFilter) -> Count:
    """How many fit the whole filter."""
    chosen = [counts[status] for status in wanted.statuses or JobStatus]
    return Count(sum(each.number for each in chosen), all(each.whole for each in chosen))


def _filter_from_address() -> JobFilter:
    """The filter in the address; values that mean nothing count as not set."""
    statuses = {status.value: status for status in JobStatus}
    chosen = [statuses[each] for each in request.args.getlist("status") if each in statuses]
    text = {name: request.args.get(name, "").replace("\0", "")[:LONGEST].strip() for name in ("search", "ref", "tag")}
    return JobFilter(
        tuple(chosen), text["search"], text["ref"], text["tag"], with_retried=request.args.get("retried") != "no"
    )


def _of_any_status(wanted: JobFilter) -> JobFilter:
    return JobFilter((), wanted.words, wanted.ref, wanted.tag, with_retried=wanted.with_retried)


def new() -> Page:
    """The form for a new job, empty or filled from a job or a template; sending it leads to the job's page."""
    guards.require(Action.WRITE_JOBS)
    before = job_asking.from_address()
    if request.method == "GET":
        return _new_page(
            JobForm(data=JobForm.values_of(before) if before else {"ref": job_asking.usual_ref()}), before
        )
    form = JobForm()
    if "more" in request.form:
        form.hide_masked()
        return _new_page(form, before, more=MORE_ROWS)
    try:
        asked, key = form.wanted(before), form.key()
        digest = job_definitions.digest(asked, key)
        job, left = job_asking.sent_once(lambda: _submitted(asked, key, digest, withdraw=form.withdraw.data))
    except KeyReused as repeated:
        return _sent_before(form, before), STATUS[type(repeated)]
    except (Invalid, NotAllowed) as refused:
        db.session.rollback()
        form.refuse(job_asking.beside_the_ref(refused))
        return _new_page(form, before), STATUS[type(refused)]
    db.session.commit()
    if left is not None:
        flash(Markup('<a href="{}">{}</a> {}').format(address_of(left), left.title, _goes_on(left)), "warning")
    return redirect(address_of(job), 303)


def _submitted(asked: NewJob, key: UUID, digest: bytes, *, withdraw: bool) -> tuple[Job, Job | None]:
    """The new job, and the one that the form was filled from where that one waits or runs on."""
    session, actor = db.session(), guards.actor()
    old = job_asking.waiting()
    over = old is None or (withdraw and jobs.withdraw(session, actor, old))
    job = jobs.submit(session, actor, guards.scope(), asked, job_vault(), request_key=key, request_digest=digest)
    return job, None if over else old


def _goes_on(old: Job) -> str:
    if old.state is JobStatus.PENDING:
        return "still waits beside this one. Its page has a button that cancels it."
    return "was taken by a runner meanwhile, so it was not canceled and goes on."


def _sent_before(form: JobForm, before: NewJob | None) -> str:
    """The form once more, for who went back after sending it, changed it and sent it again."""
    db.session.rollback()
    form.request_key.data = new_key()
    form.hide_masked()
    flash(
        "This form was sent before with other values, and a job came of it. To run these as one more job, press "
        "“Run job” again."
    )
    return _new_page(form, before)


def _new_page(form: JobForm, before: NewJob | None, more: int = 0) -> str:
    waiting = job_asking.waiting()
    if request.method == "GET":
        form.withdraw.data = waiting is not None
    return render_template("jobs/new.html", form=form, more=more, waiting=waiting, **job_asking.words(before))


def show(job_id: int) -> str:
    """Everything about one job, with its log."""
    job = find(job_id)
    page = job_pages.shown(job, address_of)
    return render_template("jobs/show.html", log=job_log_pages.shown(job), **page)


def find(job_id: int) -> Job:
    """The job of the page. Raises NotFound."""
    return jobs.find(db.session(), guards.actor(), guards.scope(), job_id)


def address_of(job: Job) -> str:
    """Where the job's page is."""
    assert job.project is not None  # noqa: S101
    return url_in(of_project(job.project), "jobs.show", job_id=job.id)


blueprint = scoped.room(ScopeKind.PROJECT, "jobs", Action.READ_JOBS)
blueprint.add_url_rule("", "index", index)
blueprint.add_url_rule("/new", "new", new, methods=["GET", "POST"])
blueprint.add_url_rule("/<int:job_id>", "show", show)
job_pages.mount(blueprint, find, address_of)
job_artifact_pages.mount(blueprint, find)
job_template_pages.mount(blueprint)
stuck_job_pages.mount(blueprint, find, address_of, "/<int:job_id>")
