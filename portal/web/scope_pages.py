"""Groups and projects themselves: their front page, new ones, renaming, deleting."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute
from werkzeug.wrappers import Response

from portal.addresses import scope_url
from portal.database import db
from portal.domain import scopes
from portal.domain.enrolment import enrolment_key_lists
from portal.domain.errors import Invalid
from portal.domain.groups import groups
from portal.domain.jobs import job_lists
from portal.domain.permissions import Action
from portal.domain.runners import runner_lists
from portal.domain.runners.runner_lists import RunnerFilter
from portal.domain.scopes import Scope, ScopeKind
from portal.models import Group, Project
from portal.web import deletions, guards, scoped
from portal.web.forms import ConfirmForm, NamingForm

SHOWN = 200


def show() -> str:
    """The front page of a group or project."""
    scope, session = guards.scope(), db.session()
    readable = guards.allowed(Action.READ_RUNNERS)
    return render_template(
        "scopes/show.html",
        scope=scope,
        subgroups=_children(scope, Group, Group.parent_id),
        projects=_children(scope, Project, Project.group_id),
        counts=runner_lists.counts(session, scope, RunnerFilter()) if readable else None,
    )


def new_group() -> Response | str | tuple[str, int]:
    """A new group, in this group or at the top."""
    return _new(Action.CREATE_GROUP, "group")


def new_project() -> Response | str | tuple[str, int]:
    """A new project in this group."""
    return _new(Action.CREATE_PROJECT, "project")


def _new(action: Action, what: str) -> Response | str | tuple[str, int]:
    parent, form = guards.scope(), NamingForm()
    guards.require(action)
    page = {"form": form, "scope": parent, "what": what}
    if request.method == "GET":
        return render_template("scopes/new.html", **page)
    session, actor = db.session(), guards.actor()
    try:
        if what == "group":
            made = scopes.of_group(groups.create_group(session, actor, parent, form.naming()))
        else:
            made = scopes.of_project(groups.create_project(session, actor, parent, form.naming()))
    except Invalid as invalid:
        form.refuse(invalid)
        return render_template("scopes/new.html", **page), 422
    db.session.commit()
    flash(f"The {what} {made.full_path} is created.")
    return redirect(scope_url(made))


def edit() -> Response | str | tuple[str, int]:
    """Name, path and description."""
    scope = guards.scope()
    guards.require(Action.RENAME)
    owner = scope.project or scope.group
    form = NamingForm(obj=owner)
    if request.method == "GET":
        return render_template("scopes/edit.html", form=form, scope=scope)
    try:
        groups.rename(db.session(), guards.actor(), scope, form.naming())
    except Invalid as invalid:
        form.refuse(invalid)
        return render_template("scopes/edit.html", form=form, scope=scope), 422
    db.session.commit()
    flash("Saved.")
    return redirect(scope_url(scope))


def delete() -> Response | str | tuple[str, int]:
    """What would go with it, and the button."""
    scope, form = guards.scope(), ConfirmForm()
    guards.require(Action.DELETE)
    what = groups.contents(db.session(), scope)
    keys = enrolment_key_lists.count_below(db.session(), scope)
    running, waiting = job_lists.unfinished_in(db.session(), groups.below(scope)[1])
    page = {"form": form, "scope": scope, "contents": what, "enrolment_keys": keys, "kept": deletions.kept()}
    page |= {"running": running, "waiting": waiting}
    if request.method == "GET":
        return render_template("scopes/delete.html", **page)
    if (form.typed.data or "").strip() != scope.full_path:
        form.typed.errors = [f"Type {scope.full_path} exactly, so that nothing is deleted by mistake."]
        return render_template("scopes/delete.html", **page), 422
    path = scope.full_path
    deletion_id = groups.delete(db.session(), guards.actor(), scope).id
    db.session.commit()
    flash(deletions.deleted(f"{path} is deleted", deletion_id))
    return redirect(url_for("start.show"))


_Parent = InstrumentedAttribute[int] | InstrumentedAttribute[int | None]


def _children(scope: Scope, model: type[Group] | type[Project], parent: _Parent) -> list[Group | Project]:
    if scope.group is None:
        return []
    query = select(model).where(parent == scope.group.id).order_by(func.lower(model.name)).limit(SHOWN)
    return list(db.session.scalars(query))


def _front(kind: ScopeKind, prefix: str) -> Blueprint:
    blueprint = Blueprint(f"{kind}_front", __name__, url_prefix=prefix)
    scoped.guard(blueprint, kind, Action.SEE)
    both = ["GET", "POST"]
    blueprint.add_url_rule("", "show", show)
    blueprint.add_url_rule("/-/edit", "edit", edit, methods=both)
    blueprint.add_url_rule("/-/delete", "delete", delete, methods=both)
    if kind is ScopeKind.GROUP:
        blueprint.add_url_rule("/-/groups/new", "new_group", new_group, methods=both)
        blueprint.add_url_rule("/-/projects/new", "new_project", new_project, methods=both)
    return blueprint


def _top() -> Blueprint:
    blueprint = Blueprint("instance_front", __name__, url_prefix="/admin")
    scoped.guard(blueprint, ScopeKind.INSTANCE, Action.CREATE_GROUP)
    blueprint.add_url_rule("/groups/new", "new_group", new_group, methods=["GET", "POST"])
    return blueprint


blueprints = [
    _top(),
    _front(ScopeKind.GROUP, "/groups/<path:group_path>"),
    _front(ScopeKind.PROJECT, "/<project:project_path>"),
]
