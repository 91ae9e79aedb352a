"""The viewer of the REST API: it asks with the session and with a typed token, and keeps to the page's policy."""

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import DESKTOP, PHONE, Visit
from tests.browser.test_every_page import look
from tests.cast import Cast


def opened(page: Page, name: str) -> Locator:
    """The operation, ready to be sent."""
    operation = page.locator(f"#operations-{name}")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    return operation


def send(operation: Locator) -> str:
    """What is answered: the status and the body."""
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .response").first
    expect(answer).to_be_visible()
    return answer.inner_text()


def test_a_get_is_asked_with_the_session(visit: Visit, cast: Cast) -> None:
    visitor = visit()
    visitor.sign_in("alice")
    answer = send(opened(visitor.open("/-/api/try#open"), "People-users_me"))
    assert answer.startswith("200")
    assert '"username": "alice"' in answer


def test_a_write_is_refused_to_the_session_and_done_for_a_typed_token_that_is_forgotten(
    visit: Visit, cast: Cast
) -> None:
    visitor = visit()
    visitor.sign_in("alice")
    page = visitor.open("/-/api/try#open")
    reset = opened(page, "Registration_tokens-registration_tokens_reset_of_group")
    reset.locator("tr[data-param-name=group] input").fill("acme")
    assert send(reset).startswith("401")
    page.get_by_role("button", name="Authorize").first.click()
    page.locator(".modal-ux .auth-container input").first.fill(cast.access_token(cast.alice))
    page.get_by_role("button", name="Apply credentials").first.click()
    page.locator(".modal-ux .close-modal").click()
    send(reset)
    expect(reset.locator(".live-responses-table .response").first).to_contain_text("201")
    visitor.complaints = [each for each in visitor.complaints if "status of 401" not in each]  # the first answer
    stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert "glpat-" not in stored


def test_the_viewer_is_loaded_when_it_is_asked_for_and_after_a_reload(visit: Visit, cast: Cast) -> None:
    visitor = visit()
    visitor.sign_in("alice")
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    page = visitor.open("/-/api/try")
    expect(page.get_by_text("It loads 0.5 MB the first time")).to_be_visible()
    assert look(page, "/-/api/try, unopened") == []
    assert not [each for each in asked if "/vendor/swagger" in each]
    page.get_by_role("button", name="Open the viewer").click()
    expect(page.locator("#operations-People-users_me")).to_be_visible()
    expect(page.get_by_role("button", name="Open the viewer")).to_have_count(0)
    page.reload()
    expect(page.locator("#operations-People-users_me")).to_be_visible()


def test_a_viewer_that_does_not_come_is_offered_again(visit: Visit, cast: Cast) -> None:
    visitor = visit()
    visitor.sign_in("alice")
    visitor.page.route("**/swagger-ui-bundle.js*", lambda route: route.abort())
    page = visitor.open("/-/api/try")
    page.get_by_role("button", name="Open the viewer").click()
    expect(page.get_by_role("status")).to_have_text("A part of it could not be loaded. Try again.")
    page.unroute("**/swagger-ui-bundle.js*")
    page.get_by_role("button", name="Open the viewer").click()
    expect(page.locator("#operations-People-users_me")).to_be_visible()
    visitor.complaints = [each for each in visitor.complaints if "ERR_FAILED" not in each]  # the one that was stopped


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious_in_the_viewer(visit: Visit, cast: Cast, size: dict[str, int]) -> None:
    visitor = visit(viewport=size)
    visitor.sign_in("dana")
    page = visitor.open("/-/api/try#open")
    send(opened(page, "People-users_me"))
    assert look(page, "/-/api/try") == []


def test_without_javascript_the_viewer_leads_to_the_reference(visit: Visit, cast: Cast) -> None:
    visitor = visit(javascript=False)
    page = visitor.sign_in("dana")
    page = visitor.open("/-/api/try")
    page.locator("noscript a, main a").filter(has_text="reference").first.click()
    page.locator("#runners_show a").click()
    expect(page.locator("#runners_show")).to_be_visible()
