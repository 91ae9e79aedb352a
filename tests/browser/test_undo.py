"""A runner is deleted by mistake and brought back: what its owner and its machine see."""

import pytest
from playwright.sync_api import expect

from tests.api.machines import Machine, over_http, until
from tests.browser.conftest import DESKTOP, PHONE, Visit
from tests.browser.test_every_page import AXE
from tests.cast import Cast
from tests.portals import RunningPortal


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_deleted_runner_is_undone_and_its_machine_works_again(
    visit: Visit, cast: Cast, portal: RunningPortal, viewport: dict[str, int]
) -> None:
    issued = cast.runner()
    machine = Machine(over_http(portal.url), issued.token)
    assert machine.poll().status == 204
    visitor = visit(viewport=viewport)
    visitor.sign_in("alice")
    page = visitor.open(f"/groups/acme/-/runners/{issued.runner.id}/delete")
    expect(page.get_by_text("can be restored with its tokens for 7 days")).to_be_visible()
    page.get_by_role("button", name="Delete runner and disconnect 1 machine").click()
    expect(page.get_by_role("status")).to_contain_text("is deleted and can be restored for 7 days.")
    expect(page.get_by_role("link", name="1 deleted runner can be restored")).to_be_visible()
    until(lambda: machine.poll().status == 403, why="the deletion is heard")
    assert "those who look after it can restore it" in machine.poll().message

    page.get_by_role("link", name="Undo").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Restore Linux build fleet?")
    assert [
        each["id"] for each in AXE.run(page).response["violations"] if each["impact"] in ("serious", "critical")
    ] == []
    page.get_by_role("button", name="Restore runner").click()
    expect(page.get_by_role("status")).to_contain_text("is restored. Its machines may connect again.")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Linux build fleet")
    until(lambda: machine.poll().status == 204, why="the restoring is heard")


def test_a_deleted_group_is_found_in_the_list_and_restored_without_javascript(visit: Visit, cast: Cast) -> None:
    cast.project("api", cast.group("tools", inside=cast.acme))
    cast.session.commit()
    visitor = visit(javascript=False)
    visitor.sign_in("alice")
    page = visitor.open("/groups/acme/tools/-/delete")
    page.get_by_label("Type acme/tools to confirm").fill("acme/tools")
    page.get_by_role("button", name="Delete group").click()
    page.get_by_role("link", name="Deleted", exact=True).click()
    expect(page.get_by_role("row", name="acme/tools")).to_contain_text(
        "0 subgroups, 1 project, 0 runners, 0 machines"
    )
    page.get_by_role("link", name="Restore acme/tools").click()
    page.get_by_role("button", name="Restore group").click()
    expect(page.get_by_role("status")).to_contain_text("acme/tools is restored with everything")
    expect(page.get_by_role("link", name="api")).to_be_visible()


def test_the_pages_of_deleted_things_have_no_serious_fault(visit: Visit, cast: Cast) -> None:
    visitor = visit(color_scheme="dark", viewport=PHONE)
    visitor.sign_in("dana")
    page = visitor.open("/-/deleted")
    cast.runner()
    page = visitor.open("/admin/runners")
    page.get_by_role("link", name="Linux build fleet").first.click()
    page.goto(page.url + "/delete")
    page.get_by_role("button", name="Delete runner").click()
    for address in ("/-/deleted", "/-/deleted?search=zebra"):
        page = visitor.open(address)
        found = AXE.run(page).response["violations"]
        assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page = visitor.open("/-/deleted")
    page.get_by_role("link", name="Delete for good").first.click()
    found = AXE.run(page).response["violations"]
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
    page.get_by_label("Type").fill(page.locator("form code").inner_text())
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_role("status")).to_contain_text("cannot be restored any more.")
