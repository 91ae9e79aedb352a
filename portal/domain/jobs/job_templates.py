"""Named jobs that a project keeps to run again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, joinedload

from portal.database import now
from portal.domain import audit, permissions
from portal.domain.actors import Actor
from portal.domain.errors import NOTHING_HERE, Invalid, NotFound, Stale
from portal.domain.jobs import job_definitions, job_rules, jobs
from portal.domain.jobs.job_definitions import NewJob, Undecryptable
from portal.domain.permissions import Action
from portal.domain.scopes import Scope, is_there, of_project
from portal.domain.vault import Vault
from portal.models import Job, JobDefinition, JobTemplate, Project

MOST_TEMPLATES = 200  # of one project
# What the trail says of a change; of all else only that it was changed: a script may be long, a value secret.
_TOLD = ("name", "ref", "protected", "tags", "image", "timeout", "retry")


def in_project(scope: Scope) -> Select[JobTemplate]:
    """The project's templates by name; the caller has asked who may see its jobs."""
    query = select(JobTemplate).where(JobTemplate.project_id == scope.id)
    query = query.options(joinedload(JobTemplate.definition), joinedload(JobTemplate.creator))
    return query.order_by(func.lower(JobTemplate.name), JobTemplate.id)


@dataclass(frozen=True, slots=True)
class Row:
    """A template in a list: whether its ref counts as protected, and whether the actor may run and change it."""

    template: JobTemplate
    protected: bool
    writable: bool


def rows(session: Session, actor: Actor, scope: Scope) -> list[Row]:
    """All templates of the project by name, with two queries; the caller has asked who may see its jobs."""
    if scope.project is None:
        raise NotFound(NOTHING_HERE)
    patterns = job_rules.settings_of(session, scope.project).protected_refs
    found = []
    for each in session.scalars(in_project(scope)).unique():
        said, ref = each.definition.config["protected"], each.definition.config["ref"]
        protected = job_rules.is_protected(ref, patterns) if said is None else bool(said)
        found.append(Row(each, protected, permissions.may(session, actor, _action(protected), scope)))
    return found


def _action(protected: bool) -> Action:
    return Action.WRITE_PROTECTED_JOBS if protected else Action.WRITE_JOBS


def find(session: Session, actor: Actor, scope: Scope, template_id: int) -> JobTemplate:
    """The project's template with this number. Raises NotFound or NotAllowed."""
    permissions.require(session, actor, Action.READ_JOBS, scope)
    found = session.scalar(in_project(scope).where(JobTemplate.id == template_id))
    if found is None or scope.project is None:
        raise NotFound(NOTHING_HERE)
    return found


def create(session: Session, actor: Actor, scope: Scope, new: NewJob, vault: Vault) -> JobTemplate:
    """Keep this job in the project by its name, which no other template there has, ignoring case.

    Raises Invalid, NotFound, or NotAllowed: one whose ref is protected needs the right to run it.
    """
    permissions.require(session, actor, Action.WRITE_JOBS, scope)
    project = scope.project
    if project is None or not is_there(session, scope):
        raise NotFound(NOTHING_HERE)
    _check(session, actor, project, new)
    count = session.scalar(select(func.count()).select_from(JobTemplate).where(JobTemplate.project_id == project.id))
    if (count or 0) >= MOST_TEMPLATES:
        raise Invalid({"template": [f"A project keeps at most {MOST_TEMPLATES} templates. Delete some first."]})
    _require_free_name(session, project.id, new.name)
    user_id = actor.user.id if actor.user is not None else None
    made = JobTemplate(project=project, name=new.name.strip(), creator_id=user_id)
    made.definition = job_definitions.stored(new, vault)
    _save(session, made)
    audit.record(session, actor, "job_template_created", made, scope, {"ref": (None, new.ref)})
    return made


def _check(session: Session, actor: Actor, project: Project, new: NewJob) -> None:
    problems = new.problems()
    if new.needs:
        problems["needs"] = ["A template needs no other jobs: their numbers are of jobs that have run already."]
    if problems:
        raise Invalid(problems)
    permissions.require(session, actor, _writing(session, project, new), of_project(project))


def _writing(session: Session, project: Project, asked: NewJob) -> Action:
    return _action(job_rules.counts_as_protected(session, project, asked.ref, asked.protected))


def _require_free_name(session: Session, project_id: int, name: str, but: int | None = None) -> None:
    same = (JobTemplate.project_id == project_id) & (func.lower(JobTemplate.name) == func.lower(name.strip()))
    if session.scalar(select(JobTemplate.id).where(same, JobTemplate.id.is_distinct_from(but))) is not None:
        raise Invalid({"name": [_taken(name)]})


def _taken(name: str) -> str:
    return f"This project has a template {name.strip()} already. Change that one, or choose another name."


def _save(session: Session, template: JobTemplate) -> None:
    """Write the template. Raises Invalid when somebody has taken its name meanwhile."""
    name = template.name
    try:
        with session.begin_nested():
            session.add(template)
            session.flush()
    except IntegrityError:
        raise Invalid({"name": [_taken(name)]}) from None


def opened(template: JobTemplate, vault: Vault) -> NewJob:
    """What the template runs, with what is secret in it. Raises Invalid when that cannot be read any more."""
    try:
        return job_definitions.opened(template.definition, vault)
    except Undecryptable:
        raise Invalid(
            {
                "template": [
                    "What is secret in it cannot be read: its encryption key is not configured any more. Ask an "
                    "administrator for the key, or delete the template and keep the job anew."
                ]
            }
        ) from None


def may_write(session: Session, actor: Actor, template: JobTemplate) -> bool:
    """Whether the actor may run, change and delete the template."""
    return permissions.may(session, actor, _writing_of(session, template), of_project(template.project))


def require_write(session: Session, actor: Actor, template: JobTemplate) -> None:
    """Refuse who may not. Raises NotFound or NotAllowed."""
    permissions.require(session, actor, _writing_of(session, template), of_project(template.project))


def is_protected(session: Session, template: JobTemplate) -> bool:
    """Whether the template's ref counts as protected at this moment."""
    return _writing_of(session, template) is Action.WRITE_PROTECTED_JOBS


def _writing_of(session: Session, template: JobTemplate) -> Action:
    config = template.definition.config
    return _action(job_rules.counts_as_protected(session, template.project, config["ref"], config["protected"]))


def version_of(template: JobTemplate) -> str:
    """An opaque text that differs after every change."""
    return template.updated_at.isoformat()


def update(
    session: Session, actor: Actor, template: JobTemplate, new: NewJob, vault: Vault, *, seen: str | None = None
) -> bool:
    """Let the template run this from now on; returns whether anything changed. Jobs that it made stay as they are.

    `seen` is the version that the person decided on. Raises Invalid, NotFound, NotAllowed, or Stale when somebody
    else has changed the template since.
    """
    require_write(session, actor, template)
    held = select(JobTemplate).where(JobTemplate.id == template.id).with_for_update(of=JobTemplate)
    found = session.scalar(held.execution_options(populate_existing=True))
    if found is None:
        raise NotFound(NOTHING_HERE)
    if seen is not None and seen != version_of(found):
        raise Stale("Somebody changed this template while you did. Look at what stands now before you save yours.")
    _check(session, actor, found.project, new)
    _require_free_name(session, found.project_id, new.name, found.id)
    definition = job_definitions.stored(new, vault)
    changes = _differences(found.definition, definition, vault)
    if not changes:
        return False
    found.name, found.definition, found.updated_at = new.name.strip(), definition, now()
    _save(session, found)
    audit.record(session, actor, "job_template_updated", found, of_project(found.project), changes)
    return True


def _differences(old: JobDefinition, new: JobDefinition, vault: Vault) -> dict[str, tuple[Any, Any]]:
    """What differs, in the trail's words; without a secret."""
    found = audit.differences(old.config, new.config)
    told = {name: change for name, change in found.items() if name in _TOLD}
    further = [name for name in found if name not in _TOLD and name != "variable_names"]
    if vault.open(old.ciphertext) != vault.open(new.ciphertext):
        further.append("variables or repository")
    return {**told, **dict.fromkeys(further, (None, "changed"))}


def run(
    session: Session, actor: Actor, template: JobTemplate, vault: Vault, *, request_key: UUID | None = None
) -> Job:
    """Submit the template's job; the same `request_key` sent again gives the first job again.

    Raises Invalid, NotFound, NotAllowed, Stale, KeyReused.
    """
    require_write(session, actor, template)
    scope = of_project(template.project)
    return jobs.submit(session, actor, scope, opened(template, vault), vault, request_key=request_key)


def delete(session: Session, actor: Actor, template: JobTemplate) -> None:
    """Keep the template no longer; jobs that it made stay. Raises NotFound or NotAllowed."""
    require_write(session, actor, template)
    audit.record(session, actor, "job_template_deleted", template, of_project(template.project))
    session.delete(template)
    session.flush()
