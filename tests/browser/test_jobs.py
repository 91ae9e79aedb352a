"""A job's whole way in a browser: asked for, taken by a machine, its log growing, its end; and the form itself."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from portal.domain.runners.runner_settings import RunnerSettings
from tests.api.machines import Machine, over_http
from tests.browser.conftest import Visit
from tests.cast import Cast
from tests.portals import RunningPortal

EVERYTHING = RunnerSettings(description="Takes all", tags=("docker", "gpu"), run_untagged=True)
JOBS = "/acme/web/-/jobs"
IN_TIME = 20_000  # milliseconds: the page asks every three seconds, and the machine may be busy
LOG = b"$ make\nhello from the machine\n"


@pytest.fixture
def machine(cast: Cast, portal: RunningPortal) -> Machine:
    return Machine(over_http(portal.url), cast.runner(settings=EVERYTHING).token, system_id="r_seven")


def status(page: Page) -> str:
    return page.locator("#job-status .st").inner_text()


@pytest.mark.parametrize("javascript", [True, False])
def test_a_job_is_submitted_taken_watched_and_a_success(visit: Visit, machine: Machine, javascript: bool) -> None:
    visitor = visit(javascript=javascript)
    visitor.sign_in("erin")
    page = visitor.open(JOBS)
    page.get_by_role("link", name="Run a job").click()
    page.get_by_label("Name", exact=True).fill("build")
    page.get_by_label("Script", exact=True).fill("make\nmake test")
    page.get_by_label("Tags", exact=False).first.fill("docker")
    page.get_by_role("button", name="Run job").click()
    expect(page.locator("#job-status")).to_contain_text("Waits for a runner")

    job = machine.wait_for_job()
    assert job.payload["steps"][0]["script"] == ["make", "make test"]
    job.report("running")
    job.write(LOG)

    def see(text: str, place: str) -> None:
        if not javascript:
            page.reload()
        expect(page.locator(place)).to_contain_text(text, timeout=IN_TIME)

    see("Running", "#job-status")
    see("r_seven", "#job-facts")
    see("hello from the machine", ".log-lines")
    job.finish(LOG)
    see("Success", "#job-status")
    expect(page.get_by_role("button", name="Run again", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    visitor.open(JOBS)
    expect(page.locator("#job-rows tr", has_text=f"#{job.id}")).to_contain_text("Success")


def test_the_list_shows_how_a_job_goes_on_by_itself(visit: Visit, cast: Cast, machine: Machine) -> None:
    job = cast.job(name="watched")
    visitor = visit()
    visitor.sign_in("erin")
    row = visitor.open(f"{JOBS}?search=watch").locator("#job-rows tr", has_text=f"#{job.id}")
    expect(row).to_contain_text("Pending")
    given = machine.wait_for_job()
    expect(row).to_contain_text("Running", timeout=IN_TIME)
    given.finish()
    expect(row).to_contain_text("Success", timeout=IN_TIME)
    later = cast.job(name="watched too")
    page = visitor.page
    expect(page.locator("#job-rows tr", has_text=f"#{later.id}")).to_contain_text("Pending", timeout=IN_TIME)
    expect(page.locator("#job-tiles .tile").first).to_contain_text("1")
    machine.wait_for_job().finish()


def test_the_keyboard_stays_where_it_is_while_the_list_goes_on(visit: Visit, cast: Cast, machine: Machine) -> None:
    job = cast.job(name="kept in mind")
    visitor = visit()
    visitor.sign_in("erin")
    page = visitor.open(f"{JOBS}?search=kept")
    page.locator(f"#job-{job.id}").focus()
    machine.wait_for_job().finish()
    expect(page.locator("#job-rows tr", has_text="kept in mind")).to_contain_text("Success", timeout=IN_TIME)
    expect(page.locator(f"#job-{job.id}")).to_be_focused()


def test_what_a_reader_opened_stays_open_while_the_reasons_change(visit: Visit, cast: Cast, machine: Machine) -> None:
    cast.runner(settings=RunnerSettings(description="Other", tags=("other",)))
    job = cast.job(tags=("docker",))
    visitor = visit()
    visitor.sign_in("dana")
    page = visitor.open(f"{JOBS}/{job.id}")
    others = page.locator("#stuck-others")
    expect(others).not_to_have_attribute("open", re.compile(""))
    page.locator("#stuck-others-head").press("Enter")
    expect(others).to_have_attribute("open", "")
    cast.runner(settings=RunnerSettings(description="Newcomer", tags=("new",)))
    expect(others.get_by_text("Newcomer")).to_be_visible(timeout=IN_TIME)
    expect(page.locator("#stuck-others-head")).to_be_focused()


@pytest.mark.parametrize("javascript", [True, False])
def test_more_rows_keep_what_was_typed(visit: Visit, javascript: bool) -> None:
    visitor = visit(javascript=javascript)
    visitor.sign_in("erin")
    page = visitor.open(f"{JOBS}/new")
    page.locator(".more-fields > summary").click()
    keys = page.locator("input[name=variables_key]")
    before = keys.count()
    keys.first.fill("KEY")
    page.get_by_label("Value of variable 1").fill("plain")
    page.get_by_role("button", name="More rows").click()
    expect(keys).not_to_have_count(before)
    expect(keys.first).to_have_value("KEY")
    expect(page.get_by_label("Value of variable 1")).to_have_value("plain")
    numbers = [each.get_attribute("value") for each in page.locator("input[name=variables_masked]").all()]
    assert numbers == [str(number) for number in range(keys.count())]


def test_a_click_on_a_suggested_tag_adds_it_and_another_takes_it_away(visit: Visit, machine: Machine) -> None:
    assert machine
    visitor = visit()
    visitor.sign_in("erin")
    page = visitor.open(f"{JOBS}/new")
    field, gpu = page.locator("#tags"), page.get_by_role("button", name="gpu", exact=True)
    field.fill("docker")
    gpu.click()
    expect(field).to_have_value("docker, gpu")
    expect(gpu).to_have_attribute("aria-pressed", "true")
    gpu.click()
    expect(field).to_have_value("docker")


def test_a_template_is_kept_from_a_job_and_run_with_one_click(visit: Visit, cast: Cast) -> None:
    job = cast.job(name="nightly", script=("make nightly",), ref="feature")
    visitor = visit()
    visitor.sign_in("erin")
    page = visitor.open(f"{JOBS}/{job.id}")
    page.get_by_role("link", name="Keep as template").click()
    page.get_by_role("button", name="Keep template").click()
    expect(page.get_by_text("nightly is kept")).to_be_visible()
    page.get_by_role("button", name="Run nightly").click()
    page.wait_for_url(re.compile(r"/jobs/\d+$"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("nightly")
