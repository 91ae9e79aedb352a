"""The named jobs that a project keeps: list with a button that runs each, new, edit, delete."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Blueprint, flash, redirect, render_template, request
from werkzeug.wrappers import Response

from portal.addresses import url_in
from portal.database import db
from portal.domain.errors import Invalid, NotAllowed, Stale
from portal.domain.jobs import job_templates
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.permissions import Action
from portal.models import JobTemplate
from portal.requests import job_vault
from portal.web import guards, job_asking
from portal.web.errors import STATUS
from portal.web.forms import EmptyForm, new_key
from portal.web.job_form import MORE_ROWS, JobForm

Page = str | Response | tuple[str, int]


def index() -> str:
    """The templates by name, each with its button."""
    scope = guards.scope()
    return render_template(
        "jobs/templates.html",
        scope=scope,
        rows=job_templates.rows(db.session(), guards.actor(), scope),
        new_key=new_key,
        form=EmptyForm(),
    )


def new() -> Page:
    """The form for a new template, empty or filled from a job."""
    guards.require(Action.WRITE_JOBS)
    before = job_asking.from_address()
    if request.method == "GET":
        return _page("jobs/new_template.html", JobForm(data=_values(before)), before)
    form = JobForm()
    if "more" in request.form:
        form.hide_masked()
        return _page("jobs/new_template.html", form, before, more=MORE_ROWS)
    try:
        made = job_templates.create(db.session(), guards.actor(), guards.scope(), form.wanted(before), job_vault())
    except (Invalid, NotAllowed) as refused:
        form.refuse(job_asking.beside_the_ref(refused))
        return _page("jobs/new_template.html", form, before), STATUS[type(refused)]
    db.session.commit()
    flash(f"{made.name} is kept. Run it from here whenever you like.")
    return redirect(url_in(guards.scope(), "jobs.templates"), 303)


def _values(before: NewJob | None) -> Any:
    return {**JobForm.values_of(before), "needs": ""} if before else {"ref": job_asking.usual_ref()}


def _page(name: str, form: JobForm, before: NewJob | None, more: int = 0, **about: Any) -> str:
    return render_template(name, form=form, more=more, for_template=True, **job_asking.words(before), **about)


def edit(template_id: int) -> Page:
    """Change what the template runs from now on."""
    session, actor = db.session(), guards.actor()
    template = _template(template_id)
    job_templates.require_write(session, actor, template)
    before = job_templates.opened(template, job_vault())
    if request.method == "GET":
        form = JobForm(data={**JobForm.values_of(before), "seen_version": job_templates.version_of(template)})
        return _edit_page(form, before, template)
    form = JobForm()
    if "more" in request.form:
        form.hide_masked()
        return _edit_page(form, before, template, more=MORE_ROWS)
    try:
        changed = job_templates.update(
            session, actor, template, form.wanted(before), job_vault(), seen=form.seen_version.data or None
        )
    except (Invalid, NotAllowed) as refused:
        form.refuse(job_asking.beside_the_ref(refused))
        return _edit_page(form, before, template), STATUS[type(refused)]
    except Stale as stale:
        session.rollback()
        form.seen_version.data = ""  # the next sending is on what stands now
        form.hide_masked()
        return _edit_page(form, before, _template(template_id), refusal=str(stale)), STATUS[Stale]
    db.session.commit()
    flash("Saved. Jobs that it made stay as they are." if changed else "Nothing was different, so nothing changed.")
    return redirect(url_in(guards.scope(), "jobs.templates"), 303)


def _edit_page(form: JobForm, before: NewJob, template: JobTemplate, more: int = 0, refusal: str = "") -> str:
    form.seen_version.data = form.seen_version.data or job_templates.version_of(template)
    return _page("jobs/edit_template.html", form, before, more, template=template, refusal=refusal)


def _template(template_id: int) -> JobTemplate:
    return job_templates.find(db.session(), guards.actor(), guards.scope(), template_id)


def run(template_id: int) -> Response:
    """Run the template's job, once for each page that the button stands on."""
    template = _template(template_id)
    try:
        job = job_asking.sent_once(
            lambda: job_templates.run(db.session(), guards.actor(), template, job_vault(), request_key=_request_key())
        )
    except Invalid as invalid:
        db.session.rollback()
        flash(f"{template.name} was not run. {invalid}", "warning")
        return redirect(url_in(guards.scope(), "jobs.templates"), 303)
    db.session.commit()
    return redirect(url_in(guards.scope(), "jobs.show", job_id=job.id), 303)


def _request_key() -> UUID | None:
    """The key of the button; a script that sends none runs the template each time."""
    try:
        return UUID(request.form.get("request_key", ""))
    except ValueError:
        return None


def delete(template_id: int) -> Page:
    """What goes and what stays, and the button."""
    template, session = _template(template_id), db.session()
    job_templates.require_write(session, guards.actor(), template)
    if request.method == "GET":
        return render_template("jobs/delete_template.html", scope=guards.scope(), template=template, form=EmptyForm())
    name = template.name
    job_templates.delete(session, guards.actor(), template)
    db.session.commit()
    flash(f"{name} is deleted. Jobs that it made stay.")
    return redirect(url_in(guards.scope(), "jobs.templates"), 303)


def mount(blueprint: Blueprint) -> None:
    """Give the blueprint of a project's jobs the pages of its templates."""
    both, one = ["GET", "POST"], "/templates/<int:template_id>"
    blueprint.add_url_rule("/templates", "templates", index)
    blueprint.add_url_rule("/templates/new", "new_template", new, methods=both)
    blueprint.add_url_rule(one, "edit_template", edit, methods=both)
    blueprint.add_url_rule(f"{one}/run", "run_template", run, methods=["POST"])
    blueprint.add_url_rule(f"{one}/delete", "delete_template", delete, methods=both)
