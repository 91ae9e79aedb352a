"""The end of registration tokens in a browser: an owner turns the group off, and what everybody sees then."""

import re

from playwright.sync_api import expect

from portal.models import LEGACY, RunnerManager
from tests.browser import machines
from tests.browser.conftest import Visit
from tests.cast import Cast
from tests.portals import RunningPortal

TOKEN = re.compile(r"GR1348941[0-9A-Za-z]{20}")
GROUP, PROJECT = "/groups/acme/-/registration", "/acme/web/-/registration"


def test_an_owner_turns_the_group_off_and_a_project_below_is_locked_by_it(
    visit: Visit, cast: Cast, portal: RunningPortal
) -> None:
    owner = visit()
    owner.sign_in("alice")
    page = owner.open(GROUP)
    page.get_by_role("button", name="Make a registration token").click()
    hidden = page.locator("#registration-token")
    expect(hidden).to_be_hidden()
    page.locator(".reveal summary").click()
    expect(hidden).to_be_visible()
    token = hidden.inner_text()
    assert TOKEN.fullmatch(token)

    number = machines.register(portal.url, token)
    cast.session.add(RunnerManager(runner_id=number, system_xid=LEGACY, ip_address="198.51.100.7", version="13.12.0"))
    cast.session.commit()
    page.reload()
    page.get_by_role("link", name="Turn off").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Turn registration tokens off in acme?")
    expect(page.locator(".tiles")).to_contain_text("1runner registered by token")
    expect(page.get_by_text("13.12.0")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the list (CSV)").click()
    assert "machine without system ID" in download.value.path().read_text()
    page.get_by_role("button", name="Turn registration tokens off and refuse 1 machine").click()
    expect(page.get_by_role("status")).to_contain_text("Registration tokens are turned off in acme.")
    expect(page.locator("main")).not_to_contain_text(TOKEN)
    expect(page.get_by_role("link", name="Create a runner")).to_be_visible()
    assert machines.register(portal.url, token, expect=410) == 0

    maintainer = visit()
    maintainer.sign_in("bob")
    below = maintainer.open(PROJECT)
    expect(below.locator(".switch")).to_contain_text("Turned off in acme/web")
    expect(below.locator(".switch")).to_contain_text("Alice Lam turned them off for group acme")
    expect(below.get_by_role("img", name="Locked")).to_be_visible()
    expect(below.get_by_role("button", name="Turn on again")).to_have_count(0)

    page.get_by_role("button", name="Turn on again").click()
    expect(page.locator(".reveal summary")).to_be_visible()
    below.reload()
    expect(below.locator(".switch")).to_contain_text("Allowed in acme/web")
    assert machines.register(portal.url, token) > 0


def test_the_token_is_copied_without_being_revealed(visit: Visit, cast: Cast) -> None:
    visitor = visit(permissions=["clipboard-read", "clipboard-write"])
    visitor.sign_in("dana")
    page = visitor.open("/admin/registration")
    page.get_by_role("button", name="Make a registration token").click()
    page.get_by_role("button", name="Copy the registration token").click()
    assert TOKEN.fullmatch(page.evaluate("navigator.clipboard.readText()"))
    expect(page.locator("#registration-token")).to_be_hidden()


def test_without_a_script_the_token_is_revealed_by_its_own_page(visit: Visit, cast: Cast) -> None:
    visitor = visit(javascript=False)
    visitor.sign_in("bob")
    page = visitor.open(PROJECT)
    page.get_by_role("button", name="Make a registration token").click()
    page.locator(".reveal summary").click()
    expect(page.locator("#registration-token")).to_have_text(TOKEN)
