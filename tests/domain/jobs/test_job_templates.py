"""Named jobs that a project keeps: who keeps and runs them, under which names, and what the trail says."""

from __future__ import annotations

import uuid
from dataclasses import asdict, replace

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.errors import Invalid, NotAllowed, NotFound, Stale
from portal.domain.jobs import job_definitions, job_rules, job_templates
from portal.domain.jobs.job_definitions import JobVariable, NewJob, Repository
from portal.domain.jobs.job_rules import JobRules
from portal.domain.jobs.kept_secrets import with_secrets, without_secrets
from portal.models import AuditEvent, JobTemplate, Role, User
from tests.cast import JOB_VAULT, Cast

SECRET = "correct-horse"
URL = "https://bot:s3cret-word@git.example.com/web.git"
DEPLOY = NewJob(
    name="Deploy",
    script=("./deploy",),
    ref="release/1.2",
    tags=("docker",),
    variables=(JobVariable("DEPLOY_KEY", SECRET, masked=True), JobVariable("WHERE", "staging")),
    repository=Repository(URL),
)


def keep(cast: Cast, user: User, asked: NewJob = DEPLOY) -> JobTemplate:
    made = job_templates.create(cast.session, cast.as_(user), cast.web, asked, JOB_VAULT)
    cast.session.commit()
    return made


def protect(cast: Cast, *patterns: str) -> None:
    job_rules.change(cast.session, cast.as_(cast.dana), cast.web, JobRules(protected_refs=patterns))
    cast.session.commit()


def told(session: Session) -> list[AuditEvent]:
    query = select(AuditEvent).where(AuditEvent.target_kind == "job_template").order_by(AuditEvent.id)
    return list(session.scalars(query))


def test_a_developer_keeps_a_job_and_runs_it(cast: Cast, session: Session) -> None:
    template = keep(cast, cast.erin)
    key = uuid.uuid4()
    job, again = (
        job_templates.run(session, cast.as_(cast.erin), template, JOB_VAULT, request_key=key) for _ in range(2)
    )
    assert job.id == again.id
    assert (job.name, job.ref, job.tag_list, job.user_id) == ("Deploy", "release/1.2", ["docker"], cast.erin.id)
    assert job_definitions.opened(job.definition, JOB_VAULT) == DEPLOY


def test_a_name_is_taken_once_whatever_its_case(cast: Cast) -> None:
    first = keep(cast, cast.erin)
    with pytest.raises(Invalid, match="a template dEPLOY already"):
        keep(cast, cast.erin, replace(DEPLOY, name="dEPLOY"))
    other = keep(cast, cast.erin, replace(DEPLOY, name="Other"))
    with pytest.raises(Invalid) as refused:
        update(cast, cast.erin, other, replace(DEPLOY, name=" deploy "))
    assert list(refused.value.problems) == ["name"]
    assert update(cast, cast.erin, first, replace(DEPLOY, name="DEPLOY"))


def update(cast: Cast, user: User, template: JobTemplate, asked: NewJob, **more: str) -> bool:
    changed = job_templates.update(cast.session, cast.as_(user), template, asked, JOB_VAULT, **more)
    cast.session.commit()
    return changed


def test_who_only_reads_jobs_keeps_none_and_a_stranger_finds_none(cast: Cast, session: Session) -> None:
    reporter = cast.person("rita")
    cast.member(reporter, cast.web, Role.REPORTER)
    template = keep(cast, cast.erin)
    for act in (
        lambda: keep(cast, reporter, replace(DEPLOY, name="mine")),
        lambda: job_templates.run(session, cast.as_(reporter), template, JOB_VAULT),
        lambda: update(cast, reporter, template, DEPLOY),
        lambda: job_templates.delete(session, cast.as_(reporter), template),
    ):
        with pytest.raises(NotAllowed):
            act()
    assert job_templates.find(session, cast.as_(reporter), cast.web, template.id) is template
    with pytest.raises(NotFound):
        job_templates.find(session, cast.as_(cast.charlie), cast.web, template.id)


def test_one_for_a_protected_ref_is_the_maintainers(cast: Cast, session: Session) -> None:
    template = keep(cast, cast.erin)
    protect(cast, "release/*")
    assert job_templates.is_protected(session, template)
    for act in (
        lambda: job_templates.run(session, cast.as_(cast.erin), template, JOB_VAULT),
        lambda: update(cast, cast.erin, template, replace(DEPLOY, ref="feature")),
        lambda: job_templates.delete(session, cast.as_(cast.erin), template),
        lambda: keep(cast, cast.erin, replace(DEPLOY, name="another")),
    ):
        with pytest.raises(NotAllowed):
            act()
    assert job_templates.run(session, cast.as_(cast.bob), template, JOB_VAULT).ref_protected
    other = keep(cast, cast.erin, replace(DEPLOY, name="another", ref="feature"))
    with pytest.raises(NotAllowed):
        update(cast, cast.erin, other, replace(DEPLOY, name="another"))


def test_a_template_has_no_needs_and_all_problems_are_told_at_once(cast: Cast) -> None:
    with pytest.raises(Invalid) as refused:
        keep(cast, cast.erin, replace(DEPLOY, script=(), needs=(1,)))
    assert set(refused.value.problems) == {"script", "needs"}


def test_a_change_counts_from_now_on_and_nothing_else_is_no_change(cast: Cast, session: Session) -> None:
    template = keep(cast, cast.erin)
    before = job_templates.run(session, cast.as_(cast.erin), template, JOB_VAULT)
    assert not update(cast, cast.erin, template, DEPLOY)
    assert update(cast, cast.erin, template, replace(DEPLOY, script=("./deploy", "./look")))
    after = job_templates.run(session, cast.as_(cast.erin), template, JOB_VAULT)
    assert [len(each.definition.config["script"]) for each in (before, after)] == [1, 2]


def test_who_decided_on_what_stood_before_is_told(cast: Cast) -> None:
    template = keep(cast, cast.erin)
    seen = job_templates.version_of(template)
    update(cast, cast.bob, template, replace(DEPLOY, timeout=600), seen=seen)
    with pytest.raises(Stale, match="Somebody changed this template"):
        update(cast, cast.erin, template, replace(DEPLOY, timeout=900), seen=seen)


def test_the_trail_tells_what_changed_and_no_secret(cast: Cast, session: Session) -> None:
    template = keep(cast, cast.erin)
    key = JobVariable("DEPLOY_KEY", "another-horse", masked=True)
    update(cast, cast.erin, template, replace(DEPLOY, name="Ship", script=(f"echo {SECRET}",), variables=(key,)))
    job_templates.delete(session, cast.as_(cast.erin), template)
    events = told(session)
    assert [each.action for each in events] == [
        "job_template_created",
        "job_template_updated",
        "job_template_deleted",
    ]
    assert events[1].changes == {
        "name": ["Deploy", "Ship"],
        "script": [None, "changed"],
        "variables or repository": [None, "changed"],
    }
    text = str([each.changes for each in events])
    assert not any(secret in text for secret in (SECRET, "another-horse", "s3cret-word"))


def test_a_project_keeps_so_many_and_no_more(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_templates, "MOST_TEMPLATES", 1)
    keep(cast, cast.erin)
    with pytest.raises(Invalid, match="at most 1"):
        keep(cast, cast.erin, replace(DEPLOY, name="Other"))


# Secrets that are never shown again


def test_what_people_read_again_has_no_secret_in_it() -> None:
    shown = str(asdict(without_secrets(DEPLOY)))  # its print hides the values that are no secret too
    assert SECRET not in shown
    assert "s3cret-word" not in shown
    assert "staging" in shown


def test_what_was_left_as_it_was_shown_goes_on() -> None:
    assert with_secrets(without_secrets(DEPLOY), DEPLOY) == DEPLOY


@pytest.mark.parametrize(
    "typed",
    [
        JobVariable("DEPLOY_KEY", "another-horse", masked=True),
        JobVariable("DEPLOY_KEY"),  # no longer masked: it would be shown from now on
        JobVariable("OTHER_KEY", masked=True),
    ],
)
def test_what_was_typed_or_is_not_masked_any_more_gets_no_old_secret(typed: JobVariable) -> None:
    asked = replace(DEPLOY, variables=(typed,))
    assert with_secrets(asked, DEPLOY).variables == (typed,)


def test_a_name_and_password_go_to_no_other_host() -> None:
    elsewhere = Repository("https://…@evil.example.com/web.git")
    assert with_secrets(replace(DEPLOY, repository=elsewhere), DEPLOY).repository == elsewhere
