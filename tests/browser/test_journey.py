"""The main job in a browser: sign in, make a group and a runner, copy its command, watch the machine come online."""

import re
from contextlib import suppress

import pytest
from playwright.sync_api import Error, Page, expect
from sqlalchemy import func, select

from portal.models import Runner
from tests.browser import machines
from tests.browser.conftest import Visit
from tests.cast import Cast
from tests.portals import RunningPortal

TOKEN = re.compile(r"glrt-t[123]_[0-9A-Za-z]{27}\.0r[0-9a-z]{7}")


def count(cast: Cast) -> int:
    cast.session.rollback()
    return cast.session.scalar(select(func.count()).select_from(Runner)) or 0


def create_runner(page: Page, base: str = "/groups/acme/-/runners", **fields: str) -> str:
    """Fill in the form and send it. Returns the token on the page."""
    page.goto(re.match(r"https?://[^/]+", page.url)[0] + f"{base}/new")  # type: ignore[index]
    page.get_by_label("Tags").fill("docker, linux")
    for label, value in fields.items():
        page.get_by_label(label).fill(value)
    page.get_by_role("button", name="Create runner").click()
    expect(page.get_by_text("This token is shown once.")).to_be_visible()
    token = page.locator("#token").inner_text()
    assert TOKEN.fullmatch(token)
    return token


def test_from_the_sign_in_to_a_machine_online(visit: Visit, cast: Cast, portal: RunningPortal) -> None:
    page = visit().sign_in("dana")
    page.get_by_role("link", name="Create group").click()
    page.get_by_label("Name").fill("Platform Team")
    expect(page.get_by_label("Path")).to_have_value("platform-team")
    page.get_by_role("button", name="Create group").click()
    expect(page.get_by_role("status")).to_contain_text("The group platform-team is created.")
    page.get_by_role("link", name="Runners", exact=True).click()
    page.get_by_role("link", name="Create runner").click()
    page.get_by_label("Tags").fill("docker")
    page.get_by_label("Description").fill("Linux build fleet")
    page.get_by_role("button", name="Create runner").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Linux build fleet is ready to connect")
    token = page.locator("#token").inner_text()
    line = page.locator("#connection")
    expect(line).to_contain_text("Waiting for a machine to register")
    page.evaluate("window.sameDocument = true")
    assert machines.verify(portal.url, token) == 200
    expect(line).to_contain_text("Machine registered")
    expect(line).to_contain_text(machines.SYSTEM_ID)
    expect(line).to_contain_text("18.9.0")
    expect(line).to_contain_text("Waiting for its first poll")
    assert machines.poll(portal.url, token) == 204
    expect(line).to_contain_text("Online: it asks for jobs")
    assert page.evaluate("window.sameDocument") is True
    expect(page.locator("#token")).to_have_text(token)
    page.get_by_role("link", name="See the runner").click()
    expect(page.locator("#runner-status")).to_contain_text("Online")


def test_the_live_line_asks_no_more_when_it_is_online(visit: Visit, cast: Cast, portal: RunningPortal) -> None:
    page = visit().sign_in("alice")
    page.clock.install()
    token = create_runner(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(10_000)
    assert [address for address in asked if "/connection?" in address]
    machines.poll(portal.url, token)
    page.clock.run_for(10_000)
    expect(page.locator("#connection")).to_contain_text("Online: it asks for jobs")
    asked.clear()
    page.clock.run_for(60_000)
    assert [address for address in asked if "/connection?" in address] == []


def test_every_copy_button_copies_exactly_its_block(visit: Visit, cast: Cast) -> None:
    visitor = visit(permissions=["clipboard-read", "clipboard-write"])
    page = visitor.sign_in("alice")
    token = create_runner(page)
    page.evaluate("document.querySelectorAll('main details').forEach((each) => { each.open = true })")
    buttons = page.locator("button[data-copy]")
    assert buttons.count() >= 7
    for button in buttons.all():
        source = page.locator(f"#{button.get_attribute('data-copy')}")
        button.click()
        expect(button).to_contain_text("Copied")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == source.text_content()
        assert copied.strip() == copied
    page.locator("button[data-copy=token]").click()
    assert page.evaluate("navigator.clipboard.readText()") == token


def test_without_the_clipboard_the_block_is_selected_instead(visit: Visit, cast: Cast) -> None:
    page = visit().sign_in("alice")
    token = create_runner(page)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: {writeText: () => Promise.reject()}})")
    page.locator("button[data-copy=token]").click()
    expect(page.locator("button[data-copy=token]")).to_contain_text("Selected: press Ctrl+C")
    assert page.evaluate("getSelection().toString()") == token


def test_a_reload_shows_no_token_and_makes_no_second_runner(visit: Visit, cast: Cast) -> None:
    page = visit().sign_in("alice")
    token = create_runner(page, Description="Reloaded")
    before = count(cast)
    page.reload()  # the address is the runner's by now, so nothing is sent again
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("^Reloaded"))
    expect(page.locator("#machines-head")).to_be_visible()
    assert token not in page.content()
    assert count(cast) == before


@pytest.mark.parametrize("javascript", [True, False])
def test_back_and_forward_show_no_token_and_make_no_second_runner(visit: Visit, cast: Cast, javascript: bool) -> None:
    page = visit(javascript=javascript).sign_in("alice")
    token = create_runner(page)
    before = count(cast)
    page.get_by_role("link", name="Runners", exact=True).first.click()
    for way in (page.go_back, page.go_forward, page.go_back):
        page.wait_for_load_state(
            "networkidle"
        )  # who leaves before the icon has come makes the browser complain of it
        with suppress(Error):  # the browser kept no copy of the answer and asks whether to send the form again
            way()
        expect(page.locator("body")).not_to_contain_text(token)
    page.wait_for_load_state("networkidle")
    page.reload()  # without script: "yes, send it again"
    if not javascript:
        expect(page.get_by_text("cannot be shown again; if it is lost, reset the token.")).to_be_visible()
    assert token not in page.content()
    assert count(cast) == before


def test_a_second_tab_at_the_same_address_shows_the_runner_without_its_token(visit: Visit, cast: Cast) -> None:
    visitor = visit()
    page = visitor.sign_in("alice")
    token = create_runner(page, Description="First tab")
    before = count(cast)
    second = visitor.context.new_page()
    second.goto(page.url)
    assert token not in second.content()
    expect(second.get_by_role("heading", level=1)).to_contain_text("First tab")
    assert count(cast) == before


def test_a_double_click_makes_one_runner_and_its_token_works(visit: Visit, cast: Cast, portal: RunningPortal) -> None:
    page = visit().sign_in("alice")
    before = count(cast)
    page.goto(f"{portal.url}/groups/acme/-/runners/new")
    page.get_by_label("Tags").fill("docker")
    page.get_by_role("button", name="Create runner").dblclick()
    expect(page.get_by_text("This token is shown once.")).to_be_visible()
    assert count(cast) == before + 1
    assert machines.verify(portal.url, page.locator("#token").inner_text()) == 200


def test_a_reset_shows_a_new_token_and_follows_the_new_machine(
    visit: Visit, cast: Cast, portal: RunningPortal
) -> None:
    page = visit().sign_in("alice")
    old = create_runner(page)
    machines.poll(portal.url, old)
    page.get_by_role("link", name="reset the token").click()
    page.get_by_role("button", name="Reset token and disconnect 1 machine").click()
    new = page.locator("#token").inner_text()
    assert new != old
    expect(page.locator("#connection")).to_contain_text("Waiting for a machine")
    assert machines.poll(portal.url, old) == 403
    assert machines.poll(portal.url, new) == 204
    expect(page.locator("#connection")).to_contain_text("Online: it asks for jobs")


def test_a_wrong_value_keeps_what_was_typed_and_leads_to_the_field(visit: Visit, cast: Cast) -> None:
    visitor = visit()
    visitor.sign_in("alice")
    page = visitor.open("/groups/acme/-/runners/new")
    page.get_by_label("Description").fill("Typed with care")
    page.get_by_role("button", name="Create runner").click()
    summary = page.get_by_role("alert")
    expect(summary).to_be_focused()
    summary.get_by_role("link", name="Tags").click()
    expect(page.get_by_label("Tags")).to_be_focused()
    expect(page.get_by_label("Description")).to_have_value("Typed with care")


def test_the_runners_page_shows_a_new_machine_without_a_reload(
    visit: Visit, cast: Cast, portal: RunningPortal
) -> None:
    issued = cast.runner()
    visitor = visit()
    visitor.sign_in("alice")
    page = visitor.open(f"/groups/acme/-/runners/{issued.runner.id}")
    expect(page.get_by_text("No machine uses this runner yet.")).to_be_visible()
    machines.poll(portal.url, issued.token, "s_new_machine")
    expect(page.get_by_role("cell", name="s_new_machine", exact=True)).to_be_visible(timeout=15_000)
    expect(page.locator("#runner-status")).to_contain_text("Online")


@pytest.mark.parametrize("path", ["/-/account/access-tokens/new", "/groups/acme/-/enrolment-keys/new"])
def test_back_after_a_refused_form_and_a_success_leads_to_the_form(visit: Visit, cast: Cast, path: str) -> None:
    visitor = visit()
    visitor.sign_in("alice")
    page = visitor.open(path)
    button = page.locator("main form button.primary")
    button.click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label("Name").fill("again")
    if "access-tokens" in path:
        page.get_by_label("read_api").check()
    else:
        page.get_by_label("Run untagged jobs").check()
    button.click()
    token = page.locator("#token").inner_text()
    page.get_by_role("link", name="I have kept it").click()
    expect(page.locator("#token")).to_have_count(0)
    passed = []
    while page.url != f"{visitor.portal.url}/":
        page.go_back()  # without an error of the browser, which has no copy of an answer to a form
        assert token not in page.content()
        passed.append(page.locator("h1").inner_text())
    assert any(each.startswith("Create ") for each in passed)
