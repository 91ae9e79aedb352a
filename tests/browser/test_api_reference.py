"""The reference of the REST API in a browser: found by contents, filter and address, opened, printed, read by axe."""

import pytest
from playwright.sync_api import Page, expect

from portal.api.for_users.operations import OPERATIONS
from tests.browser.conftest import DESKTOP, PHONE, Visit, Visitor
from tests.browser.test_every_page import look
from tests.cast import Cast

SHUT = "details.operation:not([open])"


@pytest.fixture
def visitor(visit: Visit, cast: Cast) -> Visitor:
    visitor = visit()
    visitor.sign_in("alice")
    return visitor


@pytest.fixture
def page(visitor: Visitor) -> Page:
    return visitor.open("/-/api")


def test_an_address_opens_its_operation_and_so_does_a_link(visitor: Visitor) -> None:
    page = visitor.open("/-/api/runners")
    expect(page.locator("#runners_update")).not_to_be_visible()
    page.goto(page.url + "#runners_update")
    expect(page.locator("#runners_update")).to_be_in_viewport()
    page.locator("#runners_update").get_by_role("link", name="RunnerDetails").click()
    expect(page.locator("#shape-RunnerDetails")).to_be_in_viewport()
    page.locator("#shape-RunnerDetails").get_by_role("link").first.click()
    expect(page.locator("details[open]:has(:target)")).to_be_in_viewport()


@pytest.mark.parametrize("name", ["runners_update", "shape-RunnerDetails"])
def test_an_address_from_when_all_stood_on_one_page_leads_to_where_it_stands_now(visitor: Visitor, name: str) -> None:
    page = visitor.open(f"/-/api#{name}")
    expect(page.locator(f"article[id={name}]")).to_be_in_viewport()
    page.go_back()
    expect(page.locator("article")).to_have_count(0)  # the address in between is not come back to


def test_the_page_of_all_leads_to_an_operation(page: Page) -> None:
    page.get_by_role("link", name="PUT /runners/{runner_id}").click()
    expect(page.locator("#runners_update")).to_be_in_viewport()
    page.locator(".contents").get_by_role("link", name="Members").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("REST API: Members")
    assert page.locator(".contents [aria-current]").inner_text().startswith("Members")


def test_the_filter_works_while_typing(page: Page) -> None:
    field = page.get_by_label("Filter the reference")
    field.press_sequentially("put /runners maximum_timeout")
    expect(page.locator(".operation:visible")).to_have_count(1)
    expect(page.get_by_role("status")).to_contain_text("1 of ")
    expect(page.get_by_role("heading", name="Members")).not_to_be_visible()
    field.fill("no such thing")
    expect(page.get_by_text("Nothing on this page fits this filter.")).to_be_visible()
    page.get_by_role("button", name="Drop the filter").click()
    expect(page.get_by_role("heading", name="Members")).to_be_visible()


def test_the_filter_of_a_room_gives_way_to_an_address(visitor: Visitor) -> None:
    page = visitor.open("/-/api/runners")
    field = page.get_by_label("Filter Runners")
    field.press_sequentially("put maximum_timeout")
    expect(page.locator("details.operation:visible")).to_have_count(1)
    page.goto(page.url.partition("#")[0] + "#runners_show")
    expect(page.locator("#runners_show")).to_be_in_viewport()
    expect(field).to_have_value("")


def test_all_of_a_room_is_opened_and_shut_by_a_button(visitor: Visitor) -> None:
    page = visitor.open("/-/api/runners")
    page.get_by_role("button", name="Open all").click()
    expect(page.locator(SHUT)).to_have_count(0)
    page.get_by_role("button", name="Close all").click()
    expect(page.locator("details.operation[open]")).to_have_count(0)


def test_printing_opens_all_and_leaves_it_as_it_was(visitor: Visitor) -> None:
    page = visitor.open("/-/api/runners")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator(SHUT)).to_have_count(0)
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(page.locator("details.operation[open]")).to_have_count(0)
    page.emulate_media(media="print")
    expect(page.locator("#runners_update dl")).to_be_visible()  # the style sheet alone does it too
    expect(page.locator(".contents")).not_to_be_visible()


def test_the_contents_stay_beside_and_are_folded_on_a_phone(visit: Visit, cast: Cast, page: Page) -> None:
    page.mouse.wheel(0, 4000)
    expect(page.locator(".contents li").first).to_be_in_viewport()
    visitor = visit(viewport=PHONE)
    visitor.sign_in("alice")
    phone = visitor.open("/-/api")
    expect(phone.locator(".contents li").first).not_to_be_visible()
    phone.get_by_text("Contents", exact=True).click()
    phone.locator(".contents").get_by_role("link", name="Members").click()
    expect(phone.locator(".contents li").first).not_to_be_visible()
    phone.locator("summary", has_text="/groups/{group}/members").first.click()
    expect(phone.locator("#members_of_group")).to_be_visible()


def test_without_javascript_the_lines_lead_to_what_opens(visit: Visit, cast: Cast) -> None:
    visitor = visit(javascript=False)
    visitor.sign_in("alice")
    page = visitor.open("/-/api")
    expect(page.get_by_label("Filter the reference")).not_to_be_visible()
    page.get_by_role("link", name="POST /groups/{group}/members").click()
    expect(page.locator("#members_add_to_group")).to_be_in_viewport()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_is_short_until_it_is_opened(visit: Visit, cast: Cast, size: dict[str, int]) -> None:
    visitor = visit(viewport=size)
    visitor.sign_in("alice")
    page = visitor.open("/-/api")
    assert page.evaluate("document.documentElement.scrollHeight") < 195 * len(OPERATIONS)  # two lines each
    assert page.evaluate("document.documentElement.scrollWidth") == size["width"]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious_with_an_operation_open_and_filtered(
    visit: Visit, cast: Cast, size: dict[str, int]
) -> None:
    visitor = visit(viewport=size)
    visitor.sign_in("dana")
    page = visitor.open("/-/api/runners#runners_update")
    expect(page.locator("#runners_update")).to_be_visible()
    page.locator(".contents").evaluate("(each) => { each.open = true }")
    assert look(page, "/-/api/runners") == []
    page.get_by_label("Filter Runners").fill("pause")
    page.get_by_role("button", name="Open all").click()
    assert look(page, "/-/api/runners, filtered") == []
    page = visitor.open("/-/api/shapes#shape-RunnerDetails")
    assert look(page, "/-/api/shapes") == []
    page = visitor.open("/-/api")
    page.get_by_label("Filter the reference").fill("pause")
    assert look(page, "/-/api, filtered") == []
