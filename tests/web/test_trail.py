"""The trail: who did what, where; and who may read it."""

import re

import pytest
from flask.testing import FlaskClient

from portal.domain.runner_settings import RunnerSettings
from portal.models import Role
from tests.cast import Cast, sign_in
from tests.web.conftest import Place
from tests.web.reading import fill, read, words

SECRET_NOTE = "the key lies under the mat"


def events(page: str) -> list[str]:
    return [words(each) for each in re.findall(r'<div class="event-what">(.*?)</div>', page, re.S)]


def test_a_change_stands_there_with_its_author_time_and_address(place: Place) -> None:
    place.create(description="Build fleet", tags="docker", protected="y")
    page = read(place.client, place.trail)
    author = {"instance": "Dana Kay", "group": "Alice Lam", "project": "Bob Ray"}[place.kind]
    assert events(page)[0].startswith(f"{author} created the runner Build fleet")
    assert "tags: docker" in events(page)[0]
    assert "protected: yes" in events(page)[0]
    assert "just now from 127.0.0.1" in words(page)


def test_a_group_tells_of_everything_below_and_nothing_beside(cast: Cast, client: FlaskClient) -> None:
    for scope, name in ((cast.web, "In web"), (cast.platform, "In platform"), (cast.other, "In other")):
        cast.runner(scope, RunnerSettings(name, run_untagged=True))
    sign_in(client, "alice")
    says = " ".join(events(read(client, "/groups/acme/-/trail")))
    assert "In web in acme/web" in says
    assert "In platform in acme/platform" in says
    assert "In other" not in says
    below = " ".join(events(read(client, "/groups/acme/platform/-/trail")))
    assert "In platform" in below
    assert "In web" not in below


def test_the_newest_stands_first_and_older_ones_on_further_pages(acme: Place) -> None:
    for number in range(60):
        acme.runner(RunnerSettings(f"Runner {number:02}", run_untagged=True))
    first = read(acme.client, acme.trail)
    assert len(events(first)) == 50
    assert "Runner 59" in events(first)[0]
    older = re.search(r'href="([^"]+)">Older</a>', first)
    assert older
    second = read(acme.client, older[1])
    assert "Runner 09" in events(second)[0]
    assert "created the group acme" in events(second)[-1]
    assert "Older" not in words(second)


@pytest.mark.parametrize("before", ["x", "-1", "9" * 30, "٣"])
def test_an_odd_address_shows_the_trail(acme: Place, before: str) -> None:
    read(acme.client, f"{acme.trail}?before={before}")


def test_an_empty_page_says_that_nothing_has_happened(acme: Place) -> None:
    assert "Nothing has happened here yet." in words(read(acme.client, f"{acme.trail}?before=1"))


@pytest.mark.parametrize(
    ("who", "trail", "status"),
    [
        ("alice", "/groups/acme/-/trail", 200),
        ("alice", "/acme/web/-/trail", 200),
        ("bob", "/acme/web/-/trail", 200),
        ("bob", "/groups/acme/-/trail", 404),
        ("erin", "/groups/acme/-/trail", 403),
        ("charlie", "/groups/acme/-/trail", 404),
        ("alice", "/admin/trail", 404),
        ("dana", "/admin/trail", 200),
    ],
)
def test_maintainers_and_owners_read_it_others_do_not(
    cast: Cast, client: FlaskClient, who: str, trail: str, status: int
) -> None:
    read(sign_in(client, who), trail, expect=status)


def test_members_come_and_go_on_the_trail(acme: Place) -> None:
    members = "/groups/acme/-/members"
    fill(acme.client, members, login="charlie", role=str(Role.GUEST.value))
    fill(acme.client, f"{members}/{acme.cast.charlie.id}/remove", form_at=members)
    newest, before = events(read(acme.client, acme.trail))[:2]
    assert newest == "Alice Lam removed the member Charlie Fox in acme role: guest → nothing"
    assert before == "Alice Lam added the member Charlie Fox in acme role: guest"


def test_the_trail_stays_when_the_person_is_renamed_by_another_change(acme: Place) -> None:
    acme.create(description="Build fleet")
    acme.cast.alice.name = "Alice Moor"
    acme.cast.session.commit()
    assert events(read(acme.client, acme.trail))[0].startswith("Alice Lam created")


def test_a_maintenance_note_is_not_told_to_those_who_may_not_see_it(cast: Cast, client: FlaskClient) -> None:
    cast.member(cast.charlie, cast.acme, Role.MAINTAINER)
    runner = cast.runner(cast.acme, RunnerSettings("Build fleet", SECRET_NOTE, ("docker",))).runner
    sign_in(client, "charlie")
    for page in ("/groups/acme/-/trail", f"/groups/acme/-/runners/{runner.id}"):
        text = read(client, page)
        assert "maintenance note: written" in words(text)
        assert SECRET_NOTE not in text


def test_a_refused_change_leaves_no_trace(acme: Place) -> None:
    before = events(read(acme.client, acme.trail))
    acme.create(tags="")
    fill(acme.client, "/groups/acme/-/members", expect=422, login="nobody", role="10")
    assert events(read(acme.client, acme.trail)) == before
