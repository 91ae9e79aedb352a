"""The start page: a person's groups and projects; the instance too for an administrator."""

from __future__ import annotations

from flask import Blueprint, render_template, request
from sqlalchemy import func, select

from portal.database import db, now
from portal.domain.groups import groups
from portal.domain.people import access_token_lists
from portal.domain.runners import runner_lists
from portal.domain.runners.runner_lists import RunnerFilter
from portal.domain.scopes import INSTANCE
from portal.domain.slices import first
from portal.models import Group, Project
from portal.web import guards

blueprint = Blueprint("start", __name__)
blueprint.before_request(guards.signed_in)

SHOWN = 100  # of each kind; more are found by typing


@blueprint.get("/")
def show() -> str:
    words = request.args.get("search", "").strip()
    actor, session = guards.actor(), db.session()
    all_groups, all_projects = groups.visible_groups(actor), groups.visible_projects(actor)
    if words:
        all_groups = all_groups.where(groups.named_like(words))
        all_projects = all_projects.where(groups.named_like(words))
    totals = [
        session.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0
        for query in (all_groups, all_projects)
    ]
    return render_template(
        "start/show.html",
        words=words,
        groups=first(session, all_groups, Group.id, limit=SHOWN),
        projects=first(session, all_projects, Project.id, limit=SHOWN),
        total_groups=totals[0],
        total_projects=totals[1],
        due=access_token_lists.due(session, guards.user_session().user, now()),
        counts=runner_lists.counts(session, INSTANCE, RunnerFilter()) if actor.is_admin else None,
    )
