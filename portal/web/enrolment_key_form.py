"""The form for a new enrolment key: the settings of its runners, how many, until when and from where."""

from __future__ import annotations

from datetime import timedelta

from wtforms import BooleanField, StringField, TextAreaField

from portal.database import now
from portal.domain.enrolment import enrolment_networks
from portal.domain.enrolment.enrolment_keys import NewEnrolmentKey
from portal.domain.errors import Invalid
from portal.domain.runners.runner_settings import RunnerSettings, split_tags
from portal.web.forms import KeyedForm, read_day, whole_number, whole_seconds
from portal.web.times import read_duration


class EnrolmentKeyForm(KeyedForm):
    """In the order of the page, which the summary of what is wrong has too."""

    name = StringField("Name")
    most_runners = StringField("Runners at most", default="1")
    expires_at = StringField("Expires on")
    networks = TextAreaField("Networks")
    tags = StringField("Tags")
    run_untagged = BooleanField("Run untagged jobs")
    protected = BooleanField("Protected")
    locked = BooleanField("Locked")
    description = StringField("Description")
    maintenance_note = TextAreaField("Maintenance note")
    maximum_timeout = StringField("Maximum job timeout")
    token_expiration_interval = StringField("Token life")

    def wanted(self, longest: timedelta) -> NewEnrolmentKey:
        """What was chosen; `longest` is how long a key may live.

        Raises Invalid for what is no number or time, together with all else that is wrong.
        """
        numbers, problems = self.read(whole_number, "most_runners")
        seconds, unread = self.read(whole_seconds, "maximum_timeout")
        durations, unreadable = self.read(read_duration, "token_expiration_interval")
        template = RunnerSettings(
            description=(self.description.data or "").strip(),
            maintenance_note=(self.maintenance_note.data or "").strip().replace("\r\n", "\n"),
            tags=split_tags(self.tags.data or ""),
            run_untagged=bool(self.run_untagged.data),
            protected=bool(self.protected.data),
            locked=bool(self.locked.data),
            maximum_timeout=seconds["maximum_timeout"],
            token_expiration_interval=durations["token_expiration_interval"],
        )
        chosen = NewEnrolmentKey(
            name=self.name.data or "",
            most_runners=numbers["most_runners"],
            expires_at=read_day(self.expires_at.data or ""),
            template=template,
            networks=enrolment_networks.split(self.networks.data or ""),
        )
        if problems := {**problems, **unread, **unreadable}:
            raise Invalid({**chosen.problems(now().date(), longest), **problems})
        return chosen
