"""The runner settings of a scope: how long tokens live, who may create runners, and how many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from flask import Blueprint, flash, redirect, render_template
from werkzeug.wrappers import Response

from portal.addresses import url_in
from portal.database import db
from portal.domain import permissions
from portal.domain.errors import Invalid
from portal.domain.permissions import Action
from portal.domain.runners import runner_cleanup, runner_creation, runner_rules, token_life
from portal.domain.scopes import Scope, ScopeKind
from portal.web import guards, scoped
from portal.web.forms import (
    GroupCreationForm,
    LimitsForm,
    PortalForm,
    RegistrarsForm,
    TokenLivesForm,
    in_a_field,
)

Answer = Response | tuple[str, int]
_LIFE_LABELS = {
    ScopeKind.INSTANCE: {"own": "Instance runners", "groups": "Group runners", "projects": "Project runners"},
    ScopeKind.GROUP: {
        "own": "This group’s own runners",
        "groups": "Runners of its subgroups",
        "projects": "Runners of its projects",
    },
    ScopeKind.PROJECT: {"own": "This project’s runners"},
}
_LIMIT_LABELS = {
    ScopeKind.INSTANCE: {"groups": "In each group", "projects": "In each project"},
    ScopeKind.GROUP: {"groups": "In this group and each subgroup", "projects": "In each of its projects"},
}


def show() -> str:
    """What is settled for the scope's runners, with the forms for what the reader may change."""
    return _page()


def change_token_life() -> Answer:
    """How long tokens made from now on live."""
    guards.require(Action.SET_RUNNER_RULES)
    form = _labelled(TokenLivesForm(prefix="life-"), _LIFE_LABELS)
    return _change(
        "lives",
        form,
        lambda: runner_rules.change_token_lives(db.session(), guards.actor(), guards.scope(), form.lives()),
        "It counts for tokens made from now on.",
    )


def change_registrars() -> Answer:
    """Where in the instance others than administrators may create runners."""
    guards.require(Action.LIMIT_RUNNERS)
    form = RegistrarsForm(prefix="who-")
    return _change(
        "creation",
        form,
        lambda: runner_rules.change_registrars(db.session(), guards.actor(), form.registrars()),
    )


def change_group_creation() -> Answer:
    """Whether others than administrators may create runners in a group and below."""
    guards.require(Action.LIMIT_RUNNERS)
    form = GroupCreationForm(prefix="who-")
    enabled = bool(form.enabled.data)
    return _change(
        "creation",
        form,
        lambda: runner_rules.change_group_creation(db.session(), guards.actor(), guards.scope(), enabled=enabled),
    )


def change_limits() -> Answer:
    """How many runners a group or project may have."""
    guards.require(Action.LIMIT_RUNNERS)
    form = _labelled(LimitsForm(prefix="most-"), _LIMIT_LABELS)
    return _change(
        "limits",
        form,
        lambda: runner_rules.change_limits(db.session(), guards.actor(), guards.scope(), form.limits()),
        "Runners that exist stay.",
    )


def _change(name: str, form: PortalForm, change: Callable[[], bool], remark: str = "") -> Answer:
    try:
        changed = change()
    except Invalid as invalid:
        form.refuse(invalid)
        return _page({name: form}), 422
    db.session.commit()
    flash(f"Saved. {remark}".strip() if changed else "Nothing was different, so nothing changed.")
    return redirect(url_in(guards.scope(), "runner_settings.show"))


def _page(tried: dict[str, PortalForm] | None = None) -> str:
    scope, session = guards.scope(), db.session()
    lowest = permissions.needed(Action.SET_RUNNER_RULES, scope.kind)
    return render_template(
        "runner_rules/show.html",
        scope=scope,
        forms={**_forms(scope), **(tried or {})},
        tried=tried or {},
        lives=runner_rules.token_lives(session, scope),
        life=token_life.of_new_runners(session, scope),
        endless=runner_rules.endless(session, scope),
        closed=runner_creation.closed_because(session, scope),
        creation=runner_rules.group_creation(session, scope) if scope.group else None,
        limit=runner_creation.limit(session, scope),
        recent=runner_creation.recent(session, scope) if scope.id else 0,
        limits=None if scope.project else runner_rules.limits(session, scope),
        from_above=runner_rules.limits_from_above(session, scope) if scope.group else {},
        who_sets=permissions.WHO[lowest] if lowest else "administrators",
        cleanups=runner_cleanup.settled(session, scope),
        life_labels=_LIFE_LABELS[scope.kind],
        limit_labels=_LIMIT_LABELS.get(scope.kind, {}),
    )


def _forms(scope: Scope) -> dict[str, PortalForm]:
    """The forms with what stands now; what was sent in one of them says nothing about the others."""
    lives = asdict(runner_rules.token_lives(db.session(), scope))
    texts = {name: in_a_field(seconds) for name, seconds in lives.items()}
    form = _labelled(TokenLivesForm(formdata=None, prefix="life-", data=texts), _LIFE_LABELS)
    return {"lives": form} if scope.project else {"lives": form, **_administrators_forms(scope)}


def _administrators_forms(scope: Scope) -> dict[str, PortalForm]:
    session = db.session()
    creation: PortalForm
    if scope.group is not None:
        enabled = runner_rules.group_creation(session, scope).enabled
        creation = GroupCreationForm(formdata=None, prefix="who-", data={"enabled": enabled})
    else:
        registrars = asdict(runner_rules.registrars(session))
        creation = RegistrarsForm(formdata=None, prefix="who-", data=registrars)
    most = {name: _written(number) for name, number in asdict(runner_rules.limits(session, scope)).items()}
    limits = _labelled(LimitsForm(formdata=None, prefix="most-", data=most), _LIMIT_LABELS)
    return {"creation": creation, "limits": limits}


def _written(number: int | None) -> str:
    return "" if number is None else str(number)


def _labelled(form: PortalForm, labels: dict[ScopeKind, dict[str, str]]) -> Any:
    """The form with the labels that its fields have in a scope of this kind."""
    for name, label in labels.get(guards.scope().kind, {}).items():
        form[name].label.text = label
    return form


def _room(kind: ScopeKind) -> Blueprint:
    blueprint = scoped.room(kind, "runner_settings", Action.READ_RUNNERS)
    blueprint.add_url_rule("", "show", show)
    blueprint.add_url_rule("/token-life", "token_life", guards.recently(change_token_life), methods=["POST"])
    if kind is ScopeKind.PROJECT:
        return blueprint
    who = change_group_creation if kind is ScopeKind.GROUP else change_registrars
    blueprint.add_url_rule("/creation", "creation", guards.recently(who), methods=["POST"])
    blueprint.add_url_rule("/limits", "limits", guards.recently(change_limits), methods=["POST"])
    return blueprint


blueprints = [_room(kind) for kind in ScopeKind]
