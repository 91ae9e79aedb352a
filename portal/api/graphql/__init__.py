"""The third door, /api/graphql: GitLab's types for runners and jobs, for scripts and for people's browsers."""

from flask import Flask

from portal.api.graphql.schema import FILE
from portal.api.graphql.view import blueprint

__all__ = ["blueprint", "register"]


def register(app: Flask) -> None:
    app.register_blueprint(blueprint)
    app.extensions["graphql_schema"] = FILE.read_text()  # for the page that shows it
