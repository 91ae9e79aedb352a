"""The address of a runner that needs no scope: error messages that machines print lead people to it."""

from __future__ import annotations

from flask import Blueprint, redirect, url_for
from werkzeug.wrappers import Response

from portal.addresses import url_in
from portal.database import db
from portal.domain.deletions import deletion_lists
from portal.domain.runners import runner_access
from portal.models import Runner
from portal.requests import settings
from portal.web import guards

blueprint = Blueprint("runner_links", __name__, url_prefix="/-/runners")
blueprint.before_request(guards.signed_in)


@blueprint.get("/<int:runner_id>")
def show(runner_id: int) -> Response:
    """To the runner's page in the scope that owns it or a project it serves, for who may see it there."""
    session = db.session()
    runner = session.get(Runner, runner_id)
    if runner is None:
        return _to_restoring(runner_id)
    place = runner_access.place_of(session, guards.actor(), runner)
    return redirect(url_in(place, "runners.show", runner_id=runner.id))


def _to_restoring(runner_id: int) -> Response:
    """To the page that restores a deleted runner, for who may do that. Raises NotFound."""
    entry = deletion_lists.of_runner(db.session(), guards.actor(), runner_id, settings().deleted_kept)
    if entry.deletion.kind == "runners":
        page = url_for("deletions.restore_runner", deletion_id=entry.deletion.id, deleted_runner_id=runner_id)
        return redirect(page)
    return redirect(url_for("deletions.restore", deletion_id=entry.deletion.id))
