"""`/projects/:id/job_templates`, which are ours: named jobs that a project keeps to run again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import func, select

from portal.api import credentials, idempotency
from portal.api.for_users import jobs, places
from portal.api.for_users.door import looking_for, operation
from portal.api.for_users.job_parameters import NAMES, JobFields, NewJobFields
from portal.api.for_users.job_shapes import JobShape, RepositoryShape
from portal.api.for_users.operations import Answer, Shape
from portal.api.for_users.paging import Page, Paged
from portal.api.for_users.parameters import Id
from portal.api.for_users.scope_parameters import OneProject, called
from portal.api.for_users.shapes import Moment, UserBasic, user_basic
from portal.database import db
from portal.domain import permissions
from portal.domain.errors import Invalid
from portal.domain.jobs import job_rows, job_templates, kept_secrets
from portal.domain.permissions import Action
from portal.models import JobTemplate
from portal.requests import job_vault

ROOM = "Job templates"
ALL = "/projects/<path:project>/job_templates"
ONE = f"{ALL}/<int:template_id>"


class WantedShape(Shape):
    """The files that are kept."""

    paths: list[str]
    exclude: list[str]
    name: str
    when: str
    expire_in: str


class VariableShape(Shape):
    """A variable. Its value is told to those who may run the template, unless it is masked."""

    key: str
    value: str | None
    masked: bool
    file: bool
    raw: bool


class TemplateShape(Shape):
    """A template in a list."""

    id: int
    name: str
    ref: str
    protected: bool | None
    tag_list: list[str]
    script: list[str]
    after_script: list[str]
    image: str
    services: list[str]
    timeout: int | None
    artifacts: WantedShape | None
    retry: int
    created_by: UserBasic | None
    created_at: Moment
    updated_at: Moment


class TemplateDetails(TemplateShape):
    """One template. `variables` and `repository` are null where their encryption key is not configured any more."""

    variables: list[VariableShape] | None
    repository: RepositoryShape | None


class TemplatesListed(Paged, OneProject):
    """A page of a project's templates."""


class TemplateMade(OneProject, NewJobFields):
    """A new template: what its jobs run."""


class OneTemplate(OneProject):
    """One template of a project."""

    template_id: Id


class TemplateChange(OneTemplate, JobFields):
    """What is to be different; the rest stays. A masked variable without a value keeps the one that it has."""


@operation("GET", ALL, room=ROOM, refuses=(400, 404))
def index(given: TemplatesListed) -> Page[TemplateShape]:
    """The project's templates, by name."""
    session, scope = db.session(), places.project(given.project)
    permissions.require(session, credentials.actor(), Action.READ_JOBS, scope)
    query = job_templates.in_project(scope)
    total = session.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0
    rows = session.scalars(query.limit(given.per_page).offset(given.offset))
    return Page([TemplateShape(**_attributes(each)) for each in rows], given, total)


@operation("POST", ALL, room=ROOM, status=201, refuses=(400, 404))
def create(given: TemplateMade) -> TemplateDetails:
    """Keep a job in the project, to run it again and again."""
    scope = places.project(given.project)
    with called(NAMES):
        made = job_templates.create(db.session(), credentials.actor(), scope, given.wanted(), job_vault())
    return _after(made)


@operation("GET", ONE, room=ROOM, refuses=(404,))
def show(given: OneTemplate) -> TemplateDetails:
    """One template."""
    return _details(_found(given))


@operation("PUT", ONE, room=ROOM, refuses=(400, 404, 409))
def update(given: TemplateChange) -> TemplateDetails:
    """Change some of what the template runs; jobs that it made stay as they are."""
    session, actor, template = db.session(), credentials.actor(), _found(given)
    job_templates.require_write(session, actor, template)
    before = job_templates.opened(template, job_vault())
    asked = kept_secrets.with_secrets(replace(before, **given.said()), before)
    with called(NAMES):
        job_templates.update(session, actor, template, asked, job_vault(), seen=job_templates.version_of(template))
    return _after(template)


@operation("DELETE", ONE, room=ROOM, refuses=(404,))
def delete(given: OneTemplate) -> None:
    """Keep a template no longer; jobs that it made stay."""
    job_templates.delete(db.session(), credentials.actor(), _found(given))
    db.session.commit()


@operation(
    "POST",
    f"{ONE}/run",
    room=ROOM,
    status=201,
    also=(200,),
    refuses=(400, 404, 409, 422),
    reads=(idempotency.HEADER,),
)
def run(given: OneTemplate) -> Answer[JobShape]:
    """Submit the template's job. `Idempotency-Key` is as when a job is submitted."""
    session, template = db.session(), _found(given)
    key = idempotency.of_template(template.id).request_key
    replayed = key is not None and job_rows.is_submitted(session, key)
    with called(NAMES):
        job = job_templates.run(session, credentials.actor(), template, job_vault(), request_key=key)
    return jobs.submitted(job, replayed=replayed)


def _found(given: OneTemplate) -> JobTemplate:
    scope = places.project(given.project)
    with looking_for("Job Template"):
        return job_templates.find(db.session(), credentials.actor(), scope, given.template_id)


def _after(template: JobTemplate) -> TemplateDetails:
    answer = _details(template)
    db.session.commit()
    return answer


def _attributes(template: JobTemplate) -> dict[str, Any]:
    config = template.definition.config
    same = ("ref", "protected", "script", "after_script", "image", "services", "timeout", "artifacts", "retry")
    return {name: config[name] for name in same} | {
        "id": template.id,
        "name": template.name,
        "tag_list": config["tags"],
        "created_by": UserBasic(**user_basic(template.creator)) if template.creator else None,
        "created_at": template.created_at,
        "updated_at": template.updated_at,
    }


def _details(template: JobTemplate) -> TemplateDetails:
    return TemplateDetails(**_attributes(template), **_secrets(template))


def _secrets(template: JobTemplate) -> dict[str, Any]:
    """The variables and the repository, without what is secret in them."""
    try:
        asked = kept_secrets.without_secrets(job_templates.opened(template, job_vault()))
    except Invalid:
        return {"variables": None, "repository": None}
    open_ = job_templates.may_write(db.session(), credentials.actor(), template)
    variables = [
        VariableShape(
            key=each.key,
            value=each.value if open_ and not each.masked else None,
            masked=each.masked,
            file=each.file,
            raw=each.raw,
        )
        for each in asked.variables
    ]
    checkout = asked.repository and RepositoryShape(url=asked.repository.url, commit=asked.repository.commit)
    return {"variables": variables, "repository": checkout}
