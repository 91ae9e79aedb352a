"""The forms of the pages. They read what was typed; what is right or wrong the domain decides."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any
from uuid import UUID

from flask_wtf import FlaskForm
from wtforms import (
    BooleanField,
    HiddenField,
    PasswordField,
    SelectMultipleField,
    StringField,
    TextAreaField,
)

from portal.domain.bulk.bulk_changes import Act, Wanted
from portal.domain.errors import Invalid
from portal.domain.groups.groups import Naming
from portal.domain.people.access_tokens import NewAccessToken
from portal.domain.runners.runner_cleanup import Criteria
from portal.domain.runners.runner_rules import POSSIBLE_LIVES, Limits, Registrars, TokenLives
from portal.domain.runners.runner_settings import RunnerSettings, split_tags
from portal.models import Role
from portal.web.times import read_duration, write_duration

Reader = Callable[[str], int | None]


def whole_number(text: str) -> int | None:
    """The number; None for nothing. Raises ValueError with a sentence for what is none."""
    digits = text.strip().replace(",", "")
    if digits and not (digits.isascii() and digits.isdecimal()):
        raise ValueError("Write a whole number, such as 50.")
    return _number(digits)


def _number(digits: str) -> int | None:
    """The number; for one that no column could hold just a number that is refused as too large."""
    return None if not digits else int(digits) if len(digits) <= 18 else 10**18


class PortalForm(FlaskForm):  # type: ignore[misc]  # flask-wtf ships no types
    """A form whose refusals stand beside their fields."""

    form_errors: list[str]

    class Meta(FlaskForm.Meta):  # type: ignore[misc]
        # The whole form is CSRF-checked by the app before the view; a second check would only hide that.
        csrf = True

    def refuse(self, invalid: Invalid) -> None:
        """Put the domain's problems beside the fields they are about; what was typed stays."""
        for name, sentences in invalid.problems.items():
            if name in self and not isinstance(self[name], HiddenField):
                self[name].errors = [*self[name].errors, *sentences]
            else:  # it is about the whole form
                self.form_errors = [*self.form_errors, *sentences]

    def read(self, how: Reader, *names: str) -> tuple[dict[str, int | None], dict[str, list[str]]]:
        """(values, problems) of text fields by their names; one that cannot be read is None, with its problem."""
        values: dict[str, int | None] = {}
        problems: dict[str, list[str]] = {}
        for name in names:
            try:
                values[name] = how(self[name].data or "")
            except ValueError as wrong:
                values[name], problems[name] = None, [str(wrong)]
        return values, problems

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


class EditPersonForm(PortalForm):
    username = StringField("User name")
    name = StringField("Name")
    email = StringField("E-mail")
    seen_version = HiddenField()


class SeenVersionForm(PortalForm):
    """Only a button, pressed by somebody who has seen this version."""

    seen_version = HiddenField()


class AdministratorForm(PortalForm):
    """What the person is to be afterwards, so that the same form, sent again, does not turn it back."""

    wanted = HiddenField()


class DeletePersonForm(PortalForm):
    created = StringField("Runners they created", default="keep")
    leave_groups = BooleanField("Leave these groups without an owner")
    typed = StringField("User name")


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


def new_key() -> str:
    """By which one sending of a form is known, however often it is repeated."""
    return str(uuid.uuid4())


class KeyedForm(PortalForm):
    """A form whose sending issues a token. The key makes the same sending, repeated, issue nothing."""

    request_key = HiddenField(default=new_key)

    def key(self) -> UUID:
        try:
            return UUID(self.request_key.data or "")
        except ValueError:
            raise Invalid({"request_key": ["This form is not complete. Open the page again."]}) from None


class AccessTokenForm(KeyedForm):
    name = StringField("Name")
    description = TextAreaField("Description")
    scopes = SelectMultipleField("What it opens", choices=[], validate_choice=False)
    expires_at = StringField("Expires on")

    def wanted(self) -> NewAccessToken:
        """What was chosen; a day that is none counts as not chosen."""
        last = read_day(self.expires_at.data or "")
        text = (self.description.data or "").strip().replace("\r\n", "\n")
        return NewAccessToken((self.name.data or "").strip(), tuple(self.scopes.data or ()), last, text)


class RotationForm(KeyedForm):
    """A new token in place of another; all but its end is the other's."""

    expires_at = StringField("The new one expires on")

    def last(self) -> date:
        """The day; one that no token may have where nothing, or no day, was written."""
        return read_day(self.expires_at.data or "") or date.min


def read_day(text: str) -> date | None:
    """The day as browsers send it; None for what is none."""
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        return None


def whole_seconds(text: str) -> int | None:
    seconds = text.strip()
    if seconds and not (seconds.isascii() and seconds.isdecimal()):
        raise ValueError("Write whole seconds, such as 3600 for an hour, or leave it empty.")
    return _number(seconds)


def in_a_field(seconds: int | None) -> str:
    """A duration as people write it into a field; nothing for none."""
    return "" if seconds is None else write_duration(seconds)


class RunnerForm(KeyedForm):
    tags = StringField("Tags")
    run_untagged = BooleanField("Run untagged jobs")
    description = StringField("Description")
    maintenance_note = TextAreaField("Maintenance note")
    paused = BooleanField("Paused")
    protected = BooleanField("Protected")
    locked = BooleanField("Locked")
    maximum_timeout = StringField("Maximum job timeout")
    token_expiration_interval = StringField("Token life")
    machines_forgotten_after = StringField("Forget silent machines after")

    def settings(self) -> RunnerSettings:
        """What was chosen. Raises Invalid for a time that is none, together with all else that is wrong."""
        seconds, unread = self.read(whole_seconds, "maximum_timeout")
        durations, problems = self.read(read_duration, "token_expiration_interval", "machines_forgotten_after")
        chosen = self._settings(**seconds, **durations)
        if unread or problems:
            raise Invalid({**chosen.problems(), **unread, **problems})
        return chosen

    def _settings(self, **numbers: int | None) -> RunnerSettings:
        return RunnerSettings(
            description=(self.description.data or "").strip(),
            maintenance_note=(self.maintenance_note.data or "").strip().replace("\r\n", "\n"),
            tags=split_tags(self.tags.data or ""),
            run_untagged=bool(self.run_untagged.data),
            paused=bool(self.paused.data),
            protected=bool(self.protected.data),
            locked=bool(self.locked.data),
            **numbers,
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
            "token_expiration_interval": in_a_field(settings.token_expiration_interval),
            "machines_forgotten_after": in_a_field(settings.machines_forgotten_after),
        }


class EditRunnerForm(RunnerForm):
    seen_version = HiddenField()


class SeenTokenForm(PortalForm):
    """A form that knows which token its reader has seen."""

    seen_token_id = HiddenField()

    def seen(self) -> int | None:
        value = self.seen_token_id.data or ""
        return int(value) if value.isdecimal() and len(value) < 19 else None


class ResetForm(KeyedForm, SeenTokenForm):
    """A reset of a runner's token."""


class TokenLivesForm(PortalForm):
    """How long tokens live; a project has only `own`."""

    own = StringField()
    groups = StringField()
    projects = StringField()

    def lives(self) -> TokenLives:
        """What was written. Raises Invalid for what is no time."""
        seconds, problems = self.read(read_duration, "own", "groups", "projects")
        chosen = TokenLives(**seconds)
        if problems:
            raise Invalid(
                {**chosen.problems(), **{name: self._refusal(name, said) for name, said in problems.items()}}
            )
        return chosen

    def _refusal(self, name: str, said: list[str]) -> list[str]:
        """A bare number lacks its unit; everything else is told what a life may be, in the same words."""
        return said if (self[name].data or "").strip().isdecimal() else [POSSIBLE_LIVES]


class RegistrarsForm(PortalForm):
    groups = BooleanField("In groups")
    projects = BooleanField("In projects")

    def registrars(self) -> Registrars:
        return Registrars(bool(self.groups.data), bool(self.projects.data))


class GroupCreationForm(PortalForm):
    enabled = BooleanField("Owners and maintainers may create runners here and below")


class LimitsForm(PortalForm):
    groups = StringField()
    projects = StringField()

    def limits(self) -> Limits:
        """What was written. Raises Invalid for what is no number."""
        numbers, problems = self.read(whole_number, "groups", "projects")
        if problems:
            raise Invalid(problems)
        return Limits(**numbers)


class CleanUpForm(PortalForm):
    """When a runner is stale; the page's address holds the same fields for a preview."""

    days = StringField("Days of silence")
    legacy_only = BooleanField("Only runners that were registered with a registration token")

    def criteria(self) -> Criteria:
        """What was written. Raises Invalid for what is no number, or too small or large a one."""
        numbers, problems = self.read(whole_number, "days")
        chosen = Criteria(numbers["days"] or 0, bool(self.legacy_only.data))
        if problems := problems or chosen.problems():
            raise Invalid(problems)
        return chosen

    @staticmethod
    def values_of(criteria: Criteria | None) -> Mapping[str, Any]:
        """How settled criteria stand in the form; three months where nothing is settled."""
        shown = criteria or Criteria(90)
        return {"days": str(shown.days), "legacy_only": shown.legacy_only}


class BulkForm(PortalForm):
    """What to do with the runners that were chosen on a list; their boxes stand outside the form's fields."""

    act = StringField("What to do", default=Act.PAUSE.value)
    add = StringField("Tags to add")
    remove = StringField("Tags to remove")
    access = StringField("Access level", default="any")

    def wanted(self) -> Wanted:
        """What was chosen. Raises Invalid for an act that is none."""
        if self.act.data not in set(Act):
            raise Invalid({"act": ["Choose from the list."]})
        act = Act(self.act.data)
        if act is not Act.TAGS:
            return Wanted(act, protected=self.access.data == "protected")
        return Wanted(act, split_tags(self.add.data or ""), split_tags(self.remove.data or ""))


class ProtectForm(PortalForm):
    runner = StringField("Runner number")

    def number(self) -> int:
        """The runner's number, with or without its #. Raises Invalid for what is none."""
        digits = (self.runner.data or "").strip().removeprefix("#")
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18):
            raise Invalid({"runner": ["Write the runner's number, such as 17; its page shows it."]})
        return int(digits)
