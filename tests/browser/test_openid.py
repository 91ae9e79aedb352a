"""The journey of single sign-on, with a real provider: first use, roles, connecting, confirming, disconnecting."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PHONE, Visit, Visitor
from tests.browser.test_every_page import look
from tests.cast import Cast
from tests.openid_provider import PASSWORD as THERE
from tests.openid_provider import RunningProvider
from tests.portals import RunningPortal, free_port


@pytest.fixture(scope="module")
def provider() -> RunningProvider:
    """Where it will be; the portal and the provider must know each other's addresses before they start."""
    return RunningProvider(port=free_port())


@pytest.fixture(scope="module")
def portal(database: str, provider: RunningProvider) -> Iterator[RunningPortal]:
    running = RunningPortal(
        database,
        **provider.settings(
            PORTAL_OPENID_CREATE="true", PORTAL_OPENID_ROLES="developers=acme:developer,ops=administrator"
        ),
    )
    provider.redirect_uris = (f"{running.url}/-/sign-in/openid/callback",)
    with provider, running:
        provider.put("frank", "developers")
        provider.put("erin", email="erin@elsewhere.example")
        yield running


def prove(page: Page, username: str, *, known: bool = False) -> None:
    """What somebody does on the provider's pages."""
    if not known:
        page.locator("input[name=login]").fill(username)
        page.locator("button[type=submit], button[name=answer]").first.click()
    page.locator("input[name=password]").fill(THERE)
    page.locator("button[type=submit], button[name=answer]").first.click()


def watch_ours_only(visitor: Visitor) -> None:
    """The provider's own pages may say on the console what they like."""
    ours = visitor.portal.url
    visitor.complaints[:] = [each for each in visitor.complaints if each.startswith(ours)]


@pytest.mark.parametrize("javascript", [True, False], ids=["script", "no script"])
def test_frank_signs_in_at_the_provider_and_finds_his_group(visit: Visit, cast: Cast, javascript: bool) -> None:
    visitor = visit(javascript=javascript)
    page = visitor.open("/groups/acme")
    page.get_by_role("button", name="Sign in with Example Login").click()
    prove(page, "frank")
    page.wait_for_url(f"{visitor.portal.url}/groups/acme")  # where he was going
    expect(page.get_by_role("heading", level=1)).to_contain_text("Acme")
    page = visitor.open("/-/account/sessions")
    expect(page.locator("main")).to_contain_text("Single sign-on")
    watch_ours_only(visitor)


def test_erin_connects_confirms_and_disconnects(visit: Visit, cast: Cast) -> None:
    visitor = visit()
    visitor.sign_in("erin")
    page = visitor.open("/-/account")
    page.get_by_role("link", name="Single sign-on").click()
    page.get_by_role("button", name="Connect an account at Example Login").click()
    prove(page, "erin")
    expect(page.get_by_role("status")).to_contain_text("Connected")
    expect(page.locator("table.rows")).to_contain_text("erin@elsewhere.example")

    other = visit()
    page = other.open("/-/sign-in")
    page.get_by_role("button", name="Sign in with Example Login").click()
    prove(page, "erin")
    page.wait_for_url(f"{other.portal.url}/")
    expect(page.get_by_label("Account of Erin Day")).to_be_visible()

    page = other.open("/-/confirm?next=/-/account/identities")
    page.get_by_role("button", name="Example Login").click()
    prove(page, "erin", known=True)  # asked again, although signed in there
    page.wait_for_url(f"{other.portal.url}/-/account/identities")
    page.get_by_role("button", name="Disconnect").click()
    expect(page.get_by_text("No account is connected.")).to_be_visible()
    watch_ours_only(visitor)
    watch_ours_only(other)


@pytest.mark.parametrize("size", [{"width": 1280, "height": 800}, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious(visit: Visit, cast: Cast, size: dict[str, int]) -> None:
    visitor = visit(viewport=size)
    found = look(visitor.open("/-/sign-in"), "/-/sign-in")
    page = visitor.open("/-/sign-in/openid/callback?state=unknown")
    found += look(page, "refused")
    page = visitor.open("/-/sign-in")
    page.get_by_role("button", name="Sign in with Example Login").click()
    prove(page, "frank")
    page.wait_for_url(f"{visitor.portal.url}/")
    found += look(visitor.open("/-/account/identities"), "/-/account/identities")
    watch_ours_only(visitor)
    visitor.complaints[:] = [each for each in visitor.complaints if "status of 400" not in each]
    assert not found, "\n".join(found)
