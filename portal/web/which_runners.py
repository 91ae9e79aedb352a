"""Which runners take a job like this? Asked without a job: of one project, or by administrators of any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import render_template, request

from portal.database import db
from portal.domain import permissions, scopes
from portal.domain.errors import Invalid, NotFound
from portal.domain.jobs import job_rules, stuck_jobs
from portal.domain.permissions import Action
from portal.domain.runners import runner_lists
from portal.domain.runners.runner_settings import split_tags
from portal.domain.scopes import Scope, ScopeKind
from portal.web import guards, scoped
from portal.web.errors import STATUS

LONGEST = 20_000  # characters that are read of a field
SUGGESTED = 30  # tags


@dataclass(frozen=True, slots=True)
class Asked:
    """What stands in the address. `protected` None: as the project's patterns say of the ref."""

    is_asked: bool
    project: str
    tags: str
    ref: str
    protected: bool | None

    @classmethod
    def in_address(cls) -> Asked:
        args = request.args
        return cls(
            is_asked="tags" in args,
            project=args.get("project", "").strip().strip("/")[:LONGEST],
            tags=args.get("tags", "")[:LONGEST],
            ref=(args.get("ref", "main").strip() or "main")[:LONGEST],
            protected={"yes": True, "no": False}.get(args.get("protected", "")),
        )


def show() -> str | tuple[str, int]:
    """The form, and below it the answer to what stands in the address."""
    asked, here = Asked.in_address(), guards.scope()
    problems: dict[str, list[str]] = {}
    project, explanation = None, None
    try:
        project = here if here.project is not None else _chosen(asked)
        if project is not None and asked.is_asked:
            explanation = stuck_jobs.explain(
                db.session(),
                guards.actor(),
                project,
                tags=split_tags(asked.tags),
                ref=asked.ref,
                protected=asked.protected,
            )
    except Invalid as invalid:
        problems = invalid.problems
    page = render_template(
        "jobs/which_runners.html",
        scope=here,
        project=project,
        asked=asked,
        problems=problems,
        why=explanation,
        **_to_choose_from(project),
    )
    return (page, STATUS[Invalid]) if problems else page


def _chosen(asked: Asked) -> Scope | None:
    """The project that an administrator names. Raises Invalid for one that is not there."""
    if not asked.is_asked:
        return None
    if not asked.project:
        raise Invalid({"project": ["Write the full path of a project, such as acme/web."]})
    try:
        return scopes.find_project(db.session(), asked.project)
    except NotFound:
        raise Invalid({"project": [f"There is no project “{asked.project[:100]}”."]}) from None


def _to_choose_from(project: Scope | None) -> dict[str, Any]:
    """The project's protected refs, and the tags of the runners in reach for those who may see these."""
    if project is None or project.project is None:
        return {"patterns": (), "suggested": ()}
    session = db.session()
    knows = permissions.may(session, guards.actor(), Action.READ_RUNNERS, project)
    return {
        "patterns": job_rules.settings_of(session, project.project).protected_refs,
        "suggested": runner_lists.tags_in(session, project, limit=SUGGESTED) if knows else (),
    }


blueprints = [
    scoped.room(ScopeKind.PROJECT, "which_runners", Action.READ_JOBS),
    scoped.room(ScopeKind.INSTANCE, "which_runners", Action.READ_JOBS),
]
for _each in blueprints:
    _each.add_url_rule("", "show", show)
