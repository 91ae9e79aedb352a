"""The trail: who did what, where; and who may read it."""

import re

import pytest
from flask.testing import FlaskClient

from portal.domain import audit
from portal.domain.runner_settings import RunnerSettings
from portal.models import Role
from tests.cast import SYSTEM, Cast, sign_in
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


# In words


def told(acme: Place, action: str, **changes: list[object]) -> tuple[str, str]:
    """How the trail tells an event: its words, and the HTML of its changes."""
    event = audit.record(acme.cast.session, SYSTEM, action, acme.scope, acme.scope)
    event.changes = changes
    acme.cast.session.commit()
    page = read(acme.client, acme.trail)
    return events(page)[0].removeprefix("tests ").strip(), page.split('<div class="event-what">')[1].split("</div>")[
        0
    ]


@pytest.mark.parametrize(
    ("action", "changes", "says"),
    [
        (
            "runner_limits_changed",
            {"ci_registered_project_runners": [1, None]},
            "changed how many runners there may be in acme "
            "runners in each project, at most: 1 → as the scope above says",
        ),
        (
            "runner_limits_changed",
            {"ci_registered_group_runners": [1000, 0]},
            "changed how many runners there may be in acme runners in each group, at most: 1,000 → no limit",
        ),
        (
            "runner_creation_changed",
            {"runner_registration_enabled": [True, False]},
            "changed who may create runners in acme others than administrators may create runners: yes → no",
        ),
        (
            "runner_creation_changed",
            {"valid_runner_registrars": [["group", "project"], []]},
            "changed who may create runners in acme others than administrators may create runners in: "
            "groups and projects → neither groups nor projects",
        ),
        (
            "token_life_changed",
            {"subgroup_runner_token_expiration_interval": [2_592_000, None]},
            "changed how long tokens live in acme tokens of runners in subgroups live: 30 days → no word of its own",
        ),
        (
            "runner_deleted",
            {"machines": [0, 0], "by_the_clean_up_of": [None, "acme"]},
            "deleted the runner acme by the clean-up of: acme",
        ),
        (
            "runner_token_ended",
            {"token": ["9GuIPQGvN", None], "ends_at": [None, "2026-01-02T03:04:05+00:00"]},
            "ended a token of the runner acme token: 9GuIPQGvN ended: 2026-01-02 03:04 UTC",
        ),
        (
            "stale_runner_cleanup_changed",
            {"days_of_silence": [None, 30]},
            "turned on the clean-up of stale runners of acme runners silent for 30 days",
        ),
        (
            "stale_runner_cleanup_changed",
            {"days_of_silence": [30, None]},
            "turned off the clean-up of stale runners of acme it took runners silent for 30 days",
        ),
        (
            "stale_runner_cleanup_changed",
            {"days_of_silence": [30, 7]},
            "changed the clean-up of stale runners of acme runners silent for: 30 days → 7 days",
        ),
        (
            "registration_tokens_turned_on",
            {"registration_tokens_allowed": [False, True], "groups_below": [None, 3], "projects_below": [None, 2]},
            "turned registration tokens on in acme",
        ),
        (
            "registration_tokens_turned_off",
            {"registration_tokens_allowed": [True, False], "groups_below": [None, 3]},
            "turned registration tokens off in acme groups below: 3",
        ),
    ],
)
def test_a_change_is_told_in_words(acme: Place, action: str, changes: dict[str, list[object]], says: str) -> None:
    assert told(acme, action, **changes)[0] == says


def test_the_exact_name_and_values_stand_in_the_title(acme: Place) -> None:
    page = told(acme, "runner_limits_changed", ci_registered_project_runners=[1, None])[1]
    assert 'title="ci_registered_project_runners: [1, null]"' in page
    page = told(acme, "token_life_changed", runner_token_expiration_interval=[None, 7200])[1]
    assert 'title="runner_token_expiration_interval: [null, 7200]"' in page
    page = told(acme, "runner_creation_changed", valid_runner_registrars=[["group"], []])[1]
    assert 'title="valid_runner_registrars: [[&#34;group&#34;], []]"' in page
    page = told(acme, "runner_token_ended", ends_at=[None, "2026-01-02T03:04:05+00:00"])[1]
    assert '<time datetime="2026-01-02T03:04:05+00:00" title="2026-01-02T03:04:05+00:00">' in page
