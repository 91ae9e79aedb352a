"""Pages of lists: what is asked for, and the headers that lead on."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as some

from portal.api.for_users import parameters
from portal.api.for_users.paging import MOST_PER_PAGE, Page, Paged, Stretch
from portal.api.for_users.parameters import LARGEST
from portal.domain.errors import ParametersWrong
from tests.api.for_users.test_parameters import APP


def asked() -> Paged:
    found = parameters.read(Paged, {})
    assert isinstance(found, Paged)
    return found


def headers(query: str, total: int | None, *, more: bool = False) -> dict[str, str]:
    with APP.test_request_context(f"/api/v4/runners?{query}"):
        return Page([], asked(), total, more).headers()


def links(header: str) -> dict[str, dict[str, list[str]]]:
    found = re.findall(r'<([^>]*)>; rel="(\w+)"', header)
    assert all(address.startswith("https://portal.example.com/api/v4/") for address, _ in found)
    return {relation: parse_qs(urlsplit(address).query) for address, relation in found}


def test_a_page_in_the_middle_leads_everywhere() -> None:
    found = headers("page=2&per_page=10&type=group_type", 35)
    assert (found["X-Page"], found["X-Per-Page"], found["X-Total"], found["X-Total-Pages"]) == ("2", "10", "35", "4")
    assert (found["X-Prev-Page"], found["X-Next-Page"]) == ("1", "3")
    pages = {relation: query["page"] for relation, query in links(found["Link"]).items()}
    assert pages == {"prev": ["1"], "next": ["3"], "first": ["1"], "last": ["4"]}
    assert all(query["type"] == ["group_type"] for query in links(found["Link"]).values())


def test_an_empty_list_has_one_page() -> None:
    found = headers("", 0)
    assert (found["X-Page"], found["X-Per-Page"], found["X-Total"], found["X-Total-Pages"]) == ("1", "20", "0", "1")
    assert found["X-Next-Page"] == found["X-Prev-Page"] == ""


@pytest.mark.parametrize("more", [True, False])
def test_a_list_too_long_to_count_says_only_whether_more_follows(more: bool) -> None:
    found = headers("page=3", None, more=more)
    assert "X-Total" not in found
    assert found["X-Next-Page"] == ("4" if more else "")
    assert ("next" in links(found["Link"])) is more
    assert "last" not in links(found["Link"])


def test_a_stretch_leads_to_the_next_one_with_the_same_filters() -> None:
    with APP.test_request_context(
        "/api/v4/runners?cursor=a&per_page=5&tag_list[]=x&tag_list[]=y&private_token=secret"
    ):
        found = links(Stretch([], "b=").headers()["Link"])
        assert Stretch([], None).headers() == {}
    assert found == {"next": {"cursor": ["b="], "per_page": ["5"], "tag_list[]": ["x", "y"]}}


def test_a_link_is_plain_ascii_whatever_the_path() -> None:
    with APP.test_request_context("/api/v4/groups/ä b%0A>/runners"):
        link = Page([], asked(), 0).headers()["Link"]
    assert link.isascii()
    assert "\n" not in link
    assert "/groups/%C3%A4%20b%0A%3E/runners?" in link


@pytest.mark.parametrize(
    "query", ["page=0", "page=-1", "page=x", "page=1.5", f"page={LARGEST}", "per_page=0", "per_page=x"]
)
def test_a_page_that_cannot_be_is_refused(query: str) -> None:
    with APP.test_request_context(f"/?{query}"), pytest.raises(ParametersWrong, match=query.partition("=")[0]):
        asked()


@pytest.mark.parametrize("query", ["per_page=101", "per_page=100", f"per_page={LARGEST}"])
def test_more_than_the_most_is_the_most(query: str) -> None:
    with APP.test_request_context(f"/?{query}"):
        assert asked().per_page == MOST_PER_PAGE


def test_nothing_is_the_usual() -> None:
    with APP.test_request_context("/?page=&per_page="):
        assert (asked().page, asked().per_page, asked().offset) == (1, 20, 0)


@given(
    page=some.text(max_size=25) | some.integers().map(str), per_page=some.text(max_size=25) | some.integers().map(str)
)
def test_whatever_is_asked_the_database_can_count_so_far(page: str, per_page: str) -> None:
    with APP.test_request_context("/", query_string={"page": page, "per_page": per_page}):
        try:
            found = asked()
        except ParametersWrong:
            return
        assert 1 <= found.per_page <= MOST_PER_PAGE
        assert 0 <= found.offset <= LARGEST - found.per_page
