"""The pages of job templates: kept, run with one click, changed without losing secrets, deleted."""

from __future__ import annotations

import html

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.jobs import job_definitions, job_rules, job_templates
from portal.domain.jobs.job_definitions import JobVariable, NewJob
from portal.domain.jobs.job_rules import JobRules
from portal.models import Job, JobTemplate
from tests.cast import JOB_VAULT, Cast, csrf_of, hidden, send, sign_in
from tests.domain.queries import asked
from tests.web.reading import links, read, words

TEMPLATES = "/acme/web/-/jobs/templates"
SECRET = "correct-horse"
DEPLOY = NewJob(name="Deploy", script=("./deploy",), variables=(JobVariable("KEY", SECRET, masked=True),))
TYPED = {
    "name": "Deploy",
    "script": "./deploy",
    "ref": "main",
    "variables_key": ["KEY"],
    "variables_value": [""],
    "variables_masked": ["0"],
}


@pytest.fixture
def erin(cast: Cast, client: FlaskClient) -> FlaskClient:
    return sign_in(client, "erin")


def keep(cast: Cast, asked_for: NewJob = DEPLOY) -> JobTemplate:
    made = job_templates.create(cast.session, cast.as_(cast.erin), cast.web, asked_for, JOB_VAULT)
    cast.session.commit()
    return made


def only(session: Session) -> NewJob:
    session.expire_all()
    return job_definitions.opened(session.scalars(select(JobTemplate)).one().definition, JOB_VAULT)


def test_an_empty_list_says_what_to_do(erin: FlaskClient) -> None:
    page = read(erin, TEMPLATES)
    assert "keeps no job templates yet" in words(page)
    assert f"{TEMPLATES}/new" in links(page)


def test_a_template_is_made_and_stands_in_the_list(erin: FlaskClient, session: Session) -> None:
    typed = {**TYPED, "variables_value": [SECRET]}
    send(erin, f"{TEMPLATES}/new", expect=303, **typed)
    assert only(session) == DEPLOY
    page = words(read(erin, TEMPLATES))
    assert "Deploy is kept" in page
    assert "./deploy" in page
    assert SECRET not in page


def test_what_is_wrong_stands_beside_its_field(erin: FlaskClient, cast: Cast) -> None:
    keep(cast)
    answer = send(
        erin,
        f"{TEMPLATES}/new",
        expect=422,
        **{**TYPED, "name": "deploy", "image": "kept:1", "variables_value": [SECRET]},
    )
    page = html.unescape(answer.get_data(as_text=True))
    assert "a template deploy already" in page
    assert "Type the value of KEY again" in page
    assert SECRET not in page
    assert 'value="kept:1"' in page


def test_keep_as_template_takes_the_job_with_its_secrets(erin: FlaskClient, cast: Cast, session: Session) -> None:
    job = cast.job(name="Deploy", script=("./deploy",), variables=DEPLOY.variables)
    address = f"{TEMPLATES}/new?from={job.id}"
    assert address in links(read(erin, f"/acme/web/-/jobs/{job.id}"))
    assert SECRET not in read(erin, address)
    send(erin, address, expect=303, **TYPED)
    assert only(session) == DEPLOY


def test_the_button_runs_it_once_however_often_it_is_pressed(erin: FlaskClient, cast: Cast, session: Session) -> None:
    template = keep(cast)
    page = read(erin, TEMPLATES)
    fields = {"csrf_token": csrf_of(page), "request_key": hidden(page, "request_key")}
    answers = [erin.post(f"{TEMPLATES}/{template.id}/run", data=fields) for _ in range(2)]
    job = session.scalars(select(Job)).one()
    assert {answer.headers["Location"] for answer in answers} == {f"/acme/web/-/jobs/{job.id}"}
    assert job_definitions.opened(job.definition, JOB_VAULT) == DEPLOY


def test_run_with_changes_opens_the_form_with_it(erin: FlaskClient, cast: Cast, session: Session) -> None:
    template = keep(cast)
    address = f"/acme/web/-/jobs/new?template={template.id}"
    assert address in links(read(erin, TEMPLATES))
    send(erin, address, expect=303, **{**TYPED, "script": "./deploy --dry-run"})
    job = session.scalars(select(Job)).one()
    made = job_definitions.opened(job.definition, JOB_VAULT)
    assert (made.script, made.variables) == (("./deploy --dry-run",), DEPLOY.variables)


def test_a_change_leaves_the_secrets_that_were_not_typed_anew(
    erin: FlaskClient, cast: Cast, session: Session
) -> None:
    address = f"{TEMPLATES}/{keep(cast).id}"
    assert "Stays as it is" in read(erin, address)
    send(erin, address, expect=303, **{**TYPED, "name": "Ship"})
    assert (only(session).name, only(session).variables) == ("Ship", DEPLOY.variables)
    send(erin, address, expect=303, **{**TYPED, "variables_value": ["another-horse"]})
    assert only(session).variables == (JobVariable("KEY", "another-horse", masked=True),)


def test_two_who_change_it_at_once_do_not_overwrite_each_other(
    erin: FlaskClient, cast: Cast, session: Session
) -> None:
    address = f"{TEMPLATES}/{keep(cast).id}"
    page = read(erin, address)
    seen = {"csrf_token": csrf_of(page), "seen_version": hidden(page, "seen_version")}
    assert erin.post(address, data={**TYPED, **seen, "script": "one"}).status_code == 303
    answer = erin.post(address, data={**TYPED, **seen, "script": "two"})
    assert answer.status_code == 409
    text = answer.get_data(as_text=True)
    assert "Somebody changed this template" in text
    assert ">two</textarea>" in text
    assert only(session).script == ("one",)
    again = {"csrf_token": csrf_of(text), "seen_version": hidden(text, "seen_version")}
    assert erin.post(address, data={**TYPED, **again, "script": "two"}).status_code == 303


def test_deleting_asks_first_and_jobs_stay(erin: FlaskClient, cast: Cast, session: Session) -> None:
    template, job = keep(cast), cast.job()
    address = f"{TEMPLATES}/{template.id}/delete"
    assert "Jobs that it made stay" in words(read(erin, address))
    assert len(session.scalars(select(JobTemplate)).all()) == 1
    send(erin, address, expect=303)
    assert session.scalars(select(JobTemplate)).all() == []
    assert session.get(Job, job.id) is not None


def test_one_for_a_protected_ref_is_shown_to_developers_and_run_by_maintainers(erin: FlaskClient, cast: Cast) -> None:
    template = keep(cast)
    job_rules.change(cast.session, cast.as_(cast.dana), cast.web, JobRules(protected_refs=("main",)))
    cast.session.commit()
    page = read(erin, TEMPLATES)
    assert "Maintainers and owners run it" in words(page)
    assert f"{TEMPLATES}/{template.id}" not in links(page)
    assert erin.get(f"{TEMPLATES}/{template.id}").status_code == 403
    token = {"csrf_token": csrf_of(page)}
    assert erin.post(f"{TEMPLATES}/{template.id}/run", data=token).status_code == 403


def test_a_template_of_another_project_is_not_found(erin: FlaskClient, cast: Cast) -> None:
    elsewhere = cast.project("elsewhere", cast.acme)
    template = keep(cast)
    assert erin.get(f"/acme/elsewhere/-/jobs/templates/{template.id}").status_code == 404
    assert elsewhere.full_path == "acme/elsewhere"


def test_many_templates_take_as_many_statements_as_few(erin: FlaskClient, cast: Cast, session: Session) -> None:
    def statements() -> int:
        read(erin, TEMPLATES)
        with asked(session) as found:
            read(erin, TEMPLATES)
        return len(found)

    keep(cast)
    few = statements()
    for number in range(8):
        keep(cast, NewJob(name=f"More {number}", script=("make",)))
    assert statements() == few
