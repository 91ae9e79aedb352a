"""The REST API for people and their scripts, below /api/v4: GitLab's contract, with an access token."""

from flask import Flask

from portal.api.for_users import (
    access_tokens,
    enrolment_keys,
    groups,
    job_artifacts,
    job_templates,
    jobs,
    members,
    metadata,
    namespaces,
    openapi,
    projects,
    registration_tokens,
    runner_jobs,
    runner_lists,
    runner_projects,
    runners,
    settings,
    stuck_jobs,
    user_runners,
    users,
)
from portal.api.for_users.door import blueprint

__all__ = [
    "access_tokens",
    "blueprint",
    "enrolment_keys",
    "groups",
    "job_artifacts",
    "job_templates",
    "jobs",
    "members",
    "metadata",
    "namespaces",
    "openapi",
    "projects",
    "register",
    "registration_tokens",
    "runner_jobs",
    "runner_lists",
    "runner_projects",
    "runners",
    "settings",
    "stuck_jobs",
    "user_runners",
    "users",
]


def register(app: Flask) -> None:
    app.register_blueprint(blueprint)
    openapi.register(app)
