"""`/application/settings`: what the instance settles for runners and registration tokens."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from portal.api import credentials
from portal.api.for_users import scope_settings
from portal.api.for_users.door import operation
from portal.api.for_users.operations import Nothing
from portal.api.for_users.parameters import OptionalFlag, OptionalNumber, Words
from portal.api.for_users.scope_settings import SwitchChange, SwitchShape
from portal.database import db
from portal.domain import permissions
from portal.domain.permissions import Action
from portal.domain.runners import runner_rules
from portal.domain.runners.runner_rules import Registrars
from portal.domain.scopes import INSTANCE
from portal.models import REGISTRARS

ROOM = "Settings"


class ApplicationSettings(SwitchShape):
    """The instance's settings; times in seconds."""

    id: int
    valid_runner_registrars: list[str]
    runner_token_expiration_interval: int | None
    group_runner_token_expiration_interval: int | None
    project_runner_token_expiration_interval: int | None
    ci_registered_group_runners: int
    ci_registered_project_runners: int
    stale_runner_cleanup_days: int | None
    stale_runner_cleanup_legacy_only: bool


class SettingsChange(SwitchChange):
    """What to change; nothing is changed when something of it may not be, or cannot."""

    valid_runner_registrars: Words = ()
    runner_token_expiration_interval: OptionalNumber = None
    group_runner_token_expiration_interval: OptionalNumber = None
    project_runner_token_expiration_interval: OptionalNumber = None
    ci_registered_group_runners: OptionalNumber = None
    ci_registered_project_runners: OptionalNumber = None
    stale_runner_cleanup_days: OptionalNumber = None
    stale_runner_cleanup_legacy_only: OptionalFlag = None

    @model_validator(mode="before")
    @classmethod
    def _null_closes_nothing(cls, found: dict[str, Any]) -> dict[str, Any]:
        """Only an empty list says that nobody may create runners."""
        named = "valid_runner_registrars"
        return {name: value for name, value in found.items() if name != named or value is not None}

    @model_validator(mode="after")
    def _known_registrars(self) -> SettingsChange:
        if not set(self.valid_runner_registrars) <= set(REGISTRARS):
            said = f"valid_runner_registrars does not have a valid value: {', '.join(REGISTRARS)}"
            raise PydanticCustomError("registrars", said)
        return self


@operation("GET", "/application/settings", room=ROOM)
def show(_given: Nothing) -> ApplicationSettings:
    """What the instance settles, for administrators."""
    permissions.require_openly(db.session(), credentials.actor(), Action.SET_RUNNER_RULES)
    return _settings()


@operation("PUT", "/application/settings", room=ROOM)
def update(given: SettingsChange) -> ApplicationSettings:
    """Change what the instance settles: all that is given, or nothing."""
    session, actor = db.session(), credentials.actor()
    permissions.require_openly(session, actor, Action.SET_RUNNER_RULES)
    scope_settings.change(INSTANCE, given)
    if given.given("valid_runner_registrars"):
        named = given.valid_runner_registrars
        runner_rules.change_registrars(session, actor, Registrars("group" in named, "project" in named))
    answer = _settings()
    db.session.commit()
    return answer


def _settings() -> ApplicationSettings:
    allowed = runner_rules.registrars(db.session())
    named = {"group": allowed.groups, "project": allowed.projects}
    return ApplicationSettings(
        id=1,
        valid_runner_registrars=[name for name in REGISTRARS if named[name]],
        **scope_settings.switch_attributes(INSTANCE),
        **scope_settings.rules_attributes(INSTANCE),
    )
