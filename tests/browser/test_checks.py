"""From a new runner to the proof that it works: a machine connects, the check runs, the log appears by itself."""

from __future__ import annotations

import re

from playwright.sync_api import expect
from sqlalchemy import func, select

from portal.models import Job
from tests.api.machines import Machine, over_http
from tests.browser.conftest import Visit
from tests.cast import Cast
from tests.portals import RunningPortal

LOG = b"Running with gitlab-runner 18.6.6\n$ echo hello\nHello from the builder\n"


def count(cast: Cast) -> int:
    cast.session.rollback()  # what it saw before is of another moment
    return cast.session.scalar(select(func.count()).select_from(Job)) or 0


def test_a_new_runner_is_created_connected_and_proved_to_work(
    visit: Visit, cast: Cast, portal: RunningPortal
) -> None:
    visitor = visit()
    visitor.sign_in("alice")
    page = visitor.open("/groups/acme/-/runners/new")
    page.get_by_label("Tags").fill("docker")
    page.get_by_role("button", name="Create runner").click()
    token = page.locator("#token").inner_text()
    machine = Machine(over_http(portal.url), token, "s_6c1f0a2be94d")
    assert machine.poll().status == 204
    expect(page.locator("#connection")).to_contain_text("Does it run jobs?")
    with visitor.context.expect_page() as opened:
        page.get_by_role("button", name="Check this runner").click()
    check = opened.value
    expect(check.get_by_text("Waiting for a machine to ask for a job…")).to_be_visible()
    expect(page.locator("#token")).to_have_text(token)  # the page with the token is still there

    job = machine.wait_for_job()
    job.report("running")
    expect(check.locator("#check-says")).to_have_text("Running on s_6c1f0a2be94d")
    job.write(LOG)
    expect(check.get_by_text("Hello from the builder")).to_be_visible(timeout=15_000)
    job.finish(LOG)
    expect(check.locator("#check-says")).to_contain_text("It works: the runner ran the script in")
    expect(check.locator("#check-status")).to_have_text("Success")
    expect(check.locator("#job-facts")).to_contain_text("Finished")

    check.get_by_role("button", name="Check again").click()
    expect(check.get_by_text("Waiting for a machine to ask for a job…")).to_be_visible()
    check.get_by_role("button", name="Cancel the check").click()
    expect(check.get_by_text("The check was canceled before a machine took it.")).to_be_visible()


def test_a_double_click_starts_one_check(visit: Visit, cast: Cast) -> None:
    runner, before = cast.runner().runner, count(cast)
    visitor = visit()
    visitor.sign_in("alice")
    page = visitor.open(f"/groups/acme/-/runners/{runner.id}")
    page.get_by_role("button", name="Check this runner").dblclick()
    page.wait_for_url(re.compile("/checks/"))
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert count(cast) == before + 1


def test_without_javascript_a_check_is_followed_by_looking_again(
    visit: Visit, cast: Cast, portal: RunningPortal
) -> None:
    issued = cast.runner()
    runner_id, machine = issued.runner.id, Machine(over_http(portal.url), issued.token)
    machine.poll()
    visitor = visit(javascript=False)
    visitor.sign_in("alice")
    page = visitor.open(f"/groups/acme/-/runners/{runner_id}")
    page.get_by_role("button", name="Check this runner").click()
    machine.wait_for_job().finish()
    page.get_by_role("link", name="Look again").click()
    expect(page.get_by_text("It works:")).to_be_visible()
    page.get_by_role("link", name="Jobs", exact=True).click()
    expect(page.get_by_role("link", name="Runner check")).to_be_visible()
