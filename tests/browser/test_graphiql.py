"""GraphiQL in a browser: the keyboard comes out of its editors, and its own parts can be seen and used."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import DESKTOP, PHONE, Visit, Visitor
from tests.cast import Cast

IN_AN_EDITOR = "document.activeElement.closest('.CodeMirror') !== null"


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def visitor(request: pytest.FixtureRequest, visit: Visit, cast: Cast) -> Visitor:
    visitor = visit(viewport=request.param)
    visitor.sign_in("alice")
    page = visitor.open("/-/graphql-explorer")
    page.get_by_role("button", name="Open the editor").click()
    expect(page.locator(".graphiql-query-editor .CodeMirror")).to_be_visible()
    return visitor


@pytest.mark.parametrize("way", ["Tab", "Shift+Tab"])
def test_after_escape_tab_leaves_the_editor(visitor: Visitor, way: str) -> None:
    explorer = visitor.page
    editor = explorer.locator(".graphiql-query-editor .CodeMirror")
    editor.click()
    explorer.keyboard.press("Tab")
    assert explorer.evaluate(IN_AN_EDITOR)
    explorer.keyboard.press("Escape")
    explorer.keyboard.press(way)
    assert not explorer.evaluate(IN_AN_EDITOR)
    editor.click()
    explorer.keyboard.press("Escape")
    explorer.keyboard.press("ArrowRight")
    explorer.keyboard.press(way)
    assert explorer.evaluate(IN_AN_EDITOR)  # Escape counts for the next key only


def test_its_first_line_is_whole_and_its_settings_have_a_way_out_that_is_seen(visitor: Visitor) -> None:
    explorer = visitor.page
    room = explorer.locator(".graphiql-query-editor .CodeMirror-scroll").bounding_box()
    line = explorer.locator(".graphiql-query-editor .CodeMirror-line span").first.bounding_box()
    assert room
    assert line
    assert line["x"] + line["width"] <= room["x"] + room["width"]
    explorer.get_by_label("Open settings dialog").click()
    drawn = explorer.locator(".graphiql-dialog-close svg").evaluate(
        "(icon) => parseFloat(getComputedStyle(icon).width) - (getComputedStyle(icon).boxSizing === 'border-box' ? "
        "2 * parseFloat(getComputedStyle(icon).paddingLeft) : 0)"
    )
    assert drawn >= 8
    explorer.get_by_role("button", name="Close dialog").click()
    expect(explorer.get_by_role("dialog")).to_have_count(0)
    # Its dialogs want a style of their own, which the policy refuses, and lack a description that nobody misses.
    visitor.complaints[:] = [each for each in visitor.complaints if "graphiql.min.js" not in each]


def test_on_a_phone_it_takes_the_whole_width(visit: Visit, cast: Cast) -> None:
    visitor = visit(viewport=PHONE)
    visitor.sign_in("alice")
    page = visitor.open("/-/graphql-explorer#open")
    place = page.locator("#graphql-explorer").bounding_box()
    sessions = page.locator(".graphiql-sessions").bounding_box()
    assert place
    assert sessions
    assert place["width"] - sessions["width"] <= 2
