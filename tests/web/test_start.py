"""The start page: a person's groups and projects; for an administrator the instance too."""

import re

import pytest
from flask.testing import FlaskClient

from tests.cast import Cast, sign_in
from tests.web.reading import links, poll, read, words


def shown(page: str) -> list[str]:
    return [address for address in links(page[page.index('id="found"') :]) if address != "/"]


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        ("alice", ["/groups/acme", "/groups/acme/platform", "/acme/web"]),
        ("erin", ["/groups/acme", "/groups/acme/platform", "/acme/web"]),
        ("bob", ["/acme/web"]),
        ("charlie", []),
        ("dana", ["/groups/acme", "/groups/acme/platform", "/groups/other", "/acme/web"]),
    ],
)
def test_everybody_sees_what_is_theirs(cast: Cast, client: FlaskClient, who: str, expected: list[str]) -> None:
    assert shown(read(sign_in(client, who), "/")) == expected


def test_a_search_finds_parts_of_paths_whatever_the_case(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    assert shown(read(client, "/?search=PLAT")) == ["/groups/acme/platform"]
    assert shown(read(client, "/?search=acme/w")) == ["/acme/web"]
    assert shown(read(client, "/?search=other")) == []


@pytest.mark.parametrize("search", ["zebra", "%25", "_", "%22%3E"])
def test_a_search_that_finds_nothing_offers_to_drop_it(cast: Cast, client: FlaskClient, search: str) -> None:
    page = read(sign_in(client, "alice"), f"/?search={search}")
    assert "No group's path contains" in words(page)
    assert page.count('<a href="/">Drop the search</a>') == 2


def test_who_is_in_no_group_is_told_whom_to_ask(cast: Cast, client: FlaskClient) -> None:
    says = words(read(sign_in(client, "charlie"), "/"))
    assert "You are in no group yet. Ask a group's owner to add you by your user name, charlie" in says


def test_the_administrator_sees_the_counts_of_all_scopes(cast: Cast, client: FlaskClient) -> None:
    issued = cast.runner(cast.other)
    cast.runner(cast.web)
    sign_in(client, "dana")
    poll(client, issued.token)
    page = read(client, "/")
    assert "2 runners in all scopes" in words(page)
    tiles = re.findall(r'href="/admin/runners\?status=(\w+)"><b>(\d+)</b>', page)
    assert tiles == [("online", "1"), ("offline", "0"), ("stale", "0"), ("never_contacted", "1")]
    assert "/admin/groups/new" in links(page)


def test_others_see_nothing_of_the_instance(cast: Cast, client: FlaskClient) -> None:
    page = read(sign_in(client, "alice"), "/")
    assert not [address for address in links(page) if address.startswith("/admin")]


def test_an_empty_portal_asks_the_administrator_for_the_first_group(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "dana")
    for path in ("acme", "other"):
        page = f"/groups/{path}/-/delete"
        csrf = re.search(r'name="csrf_token" value="([^"]+)"', read(client, page))
        assert csrf
        client.post(page, data={"csrf_token": csrf[1], "typed": path})
    page = read(client, "/")
    assert "Create the first group" in words(page)
    assert 'name="search"' not in page


def test_a_long_list_says_how_to_find_the_rest(cast: Cast, client: FlaskClient) -> None:
    for number in range(103):
        cast.group(f"team-{number:03}")
    cast.session.commit()
    says = words(read(sign_in(client, "dana"), "/"))
    assert "Groups 106" in says
    assert "The first 100 of 106. Type a part of the path to find others." in says
    assert shown(read(client, "/?search=team-102")) == ["/groups/team-102"]


def test_the_menu_names_the_person_and_leads_out(cast: Cast, client: FlaskClient) -> None:
    page = read(sign_in(client, "dana"), "/")
    assert "Dana Kay dana · administrator" in words(page)
    assert "/-/account/password" in links(page)
    assert 'action="/-/sign-out"' in page


def test_without_a_session_the_start_page_asks_to_sign_in(client: FlaskClient, cast: Cast) -> None:
    assert client.get("/").headers["Location"].startswith("/-/sign-in")
