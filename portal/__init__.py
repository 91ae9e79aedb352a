"""The runner portal. `create_app` puts settings, extensions, blueprints and error pages together."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, request
from flask_login import LoginManager
from flask_migrate import Migrate
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.exceptions import HTTPException

from portal import access_token_commands, audit_commands, commands, embedded_postgres, health, request_logs
from portal.api import errors as api_errors
from portal.api import for_runners, for_users, graphql, refused_registrations
from portal.api import refused_acts as api_refused_acts
from portal.api.rate_limits import RateLimits
from portal.config import ROOT, SettingError, Settings
from portal.database import db, ran_into_each_other
from portal.domain.errors import Collided, Refusal
from portal.domain.jobs.artifact_store import ArtifactStore
from portal.domain.jobs.job_classes import KnownClasses
from portal.domain.jobs.log_watches import LogWatches
from portal.domain.jobs.queue_news import QueueNews
from portal.domain.last_uses import LastUses
from portal.domain.machines.heartbeats import Heartbeats
from portal.domain.machines.known_runners import KnownRunners
from portal.domain.machines.polls import Polls
from portal.domain.people.second_factor import Configured as SecondFactorConfigured
from portal.domain.people.second_factor import Demand
from portal.domain.registration.registration import Configured
from portal.domain.trail.refused_acts import Flood
from portal.domain.vault import JOB_SECRETS, SECOND_FACTORS, Vault
from portal.idle_polls import IdlePollsFirst, PollDoor
from portal.requests import HeadAsGet, PathPrefix, assign_request_id, harden_answer, label_api_answer
from portal.web import errors as web_errors
from portal.web import pages, refused_acts

__all__ = ["SettingError", "create_app"]

migrate = Migrate()
login = LoginManager()
csrf = CSRFProtect()


def create_app(settings: Settings | None = None) -> Flask:
    """A complete application. Without DATABASE_URL it starts, or attaches to, the embedded PostgreSQL.

    Raises SettingError for a setting that cannot be used.
    """
    settings = settings or Settings.from_environment()
    app = Flask("portal", root_path=str(ROOT), template_folder="templates", static_folder="static")
    _configure(app, settings)
    app.url_map.merge_slashes = False  # a doubled slash would be answered with a redirect, which loses a POST's body
    db.init_app(app)
    migrate.init_app(app, db, directory=str(ROOT / "migrations"))
    csrf.init_app(app)
    login.init_app(app)
    app.extensions["known_runners"] = KnownRunners()
    app.extensions["heartbeats"] = Heartbeats()
    app.extensions["session_uses"] = LastUses()
    app.extensions["token_uses"] = LastUses()
    app.extensions["machine_uses"] = LastUses()
    app.extensions["log_watches"] = LogWatches()
    app.extensions["queue_news"] = QueueNews()
    app.extensions["known_classes"] = KnownClasses()
    app.extensions["polls"] = Polls(
        app.extensions["known_runners"],
        app.extensions["heartbeats"],
        app.extensions["queue_news"],
        app.extensions["known_classes"],
    )
    app.extensions["job_vault"] = Vault(settings.encryption_keys, JOB_SECRETS)
    app.extensions["artifact_store"] = ArtifactStore(settings)
    app.extensions["rate_limits"] = RateLimits(settings)
    app.extensions["refused_registrations"] = Flood(each=1, most=60)
    app.extensions["refused_acts"] = Flood(each=30, most=600)
    app.extensions["refused_sign_ins"] = Flood(each=5, most=60)
    app.extensions["registration"] = Configured(
        enforced=settings.enforce_create_runner_workflow, vault=Vault(settings.encryption_keys)
    )
    app.extensions["second_factor"] = SecondFactorConfigured(
        Demand(settings.second_factor), Vault(settings.encryption_keys, SECOND_FACTORS)
    )
    request_logs.register(app)
    app.before_request(assign_request_id)
    app.after_request(label_api_answer)
    app.after_request(harden_answer)
    app.register_blueprint(health.blueprint)
    for_runners.register(app)
    csrf.exempt(for_runners.blueprint)
    for_users.register(app)
    csrf.exempt(for_users.blueprint)
    graphql.register(app)
    csrf.exempt(graphql.blueprint)
    pages.register(app, login)
    commands.register(app)
    audit_commands.register(app)
    access_token_commands.register(app)
    _answer_errors(app)
    behind_prefix = PathPrefix(app.wsgi_app, settings.path_prefix)
    app.extensions["poll_door"] = PollDoor(app)
    app.wsgi_app = IdlePollsFirst(HeadAsGet(behind_prefix), app.extensions["poll_door"])  # type: ignore[method-assign]
    return app


def _configure(app: Flask, settings: Settings) -> None:
    url = settings.database_url or embedded_postgres.start(settings.data_dir)[0]
    app.config.update(
        PORTAL=settings,
        SECRET_KEY=settings.secret_key,
        SQLALCHEMY_DATABASE_URI=url,
        SQLALCHEMY_ENGINE_OPTIONS={
            "pool_size": settings.threads + 4,
            "max_overflow": 4,
            "pool_pre_ping": True,
            "hide_parameters": True,  # a failed statement is logged without its values
            "connect_args": {
                "connect_timeout": 10,
                "options": "-c timezone=UTC",
                # Behind a pooler in transaction mode, what one prepared is not there for its next statement.
                **({"prepare_threshold": None} if settings.listen_url else {}),
            },
        },
        MAX_CONTENT_LENGTH=settings.max_body,
        MAX_FORM_MEMORY_SIZE=settings.max_body,
        SESSION_COOKIE_NAME=settings.session_cookie,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=settings.over_https,
        SESSION_COOKIE_PATH=settings.path_prefix or "/",
        # A form lives as long as the session: nothing typed is lost because somebody had lunch.
        WTF_CSRF_TIME_LIMIT=None,
    )


def _answer_errors(app: Flask) -> None:
    """Blueprint handlers do not see unknown paths, so the app's handlers look at the path themselves."""

    def answer(problem: Refusal | HTTPException | Exception) -> Any:
        door = api_errors if request.path.startswith("/api/") else web_errors
        return door.answer(problem)

    def on_refusal(refusal: Refusal) -> Any:
        db.session.rollback()
        note_refusal(refusal)
        return answer(refusal)

    def note_refusal(refusal: Refusal) -> None:
        """Whoever is refused hears so in any case, also where the trail cannot take it."""
        try:
            if request.path.startswith("/api/"):
                refused_registrations.note(refusal)
                api_refused_acts.note(refusal)
            else:
                refused_acts.note(refusal)
        except Exception:
            db.session.rollback()
            app.logger.exception("a refusal could not be put on the trail")

    def on_http(problem: HTTPException) -> Any:
        if isinstance(problem.response, Response):
            return problem.response
        return answer(problem)

    def on_failure(failure: Exception) -> Any:
        db.session.rollback()
        if ran_into_each_other(failure):
            app.logger.warning("a request gave way to another that waited for it")
            return answer(Collided())
        app.logger.exception("request failed")
        return answer(failure)

    app.register_error_handler(Refusal, on_refusal)
    app.register_error_handler(HTTPException, on_http)
    app.register_error_handler(CSRFError, on_http)
    app.register_error_handler(Exception, on_failure)
