"""All the pages together: their blueprints, what every template has, and the headers they go out with."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, g, request
from flask_login import LoginManager, current_user

from portal.addresses import scope_url, url_in
from portal.config import SHORTEST_PASSWORD
from portal.database import db, now
from portal.domain.actors import PEOPLE
from portal.domain.enrolment import enrolment_keys
from portal.domain.jobs import failure_reasons
from portal.domain.people import user_sessions
from portal.domain.permissions import Action
from portal.domain.runners.runner_status import Status
from portal.domain.scopes import INSTANCE, Scope, ScopeKind, of_group, of_project, of_runner
from portal.models import RunnerType, User
from portal.requests import client_address, portal_url, session_limits, session_uses
from portal.web import (
    access_tokens,
    account,
    api_reference,
    bulk_acts,
    compressed_pages,
    confirmations,
    deletions,
    enrolment_key_pages,
    graphiql,
    group_registration,
    group_runners,
    guards,
    identities,
    instance_registration,
    instance_runners,
    job_links,
    members,
    numbers,
    openid,
    openid_provider,
    people,
    project_job_rules,
    project_jobs,
    project_registration,
    project_runners,
    registration_pages,
    runner_cleanup,
    runner_import,
    runner_links,
    runner_rules,
    scope_pages,
    second_factor,
    sessions,
    start,
    static_files,
    stuck_job_pages,
    times,
    token_lookup,
    trail,
    which_runners,
)
from portal.web.scoped import ProjectPath, StoredNumber

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)


def register(app: Flask, login: LoginManager) -> None:
    """Add every page to the app."""
    app.url_map.converters.update(project=ProjectPath, int=StoredNumber)
    for blueprint in (
        sessions.blueprint,
        second_factor.at_sign_in,
        account.blueprint,
        access_tokens.blueprint,
        openid.blueprint,
        identities.blueprint,
        second_factor.blueprint,
        confirmations.blueprint,
        start.blueprint,
        api_reference.blueprint,
        graphiql.blueprint,
        people.blueprint,
        deletions.blueprint,
        token_lookup.blueprint,
        runner_import.blueprint,
        runner_links.blueprint,
        job_links.blueprint,
        bulk_acts.blueprint,
        instance_runners.blueprint,
        group_runners.blueprint,
        project_runners.blueprint,
        project_jobs.blueprint,
        project_job_rules.blueprint,
        instance_registration.blueprint,
        group_registration.blueprint,
        project_registration.blueprint,
        *members.blueprints,
        *trail.blueprints,
        *runner_cleanup.blueprints,
        *runner_rules.blueprints,
        *enrolment_key_pages.blueprints,
        *which_runners.blueprints,
        *scope_pages.blueprints,
    ):
        app.register_blueprint(blueprint)
    static_files.register(app)
    openid_provider.register(app, app.config["PORTAL"])
    login.user_loader(_load_user)
    login.session_protection = None
    app.before_request(guards.storable)
    app.after_request(_headers)
    app.context_processor(_words)
    app.add_template_filter(times.ago, "ago")
    app.add_template_filter(times.exact, "exact")
    app.add_template_filter(times.until, "until")
    app.add_template_filter(times.duration, "duration")
    app.add_template_filter(numbers.counted, "counted")
    app.add_template_global(url_in)
    app.add_template_global(scope_url)
    app.add_template_global(of_group)
    app.add_template_global(of_project)
    app.add_template_global(of_runner)
    app.add_template_global(enrolment_keys.scope_of, "of_enrolment_key")
    app.add_template_global(portal_url)
    app.add_template_global(openid.offered, "openid_provider")
    app.add_template_global(registration_pages.may_create, "may_create_runner")
    app.add_template_global(stuck_job_pages.why, "why_stuck")
    app.add_template_global(failure_reasons.briefly, "why_failed")
    app.add_template_global(stuck_job_pages.seen, "stuck_seen")
    app.add_template_global(deletions.restorable_in)
    app.add_template_global(deletions.anything_restorable)
    app.jinja_env.trim_blocks = True
    app.jinja_env.lstrip_blocks = True


def _load_user(key: str) -> User | None:
    """The person of a session's key; none when the session has ended."""
    found = user_sessions.find(db.session(), key, session_limits(), last_used=session_uses())
    if found is None:
        return None
    g.user_session, g.signed_in_id = found, found.user_id
    session_uses().note(found.id, now(), client_address())
    return found.user


def _words() -> dict[str, Any]:
    """What every template may use."""
    return {
        "Action": Action,
        "PEOPLE": PEOPLE,
        "Status": Status,
        "ScopeKind": ScopeKind,
        "RunnerType": RunnerType,
        "INSTANCE": INSTANCE,
        "me": current_user,
        "may": _may,
        "hidden_above": guards.hidden_above,
        "now": now,
        "shortest_password": SHORTEST_PASSWORD,
    }


def _may(action: Action, scope: Scope) -> bool:
    return bool(current_user.is_authenticated) and guards.allowed(action, scope)


def _headers(response: Response) -> Response:
    if request.path.startswith("/api/"):
        return response
    headers = response.headers
    headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    headers.setdefault("Referrer-Policy", "same-origin")
    headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
    compressed_pages.compress(response)
    if request.endpoint != "static" or response.status_code >= 400:
        # Pages show people and their runners: no browser keeps them after the sign-out.
        headers["Cache-Control"] = "no-store"
    return response
