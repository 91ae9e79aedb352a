"""A group or project, changed by a script in one request: what it is called, and what it settles for its runners."""

from __future__ import annotations

from portal.api import credentials
from portal.api.for_users import scope_settings
from portal.api.for_users.scope_parameters import Named
from portal.api.for_users.scope_settings import SwitchChange
from portal.database import db
from portal.domain.groups import groups
from portal.domain.registration import registration_switch
from portal.domain.scopes import Scope

NAMING = ("name", "path", "description")


class ScopeChange(Named, SwitchChange):
    """What may be changed of both."""


def change(scope: Scope, given: ScopeChange) -> None:
    """Change what is given, all of it or nothing.

    Locked in everybody's order: the switch, which waits for registrations, then the owners, then their settings. Who
    deletes a group holds it before what lies below, and would wait for settings that wait for it.
    """
    session, actor = db.session(), credentials.actor()
    if said := {field: (getattr(given, field) or "").strip() for field in NAMING if given.given(field)}:
        if given.allow_runner_registration_token is not None:
            registration_switch.hold(session, actor, scope)
        groups.amend(session, actor, scope, said)
    scope_settings.change(scope, given)
