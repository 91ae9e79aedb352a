"""What groups and projects are called, changed by a script."""

from __future__ import annotations

from portal.api import credentials
from portal.api.for_users.scope_parameters import Named
from portal.database import db
from portal.domain import groups
from portal.domain.groups import Naming
from portal.domain.scopes import Scope


def rename(scope: Scope, given: Named) -> None:
    """Change what is given of name, path and description of a group or project."""
    owner = scope.project or scope.group
    if owner is None or not given.names_something:
        return
    wanted = {
        name: (getattr(given, name) or "").strip() if given.given(name) else getattr(owner, name)
        for name in ("name", "path", "description")
    }
    groups.rename(db.session(), credentials.actor(), scope, Naming(**wanted))
