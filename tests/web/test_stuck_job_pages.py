"""Why a job waits, on its page; which runners would take one, without a job; and which jobs a runner could take."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from portal.domain import scopes
from portal.domain.jobs import job_rules, jobs
from portal.domain.jobs.job_rules import JobRules
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import Role
from tests.cast import Cast, sign_in
from tests.runners import heard_of
from tests.web.reading import read, words

WHICH = "/acme/web/-/which-runners"


def page_of(job_id: int) -> str:
    return f"/acme/web/-/jobs/{job_id}"


def part(client: FlaskClient, job_id: int) -> str:
    return read(client, f"{page_of(job_id)}/stuck")


# On the job's page


def test_the_page_of_a_job_that_waits_says_why(client: FlaskClient, cast: Cast) -> None:
    its = heard_of(cast)
    job = cast.job(tags=("dcoker",))
    page = read(sign_in(client, "bob"), page_of(job.id))
    assert "Change the tag “dcoker” to “docker”, and 1 runner takes it." in words(page)
    assert "It lacks the tag “dcoker” (its nearest is “docker”)." in words(page)
    assert f'href="/acme/web/-/runners/{its.id}"' in page
    assert f"/acme/web/-/jobs/new?from={job.id}" in page


def test_it_asks_again_by_itself_and_hears_nothing_while_nothing_changes(client: FlaskClient, cast: Cast) -> None:
    its = heard_of(cast)
    job = cast.job(tags=("docker",))
    sign_in(client, "bob")
    first = part(client, job.id)
    again = re.search(r'hx-get="([^"]+)"', first)
    assert again
    assert client.get(again[1]).status_code == 204
    its.active = False
    cast.session.commit()
    changed = client.get(again[1])
    assert changed.status_code == 200
    assert "It is paused." in words(changed.get_data(as_text=True))


def test_when_the_job_waits_no_more_the_part_is_empty_and_asks_no_more(client: FlaskClient, cast: Cast) -> None:
    job = cast.job()
    jobs.cancel(cast.session, cast.as_(cast.dana), job)
    cast.session.commit()
    answer = sign_in(client, "bob").get(f"{page_of(job.id)}/stuck")
    assert (answer.status_code, words(answer.get_data(as_text=True)).strip()) == (286, "")
    assert "Why it waits" not in read(client, page_of(job.id))


def test_a_developer_hears_how_many_runners_there_are_that_they_may_not_see(client: FlaskClient, cast: Cast) -> None:
    heard_of(cast, cast.web, RunnerSettings("Secret name", tags=("docker",)))
    heard_of(cast, cast.web, RunnerSettings("Secret other", tags=("gpu",)))
    shared = heard_of(cast, scopes.INSTANCE, RunnerSettings("Shared", tags=("docker",)))
    page = part(sign_in(client, "erin"), cast.job(tags=("docker",)).id)
    assert "2 runners can take it now." in words(page)
    assert "1 runner that you may not see can take it. 1 runner that you may not see does not take it." in words(page)
    assert "Secret" not in page
    assert "Shared" in page
    assert f"/runners/{shared.id}" not in page  # there is no page of it that she may open


def test_a_switch_that_is_in_the_way_has_a_link_to_where_it_is(client: FlaskClient, cast: Cast) -> None:
    heard_of(cast, scopes.INSTANCE)
    job_rules.change(cast.session, cast.as_(cast.dana), cast.web, JobRules(shared_runners_enabled=False))
    job = cast.job(tags=("docker",))
    page = part(sign_in(client, "bob"), job.id)
    assert "The project takes no instance runners." in words(page)
    assert 'href="/acme/web/-/job-settings"' in page


def test_what_people_called_things_is_no_markup(client: FlaskClient, cast: Cast) -> None:
    heard_of(cast, settings=RunnerSettings("<script>alert(1)</script>", tags=("<b>docker</b>",)))
    page = part(sign_in(client, "bob"), cast.job(tags=("<b>dokcer</b>",)).id)
    assert "<script>alert" not in page
    assert "<b>do" not in page


# Without a job


def test_the_question_without_a_job_is_answered_below_the_form(client: FlaskClient, cast: Cast) -> None:
    heard_of(cast)
    page = read(sign_in(client, "bob"), f"{WHICH}?tags=docker,%20linux&ref=main&protected=")
    assert "1 runner can take it now." in words(page)
    assert 'value="docker, linux"' in page


def test_nothing_is_answered_before_anything_is_asked(client: FlaskClient, cast: Cast) -> None:
    heard_of(cast)
    page = words(read(sign_in(client, "bob"), WHICH))
    assert "runner can take it" not in page
    assert "In reach: docker, linux" in page


def test_the_projects_patterns_say_what_is_protected_unless_somebody_does(client: FlaskClient, cast: Cast) -> None:
    heard_of(cast, settings=RunnerSettings("Guarded", tags=("docker",), protected=True))
    job_rules.change(cast.session, cast.as_(cast.dana), cast.web, JobRules(protected_refs=("release/*",)))
    cast.session.commit()
    sign_in(client, "bob")
    for address, takes in (
        ("ref=release/1&protected=", True),
        ("ref=topic&protected=", False),
        ("ref=topic&protected=yes", True),
        ("ref=release/1&protected=no", False),
    ):
        page = words(read(client, f"{WHICH}?tags=docker&{address}"))
        assert ("1 runner can take it now." in page) is takes, address


def test_what_cannot_be_asked_is_refused_beside_its_field_and_kept(client: FlaskClient, cast: Cast) -> None:
    page = read(sign_in(client, "bob"), f"{WHICH}?tags=docker&ref=two+words&protected=", 422)
    assert "One thing needs your attention." in words(page)
    assert 'value="two words"' in page
    assert 'aria-invalid="true"' in page


def test_a_developer_may_ask_and_hears_no_tags_of_runners_that_they_may_not_see(
    client: FlaskClient, cast: Cast
) -> None:
    heard_of(cast, cast.web, RunnerSettings("Secret", tags=("secret-tag",)))
    page = read(sign_in(client, "erin"), f"{WHICH}?tags=docker&ref=main&protected=")
    assert "secret-tag" not in page
    assert "you may not see it" in words(page)


def test_a_guest_may_not_ask(client: FlaskClient, cast: Cast) -> None:
    cast.member(cast.charlie, cast.web, Role.GUEST)
    cast.session.commit()
    assert sign_in(client, "charlie").get(WHICH).status_code == 403


def test_an_administrator_names_the_project(client: FlaskClient, cast: Cast) -> None:
    heard_of(cast)
    sign_in(client, "dana")
    asked = "tags=docker&ref=main&protected="
    assert "1 runner can take it now." in words(read(client, f"/admin/which-runners?project=Acme/Web&{asked}"))
    missing = words(read(client, f"/admin/which-runners?project=acme/wep&{asked}", 422))
    assert "There is no project “acme/wep”." in missing
    assert "Write the full path" in words(read(client, f"/admin/which-runners?project=&{asked}", 422))
    assert sign_in(client.application.test_client(), "alice").get("/admin/which-runners").status_code == 404


@pytest.mark.parametrize(
    ("where", "link"), [("/acme/web/-/runners", WHICH), ("/admin/runners", "/admin/which-runners")]
)
def test_the_list_of_runners_leads_there(client: FlaskClient, cast: Cast, where: str, link: str) -> None:
    assert f'href="{link}"' in read(sign_in(client, "dana"), where)


def test_the_form_of_a_job_leads_there(client: FlaskClient, cast: Cast) -> None:
    assert f'href="{WHICH}"' in read(sign_in(client, "bob"), "/acme/web/-/jobs/new")


# The inverse


@pytest.mark.parametrize("base", ["/acme/web/-/runners", "/groups/acme/-/runners", "/admin/runners"])
def test_a_runner_has_a_page_of_the_jobs_that_it_could_take(client: FlaskClient, cast: Cast, base: str) -> None:
    its = heard_of(cast)
    job = cast.job(tags=("docker",))
    sign_in(client, "dana")
    page = read(client, f"{base}/{its.id}/pending")
    assert "It could take 1 job that waits." in words(page)
    assert f'href="/-/jobs/{job.id}"' in page
    assert f'href="{base}/{its.id}/pending"' in read(client, f"{base}/{its.id}")


def test_a_runner_that_takes_nothing_says_what_is_in_the_way(client: FlaskClient, cast: Cast) -> None:
    its = heard_of(cast)
    cast.job(tags=("dcoker",))
    page = words(read(sign_in(client, "alice"), f"/groups/acme/-/runners/{its.id}/pending"))
    assert "It could take none of the jobs that wait" in page
    assert "its nearest is “docker”" in page


def test_a_check_that_waits_leads_to_its_own_page(client: FlaskClient, cast: Cast) -> None:
    its = heard_of(cast)
    check = cast.check(its)
    page = read(sign_in(client, "alice"), f"/groups/acme/-/runners/{its.id}/pending")
    assert f'href="/groups/acme/-/runners/{its.id}/checks/{check.id}"' in page


def test_a_long_queue_has_pages(client: FlaskClient, cast: Cast) -> None:
    its = heard_of(cast)
    jobs = [cast.job(name=f"job-{number:02}", tags=("docker",)) for number in range(23)]
    sign_in(client, "alice")
    address = f"/groups/acme/-/runners/{its.id}/pending"
    first, second = read(client, address), read(client, f"{address}?from=20")
    assert f"{address}?from=20" in first
    assert jobs[0].name in first
    assert jobs[-1].name not in first
    assert jobs[-1].name in second
    assert "There are no jobs on this page." in words(read(client, f"{address}?from=900"))
    assert jobs[0].name in read(client, f"{address}?from=x")
