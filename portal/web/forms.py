"""The forms of the pages. They read what was typed; what is right or wrong the domain decides."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask_wtf import FlaskForm
from wtforms import BooleanField, HiddenField, PasswordField, StringField, TextAreaField

from portal.domain.errors import Invalid
from portal.domain.groups import Naming
from portal.domain.runner_settings import RunnerSettings, split_tags
from portal.models import Role


def _number(digits: str) -> int | None:
    """The number; for one that no column could hold just a number that is refused as too large."""
    return None if not digits else int(digits) if len(digits) <= 18 else 10**18


class PortalForm(FlaskForm):  # type: ignore[misc]  # flask-wtf ships no types
    """A form whose refusals stand beside their fields."""

    class Meta(FlaskForm.Meta):  # type: ignore[misc]
        # The whole form is CSRF-checked by the app before the view; a second check would only hide that.
        csrf = True

    def refuse(self, invalid: Invalid) -> None:
        """Put the domain's problems beside the fields they are about; what was typed stays."""
        for name, sentences in invalid.problems.items():
            field = self[name] if name in self else next(iter(self))
            field.errors = [*field.errors, *sentences]

    @property
    def problems(self) -> list[tuple[Any, list[str]]]:
        """(field, sentences) for the summary on top of the page."""
        return [(field, list(field.errors)) for field in self if field.errors]


class SignInForm(PortalForm):
    login = StringField("User name or e-mail")
    password = PasswordField("Password")


class PasswordForm(PortalForm):
    old = PasswordField("Present password")
    new = PasswordField("New password")
    again = PasswordField("New password again")


class PersonForm(PortalForm):
    username = StringField("User name")
    name = StringField("Name")
    email = StringField("E-mail")
    admin = BooleanField("Administrator")


class NamingForm(PortalForm):
    name = StringField("Name")
    path = StringField("Path")
    description = TextAreaField("Description")

    def naming(self) -> Naming:
        text = (self.description.data or "").strip()
        return Naming((self.name.data or "").strip(), (self.path.data or "").strip(), text)


class ConfirmForm(PortalForm):
    typed = StringField("Path")


class EmptyForm(PortalForm):
    """Only a button."""


ROLES = [(str(role.value), role.name.capitalize()) for role in Role if role]


class MemberForm(PortalForm):
    login = StringField("User name or e-mail")
    role = StringField("Role", default=str(Role.DEVELOPER.value))

    def chosen_role(self) -> Role:
        return read_role(self.role.data)


def read_role(value: str | None) -> Role:
    """The role of a select. Raises Invalid for a value that is none."""
    known = {str(role.value): role for role in Role if role}
    if value not in known:
        raise Invalid({"role": ["Choose a role from the list."]})
    return known[value]


class KeyedForm(PortalForm):
    """A form whose sending issues a token. The key makes the same sending, repeated, issue nothing."""

    request_key = HiddenField(default=lambda: str(uuid.uuid4()))

    def key(self) -> UUID:
        try:
            return UUID(self.request_key.data or "")
        except ValueError:
            raise Invalid({"request_key": ["This form is not complete. Open the page again."]}) from None


class RunnerForm(KeyedForm):
    tags = StringField("Tags")
    run_untagged = BooleanField("Run untagged jobs")
    description = StringField("Description")
    maintenance_note = TextAreaField("Maintenance note")
    paused = BooleanField("Paused")
    protected = BooleanField("Protected")
    locked = BooleanField("Locked")
    maximum_timeout = StringField("Maximum job timeout")

    def settings(self) -> RunnerSettings:
        """What was chosen. Raises Invalid for a timeout that is no number."""
        timeout = (self.maximum_timeout.data or "").strip()
        if timeout and not (timeout.isascii() and timeout.isdecimal()):
            raise Invalid({"maximum_timeout": ["Write whole seconds, such as 3600 for an hour, or leave it empty."]})
        return RunnerSettings(
            description=(self.description.data or "").strip(),
            maintenance_note=(self.maintenance_note.data or "").strip().replace("\r\n", "\n"),
            tags=split_tags(self.tags.data or ""),
            run_untagged=bool(self.run_untagged.data),
            paused=bool(self.paused.data),
            protected=bool(self.protected.data),
            locked=bool(self.locked.data),
            maximum_timeout=_number(timeout),
        )

    @staticmethod
    def values_of(settings: RunnerSettings) -> Mapping[str, Any]:
        """How present settings stand in the form."""
        return {
            "tags": ", ".join(settings.tags),
            "run_untagged": settings.run_untagged,
            "description": settings.description,
            "maintenance_note": settings.maintenance_note,
            "paused": settings.paused,
            "protected": settings.protected,
            "locked": settings.locked,
            "maximum_timeout": "" if settings.maximum_timeout is None else str(settings.maximum_timeout),
        }


class EditRunnerForm(RunnerForm):
    seen_version = HiddenField()


class ResetForm(KeyedForm):
    seen_token_id = HiddenField()

    def seen(self) -> int | None:
        value = self.seen_token_id.data or ""
        return int(value) if value.isdecimal() and len(value) < 19 else None
