"""The job settings of a project: protected refs, how long jobs may run, whose runners take them."""

from __future__ import annotations

from flask import flash, redirect, render_template
from werkzeug.wrappers import Response
from wtforms import BooleanField, StringField, TextAreaField

from portal.addresses import url_in
from portal.database import db
from portal.domain import permissions
from portal.domain.errors import Invalid
from portal.domain.jobs import job_rules
from portal.domain.jobs.job_rules import JobRules
from portal.domain.permissions import Action
from portal.domain.scopes import ScopeKind
from portal.web import guards, scoped
from portal.web.forms import PortalForm, in_a_field
from portal.web.times import read_duration


class JobRulesForm(PortalForm):
    """The fields bear the settings' names."""

    protected_refs = TextAreaField("Protected branches and tags")
    build_timeout = StringField("Job timeout")
    shared_runners_enabled = BooleanField("Instance runners take this project’s jobs")
    group_runners_enabled = BooleanField("Runners of the groups above take this project’s jobs")

    def rules(self) -> JobRules:
        """What was chosen. Raises Invalid for a time that is none, together with all else that is wrong."""
        seconds, problems = self.read(read_duration, "build_timeout")
        chosen = JobRules(
            protected_refs=job_rules.split_patterns(self.protected_refs.data or ""),
            build_timeout=seconds["build_timeout"] or 0,
            shared_runners_enabled=bool(self.shared_runners_enabled.data),
            group_runners_enabled=bool(self.group_runners_enabled.data),
        )
        if problems:
            raise Invalid({**chosen.problems(), **problems})
        return chosen


def show() -> str:
    """What is settled, with the form for who may change it."""
    rules = job_rules.of_project(db.session(), guards.scope())
    shown = {
        "protected_refs": "\n".join(rules.protected_refs),
        "build_timeout": in_a_field(rules.build_timeout),
        "shared_runners_enabled": rules.shared_runners_enabled,
        "group_runners_enabled": rules.group_runners_enabled,
    }
    return _page(JobRulesForm(formdata=None, data=shown))


def _page(form: JobRulesForm) -> str:
    scope = guards.scope()
    lowest = permissions.needed(Action.SET_JOB_RULES, scope.kind)
    return render_template(
        "jobs/rules.html",
        scope=scope,
        form=form,
        rules=job_rules.of_project(db.session(), scope),
        who_sets=permissions.WHO[lowest] if lowest else "administrators",
    )


def change() -> Response | tuple[str, int]:
    """Settle what the form says."""
    guards.require(Action.SET_JOB_RULES)
    form = JobRulesForm()
    try:
        changed = job_rules.change(db.session(), guards.actor(), guards.scope(), form.rules())
    except Invalid as invalid:
        form.refuse(invalid)
        return _page(form), 422
    db.session.commit()
    flash("Saved." if changed else "Nothing was different, so nothing changed.")
    return redirect(url_in(guards.scope(), "job_settings.show"), 303)


blueprint = scoped.room(ScopeKind.PROJECT, "job_settings", Action.READ_JOBS)
blueprint.add_url_rule("", "show", show)
blueprint.add_url_rule("/change", "change", guards.recently(change), methods=["POST"])
