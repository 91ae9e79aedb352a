"""An enrolment key's pages in a browser: it shows machines that enrol, and its examples stand before the way out."""

from __future__ import annotations

import json
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import PHONE, Visit
from tests.cast import Cast
from tests.portals import RunningPortal

IN_TIME = 20_000  # milliseconds: the page asks every three seconds, and the machine may be busy


def enrol(portal: RunningPortal, key: str, name: str) -> None:
    """A machine uses the key."""
    body = json.dumps({"description": name}).encode()
    headers = {"PRIVATE-TOKEN": key, "Content-Type": "application/json"}
    with urlopen(Request(f"{portal.url}/api/v4/user/runners", body, headers), timeout=30) as answer:
        assert answer.status == 201


@pytest.mark.parametrize("javascript", [True, False])
def test_its_page_shows_a_machine_that_enrols(
    visit: Visit, cast: Cast, portal: RunningPortal, javascript: bool
) -> None:
    issued = cast.enrolment_key(cast.alice)
    visitor = visit(javascript=javascript)
    visitor.sign_in("alice")
    page = visitor.open(f"/groups/acme/-/enrolment-keys/{issued.record.id}")
    expect(page.get_by_text("0 of 10 runners")).to_be_visible()
    enrol(portal, issued.token, "rack-7-machine-1")
    if not javascript:
        page.reload()
    expect(page.get_by_text("1 of 10 runners")).to_be_visible(timeout=IN_TIME)
    expect(page.get_by_role("link", name="rack-7-machine-1").first).to_be_visible()


def test_on_a_phone_the_way_out_stands_behind_all_examples(visit: Visit, cast: Cast) -> None:
    visitor = visit(viewport=PHONE)
    visitor.sign_in("alice")
    page = visitor.open("/groups/acme/-/enrolment-keys/new")
    page.get_by_label("Name").fill("Build machines")
    page.get_by_label("Tags").fill("docker")
    page.get_by_role("button", name="Create enrolment key").click()
    examples, out = page.locator(".how"), page.get_by_role("link", name="I have kept it")
    above, below = examples.bounding_box(), out.bounding_box()
    assert above
    assert below
    assert above["y"] + above["height"] <= below["y"]
