"""After the sign-out a shared computer shows nothing any more: neither the way back nor another tab."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.cast import Cast
from tests.portals import RunningPortal


@pytest.mark.parametrize("javascript", [True, False])
def test_the_way_back_shows_no_page_from_before(
    visit: Visit, cast: Cast, portal: RunningPortal, javascript: bool
) -> None:
    alice = visit(javascript=javascript)
    alice.sign_in("alice")
    page = alice.open("/-/account")
    other = alice.open("/groups/acme", alice.context.new_page())
    page.locator(".menu summary").click()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{portal.url}/-/sign-in")
    for _ in range(2):
        page.go_back()
        expect(page.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
        expect(page.get_by_text("Alice Lam")).to_have_count(0)
    other.get_by_role("link", name="Members").first.click()
    expect(other.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
