"""The address of a runner that needs no scope: error messages that machines print lead people to it."""

from __future__ import annotations

from flask import Blueprint, redirect
from werkzeug.wrappers import Response

from portal.addresses import url_in
from portal.database import db
from portal.domain import permissions, scopes
from portal.domain.errors import NOTHING_HERE, NotFound
from portal.domain.permissions import Action
from portal.models import Runner
from portal.web import guards

blueprint = Blueprint("runner_links", __name__, url_prefix="/-/runners")
blueprint.before_request(guards.signed_in)


@blueprint.get("/<int:runner_id>")
def show(runner_id: int) -> Response:
    """To the runner's page in the scope that owns it, for those who may see it there."""
    session = db.session()
    runner = session.get(Runner, runner_id)
    if runner is None:
        raise NotFound(NOTHING_HERE)
    owner = scopes.of_runner(runner)
    if not permissions.may(session, guards.actor(), Action.READ_RUNNERS, owner):
        raise NotFound(NOTHING_HERE)
    return redirect(url_in(owner, "runners.show", runner_id=runner.id))
