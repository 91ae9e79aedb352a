"""Whether the process answers (`/healthz`) and whether it can work (`/readyz`)."""

from __future__ import annotations

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Blueprint, Response, jsonify
from sqlalchemy.exc import SQLAlchemyError

from portal.config import ROOT
from portal.database import db

blueprint = Blueprint("health", __name__)


@blueprint.before_request
def public() -> None:
    """Anybody may ask: a load balancer has no account. The answers tell nothing but yes and no."""


@blueprint.get("/healthz")
def alive() -> Response:
    return jsonify(status="ok")


@blueprint.get("/readyz")
def ready() -> tuple[Response, int]:
    try:
        with db.engine.connect() as connection:
            present = MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError:
        return jsonify(status="unavailable", reason="The database does not answer."), 503
    if present != newest_migration():
        return jsonify(
            status="unavailable", reason="Migrations are not current: run flask --app app db upgrade."
        ), 503
    return jsonify(status="ok"), 200


def newest_migration() -> str | None:
    """The number of the newest migration in this checkout."""
    return ScriptDirectory(str(ROOT / "migrations")).get_current_head()
