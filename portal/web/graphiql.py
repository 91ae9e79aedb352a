"""GraphiQL: where signed-in people write queries, try them, and read the schema."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, make_response, render_template

from portal.database import db
from portal.domain.groups import groups
from portal.web import guards, static_files

blueprint = Blueprint("graphiql", __name__, url_prefix="/-/graphql-explorer")
blueprint.before_request(guards.signed_in)

PARTS = ("vendor/graphiql.min.css", "vendor/react.min.js", "vendor/react-dom.min.js", "vendor/graphiql.min.js")
# GraphiQL brings its fonts inside its style sheet. Everything else is as strict as on the other pages.
POLICY = (
    "default-src 'self'; img-src 'self' data:; font-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)


@blueprint.get("")
def show() -> Response:
    """The explorer. It asks with the person's session, so that what it changes they have changed."""
    first = db.session().scalar(groups.visible_groups(guards.actor()).limit(1))
    group = first.full_path if first is not None else ""
    weight = static_files.kilobytes(*PARTS)
    page = make_response(render_template("graphiql/show.html", schema=_schema(), group=group, kilobytes=weight))
    page.headers["Content-Security-Policy"] = POLICY
    return page


@blueprint.get("/schema")
def schema() -> Response:
    """The schema as a file, for code generators and editors."""
    answer = Response(_schema(), mimetype="text/plain")
    answer.headers["Content-Disposition"] = 'attachment; filename="schema.graphql"'
    return answer


def _schema() -> str:
    found: str = current_app.extensions["graphql_schema"]
    return found
