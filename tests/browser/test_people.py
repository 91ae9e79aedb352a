"""Administrators and people, in a browser: found while typing, blocked, let in again; with and without a script."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit
from tests.cast import Cast


@pytest.fixture(scope="module")
def stage(cast: Cast) -> Cast:
    """The cast, all of them committed."""
    return cast


def names(page: Page) -> list[str]:
    return page.locator("#people-rows a.name").all_inner_texts()


def test_typing_narrows_the_list_without_a_reload_and_the_tiles_follow(visit: Visit, stage: Cast) -> None:
    visitor = visit()
    visitor.sign_in("dana")
    page = visitor.open("/admin/people")
    page.evaluate("window.sameDocument = true")
    page.get_by_label("Find people").press_sequentially("fox")
    page.wait_for_url(re.compile(r"[?&]search=fox(&|$)"))
    expect(page.locator("#people-rows a.name")).to_have_text(["Charlie Fox"])
    expect(page.locator("#people-tiles a", has_text="Without second factor").locator("b")).to_have_text("1")
    page.get_by_label("Standing").select_option("blocked")
    expect(page.get_by_text("Nobody fits “fox”")).to_be_visible()
    page.get_by_role("link", name="Drop the search").click()
    expect(page.get_by_text("Nobody fits these filters.")).to_be_visible()
    page.get_by_role("link", name="show everybody").click()
    expect(page.locator("#people-rows a.name")).to_have_count(6)  # the first administrator, too


@pytest.mark.parametrize("javascript", [True, False])
def test_somebody_is_found_blocked_and_let_in_again(visit: Visit, stage: Cast, javascript: bool) -> None:
    bob, dana = visit(), visit(javascript=javascript)
    bob.sign_in("bob")
    dana.sign_in("dana")
    page = dana.open("/admin/people?search=bob")
    page.get_by_role("link", name="Bob Ray").click()
    page.get_by_role("link", name="Block", exact=True).click()
    page.get_by_role("button", name=re.compile("Block Bob Ray and end")).click()
    expect(page.get_by_role("status")).to_contain_text("Bob Ray is blocked;")
    bob.open("/acme/web")
    assert "/-/sign-in" in bob.page.url
    page.get_by_role("link", name="Unblock").click()
    page.get_by_role("button", name="Unblock Bob Ray").click()
    expect(page.get_by_role("status")).to_contain_text("Bob Ray can sign in again.")
    bob.sign_in("bob")
