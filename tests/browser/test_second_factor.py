"""The second factor in a browser: set up from the page, signed in with, a code taken once, a recovery code."""

import re
from datetime import UTC, datetime

import pyotp
from playwright.sync_api import Page, expect

from tests.browser.conftest import PHONE, Visit, Visitor
from tests.browser.test_every_page import look
from tests.cast import PASSWORD, Cast
from tests.portals import RunningPortal

HOME = "/-/account/second-factor"


def set_up(page: Page) -> tuple[pyotp.TOTP, list[str]]:
    """Read the key from the page, as an app would, and type its first code."""
    page.get_by_role("button", name="Set up an authenticator app").click()
    picture = page.get_by_role("img", name=re.compile("QR code"))
    expect(picture).to_be_visible()
    assert picture.evaluate("(image) => image.complete && image.naturalWidth > 100")
    app = pyotp.TOTP(page.locator("#key").inner_text().replace(" ", ""))
    page.get_by_label("Code").fill(app.at(datetime.now(UTC), counter_offset=-1))
    page.get_by_role("button", name="Turn on").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your second factor is set up")
    return app, page.locator("#codes code").all_inner_texts()


def password(visitor: Visitor, username: str) -> Page:
    page = visitor.open("/-/sign-in?next=/groups/acme")
    page.get_by_label("User name or e-mail").fill(username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Type the code of your app")
    return page


def give(page: Page, code: str) -> None:
    page.get_by_label("Code").fill(code)
    page.get_by_role("button", name="Sign in", exact=True).click()


def test_a_person_sets_it_up_signs_in_with_it_and_no_code_passes_twice(
    visit: Visit, cast: Cast, portal: RunningPortal
) -> None:
    alice = visit()
    alice.sign_in("alice")
    page = alice.open(HOME)
    app, codes = set_up(page)
    assert len(codes) == 10
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as a text file").click()
    assert codes[9] in download.value.path().read_text()
    page.reload()
    expect(page.get_by_text("10 of 10 left")).to_be_visible()
    page.locator(".menu summary").click()
    page.get_by_role("button", name="Sign out").click()

    page = password(alice, "alice")
    code = app.at(datetime.now(UTC), counter_offset=0)
    give(page, code)
    page.wait_for_url(f"{portal.url}/groups/acme")

    second = visit()
    page = password(second, "alice")
    give(page, code)
    expect(page.get_by_role("alert")).to_contain_text(re.compile("used already|wrong"))
    page.get_by_role("link", name="Use a recovery code").click()
    give(page, codes[0].lower())
    page.wait_for_url(f"{portal.url}/groups/acme")

    page = password(visit(), "alice")
    give(page, codes[0])
    expect(page.get_by_role("alert")).to_contain_text("This code is wrong.")


def test_it_works_without_javascript_on_a_phone(visit: Visit, cast: Cast, portal: RunningPortal) -> None:
    bob = visit(javascript=False, viewport=PHONE)
    bob.sign_in("bob")
    app, codes = set_up(bob.open(HOME))
    with bob.page.expect_download() as download:
        bob.page.get_by_role("button", name="Download as a text file").click()
    assert codes[0] in download.value.path().read_text()
    page = password(visit(javascript=False, viewport=PHONE), "bob")
    give(page, app.at(datetime.now(UTC), counter_offset=1))
    page.wait_for_url(f"{portal.url}/groups/acme")


def test_its_pages_are_for_everybody(visit: Visit, cast: Cast) -> None:
    """axe, in light and in dark, on a desktop and on a phone; those that are the answer to a sending too."""
    erin = visit()
    erin.sign_in("erin")
    page = erin.open(HOME)
    found = look(page, "off")
    page.get_by_role("button", name="Set up an authenticator app").click()
    page.get_by_label("Code").fill("no code")
    page.get_by_role("button", name="Turn on").click()
    expect(page.get_by_role("alert")).to_be_visible()
    found += look(page, "set up, refused")
    page.set_viewport_size(PHONE)
    found += look(page, "set up, on a phone")
    app = pyotp.TOTP(page.locator("#key").inner_text().replace(" ", ""))
    page.get_by_label("Code").fill(app.at(datetime.now(UTC), counter_offset=0))
    page.get_by_role("button", name="Turn on").click()
    expect(page.locator("#codes")).to_be_visible()
    found += look(page, "codes, on a phone")
    for path in (HOME, f"{HOME}/recovery-codes", f"{HOME}/turn-off", "/-/confirm?next=/"):
        found += look(erin.open(path), path)
    waiting = password(visit(viewport=PHONE), "erin")
    found += look(waiting, "code")
    assert found == []
