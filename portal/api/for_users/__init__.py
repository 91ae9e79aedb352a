"""The REST API for people and their scripts, below /api/v4: GitLab's contract, with an access token."""

from flask import Flask

from portal.api.for_users import metadata, runners, users
from portal.api.for_users.door import blueprint

__all__ = ["blueprint", "metadata", "register", "runners", "users"]


def register(app: Flask) -> None:
    app.register_blueprint(blueprint)
