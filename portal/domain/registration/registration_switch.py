"""Turning registration tokens off and on in a scope."""

from __future__ import annotations

from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit
from portal.domain.actors import Actor
from portal.domain.errors import NotAllowed
from portal.domain.groups import scope_settings
from portal.domain.permissions import Action, require
from portal.domain.registration import registration, registration_effects, registration_readers
from portal.domain.registration.registration import Configured
from portal.domain.runners import runner_changes
from portal.domain.scopes import Scope


def switch(session: Session, actor: Actor, scope: Scope, *, allow: bool, configured: Configured) -> bool:
    """Turn registration tokens on or off in the scope, for everything below too. Returns whether that changed it.

    Raises NotFound, or NotAllowed also where something above has decided already.
    """
    require(session, actor, Action.SWITCH_REGISTRATION, scope)
    touched = {} if allow else _touched(session, scope)  # before the lock: counting takes its time
    registration.hold_switch(session, scope, turning=True)
    decided = registration.decision(session, scope, configured)
    if decided.locked:
        told = registration_readers.told(session, actor, decided)
        raise NotAllowed(f"{told.sentence} That decides for {scope.title} as well, so nothing was changed.")
    own = scope_settings.own_for_update(session, scope)
    if own.allow_runner_registration_token == allow:
        return False
    own.allow_runner_registration_token, own.switched_at, own.switched_by = allow, now(), actor.user
    action = "registration_tokens_turned_on" if allow else "registration_tokens_turned_off"
    audit.record(session, actor, action, scope, scope, {"registration_tokens_allowed": (not allow, allow), **touched})
    runner_changes.announce_switch(session)
    return True


def hold(session: Session, actor: Actor, scope: Scope) -> None:
    """Keep the switch before the group or project itself, for who is going to change both in one transaction.

    So do registrations. Raises NotFound or NotAllowed.
    """
    require(session, actor, Action.SWITCH_REGISTRATION, scope)
    registration.hold_switch(session, scope, turning=True)


def settle(session: Session, actor: Actor, scope: Scope, *, allow: bool, configured: Configured) -> bool:
    """The same for tools that send all they know: the value that the scope has already is no attempt to change it.

    Raises NotFound or NotAllowed.
    """
    require(session, actor, Action.SWITCH_REGISTRATION, scope)
    own = scope_settings.chain(session, scope).own.settings
    if own.allow_runner_registration_token == allow:
        return False
    return switch(session, actor, scope, allow=allow, configured=configured)


def _touched(session: Session, scope: Scope) -> dict[str, tuple[None, int]]:
    """What turning off does, in numbers, for the trail."""
    found = registration_effects.effects(session, scope, most=None)
    numbers = {
        "runners_registered_by_token": found.registered,
        "registrations_in_30_days": found.registrations,
        "machines_without_system_id": found.stopping,
        "groups_below": found.groups.total,
        "projects_below": found.projects.total,
    }
    return {name: (None, number) for name, number in numbers.items()}
