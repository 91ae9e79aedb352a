"""The pages of a project's jobs: list, form, the page of one, what may be done with it, by whom."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.jobs import failure_reasons, job_definitions, job_rules, jobs
from portal.domain.jobs.job_definitions import ArtifactsWanted, JobVariable, NewJob, Repository
from portal.domain.jobs.job_rules import JobRules
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import Job, JobLog, JobStatus, Role, RunnerManager, User
from tests.api.machines import Machine, info_of, through
from tests.cast import JOB_VAULT, Cast, csrf_of, hidden, send, sign_in
from tests.domain.queries import asked
from tests.web.reading import links, part, read, row_titles, words

JOBS = "/acme/web/-/jobs"
NEW = f"{JOBS}/new"
SIMPLE = {"name": "build", "script": "make", "ref": "main"}
SECRET = "correct-horse"
LOG = b"$ make\n"
ANY = RunnerSettings(description="Takes all", tags=("docker", "gpu"), run_untagged=True)


@pytest.fixture
def erin(cast: Cast, client: FlaskClient) -> FlaskClient:
    """The browser of Erin, who is a developer in acme."""
    return sign_in(client, "erin")


@pytest.fixture
def machine(app: Flask, cast: Cast) -> Machine:
    return Machine(through(app.test_client()), cast.runner(settings=ANY).token)


def submit(client: FlaskClient, *, expect: int = 303, at: str = NEW, **fields: Any) -> Any:
    return send(client, at, expect=expect, **{**SIMPLE, **fields})


def newest(session: Session) -> Job:
    session.expire_all()
    return session.scalars(select(Job).order_by(Job.id.desc()).limit(1)).one()


def asked_for(job: Job) -> NewJob:
    return job_definitions.opened(job.definition, JOB_VAULT)


def page_of(client: FlaskClient, job: Job) -> str:
    return words(read(client, f"{JOBS}/{job.id}"))


def protect(cast: Cast, *patterns: str) -> None:
    job_rules.change(cast.session, cast.as_(cast.dana), cast.web, JobRules(protected_refs=patterns))
    cast.session.commit()


# The form


def test_a_name_a_script_and_tags_are_enough(erin: FlaskClient, cast: Cast, session: Session) -> None:
    answer = submit(erin, script="make\r\nmake install\r\n\r\n", tags="docker, linux")
    job = newest(session)
    assert answer.headers["Location"] == f"{JOBS}/{job.id}"
    assert (job.name, job.tag_list, job.ref, job.user_id) == ("build", ["docker", "linux"], "main", cast.erin.id)
    assert asked_for(job).script == ("make", "make install")
    assert "Waits for a runner" in page_of(erin, job)


def test_everything_that_the_form_asks_for_arrives(erin: FlaskClient, cast: Cast, session: Session) -> None:
    before = cast.job()
    submit(
        erin,
        after_script="echo bye",
        image="alpine:3.20",
        services="postgres:18\nredis:8",
        ref="feature",
        protected="no",
        timeout="30m",
        retry="2",
        needs=f"#{before.id}",
        variables_key=["KEY", "", "PATHS"],
        variables_value=[SECRET, "", "a\r\nb"],
        variables_masked=["0"],
        variables_file=["2"],
        variables_raw=["2"],
        artifacts_paths="dist/**\nreport.xml",
        artifacts_exclude="dist/tmp/**",
        artifacts_name="built",
        artifacts_when="always",
        artifacts_expire_in="1 week",
        repository_url="https://git.example.com/web.git",
        repository_commit="0123abcd",
    )
    assert asked_for(newest(session)) == NewJob(
        name="build",
        script=("make",),
        after_script=("echo bye",),
        image="alpine:3.20",
        services=("postgres:18", "redis:8"),
        ref="feature",
        protected=False,
        variables=(JobVariable("KEY", SECRET, masked=True), JobVariable("PATHS", "a\nb", file=True, raw=True)),
        timeout=1800,
        artifacts=ArtifactsWanted(("dist/**", "report.xml"), ("dist/tmp/**",), "built", "always", "1 week"),
        repository=Repository("https://git.example.com/web.git", "0123abcd"),
        retry=2,
        needs=(before.id,),
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": ""}, "Give the job a name"),
        ({"script": "\n"}, "Write at least one line"),
        ({"timeout": "30"}, "Add the unit"),
        ({"timeout": "5s"}, "from 10s to 30d"),
        ({"retry": "many"}, "Choose from the list"),
        ({"needs": "the last"}, "Write the numbers of jobs"),
        ({"needs": "999"}, "There is no job #999"),
        ({"ref": "no such~ref"}, "This is no name of a branch"),
        ({"variables_key": "1X", "variables_value": "y"}, "is no name of a variable"),
        ({"artifacts_exclude": "x"}, "Say which files to keep"),
        ({"repository_url": "nowhere"}, "the address of a Git repository"),
        ({"repository_commit": "0123abcd"}, "the address of a Git repository"),
    ],
)
def test_what_is_wrong_stands_beside_its_field_and_nothing_typed_is_lost(
    erin: FlaskClient, session: Session, wrong: dict[str, str], said: str
) -> None:
    answer = submit(erin, expect=422, **{"image": "kept:1", "after_script": "kept too", **wrong})
    page = html.unescape(answer.get_data(as_text=True))
    assert said in page
    assert "your attention" in page
    assert 'value="kept:1"' in page
    assert ">kept too</textarea>" in page
    assert '<details class="more-fields" open>' in page
    assert session.scalars(select(Job)).all() == []


def test_all_that_is_wrong_is_told_at_once(erin: FlaskClient) -> None:
    page = words(submit(erin, expect=422, name="", timeout="soon", script="").get_data(as_text=True))
    assert "3 things need your attention" in page


def test_a_masked_value_is_never_sent_back_and_the_page_says_so(erin: FlaskClient) -> None:
    typed = {"variables_key": ["KEY"], "variables_value": [SECRET], "variables_masked": ["0"]}
    for fields, status in (({"name": ""}, 422), ({"more": "variables"}, 200)):
        page = submit(erin, expect=status, **typed, **fields).get_data(as_text=True)
        assert SECRET not in page
        assert "Type the value of KEY again" in words(page)
        assert 'value="KEY"' in page


def test_a_password_in_an_address_is_never_sent_back_and_the_page_says_so(erin: FlaskClient) -> None:
    typed = {"repository_url": f"https://bot:{SECRET}@git.example.com/web.git"}
    for fields, status in (({"name": ""}, 422), ({"more": "variables"}, 200)):
        page = submit(erin, expect=status, **typed, **fields).get_data(as_text=True)
        assert SECRET not in page
        assert "Write the address again, with its name and password" in words(page)
        assert 'value="https://…@git.example.com/web.git"' in page
    left = submit(erin, expect=422, repository_url="https://…@git.example.com/web.git").get_data(as_text=True)
    assert "Write the name and password in the address again" in words(left)


def test_more_rows_come_without_javascript_and_keep_what_was_typed(erin: FlaskClient, session: Session) -> None:
    first = read(erin, NEW).count('name="variables_key"')
    typed = {"variables_key": ["A", "B"], "variables_value": ["one", "two"], "variables_raw": ["1"]}
    page = submit(erin, expect=200, more="variables", **typed).get_data(as_text=True)
    assert page.count('name="variables_key"') > first
    assert ">two</textarea>" in page
    assert re.search(r'name="variables_raw" value="1" checked', page)
    assert session.scalars(select(Job)).all() == []


def test_the_same_form_sent_twice_makes_one_job(erin: FlaskClient, session: Session) -> None:
    page = read(erin, NEW)
    fields = {**SIMPLE, "csrf_token": csrf_of(page), "request_key": hidden(page, "request_key")}
    answers = [erin.post(NEW, data=fields) for _ in range(2)]
    assert len({answer.headers["Location"] for answer in answers}) == 1
    assert len(session.scalars(select(Job)).all()) == 1


def test_tags_of_the_runners_here_are_suggested(erin: FlaskClient, machine: Machine) -> None:
    assert 'data-tag="gpu"' in read(erin, NEW)


def test_who_may_not_run_on_a_protected_ref_loses_nothing_and_reads_what_to_do(
    erin: FlaskClient, cast: Cast, session: Session
) -> None:
    protect(cast, "main")
    answer = submit(erin, expect=403, image="kept:1")
    page = html.unescape(answer.get_data(as_text=True))
    assert "maintainers and owners may" in page
    assert "choose “No”" in page
    assert 'value="kept:1"' in page
    submit(erin, protected="no")
    assert not newest(session).ref_protected


def test_a_maintainer_may_and_the_list_marks_it(client: FlaskClient, cast: Cast, session: Session) -> None:
    protect(cast, "main")
    bob = sign_in(client, "bob")
    submit(bob)
    assert newest(session).ref_protected
    assert "main protected" in words(read(bob, JOBS))


# Run again with changes


def test_run_again_with_changes_begins_with_what_was_asked_for(
    erin: FlaskClient, cast: Cast, session: Session
) -> None:
    key = JobVariable("KEY", SECRET, masked=True)
    url = "https://bot:s3cret-word@git.example.com/web.git"
    before = cast.job(script=("make", "make test"), variables=(key,), timeout=1800, repository=Repository(url))
    address = f"{NEW}?from={before.id}"
    page = html.unescape(read(erin, address))
    assert "make\nmake test</textarea>" in page
    assert 'value="30m"' in page
    assert SECRET not in page
    assert "s3cret-word" not in page
    shown = {"variables_key": ["KEY"], "variables_value": [""], "variables_masked": ["0"]}
    masked = "https://…@git.example.com/web.git"
    submit(erin, at=address, name="again", repository_url=masked, **shown)
    after = asked_for(newest(session))
    assert (after.name, after.variables, after.repository) == ("again", (key,), Repository(url))


def test_a_job_on_a_protected_ref_lends_its_secrets_to_who_may_run_it_only(erin: FlaskClient, cast: Cast) -> None:
    protect(cast, "main")
    job = cast.job(variables=(JobVariable("KEY", SECRET, masked=True),))
    assert erin.get(f"{NEW}?from={job.id}").status_code == 403
    assert erin.get(f"{JOBS}/templates/new?from={job.id}").status_code == 403


def test_a_job_of_another_project_is_no_beginning(erin: FlaskClient, cast: Cast) -> None:
    elsewhere = cast.job(cast.project("elsewhere", cast.other))
    assert erin.get(f"{NEW}?from={elsewhere.id}").status_code == 404
    assert erin.get(f"{JOBS}/{elsewhere.id}").status_code == 404


# The list


def test_an_empty_list_says_what_to_do(erin: FlaskClient) -> None:
    page = read(erin, JOBS)
    assert "has run no jobs yet" in words(page)
    assert NEW in links(page)


def test_the_newest_comes_first_with_what_it_is_for_and_who_runs_it(
    client: FlaskClient, cast: Cast, machine: Machine
) -> None:
    bob = sign_in(client, "bob")
    cast.job(name="old", tags=("docker",), ref="feature")
    machine.ask_for_job(system_id="r_seven").finish(state="failed", exit_code=3, failure_reason="script_failure")
    cast.job(name="young")
    page = read(bob, JOBS)
    assert row_titles(page) == ["young", "old"]
    said = words(page)
    for each in ("feature", "docker", "Takes all", "on r_seven", "by Dana Kay", "exit code 3", "waits for a runner"):
        assert each in said
    assert any("/-/runners/" in each for each in links(part(page, "job-rows")))


def test_who_may_not_open_runners_reads_their_names_without_a_link(
    erin: FlaskClient, cast: Cast, machine: Machine
) -> None:
    job = cast.job()
    machine.ask_for_job()
    for page in (read(erin, JOBS), read(erin, f"{JOBS}/{job.id}")):
        assert "Takes all" in page
        assert not any("/-/runners/" in each for each in links(page))


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("?status=pending", ["third", "second"]),
        ("?status=canceled", ["first"]),
        ("?status=nonsense", ["third", "second", "first"]),
        ("?search=sec", ["second"]),
        ("?ref=feature", ["third"]),
        ("?tag=gpu", ["second"]),
        ("?status=pending&tag=gpu&search=SECOND", ["second"]),
        ("?search=zebra", []),
    ],
)
def test_filters_stand_in_the_address(
    erin: FlaskClient, cast: Cast, session: Session, address: str, shown: list[str]
) -> None:
    jobs.cancel(session, cast.as_(cast.dana), cast.job(name="first"))
    cast.job(name="second", tags=("gpu",))
    cast.job(name="third", ref="feature")
    page = read(erin, JOBS + address)
    assert row_titles(page) == shown
    if not shown:
        assert "No job fits these filters" in page
        assert JOBS in links(page)


def test_a_number_finds_its_job(erin: FlaskClient, cast: Cast) -> None:
    cast.job(name="one")
    job = cast.job(name="two")
    assert row_titles(read(erin, f"{JOBS}?search=%23{job.id}")) == ["two"]


def test_counts_are_of_all_statuses_and_of_the_other_filters(erin: FlaskClient, cast: Cast, session: Session) -> None:
    jobs.cancel(session, cast.as_(cast.dana), cast.job(name="a"))
    cast.job(name="a")
    cast.job(name="b")
    tiles = re.findall(r'<a class="tile"[^>]*><b>(\d+)</b>', read(erin, f"{JOBS}?search=a&status=pending"))
    assert tiles == ["1", "0", "0", "0", "0", "1"]


def test_runs_that_were_run_again_can_be_left_out(erin: FlaskClient, cast: Cast, session: Session) -> None:
    first = cast.job(name="a")
    jobs.cancel(session, cast.as_(cast.dana), first)
    jobs.retry(session, cast.as_(cast.dana), first, JOB_VAULT)
    session.commit()
    page = read(erin, JOBS)
    assert page.count('class="quiet-row"') == 1
    assert "run again since" in page
    assert len(row_titles(read(erin, f"{JOBS}?retried=no"))) == 1


def test_pages_go_on_from_the_last_row(erin: FlaskClient, cast: Cast) -> None:
    for number in range(45):
        cast.job(name=f"job{number}")
    seen: list[str] = []
    address: str | None = JOBS
    while address:
        page = read(erin, address)
        seen += row_titles(page)
        found = re.search(r'rel="next" href="([^"]+)"', page)
        address = html.unescape(found[1]) if found else None
    assert seen == [f"job{number}" for number in reversed(range(45))]
    assert re.search(r'rel="prev"', page)


def test_a_page_of_many_jobs_takes_as_many_statements_as_one_of_few(
    client: FlaskClient, cast: Cast, session: Session, machine: Machine
) -> None:
    bob = sign_in(client, "bob")

    def statements() -> int:
        read(bob, JOBS)
        with asked(session) as found:
            read(bob, JOBS)
        return len(found)

    def one(name: str) -> None:
        cast.job(name=name, tags=("docker",))
        machine.ask_for_job(system_id=f"r_{name}").finish()

    one("first")
    few = statements()
    for number in range(12):
        one(f"more{number}")
    assert statements() == few


def refresh_of(page: str) -> str:
    """What the list asks for by itself."""
    return html.unescape(re.findall(r'id="job-rows" hx-get="([^"]+)"', page)[0])


def test_the_list_asks_again_and_is_told_when_nothing_changed(
    erin: FlaskClient, cast: Cast, session: Session
) -> None:
    job = cast.job()
    again = refresh_of(read(erin, JOBS))
    assert erin.get(again).status_code == 204
    jobs.cancel(session, cast.as_(cast.dana), session.get_one(Job, job.id))
    session.commit()
    again = refresh_of(read(erin, again))  # all are over, and it goes on: a new one is seen
    assert erin.get(again).status_code == 204
    cast.job(name="new")
    assert row_titles(read(erin, again))[0] == "new"


def test_an_older_page_asks_again_only_while_something_on_it_goes_on(
    erin: FlaskClient, cast: Cast, session: Session
) -> None:
    old, new = cast.job(), cast.job()
    older = f"{JOBS}?after={new.id}"
    refresh_of(read(erin, older))
    jobs.cancel(session, cast.as_(cast.dana), session.get_one(Job, old.id))
    session.commit()
    assert 'id="job-rows" hx-get' not in read(erin, older)


def test_the_counts_above_the_list_do_not_lag(erin: FlaskClient, cast: Cast, session: Session) -> None:
    _, new = cast.job(), cast.job()
    again = refresh_of(read(erin, f"{JOBS}?after={new.id}"))  # shows the other one
    jobs.cancel(session, cast.as_(cast.dana), session.get_one(Job, new.id))
    session.commit()
    tiles = re.findall(r'<a class="tile"[^>]*><b>(\d+)</b>', read(erin, again))
    assert tiles == ["1", "0", "0", "0", "0", "1"]


# The page of a job


def test_the_page_tells_the_machine_also_when_it_is_forgotten(
    client: FlaskClient, cast: Cast, session: Session, machine: Machine
) -> None:
    bob, job = sign_in(client, "bob"), cast.job()
    machine.ask_for_job(system_id="r_seven").finish()
    assert "r_seven gitlab-runner 18.6.6" in page_of(bob, job)
    session.delete(session.scalars(select(RunnerManager).where(RunnerManager.system_xid == "r_seven")).one())
    session.commit()
    assert "r_seven forgotten since" in page_of(bob, job)


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (
            "script_failure",
            "such as fetching the repository. Exit code 7. The end of the log shows which",
        ),
        ("runner_system_failure", "The machine could not run it."),
        ("job_execution_timeout", "It ran longer than it may."),
        ("something_new", "a reason that this portal does not know"),
        (None, "did not say why"),
    ],
)
def test_a_failure_is_told_in_words_with_what_to_do(
    erin: FlaskClient, cast: Cast, machine: Machine, reason: str | None, said: str
) -> None:
    job = cast.job()
    machine.ask_for_job().finish(state="failed", failure_reason=reason, exit_code=7)
    assert said in page_of(erin, job)


def test_the_script_is_shown_and_of_variables_their_names(erin: FlaskClient, cast: Cast) -> None:
    job = cast.job(script=("echo <b>&",), variables=(JobVariable("KEY", "plain-value"),))
    page = read(erin, f"{JOBS}/{job.id}")
    assert "echo &lt;b&gt;&amp;" in page
    assert "KEY" in page
    assert "plain-value" not in page


def test_its_times_and_the_timeout_that_counted(
    erin: FlaskClient, cast: Cast, session: Session, machine: Machine
) -> None:
    job = cast.job(timeout=7200)
    machine.ask_for_job().finish()
    job = session.get_one(Job, job.id, populate_existing=True)
    job.queued_at, job.started_at = now() - timedelta(minutes=10), now() - timedelta(minutes=7)
    job.finished_at, job.effective_timeout = now() - timedelta(minutes=2), 3600
    session.commit()
    said = page_of(erin, job)
    assert "Queued 3 minutes" in said
    assert "Duration 5 minutes" in said
    assert "Timeout 1 hour the runner’s; the job’s is 2 hours" in said


def test_runs_of_the_same_job_lead_to_each_other(erin: FlaskClient, cast: Cast, session: Session) -> None:
    first = cast.job()
    jobs.cancel(session, cast.as_(cast.dana), first)
    session.commit()
    send(erin, f"{JOBS}/{first.id}/retry", form_at=f"{JOBS}/{first.id}", expect=303)
    second = newest(session)
    assert second.retry_of_id == first.id
    assert f"{JOBS}/{second.id}" in links(read(erin, f"{JOBS}/{first.id}"))
    assert f"{JOBS}/{first.id}" in links(read(erin, f"{JOBS}/{second.id}"))


def test_a_form_that_was_sent_changed_and_sent_again_asks_before_it_makes_one_more(
    erin: FlaskClient, session: Session
) -> None:
    page = read(erin, NEW)
    fields = {**SIMPLE, "csrf_token": csrf_of(page), "request_key": hidden(page, "request_key")}
    assert erin.post(NEW, data=fields).status_code == 303
    changed = {**fields, "script": "make all"}
    answer = erin.post(NEW, data=changed)
    again = answer.get_data(as_text=True)
    assert answer.status_code == 409
    assert "This form was sent before with other values" in again
    assert "make all" in again
    assert len(session.scalars(select(Job)).all()) == 1
    assert erin.post(NEW, data={**changed, "request_key": hidden(again, "request_key")}).status_code == 303
    assert asked_for(newest(session)).script == ("make all",)


def test_run_again_sent_twice_leads_to_the_one_that_was_made(erin: FlaskClient, cast: Cast, session: Session) -> None:
    first = cast.job()
    jobs.cancel(session, cast.as_(cast.dana), first)
    session.commit()
    page = {"form_at": f"{JOBS}/{first.id}"}
    answers = [send(erin, f"{JOBS}/{first.id}/retry", expect=303, **page) for _ in range(2)]
    assert len({answer.headers["Location"] for answer in answers}) == 1
    assert len(session.scalars(select(Job)).all()) == 2


def test_cancel_is_gentle_and_cancel_now_is_not(
    erin: FlaskClient, cast: Cast, session: Session, machine: Machine
) -> None:
    job = cast.job()
    machine.ask_for_job().report("running")
    place, status = f"{JOBS}/{job.id}", lambda: session.get_one(Job, job.id, populate_existing=True).state
    assert "Cancel now ends the job here at once" in page_of(erin, job)
    send(erin, f"{place}/cancel", form_at=place, expect=303)
    assert status() is JobStatus.CANCELING
    send(erin, f"{place}/cancel", form_at=place, force="true", expect=303)
    assert status() is JobStatus.CANCELED
    answer = send(erin, f"{place}/cancel", form_at=place, expect=303)
    assert "over already" in words(read(erin, answer.headers["Location"]))


def test_a_job_that_waits_is_canceled_at_once(erin: FlaskClient, cast: Cast, session: Session) -> None:
    job = cast.job()
    assert "Cancel now" not in page_of(erin, job)
    send(erin, f"{JOBS}/{job.id}/cancel", form_at=f"{JOBS}/{job.id}", expect=303)
    assert newest(session).state is JobStatus.CANCELED


def test_the_live_parts_come_only_when_something_changed(erin: FlaskClient, cast: Cast, machine: Machine) -> None:
    job = cast.job()
    page = read(erin, f"{JOBS}/{job.id}")
    live = html.unescape(re.search(r'id="job-status"[^>]* hx-get="([^"]+)"', page)[1])  # type: ignore[index]
    assert erin.get(live).status_code == 204
    given = machine.ask_for_job()
    given.report("running")
    changed = read(erin, live)
    assert "Running" in changed
    assert "Takes all" in changed
    given.finish()
    over = read(erin, live)
    assert "Run again" in over
    assert "hx-trigger" not in over.split('id="job-status"')[1].split(">")[0]


def test_the_page_shows_what_ran_besides_the_script(erin: FlaskClient, cast: Cast) -> None:
    needed = cast.job(name="compile")
    url = "https://bot:s3cret-word@git.example.com/web.git"
    job = cast.job(repository=Repository(url, "0123abcd"), needs=(needed.id,), retry=2)
    page = read(erin, f"{JOBS}/{job.id}")
    said = words(part(page, "job-facts"))
    assert "Repository https://…@git.example.com/web.git Commit 0123abcd" in said
    assert "s3cret-word" not in page
    assert f"Needs compile (#{needed.id}) Pending" in said
    assert "Retries Up to 2 times when it fails 2 left after this run" in said
    assert f"{JOBS}/{needed.id}" in links(part(page, "job-facts"))
    assert f"Needed by build (#{job.id}) Pending" in words(part(read(erin, f"{JOBS}/{needed.id}"), "job-facts"))


def test_a_cancel_promises_the_after_script_only_where_the_machine_runs_it(
    app: Flask, erin: FlaskClient, cast: Cast
) -> None:
    modern, old = (
        Machine(through(app.test_client()), cast.runner(settings=ANY).token, info=info_of(version))
        for version in ("18.6.6", "15.11.1")
    )
    for machine, said in ((modern, "the after script still runs"), (old, "without the after script")):
        job = cast.job(after_script=("make clean",))
        assert "after script" not in part(read(erin, f"{JOBS}/{job.id}"), "job-status")
        machine.ask_for_job().report("running")
        assert said in words(part(read(erin, f"{JOBS}/{job.id}"), "job-status"))
        send(erin, f"{JOBS}/{job.id}/cancel", form_at=f"{JOBS}/{job.id}", expect=303)
        after = page_of(erin, job)
        assert ("and runs the after script still" in after) == (machine is modern)
        assert "is told to stop" not in after


def test_a_machine_that_fell_silent_is_told_of(
    erin: FlaskClient, cast: Cast, session: Session, machine: Machine
) -> None:
    job = cast.job()
    machine.ask_for_job().report("running")
    place = f"{JOBS}/{job.id}"
    assert "silent" not in page_of(erin, job)
    live = html.unescape(re.search(r'id="job-status"[^>]* hx-get="([^"]+)"', read(erin, place))[1])  # type: ignore[index]
    session.execute(update(JobLog).values(heard_at=now() - timedelta(seconds=150)))
    session.commit()
    said = words(read(erin, live))
    assert "Its machine has been silent for 2 minutes. After 10 minutes of silence the job is given up" in said


def test_the_list_says_why_a_job_failed(erin: FlaskClient, cast: Cast, machine: Machine) -> None:
    cast.job()
    machine.ask_for_job().finish(state="failed", failure_reason="script_failure", exit_code=3)
    cast.job()
    machine.ask_for_job().finish(state="failed", failure_reason="job_execution_timeout")
    said = words(part(read(erin, JOBS), "job-rows"))
    assert "a command failed, exit code 3" in said
    assert "ran too long" in said


def test_every_reason_has_few_words_too() -> None:
    assert all(len(failure_reasons.briefly(each)) < 45 for each in failure_reasons.REASONS)
    unknown = failure_reasons.briefly("something_new")
    assert [each for each in failure_reasons.REASONS if failure_reasons.briefly(each) == unknown] == []


def test_the_form_begins_with_no_ref_that_one_may_not_use(client: FlaskClient, cast: Cast) -> None:
    protect(cast, "main")
    for username, value in (("erin", ""), ("bob", "main")):
        browser = sign_in(client, username)
        for address in (NEW, f"{JOBS}/templates/new"):
            page = read(browser, address)
            assert f'name="ref" type="text" value="{value}"' in page
            assert ("It does not begin with main" in page) == (username == "erin")
            assert ('class="more-fields" open' in page) == (username == "erin")
        client.post("/-/sign-out", data={"csrf_token": csrf_of(read(browser, JOBS))})


def test_run_again_with_changes_takes_the_place_of_a_job_that_waits(
    erin: FlaskClient, cast: Cast, session: Session
) -> None:
    old = cast.job()
    address = f"{NEW}?from={old.id}"
    page = read(erin, address)
    assert f"Cancel #{old.id}, which still waits" in words(page)
    assert re.search(r'name="withdraw" type="checkbox" value="y" checked', page)
    submit(erin, at=address, expect=422, script="", withdraw="y")
    assert session.get_one(Job, old.id, populate_existing=True).state is JobStatus.PENDING
    submit(erin, at=address, withdraw="y")
    assert session.get_one(Job, old.id, populate_existing=True).state is JobStatus.CANCELED
    assert newest(session).state is JobStatus.PENDING


def test_a_job_that_still_waits_beside_its_changed_run_is_told_of(
    erin: FlaskClient, cast: Cast, session: Session, machine: Machine
) -> None:
    old = cast.job()
    address = f"{NEW}?from={old.id}"
    answer = submit(erin, at=address)
    page = read(erin, answer.headers["Location"])
    assert f"build (#{old.id}) still waits beside this one" in words(page)
    assert f"{JOBS}/{old.id}" in links(page)
    fields = {
        **SIMPLE,
        "withdraw": "y",
        "csrf_token": csrf_of(page),
        "request_key": hidden(read(erin, NEW), "request_key"),
    }
    machine.ask_for_job().report("running")
    assert erin.post(address, data=fields).status_code == 303
    assert session.get_one(Job, old.id, populate_existing=True).state is JobStatus.RUNNING


def test_what_a_job_left_is_erased_after_a_confirmation(
    erin: FlaskClient, cast: Cast, session: Session, machine: Machine
) -> None:
    job = cast.job()
    place = f"{JOBS}/{job.id}"
    given = machine.ask_for_job()
    given.write(LOG)
    assert f"{place}/erase" not in links(read(erin, place))
    given.finish(LOG)
    assert f"{place}/erase" in links(read(erin, place))
    assert "gone at once and for good" in words(read(erin, f"{place}/erase"))
    send(erin, f"{place}/erase", expect=303)
    page = read(erin, place)
    assert "The log was erased" in words(page)
    assert f"{place}/erase" not in links(page)
    assert session.get_one(Job, job.id, populate_existing=True).erased_at
    assert "They were erased already" in words(read(erin, f"{place}/erase"))


def test_a_wrong_expiry_is_told_beside_its_field(erin: FlaskClient) -> None:
    page = submit(erin, expect=422, artifacts_paths="dist", artifacts_expire_in="whenever").get_data(as_text=True)
    assert 'class="wrong"' in page.split('id="artifacts_expire_in-help"')[1].split("</div>")[0]
    assert 'id="artifacts_paths-help"><p>' in page.replace("\n", "")


def test_the_answer_to_a_stuck_job_is_a_link_for_who_may(client: FlaskClient, cast: Cast) -> None:
    job = cast.job(tags=("docker",))
    bob = sign_in(client, "bob")
    page = part(read(bob, f"{JOBS}/{job.id}"), "job-stuck")
    assert '<a href="/acme/web/-/runners/new">Create one</a>' in page
    runner = cast.runner(cast.web, settings=RunnerSettings(description="<b>Paused", tags=("docker",), paused=True))
    page = part(read(bob, f"{JOBS}/{job.id}"), "job-stuck")
    assert f'No runner can take it. <a href="/acme/web/-/runners/{runner.runner.id}">Resume</a> ' in page
    assert "<b>Paused" not in page


# Who may


@pytest.fixture
def rita(cast: Cast) -> User:
    """A reporter of acme/web: she reads jobs and does nothing with them."""
    rita = cast.person("rita")
    cast.member(rita, cast.web, Role.REPORTER)
    cast.session.commit()
    return rita


@pytest.mark.usefixtures("rita")
def test_a_reporter_reads_and_is_offered_nothing(client: FlaskClient, cast: Cast) -> None:
    job, browser = cast.job(), sign_in(client, "rita")
    for address in (JOBS, f"{JOBS}/{job.id}", f"{JOBS}/templates", "/acme/web/-/job-settings"):
        page = read(browser, address)
        assert NEW not in links(page)
        assert "/cancel" not in page
    assert browser.get(NEW).status_code == 403
    token = csrf_of(read(browser, JOBS))
    for act in (f"{JOBS}/{job.id}/cancel", f"{JOBS}/{job.id}/retry", NEW, f"{JOBS}/templates/new"):
        assert browser.post(act, data={"csrf_token": token}).status_code == 403


@pytest.mark.usefixtures("rita")
def test_what_a_reporter_may_not_do_is_told_without_protected_refs(client: FlaskClient, cast: Cast) -> None:
    protect(cast, "main")
    job, browser = cast.job(), sign_in(client, "rita")
    answer = browser.post(f"{JOBS}/{job.id}/retry", data={"csrf_token": csrf_of(read(browser, JOBS))})
    assert answer.status_code == 403
    assert "You may not run jobs, or stop them" in words(answer.get_data(as_text=True))


@pytest.mark.parametrize("address", ["", "/new", "/templates", "/1", "/1/live", "/1/log"])
def test_a_stranger_sees_nothing(client: FlaskClient, cast: Cast, address: str) -> None:
    cast.job()
    assert sign_in(client, "charlie").get(JOBS + address).status_code == 404


def test_a_developer_does_nothing_with_a_job_on_a_protected_ref(erin: FlaskClient, cast: Cast) -> None:
    protect(cast, "main")
    job = cast.job()
    page = read(erin, f"{JOBS}/{job.id}")
    assert "/cancel" not in page
    assert erin.post(f"{JOBS}/{job.id}/cancel", data={"csrf_token": csrf_of(page)}).status_code == 403


def test_the_trail_leads_to_the_job(client: FlaskClient, cast: Cast) -> None:
    job, bob = cast.job(), sign_in(client, "bob")
    page = read(bob, "/acme/web/-/trail")
    assert f"submitted the job build (#{job.id})" in words(page)
    assert f"{JOBS}/{job.id}" in links(page)
