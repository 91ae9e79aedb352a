"""Filters apply while somebody types: no reload, the address follows, the counts with it."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser import fleet
from tests.browser.conftest import Visit
from tests.browser.fleet import Fleet
from tests.cast import Cast

LIST = "/groups/acme/-/runners"


@pytest.fixture(scope="module")
def runners(cast: Cast) -> Fleet:
    return fleet.fill(cast)


@pytest.fixture
def page(visit: Visit, runners: Fleet) -> Page:
    """Alice at the list of acme's runners; `window.sameDocument` is gone after a reload."""
    visitor = visit()
    visitor.sign_in("alice")
    page = visitor.open(LIST)
    page.evaluate("window.sameDocument = true")
    return page


def names(page: Page) -> list[str]:
    return page.locator("#runner-rows a.name").all_inner_texts()


def tile(page: Page, status: str) -> str:
    return page.locator("#status-tiles a", has_text=status).locator("b").inner_text()


def test_typing_narrows_the_list_without_a_reload(page: Page) -> None:
    assert len(names(page)) == 5
    page.get_by_label("Search").press_sequentially("onl")
    page.wait_for_url(re.compile(r"[?&]search=onl(&|$)"))
    expect(page.locator("#runner-rows a.name")).to_have_text(["Online"])
    expect(page.get_by_label("Search")).to_be_focused()
    expect(page.get_by_label("Search")).to_have_value("onl")
    assert page.evaluate("window.sameDocument") is True


def test_the_counts_follow_the_other_filters(page: Page) -> None:
    assert [tile(page, status) for status in ("Online", "Offline", "Stale", "Never contacted")] == [
        "1",
        "1",
        "1",
        "2",
    ]
    page.get_by_label("Tag", exact=True).select_option("docker")
    expect(page.locator("#runner-rows a.name")).to_have_count(3)
    assert [tile(page, status) for status in ("Online", "Offline", "Stale", "Never contacted")] == [
        "1",
        "0",
        "0",
        "2",
    ]
    assert "tag=docker" in page.url
    assert page.evaluate("window.sameDocument") is True


def test_the_address_brings_the_same_list_to_somebody_else(page: Page, visit: Visit) -> None:
    page.get_by_label("Status", exact=True).select_option("offline")
    expect(page.locator("#runner-rows a.name")).to_have_text(["Offline"])
    page.wait_for_url(re.compile("status=offline"))
    visitor = visit()
    visitor.sign_in("dana")
    other = visitor.open(page.url.removeprefix(visitor.portal.url))
    assert names(other) == ["Offline"]
    expect(other.get_by_label("Status", exact=True)).to_have_value("offline")


def test_going_back_undoes_a_filter(page: Page) -> None:
    page.get_by_label("Paused or not").select_option("true")
    expect(page.locator("#runner-rows a.name")).to_have_text(["Offline"])
    page.wait_for_url(re.compile("paused=true"))
    page.go_back()
    expect(page.locator("#runner-rows a.name")).to_have_count(5)
    expect(page.get_by_label("Paused or not")).to_have_value("")


def test_a_list_emptied_by_a_filter_says_which_to_drop(page: Page) -> None:
    page.get_by_label("Search").fill("zebra")
    page.get_by_role("link", name="Drop the search “zebra”").click()
    expect(page.locator("#runner-rows a.name")).to_have_count(5)


def test_a_count_is_a_link_that_filters_and_unfilters(page: Page) -> None:
    page.locator("#status-tiles a", has_text="Stale").click()
    expect(page.locator("#runner-rows a.name")).to_have_text(["Stale"])
    page.locator("#status-tiles a", has_text="Stale").click()
    expect(page.locator("#runner-rows a.name")).to_have_count(5)


def test_a_count_clicked_after_a_filter_keeps_the_filter(page: Page) -> None:
    page.get_by_label("Tag", exact=True).select_option("docker")
    expect(page.locator("#runner-rows a.name")).to_have_count(3)
    page.locator("#status-tiles a", has_text="Online").click()
    expect(page.locator("#runner-rows a.name")).to_have_text(["Online"])
    assert "tag=docker" in page.url


def test_a_runner_is_paused_from_the_filtered_list(page: Page) -> None:
    page.get_by_label("Search").fill("New")
    expect(page.locator("#runner-rows a.name")).to_have_text(["New"])
    page.get_by_role("button", name="Pause New").click()
    expect(page.get_by_role("status")).to_contain_text("New takes no new jobs.")
    assert names(page) == ["New"]
    page.get_by_role("button", name="Resume New").click()
    expect(page.get_by_role("status")).to_contain_text("New takes jobs again.")


def test_the_start_page_finds_groups_while_typing(visit: Visit, runners: Fleet) -> None:
    page = visit().sign_in("dana")
    page.evaluate("window.sameDocument = true")
    page.get_by_label("Find a group or project").press_sequentially("plat")
    expect(page.locator("#found a.line")).to_have_count(1)
    page.wait_for_url(re.compile("search=plat"))
    assert page.evaluate("window.sameDocument") is True
