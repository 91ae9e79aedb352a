"""Everything works by reload alone, with JavaScript off."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser import fleet, machines
from tests.browser.conftest import Visit
from tests.browser.fleet import Fleet
from tests.browser.test_journey import TOKEN
from tests.cast import Cast
from tests.portals import RunningPortal


@pytest.fixture(scope="module")
def runners(cast: Cast) -> Fleet:
    return fleet.fill(cast)


@pytest.fixture
def page(visit: Visit, runners: Fleet) -> Page:
    return visit(javascript=False).sign_in("dana")


def test_from_the_sign_in_to_a_machine_online(page: Page, portal: RunningPortal) -> None:
    page.get_by_role("link", name="Create group").click()
    page.get_by_label("Name").fill("Platform Team")
    page.get_by_label("Path").fill("platform-team")
    page.get_by_role("button", name="Create group").click()
    page.get_by_role("link", name="Create runner").click()
    page.get_by_label("Tags").fill("docker")
    page.get_by_label("Description").fill("Linux build fleet")
    page.get_by_role("button", name="Create runner").click()
    token = page.locator("#token").inner_text()
    assert TOKEN.fullmatch(token)
    shown = " ".join(page.locator("pre").all_text_contents())
    assert shown.count(token) >= 5
    assert page.locator("button[data-copy]:visible").count() == 0
    assert machines.verify(portal.url, token) == 200
    assert machines.poll(portal.url, token) == 204
    with page.context.expect_page() as tab:
        page.get_by_role("link", name="Open the runner in another tab").click()
    expect(tab.value.locator("#runner-status")).to_contain_text("Online")
    expect(tab.value.get_by_role("cell", name=machines.SYSTEM_ID, exact=True)).to_be_visible()
    assert token not in tab.value.content()
    expect(page.locator("#token")).to_have_text(token)


def test_a_reload_shows_no_token(page: Page, portal: RunningPortal) -> None:
    page.goto(f"{portal.url}/groups/acme/-/runners/new")
    page.get_by_label("Tags").fill("docker")
    page.get_by_role("button", name="Create runner").click()
    token = page.locator("#token").inner_text()
    page.reload()
    expect(page.get_by_text("cannot be shown again; if it is lost, reset the token.")).to_be_visible()
    assert token not in page.content()


def test_an_access_token_is_made_shown_once_and_revoked(page: Page, portal: RunningPortal) -> None:
    page.goto(f"{portal.url}/-/account/access-tokens")
    page.get_by_role("link", name="Create access token").click()
    page.get_by_label("Name").fill("nightly")
    page.get_by_label("read_api").check()
    page.get_by_role("button", name="Create access token").click()
    token = page.locator("#token").inner_text()
    assert token.startswith("glpat-")
    assert " ".join(page.locator("pre").all_text_contents()).count(token) == 3
    assert page.locator("button[data-copy]:visible").count() == 0
    page.reload()
    expect(page.get_by_text("cannot be shown again")).to_be_visible()
    expect(page.get_by_role("row", name="nightly")).to_have_count(1)
    assert token not in page.content()
    page.get_by_role("link", name="Revoke nightly").click()
    page.get_by_role("button", name="Revoke access token").click()
    expect(page.get_by_text("“nightly” is revoked")).to_be_visible()


def test_every_section_of_the_instructions_opens(page: Page, portal: RunningPortal) -> None:
    page.goto(f"{portal.url}/groups/acme/-/runners/new")
    page.get_by_label("Tags").fill("docker")
    page.get_by_role("button", name="Create runner").click()
    for section in ("docker-compose", "helm"):
        block = page.locator(f"#{section} pre").first
        expect(block).to_be_hidden()
        page.locator(f"#{section} summary").click()
        expect(block).to_be_visible()


def test_filters_apply_with_a_button(page: Page, portal: RunningPortal) -> None:
    page.goto(f"{portal.url}/groups/acme/-/runners")
    page.get_by_label("Search").fill("offline")
    page.get_by_label("Paused or not").select_option("true")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("#runner-rows a.name")).to_have_text(["Offline"])
    assert {"search=offline", "paused=true"} <= set(re.split("[?&]", page.url))
    page.locator("#status-tiles a", has_text="Online").click()
    page.get_by_role("link", name="Drop the status “online”").click()
    expect(page.locator("#runner-rows a.name")).to_have_text(["Offline"])


def test_the_start_page_searches_with_a_button(page: Page) -> None:
    page.get_by_label("Find a group or project").fill("plat")
    page.get_by_role("button", name="Find").click()
    assert "search=plat" in page.url
    expect(page.get_by_role("link", name="acme/platform")).to_be_visible()
    expect(page.get_by_role("link", name="acme/web")).to_have_count(0)


def test_members_are_added_changed_and_removed(page: Page, portal: RunningPortal) -> None:
    page.goto(f"{portal.url}/groups/acme/-/members")
    page.get_by_label("User name or e-mail").fill("charlie")
    page.get_by_label("Role", exact=True).select_option("Reporter")
    page.get_by_role("button", name="Add member").click()
    expect(page.get_by_role("status")).to_contain_text("Charlie Fox is now reporter here.")
    page.get_by_label("Role of Charlie Fox").select_option("Maintainer")
    page.get_by_role("button", name="Save role of Charlie Fox").click()
    expect(page.get_by_role("status")).to_contain_text("Charlie Fox is now maintainer here.")
    page.get_by_role("button", name="Remove Charlie Fox").click()
    expect(page.get_by_role("status")).to_contain_text("Charlie Fox has no role of their own here any more.")


def test_a_runner_is_edited_paused_and_deleted(page: Page, portal: RunningPortal, runners: Fleet) -> None:
    page.goto(portal.url + runners.at("/groups/acme/-/runners", "Stale"))
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Description").fill("Old Windows")
    page.get_by_role("button", name="Save changes").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Old Windows")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    page.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Delete runner and disconnect 3 machines").click()
    expect(page.get_by_role("status")).to_contain_text("Old Windows is deleted and can be restored")


def test_a_group_is_deleted_after_its_path_is_typed(page: Page, portal: RunningPortal) -> None:
    page.goto(f"{portal.url}/groups/other")
    page.get_by_role("link", name="Settings", exact=True).click()
    page.get_by_role("link", name="Delete group").click()
    page.get_by_role("textbox").fill("wrong")
    page.get_by_role("button", name="Delete group").click()
    expect(page.get_by_role("alert")).to_contain_text("Type other exactly")
    page.get_by_role("textbox").fill("other")
    page.get_by_role("button", name="Delete group").click()
    expect(page.get_by_role("status")).to_contain_text("other is deleted and can be restored")


def test_the_menu_opens_and_signs_out(page: Page, portal: RunningPortal) -> None:
    page.get_by_label("Account of Dana Kay").click()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{portal.url}/-/sign-in")
