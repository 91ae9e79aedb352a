"""The list of runners: rows, filters in the address, counts, empty states, inherited ones, pages."""

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.database import db
from portal.domain.registration import registration_tokens
from portal.domain.registration.registration import Configured
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE
from portal.models import Role
from tests.cast import Cast, csrf_of, send, sign_in
from tests.domain.queries import asked
from tests.web.conftest import Place
from tests.web.reading import counts, links, poll, read, row_titles, words

BUILD = RunnerSettings(description="Build fleet", tags=("docker", "linux"))
MAC = RunnerSettings(description="Mac minis", tags=("macos",), paused=True)


def test_a_row_tells_what_the_runner_is_and_how_it_is_doing(place: Place) -> None:
    issued = place.runner(RunnerSettings(description="Build fleet", tags=("docker",), protected=True))
    poll(place.client, issued.token)
    poll(place.client, issued.token, "s_another")
    page = read(place.client, place.url)
    row = words(page[page.index("<tbody>") : page.index("</tbody>")])
    for fact in ("Online", "Build fleet", place.kind, issued.record.short, "docker", "protected", "just now"):
        assert fact in row
    assert "created by Dana Kay" in row
    assert "2 machines · 18.9.0 127.0.0.1 +1" in row
    assert f"{place.url}/{issued.runner.id}" in links(page)


def test_a_runner_of_another_scope_names_its_owner(cast: Cast, client: FlaskClient) -> None:
    cast.runner(cast.acme, BUILD)
    page = read(sign_in(client, "dana"), "/admin/runners")
    assert "/groups/acme" in links(page[page.index("<tbody>") :])


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("status=online", ["Build fleet"]),
        ("status=never_contacted", ["Mac minis"]),
        ("status=stale", []),
        ("paused=true", ["Mac minis"]),
        ("paused=false", ["Build fleet"]),
        ("tag=linux", ["Build fleet"]),
        ("tag=linux&tag=macos", []),
        ("token=due", []),
        ("token=nonsense", ["Mac minis", "Build fleet"]),
        ("registration=person", ["Mac minis", "Build fleet"]),
        ("registration=token", []),
        ("search=MIN", ["Mac minis"]),
        ("search=s_c0ffee", ["Build fleet"]),
        ("search=127.0", ["Build fleet"]),
        ("creator=dana", ["Mac minis", "Build fleet"]),
        ("creator=alice", []),
        ("sort=created_asc", ["Build fleet", "Mac minis"]),
        ("sort=contacted_desc", ["Build fleet", "Mac minis"]),
        ("paused=true&tag=linux", []),
        ("status=nonsense&paused=perhaps&sort=backwards&runner_type=x", ["Mac minis", "Build fleet"]),
    ],
)
def test_a_filter_in_the_address_narrows_the_list(acme: Place, query: str, shown: list[str]) -> None:
    poll(acme.client, acme.runner(BUILD).token)
    acme.runner(MAC)
    assert row_titles(read(acme.client, f"{acme.url}?{query}")) == shown


def test_a_runner_is_found_by_the_short_token_that_gitlab_runner_logs(place: Place) -> None:
    place.runner(MAC)
    short = place.runner(BUILD).record.short
    assert row_titles(read(place.client, f"{place.url}?search={short}")) == ["Build fleet"]


def test_the_type_filter_tells_own_and_inherited_runners_apart(cast: Cast, client: FlaskClient) -> None:
    cast.runner(cast.acme, BUILD)
    cast.runner(cast.web, MAC)
    sign_in(client, "bob")
    assert row_titles(read(client, "/acme/web/-/runners?runner_type=group_type")) == ["Build fleet"]
    assert row_titles(read(client, "/acme/web/-/runners?runner_type=project_type")) == ["Mac minis"]


def test_a_filter_stays_chosen_in_the_form(acme: Place) -> None:
    acme.runner(MAC)
    wanted = "status=online&tag=macos&paused=true&token=due&registration=token&search=mi%22ni&sort=created_asc"
    page = read(acme.client, f"{acme.url}?{wanted}")
    for chosen in (
        '"due" selected',
        '"token" selected',
        '"online" selected',
        '"true" selected',
        "<option selected>macos",
        '"created_asc" selected',
    ):
        assert chosen in page
    assert 'value="mi&#34;ni"' in page


def test_the_counts_are_links_that_filter_and_keep_the_other_filters(place: Place) -> None:
    poll(place.client, place.runner(BUILD).token)
    place.runner(MAC)
    page = read(place.client, f"{place.url}?paused=false")
    assert counts(page) == {"Online": 1, "Offline": 0, "Stale": 0, "Never contacted": 0}
    assert f"{place.url}?paused=false&status=online" in links(page)


def test_the_counts_go_on_counting_what_the_status_filter_hides(acme: Place) -> None:
    poll(acme.client, acme.runner(BUILD).token)
    acme.runner(MAC)
    page = read(acme.client, f"{acme.url}?status=online")
    assert counts(page) == {"Online": 1, "Offline": 0, "Stale": 0, "Never contacted": 1}
    assert "1 runner" in words(page[page.index("</table>") :])


def test_the_count_that_filters_now_leads_back_to_all(acme: Place) -> None:
    acme.runner(BUILD)
    page = read(acme.client, f"{acme.url}?status=never_contacted&paused=false")
    assert re.search(r'href="[^"]*/runners\?paused=false" aria-current="true"><b>1</b>', page)


def test_an_empty_list_offers_to_create_the_first_runner(place: Place) -> None:
    page = read(place.client, place.url)
    assert "no runners yet" in words(page)
    assert "Create the first one" in words(page)
    assert f"{place.url}/new" in links(page)


def test_an_empty_list_offers_nothing_to_a_person_who_only_reads(cast: Cast, client: FlaskClient) -> None:
    cast.member(cast.charlie, cast.acme, Role.MAINTAINER)
    cast.session.commit()
    page = read(sign_in(client, "charlie"), "/groups/acme/-/runners")
    assert "Its owners can create one." in words(page)
    assert "/groups/acme/-/runners/new" not in links(page)


@pytest.mark.parametrize(
    ("query", "drop", "left"),
    [
        ("status=online&paused=false", "Drop the status “online”", "?paused=false"),
        ("search=zebra&tag=docker", "Drop the search “zebra”", "?tag=docker"),
        ("tag=zebra", "Drop the tag “zebra”", ""),
        ("creator=alice", "Drop the creator", ""),
        ("runner_type=project_type", "Drop the type", ""),
        ("token=due&paused=false", "Drop “due or expired”", "?paused=false"),
        ("registration=token&sort=created_asc", "Drop how they were registered", "?sort=created_asc"),
        ("paused=true", "Drop “paused”", ""),
    ],
)
def test_a_list_emptied_by_filters_names_the_one_to_drop(acme: Place, query: str, drop: str, left: str) -> None:
    acme.runner(BUILD)
    page = read(acme.client, f"{acme.url}?{query}")
    assert "No runner fits these filters." in words(page)
    found = re.search(rf'<a href="([^"]+)">{drop}</a>', page)
    assert found
    assert found[1] == f"{acme.url}{left}"


def test_a_group_shows_what_is_below_it_and_on_request_what_it_inherits(cast: Cast, client: FlaskClient) -> None:
    cast.runner(INSTANCE, RunnerSettings("For all", run_untagged=True))
    cast.runner(cast.acme, BUILD)
    cast.runner(cast.platform, MAC)
    cast.runner(cast.other, RunnerSettings("Elsewhere", run_untagged=True))
    sign_in(client, "alice")
    assert row_titles(read(client, "/groups/acme/-/runners")) == ["Mac minis", "Build fleet"]
    assert row_titles(read(client, "/groups/acme/-/runners?inherited=true")) == [
        "Mac minis",
        "Build fleet",
        "For all",
    ]
    assert row_titles(read(client, "/groups/acme/platform/-/runners")) == ["Mac minis"]
    inherited = read(client, "/groups/acme/platform/-/runners?inherited=true")
    assert row_titles(inherited) == ["Mac minis", "Build fleet", "For all"]


def test_a_project_shows_its_own_its_groups_and_the_instances_runners(cast: Cast, client: FlaskClient) -> None:
    for scope, name in ((INSTANCE, "For all"), (cast.acme, "Of acme"), (cast.web, "Of web")):
        cast.runner(scope, RunnerSettings(name, run_untagged=True))
    cast.runner(cast.platform, RunnerSettings("Of a sister", run_untagged=True))
    assert row_titles(read(sign_in(client, "bob"), "/acme/web/-/runners")) == ["Of web", "Of acme", "For all"]


def test_the_instance_shows_the_runners_of_all_scopes(cast: Cast, client: FlaskClient) -> None:
    cast.runner(cast.other, BUILD)
    cast.runner(cast.web, MAC)
    assert row_titles(read(sign_in(client, "dana"), "/admin/runners")) == ["Mac minis", "Build fleet"]


def test_a_long_list_has_pages_forth_and_back_that_keep_the_filter(place: Place) -> None:
    names = [f"Runner {number:02}" for number in range(21)]
    for name in names:
        place.runner(RunnerSettings(name, run_untagged=True))
    first = read(place.client, f"{place.url}?paused=false&sort=created_asc")
    assert row_titles(first) == names[:20]
    assert "21 runners" in words(first)
    second = read(place.client, _pager(first, "next"))
    assert row_titles(second) == names[20:]
    assert 'rel="next"' not in second
    assert "paused=false" in _pager(second, "prev")
    back = read(place.client, _pager(second, "prev"))
    assert row_titles(back) == names[:20]
    assert 'rel="prev"' not in back


def test_a_hundred_rows_are_shown_at_once_to_who_asks_for_them(place: Place) -> None:
    for number in range(21):
        place.runner(RunnerSettings(f"Runner {number:02}", run_untagged=True))
    first = read(place.client, f"{place.url}?paused=false")
    assert "100 rows at once" in words(first)
    more = read(place.client, f"{place.url}?paused=false&rows=100")
    assert len(row_titles(more)) == 21
    assert "Fewer rows" in words(more)
    assert len(row_titles(read(place.client, f"{place.url}?rows=100000"))) == 20


def _pager(page: str, which: str) -> str:
    found = re.search(rf'rel="{which}" href="([^"]+)"', page)
    assert found, f"there is no link to the {which} page"
    return found[1].replace("&amp;", "&")


@pytest.mark.parametrize(
    "query",
    [
        "after=nonsense",
        "rows=x",
        "after=~1",
        "before=2024-13-45~1",
        "after=2024-01-01T00:00:00%2B23:59~1",
        "after=-infinity~99999999999999999999",
        "scope=x",
        "place=x",
        "runner_id=7",
        "_scheme=x",
        "_anchor=x",
        "_external=1",
        "_method=x",
        "group_path=other",
        "search=%27%3A%26%21",
    ],
)
def test_an_odd_address_shows_the_list_and_never_fails(acme: Place, query: str) -> None:
    acme.runner(BUILD)
    page = read(acme.client, f"{acme.url}?{query}")
    assert row_titles(page) in ([], ["Build fleet"])
    assert all(address.startswith(("/", "#")) and not address.startswith("//") for address in links(page))


def test_pausing_from_the_list_comes_back_to_the_same_filters(place: Place) -> None:
    runner = place.runner(BUILD).runner
    page = read(place.client, f"{place.url}?tag=docker&sort=created_asc")
    action = re.search(rf'action="({place.url}/{runner.id}/pause[^"]*)"', page)
    assert action
    answer = place.client.post(action[1].replace("&amp;", "&"), data={"csrf_token": csrf_of(page), "back": "list"})
    assert answer.headers["Location"] == f"{place.url}?tag=docker&sort=created_asc"
    again = words(read(place.client, answer.headers["Location"]))
    assert "Build fleet takes no new jobs." in again
    assert "Resume" in again


def test_a_runner_is_resumed_from_the_list(acme: Place) -> None:
    runner = acme.runner(MAC).runner
    send(acme.client, f"{acme.url}/{runner.id}/resume", form_at=acme.url, back="list", expect=302)
    assert row_titles(read(acme.client, f"{acme.url}?paused=false")) == ["Mac minis"]


@pytest.mark.parametrize("who", ["alice", "dana"])
def test_a_list_of_a_hundred_asks_the_database_no_more_than_one_of_three(
    app: Flask, cast: Cast, client: FlaskClient, who: str
) -> None:
    def ask() -> int:
        with asked(db.session()) as statements:
            read(client, "/groups/acme/-/runners?rows=100")
        return len(statements)

    sign_in(client, who)
    for number in range(3):
        cast.runner(cast.project(f"few-{number}", cast.acme), BUILD)
    cast.session.commit()
    ask()
    few = ask()
    for number in range(97):
        cast.runner(cast.project(f"many-{number}", cast.platform), BUILD)
    cast.session.commit()
    assert ask() == few


def test_a_page_of_many_rows_carries_no_registration_token(
    client: FlaskClient, cast: Cast, configured: Configured
) -> None:
    """With a secret on it so long a page could not be compressed; the shorter one has it."""
    row = registration_tokens.make_token(cast.session, cast.as_(cast.alice), cast.acme, configured)
    cast.session.commit()
    token = configured.vault.open(row.ciphertext)
    assert token
    sign_in(client, "alice")
    assert token in read(client, "/groups/acme/-/runners")
    assert token not in read(client, "/groups/acme/-/runners?rows=100")
