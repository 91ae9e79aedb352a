"""The doors that gitlab-runner calls, with the runner's token in the body: /api/v4/runners, /api/v4/jobs."""

from flask import Flask

from portal.api.for_runners import job_artifacts, job_logs, jobs, registration
from portal.api.for_runners.door import blueprint

__all__ = ["blueprint", "job_artifacts", "job_logs", "jobs", "register", "registration"]


def register(app: Flask) -> None:
    app.register_blueprint(blueprint)
