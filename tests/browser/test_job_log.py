"""The log of a running job in a real browser: it grows, follows, waits for the reader and goes on after an outage."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from portal.domain.jobs import jobs
from portal.domain.runners.runner_settings import RunnerSettings
from tests.api.machines import Job, Machine, over_http
from tests.browser.conftest import PHONE, Visit
from tests.cast import Cast
from tests.portals import RunningPortal

EVERYTHING = RunnerSettings(description="Takes all", tags=("docker",), run_untagged=True)
SOON = 15_000  # milliseconds


class Written:
    """A job that a machine runs, and the log that it writes."""

    def __init__(self, job: Job) -> None:
        self.job, self.size = job, 0

    def add(self, data: bytes) -> None:
        assert self.job.write(data, self.size).status == 202
        self.size += len(data)


@pytest.fixture
def running(cast: Cast, portal: RunningPortal) -> Written:
    cast.job()
    return Written(Machine(over_http(portal.url), cast.runner(settings=EVERYTHING).token).wait_for_job())


def lines(page: Page) -> list[str]:
    return page.locator(".log-text").all_inner_texts()


def panel(page: Page) -> Locator:
    return page.get_by_role("region", name="Lines of the log")


def below(page: Page) -> int:
    """How many pixels of the log lie below what is seen."""
    found = panel(page).evaluate("panel => panel.scrollHeight - panel.scrollTop - panel.clientHeight")
    return round(found)


def test_lines_appear_as_they_are_written_and_what_stands_stays(running: Written, visit: Visit) -> None:
    dana = visit()
    dana.sign_in("dana")
    page = dana.open(f"/acme/web/-/jobs/{running.job.id}")
    expect(panel(page)).to_contain_text("Nothing yet")
    raw = page.get_by_role("link", name="Raw log")
    expect(raw).to_be_hidden()
    running.add(b"first\nsection_start:100:deps\r\x1b[0KDependencies\nunfin")
    expect(page.locator("#L3")).to_have_text(re.compile("unfin"), timeout=SOON)
    expect(raw).to_be_visible()
    expect(page.locator(".log-size")).to_have_text(f"{running.size} Bytes")
    page.locator("#L1").evaluate("row => row.dataset.mine = 'still here'")
    running.add(b"ished\nsection_end:175:deps\r\x1b[0Kafter\n<b>no markup</b>\n")
    expect(page.locator("#L5")).to_be_visible(timeout=SOON)
    assert lines(page) == ["first", "Dependencies", "unfinished", "after", "<b>no markup</b>"]
    assert page.locator("#L1").get_attribute("data-mine") == "still here"
    assert page.locator("details.log-section #L3").count() == 1
    assert page.locator("details.log-section #L4").count() == 0
    expect(page.locator(".log-took")).to_have_text("1 minute 15 seconds")
    running.add(b"the end, without a line end")
    running.job.report("success")
    expect(page.locator("#L6")).to_have_text(re.compile("without a line end"), timeout=SOON)
    expect(page.locator("[data-log]:not([data-live])")).to_be_attached(timeout=SOON)


def test_the_log_of_a_job_that_ends_without_one_says_so(cast: Cast, visit: Visit) -> None:
    job = cast.job(tags=("nobody",))
    dana = visit()
    dana.sign_in("dana")
    page = dana.open(f"/acme/web/-/jobs/{job.id}")
    expect(panel(page)).to_contain_text("The log begins when a machine takes the job.")
    jobs.cancel(cast.session, cast.as_(cast.dana), job)
    cast.session.commit()
    expect(panel(page)).to_contain_text("This job wrote no log.", timeout=SOON)


def test_the_page_follows_until_the_reader_scrolls_up(running: Written, visit: Visit) -> None:
    running.add(b"".join(b"line %d\n" % number for number in range(1, 201)))
    dana = visit()
    dana.sign_in("dana")
    page = dana.open(f"/acme/web/-/jobs/{running.job.id}")
    follow = page.get_by_role("button", name="Follow")
    expect(follow).to_be_hidden()
    running.add(b"".join(b"line %d\n" % number for number in range(201, 301)))
    expect(page.locator("#L300")).to_be_attached(timeout=SOON)
    assert below(page) < 5
    panel(page).evaluate("panel => { panel.scrollTop = 400; }")
    expect(follow).to_be_visible()
    running.add(b"line 301\n")
    expect(page.locator("#L301")).to_be_attached(timeout=SOON)
    assert panel(page).evaluate("panel => panel.scrollTop") == 400
    follow.click()
    assert below(page) < 5
    expect(follow).to_be_hidden()


@pytest.mark.parametrize("ends", ["while nobody waits", "with its section"])
def test_a_log_that_grows_fast_keeps_its_end_and_says_what_is_left_out(
    running: Written, visit: Visit, ends: str
) -> None:
    running.add(b"section_start:100:step_script\r\x1b[0KExecuting\n")
    dana = visit()
    dana.sign_in("dana")
    page = dana.open(f"/acme/web/-/jobs/{running.job.id}")
    for start in range(2, 30_001, 4000):
        running.add(b"".join(b"line %d\n" % number for number in range(start, min(start + 4000, 30_001))))
    if ends == "while nobody waits":
        expect(page.locator("#L30000")).to_be_attached(timeout=SOON)
    running.add(b"section_end:175:step_script\r\x1b[0KCleaning up\nJob succeeded\n")
    running.job.report("success")
    expect(page.locator("[data-log]:not([data-live])")).to_be_attached(timeout=SOON)
    expect(page.locator("#L30002 .log-text")).to_have_text("Job succeeded")
    expect(page.locator("#L30000 .log-text")).to_have_text("line 30000")
    assert lines(page)[-1000:-2] == [f"line {number}" for number in range(29_003, 30_001)]
    assert below(page) < 5
    left_out = page.locator(".log-skipped").last
    first, last = map(int, re.findall(r"[0-9]+", left_out.inner_text()))
    shown = page.locator(".log-row[id]").evaluate_all("rows => rows.map(row => Number(row.id.slice(1)))")
    assert last + 1 in shown
    assert not set(range(first, last + 1)) & set(shown)
    left_out.get_by_role("link").click()
    assert lines(page)[0] == f"line {first}"


def test_a_section_that_ends_loses_no_more_than_its_first_lines(running: Written, visit: Visit) -> None:
    running.add(b"section_start:100:step_script\r\x1b[0KExecuting\n")
    dana = visit()
    dana.sign_in("dana")
    page = dana.open(f"/acme/web/-/jobs/{running.job.id}")
    for start in range(2, 8001, 2000):  # as fast as the page follows
        running.add(b"".join(b"line %d\n" % number for number in range(start, start + 2000)))
        expect(page.locator(f"#L{start + 1999}")).to_be_attached(timeout=SOON)
    running.add(b"section_end:175:step_script\r\x1b[0KCleaning up\nJob succeeded\n")
    running.job.report("success")
    expect(page.locator("#L8003")).to_be_attached(timeout=SOON)
    assert lines(page)[-3:] == ["line 8001", "Cleaning up", "Job succeeded"]
    expect(page.locator("details.log-section #L8001")).to_be_attached()
    more = panel(page).locator(".log-more")
    expect(more).to_have_text(re.compile("^Lines 1 to [0-9]+ went from this page as it grew"))
    gone = int(re.findall(r"[0-9]+", more.inner_text())[1])
    assert page.locator(f"#L{gone}").count() == 0
    assert page.locator(f"#L{gone + 1} .log-text").inner_text() == f"line {gone + 1}"
    expect(page.locator("[data-log-range]")).to_contain_text(f"Lines {gone + 1} to 8003")
    more.get_by_role("link").click()
    assert lines(page)[-1] == f"line {gone}"


def test_the_log_goes_on_after_a_lost_connection(running: Written, visit: Visit) -> None:
    running.add(b"before\n")
    dana = visit()
    dana.sign_in("dana")
    page = dana.open(f"/acme/web/-/jobs/{running.job.id}")
    dana.context.set_offline(True)
    running.add(b"meanwhile\n")
    expect(page.locator("[data-log-status]")).to_contain_text("Trying again", timeout=SOON)
    dana.context.set_offline(False)
    expect(page.locator("#L2")).to_have_text(re.compile("meanwhile"), timeout=SOON)
    assert lines(page) == ["before", "meanwhile"]
    dana.complaints.clear()  # the browser says of each request that it was offline


def test_a_link_to_a_line_opens_the_stretch_that_has_it(running: Written, visit: Visit) -> None:
    running.add(b"".join(b"line %d\n" % number for number in range(1, 5001)))
    dana = visit()
    dana.sign_in("dana")
    page = dana.open(f"/acme/web/-/jobs/{running.job.id}#L1234")
    expect(page.locator("#L1234")).to_be_in_viewport()
    assert page.url.endswith(f"/jobs/{running.job.id}?line=1224#L1234")
    page.locator("#L1240 .log-number").click()
    assert page.url.endswith("#L1240")


def test_without_javascript_a_reload_shows_everything(running: Written, visit: Visit) -> None:
    running.add(b"".join(b"line %d\n" % number for number in range(1, 2501)))
    dana = visit(javascript=False)
    dana.sign_in("dana")
    page = dana.open(f"/acme/web/-/jobs/{running.job.id}")
    assert lines(page)[-1] == "line 2500"
    running.add(b"line 2501\n")
    page.reload()
    assert lines(page)[-1] == "line 2501"
    page.get_by_role("link", name="Earlier", exact=True).click()
    assert lines(page)[0] == "line 1"


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("viewport", [None, PHONE], ids=["desktop", "phone"])
def test_everybody_can_read_it(mode: str, viewport: dict[str, int] | None, running: Written, visit: Visit) -> None:
    colours = b"".join(b"\x1b[38;5;%dmink\x1b[0m \x1b[48;5;%dmground\x1b[0m " % (each, each) for each in range(256))
    section = b"section_start:100:a\r\x1b[0K\x1b[36;1mSection\x1b[0m\n"
    running.add(section + b"\x1b[2mdim\x1b[0m \x1b[7mreverse\x1b[0m\n" + colours + b"\n" + b"word" * 500 + b"\n")
    dana = visit(color_scheme=mode, **({"viewport": viewport} if viewport else {}))
    dana.sign_in("dana")
    page = dana.open(f"/acme/web/-/jobs/{running.job.id}")
    found = Axe().run(page, context="[data-log]")
    assert [each["id"] for each in found.response["violations"]] == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
