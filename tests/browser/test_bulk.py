"""A bulk edit of 500 runners: chosen by the filter, looked at, watched, and told of."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import create_engine, func, insert, select
from sqlalchemy.orm import Session

from portal.domain.bulk import bulk_acts
from portal.domain.bulk.bulk_changes import Act, Wanted
from portal.domain.runners.runner_lists import RunnerFilter
from portal.models import AuditEvent, Runner, RunnerType
from tests.browser.conftest import DESKTOP, PHONE, Visit
from tests.browser.test_every_page import look as problems_of
from tests.cast import Cast

LIST = "/groups/acme/-/runners"
MANY = 500


@pytest.fixture(scope="module")
def runners(cast: Cast) -> list[int]:
    """500 runners of acme with the tag docker, and one of the instance."""
    row = {"runner_type": RunnerType.GROUP, "group_id": cast.acme.id, "registration_type": 1, "tag_list": ["docker"]}
    made = insert(Runner).returning(Runner.id)
    ids = cast.session.scalars(made, [{**row, "description": f"Build {number:03}"} for number in range(MANY)]).all()
    shared = {
        "runner_type": RunnerType.INSTANCE,
        "registration_type": 1,
        "tag_list": ["docker"],
        "description": "Shared",
    }
    cast.session.execute(insert(Runner), [shared])
    cast.session.commit()
    return sorted(ids)


def look(page: Page, what: str, **fields: str) -> None:
    """Choose the act below the list and go on to what will happen."""
    page.get_by_label("What to do").select_option(what)
    for label, value in fields.items():
        page.get_by_label(label.replace("_", " ")).fill(value)
    page.get_by_role("button", name="Look at what will happen").click()


def test_500_runners_get_a_tag_while_a_bar_shows_how_far_it_is(
    visit: Visit, database: str, runners: list[int]
) -> None:
    visitor = visit()
    visitor.sign_in("alice")
    page = visitor.open(f"{LIST}?tag=docker&inherited=true")
    page.get_by_label(re.compile("All 501 that match these filters")).check()
    look(page, "Change tags", Tags_to_add="gpu", Tags_to_remove="docker")
    expect(page.get_by_role("heading", level=1)).to_have_text("500 of 501 runners will be changed")
    expect(page.get_by_text("1 runner will be refused:")).to_be_visible()
    engine = create_engine(database)
    with Session(engine) as other:  # somebody holds the 250th: it stops there until they let go
        other.scalar(select(Runner.id).where(Runner.id == runners[249]).with_for_update())
        page.get_by_role("button", name="Change the tags of 500 runners").click()
        bar = page.get_by_role("progressbar")
        expect(bar).to_be_visible()
        expect(bar).to_have_attribute("value", "200")
        expect(page.locator("#bulk-progress")).to_contain_text("200 of 501 have had their turn: 200 changed")
        expect(page.locator("#bulk-words")).to_have_text("30 % are done.")
        page.evaluate("window.sameDocument = true")
        page.wait_for_timeout(1500)  # the bar refreshes itself meanwhile, and the page stays
        assert page.evaluate("window.sameDocument") is True
        other.rollback()
    expect(page.get_by_role("heading", level=1)).to_have_text("500 runners were changed", timeout=30_000)
    expect(page.get_by_role("status")).to_contain_text("500 changed, 0 were so already, 1 refused")
    expect(page.get_by_role("link", name="Shared")).to_be_visible()
    with Session(engine) as session:
        assert session.scalar(select(func.count()).where(Runner.tag_list == ["gpu"])) == MANY
        assert session.scalar(select(func.count()).where(AuditEvent.action == "runner_updated")) == MANY
    engine.dispose()


def test_ticked_boxes_and_what_was_typed_outlive_a_refresh_of_the_list(visit: Visit, runners: list[int]) -> None:
    visitor = visit()
    visitor.sign_in("alice")
    page = visitor.open(LIST)
    page.get_by_label("All 20 on this page").check()
    boxes = page.locator("input[name=runner]")
    assert all(box.is_checked() for box in boxes.all())
    boxes.first.uncheck()
    expect(page.get_by_label("All 20 on this page")).not_to_be_checked()
    expect(page.get_by_label("Tags to add")).to_be_hidden()
    page.get_by_label("What to do").select_option("Change tags")
    page.get_by_label("Tags to add").fill("arm")
    with page.expect_response(re.compile("runners")):
        page.evaluate(
            "htmx.ajax('GET', location.pathname, {target: '#runner-rows', select: '#runner-rows', swap: 'outerHTML'})"
        )
    expect(page.get_by_label("Tags to add")).to_have_value("arm")
    expect(boxes.first).not_to_be_checked()
    assert sum(box.is_checked() for box in boxes.all()) == 19
    page.get_by_role("button", name="Look at what will happen").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("19 of 19 runners will be changed")


def test_runners_are_chosen_and_paused_on_a_phone_without_javascript(visit: Visit, runners: list[int]) -> None:
    visitor = visit(javascript=False, viewport=PHONE)
    visitor.sign_in("alice")
    page = visitor.open(LIST)
    for name in ("Choose Build 499", "Choose Build 498"):
        page.get_by_label(name).check()
    look(page, "Pause")
    expect(page.get_by_role("heading", level=1)).to_have_text("2 of 2 runners will be paused")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Pause 2 runners").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("2 runners were paused")
    page.get_by_role("link", name="Back to the runners").click()
    expect(page.get_by_role("button", name="Resume Build 499")).to_be_visible()


def test_a_deletion_of_many_is_undone_as_one(visit: Visit, runners: list[int]) -> None:
    visitor = visit()
    visitor.sign_in("alice")
    page = visitor.open(f"{LIST}?search=Build+00")
    page.get_by_label(re.compile("All 10 that match these filters")).check()
    look(page, "Delete")
    expect(page.get_by_text("The deletion can be undone for 7 days.")).to_be_visible()
    page.get_by_role("button", name="Delete 10 runners").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("10 runners were deleted")
    page.get_by_role("link", name="Undo the deletion").click()
    page.get_by_role("button", name=re.compile("Restore")).click()
    page = visitor.open(f"{LIST}?search=Build+00")
    expect(page.locator("#runner-rows a.name")).to_have_count(10)


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_pages_of_an_act_are_for_everybody(
    visit: Visit, cast: Cast, database: str, runners: list[int], viewport: dict[str, int]
) -> None:
    """axe finds nothing serious in the preview, the progress and the report, in light and in dark."""
    actor, session = cast.as_(cast.alice), cast.session
    act = bulk_acts.draft(
        session,
        actor,
        cast.acme,
        Wanted(Act.TAGS, (f"arm-{viewport['width']}",)),
        RunnerFilter(tags=("gpu",), inherited=True),
    )
    session.commit()
    visitor = visit(viewport=viewport)
    visitor.sign_in("alice")
    page = visitor.open(f"/-/bulk/{act.id}")
    found = problems_of(page, "preview")
    engine = create_engine(database)
    with Session(engine) as other:
        other.scalar(select(Runner.id).where(Runner.id == runners[100]).with_for_update())
        page.locator(f"form[action='/-/bulk/{act.id}/start'] button").click()
        expect(page.get_by_role("progressbar")).to_be_visible()
        found += problems_of(page, "progress")
        other.rollback()
    engine.dispose()
    expect(page.get_by_role("status")).to_contain_text("were so already", timeout=30_000)
    assert found + problems_of(page, "report") == []
