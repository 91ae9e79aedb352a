"""The runner settings of the instance, a group or a project, as attributes that scripts read and write."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Literal

from portal.api import credentials
from portal.api.for_users.operations import Shape
from portal.api.for_users.parameters import OptionalFlag, OptionalNumber, Parameters, Words
from portal.api.for_users.scope_parameters import called
from portal.database import db
from portal.domain import permissions
from portal.domain.errors import Invalid
from portal.domain.groups import scope_settings
from portal.domain.jobs import job_rules
from portal.domain.permissions import Action
from portal.domain.registration import registration, registration_switch
from portal.domain.registration.registration import Decision
from portal.domain.runners import runner_cleanup, runner_rules
from portal.domain.runners.runner_cleanup import Criteria
from portal.domain.scopes import Scope, ScopeKind
from portal.requests import registration_configured

DAYS, LEGACY = "stale_runner_cleanup_days", "stale_runner_cleanup_legacy_only"


class Decider(Shape):
    """Who turned registration tokens off; nameless where who asks may not see that group."""

    kind: Literal["instance", "group", "project", "configuration"]
    id: int | None
    full_path: str | None


class SwitchShape(Shape):
    """The switch of registration tokens: what is said here, what counts here, and who decided that."""

    allow_runner_registration_token: bool
    runner_registration_token_allowed: bool
    runner_registration_token_decided_by: Decider | None


class SwitchChange(Parameters):
    """The switch, to change."""

    allow_runner_registration_token: OptionalFlag = None


class ProjectRules(Parameters):
    """What a project settles for its runners, to change."""

    runner_token_expiration_interval: OptionalNumber = None


class JobRulesChange(Parameters):
    """What a project settles for its jobs, to change. What is null stays; `build_timeout` is in seconds."""

    shared_runners_enabled: OptionalFlag = None
    group_runners_enabled: OptionalFlag = None
    build_timeout: OptionalNumber = None
    protected_refs: Words = ()

    def said(self) -> dict[str, Any]:
        """What is given, in the words of JobRules."""
        found = {name: getattr(self, name) for name in JobRulesChange.model_fields if self.given(name)}
        return {name: value for name, value in found.items() if value is not None}


class GroupRules(ProjectRules):
    """What a group settles for its runners, to change; the last three of these only administrators may."""

    subgroup_runner_token_expiration_interval: OptionalNumber = None
    project_runner_token_expiration_interval: OptionalNumber = None
    stale_runner_cleanup_days: OptionalNumber = None
    stale_runner_cleanup_legacy_only: OptionalFlag = None
    runner_registration_enabled: OptionalFlag = None
    ci_registered_group_runners: OptionalNumber = None
    ci_registered_project_runners: OptionalNumber = None


def switch_attributes(scope: Scope) -> dict[str, Any]:
    """The attributes of a SwitchShape."""
    session, configured = db.session(), registration_configured()
    decided = registration.decision(session, scope, configured)
    return {
        "allow_runner_registration_token": scope_settings.chain(
            session, scope
        ).own.settings.allow_runner_registration_token,
        "runner_registration_token_allowed": decided.allowed,
        "runner_registration_token_decided_by": _decider(decided),
    }


def _decider(decided: Decision) -> Decider | None:
    if decided.enforced:
        return Decider(kind="configuration", id=None, full_path=None)
    if decided.by is None:
        return None
    hidden = decided.by.kind is not ScopeKind.INSTANCE and not permissions.may(
        db.session(), credentials.actor(), Action.SEE, decided.by
    )
    path = None if hidden or decided.by.kind is ScopeKind.INSTANCE else decided.by.full_path
    return Decider(kind=decided.by.kind.value, id=None if hidden else decided.by.id, full_path=path)


def rules_attributes(scope: Scope) -> dict[str, Any]:
    """What the scope itself settles, by the names of its columns; as its page of runner settings tells it."""
    session = db.session()
    lives = asdict(runner_rules.token_lives(session, scope))
    found: dict[str, Any] = {column: lives[field] for field, column in runner_rules.LIVES[scope.kind].items()}
    if scope.project is not None:
        rules = job_rules.of_project(session, scope)
        return found | {"build_timeout": rules.build_timeout, "protected_refs": list(rules.protected_refs)}
    limits = asdict(runner_rules.limits(session, scope))
    found |= {column: limits[field] for field, column in runner_rules.LIMITS.items()}
    criteria = runner_cleanup.settled(session, scope)[-1].criteria
    found |= {DAYS: criteria and criteria.days, LEGACY: bool(criteria and criteria.legacy_only)}
    if scope.group is not None:
        found["runner_registration_enabled"] = runner_rules.group_creation(session, scope).enabled
    return found


def shows_rules(scope: Scope) -> bool:
    """Whether who asks may open the page of these settings."""
    return permissions.may(db.session(), credentials.actor(), Action.READ_RUNNERS, scope)


def change(scope: Scope, given: Parameters) -> None:
    """Change what is given of all this. The switch goes first, as on its page: it waits for registrations.

    Raises NotFound, NotAllowed and Invalid; nothing is stored then.
    """
    session, actor = db.session(), credentials.actor()
    allow = getattr(given, "allow_runner_registration_token", None)
    if allow is not None:
        configured = registration_configured()
        registration_switch.settle(session, actor, scope, allow=allow, configured=configured)
    enabled = getattr(given, "runner_registration_enabled", None)
    if enabled is not None:
        runner_rules.settle_group_creation(session, actor, scope, enabled=enabled)
    if limits := _given(given, runner_rules.LIMITS):
        with called(runner_rules.LIMITS):
            runner_rules.amend_limits(session, actor, scope, limits)
    columns = runner_rules.LIVES[scope.kind]
    if lives := _given(given, columns):
        with called(columns):
            runner_rules.amend_token_lives(session, actor, scope, lives)
    if given.given(DAYS) or given.given(LEGACY):
        with called({"days": DAYS}):
            runner_cleanup.change(session, actor, scope, _criteria(scope, given))
    if isinstance(given, JobRulesChange) and (said := given.said()):
        job_rules.amend(session, actor, scope, said)  # last: it tells runners of jobs that they may take now


def _given(given: Parameters, columns: dict[str, str]) -> dict[str, int | None]:
    return {field: getattr(given, column) for field, column in columns.items() if given.given(column)}


def _criteria(scope: Scope, given: Parameters) -> Criteria | None:
    """The clean-up that is wanted; None turns it off. What is not given stays."""
    now = runner_cleanup.settled(db.session(), scope)[-1].criteria
    legacy_only = getattr(given, LEGACY)
    if given.given(DAYS):
        days = getattr(given, DAYS)
        found = None if days is None else replace(now or Criteria(days), days=days)
    else:
        found = now
    if legacy_only is None:
        return found
    if found is None:
        if legacy_only:
            raise Invalid({LEGACY: [f"The clean-up is off. Give {DAYS} as well to turn it on."]})
        return None
    return replace(found, legacy_only=legacy_only)
