"""Resetting registration tokens, the old way, of the instance, a group or a project."""

from __future__ import annotations

from portal.api import credentials
from portal.api.for_users import places
from portal.api.for_users.door import operation
from portal.api.for_users.operations import Nothing
from portal.api.for_users.parameters import Parameters
from portal.api.for_users.runner_shapes import NewToken
from portal.database import db
from portal.domain.errors import NotAllowed, RegistrationOff
from portal.domain.permissions import Action
from portal.domain.registration import registration_tokens
from portal.domain.scopes import Scope
from portal.requests import registration_configured

ROOM = "Registration tokens"


class OneGroup(Parameters):
    """A group, by its id or full path."""

    group: str


class OneProject(Parameters):
    """A project, by its id or full path."""

    project: str


@operation("POST", "/runners/reset_registration_token", room=ROOM, status=201, refuses=(409,))
def reset_of_instance(_given: Nothing) -> NewToken:
    """A new registration token of the instance; the old one ends at once."""
    return _reset(places.instance(Action.REGISTER_RUNNERS))


@operation("POST", "/groups/<path:group>/runners/reset_registration_token", room=ROOM, status=201, refuses=(404, 409))
def reset_of_group(given: OneGroup) -> NewToken:
    """A new registration token of a group; the old one ends at once."""
    return _reset(places.group(given.group))


@operation(
    "POST", "/projects/<path:project>/runners/reset_registration_token", room=ROOM, status=201, refuses=(404, 409)
)
def reset_of_project(given: OneProject) -> NewToken:
    """A new registration token of a project; the old one ends at once."""
    return _reset(places.project(given.project))


def _reset(scope: Scope) -> NewToken:
    """Raises NotAllowed while registration tokens are off in the scope, as GitLab does."""
    configured = registration_configured()
    try:
        made = registration_tokens.reset_token(db.session(), credentials.actor(), scope, configured)
    except RegistrationOff as off:
        raise NotAllowed(
            f"{off} Create a runner with an access token instead: POST /api/v4/user/runners.",
            action=Action.REGISTER_RUNNERS.value,
            where=scope,
        ) from None
    answer = NewToken(token=configured.vault.open(made.ciphertext or b"") or "", token_expires_at=None)
    db.session.commit()
    return answer
