"""The projects of a project's runner: which it serves, and assigning it to further ones."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request
from werkzeug.wrappers import Response

from portal.addresses import url_in
from portal.database import db
from portal.domain import scopes
from portal.domain.errors import NOTHING_HERE, Invalid, NotFound
from portal.domain.runners import runner_projects
from portal.domain.scopes import Scope
from portal.models import Project, Runner
from portal.web import guards
from portal.web.forms import EmptyForm


def projects(runner_id: int) -> str:
    """The runner's projects, and a search over those it can be assigned to."""
    return _page(guards.own_runner(runner_id))


def _page(runner: Runner, problem: str = "") -> str:
    session, actor = db.session(), guards.actor()
    words, after = request.args.get("search", "")[:255], request.args.get("after", "")[:1024]
    sharable = runner_projects.may_share(session, actor, runner)
    return render_template(
        "runners/projects.html",
        scope=guards.scope(),
        runner=runner,
        assigned=runner_projects.assigned(session, actor, runner),
        sharable=sharable,
        candidates=runner_projects.candidates(session, actor, runner, words, after) if sharable else None,
        words=words,
        after=after,
        problem=problem,
        form=EmptyForm(),
    )


def assign(runner_id: int) -> Response | tuple[str, int]:
    """Let the runner serve one more project."""
    runner = guards.own_runner(runner_id)
    try:
        project = _project(request.form.get("project_id", ""))
        runner_projects.assign(db.session(), guards.actor(), runner, project)
    except Invalid as invalid:
        db.session.rollback()
        return _page(runner, str(invalid)), 422
    db.session.commit()
    flash(f"{runner.title} now takes jobs of {project.full_path} too.")
    return redirect(url_in(guards.scope(), "runners.projects", runner_id=runner.id))


def unassign(runner_id: int, project_id: int) -> Response:
    """Take the runner away from a project that it was assigned to."""
    runner = guards.runner(runner_id)
    project = _project(str(project_id))
    runner_projects.unassign(db.session(), guards.actor(), runner, project)
    db.session.commit()
    flash(f"{runner.title} takes no more jobs of {project.full_path}.")
    if guards.scope().project is not None and guards.scope().id == project.id:
        return redirect(url_in(guards.scope(), "runners.index"))  # it is not shown here any more
    return redirect(url_in(guards.scope(), "runners.projects", runner_id=runner.id))


def _project(number: str) -> Scope:
    found = db.session.get(Project, int(number)) if number.isdecimal() and len(number) < 19 else None
    if found is None:
        raise NotFound(NOTHING_HERE)
    return scopes.of_project(found)


def mount(blueprint: Blueprint) -> None:
    """Give a scope's blueprint these pages."""
    one = "/<int:runner_id>/projects"
    blueprint.add_url_rule(one, "projects", projects)
    blueprint.add_url_rule(one, "assign", assign, methods=["POST"])
    blueprint.add_url_rule(f"{one}/<int:project_id>/unassign", "unassign", unassign, methods=["POST"])
