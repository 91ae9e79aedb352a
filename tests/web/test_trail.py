"""The trail: who did what, where; and who may read it."""

import csv
import html
import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain import audit
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE
from portal.domain.trail.audit_chain import COLUMNS
from portal.models import AuditEvent, Role
from tests.cast import SYSTEM, Cast, sign_in
from tests.domain.queries import asked
from tests.house import actions
from tests.web.conftest import Place
from tests.web.reading import fill, links, read, words

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


# Every action has its sentence


def test_the_action_of_every_call_can_be_read_from_the_code() -> None:
    assert actions.unread() == []
    assert {"runner_created", "signed_in", "act_refused", "trail_shortened"} <= set(actions.recorded())


@pytest.mark.parametrize("action", sorted(actions.recorded()))
def test_every_action_has_a_sentence_and_stands_in_the_filter(app: Flask, action: str) -> None:
    words_of = app.jinja_env.get_template("trail/_events.html").module
    assert action in words_of.WORDS
    assert [action in group for group in words_of.GROUPS.values()].count(True) == 1


def test_an_action_without_a_sentence_is_told_by_its_name(acme: Place) -> None:
    assert told(acme, "runner_painted", colour=[None, "blue"])[0] == "runner painted acme colour: blue"


def test_what_somebody_does_to_themselves_names_them_once(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "dana")
    assert events(read(client, "/admin/trail"))[0].startswith("Dana Kay signed in method:")


# Filters


def shown(client: FlaskClient, address: str) -> list[str]:
    return events(read(client, address))


def test_it_is_filtered_by_who_also_by_a_former_name(acme: Place) -> None:
    acme.create(description="By Alice")
    acme.runner(RunnerSettings("By Dana", run_untagged=True))
    assert {each.split(" created")[0] for each in shown(acme.client, f"{acme.trail}?who=dana")} == {"Dana Kay"}
    acme.cast.alice.name = "Alina Moor"
    acme.cast.session.commit()
    for name in ("alice lam", "alina", "ALICE"):
        assert "By Alice" in shown(acme.client, f"{acme.trail}?who={name}")[0]
    assert shown(acme.client, f"{acme.trail}?who=100%25") == []


def test_a_token_pasted_as_a_name_stands_nowhere_on_the_page(acme: Place) -> None:
    token = acme.runner(RunnerSettings("Fleet", run_untagged=True)).token
    for address in (f"{acme.trail}?who={token}&action=runner_created", f"{acme.trail}?path={token}&before=1"):
        assert token not in read(acme.client, address)
        assert "[redacted]" in read(acme.client, address)


def test_it_is_filtered_by_the_kind_of_actor_and_by_action(acme: Place) -> None:
    acme.create(description="By Alice")
    assert all("tests" in each for each in shown(acme.client, f"{acme.trail}?kind=system"))
    assert all("Alice Lam" in each for each in shown(acme.client, f"{acme.trail}?kind=user"))
    assert len(shown(acme.client, f"{acme.trail}?kind=nonsense")) > 3
    (only,) = shown(acme.client, f"{acme.trail}?action=runner_created")
    assert "By Alice" in only


@pytest.mark.parametrize("path", ["acme/platform", "/ACME/platform/", "acme/web"])
def test_it_is_filtered_by_what_is_below_a_path(cast: Cast, client: FlaskClient, path: str) -> None:
    for scope in (cast.web, cast.platform, cast.other):
        cast.runner(scope, RunnerSettings(f"In {scope.full_path}", run_untagged=True))
    sign_in(client, "dana")
    says = " ".join(shown(client, f"/admin/trail?path={path}"))
    assert f"In {path.strip('/').lower()}" in says
    assert says.count("created the runner") == 1


def test_a_path_filter_shows_nothing_from_outside_the_page(cast: Cast, client: FlaskClient) -> None:
    cast.runner(cast.other, RunnerSettings("In other", run_untagged=True))
    sign_in(client, "alice")
    assert shown(client, "/groups/acme/-/trail?path=other") == []


def test_it_is_filtered_by_days_both_included(acme: Place) -> None:
    for day in (1, 2, 3, 4):
        event = audit.record(acme.cast.session, SYSTEM, f"on_day_{day}", acme.scope, acme.scope)
        event.created_at = datetime(2020, 1, day, 23, 59, 59, tzinfo=UTC)
    acme.cast.session.commit()
    days = shown(acme.client, f"{acme.trail}?since=2020-01-02&until=2020-01-03")
    assert [each.split()[3] for each in days] == ["3", "2"]
    for odd in ("since=x&until=2020-13-45", "until=9999-12-31", "since="):
        assert len(shown(acme.client, f"{acme.trail}?{odd}")) >= 4


def test_a_filter_stays_on_the_next_page(acme: Place) -> None:
    for number in range(55):
        acme.runner(RunnerSettings(f"Runner {number:02}", run_untagged=True))
    first = read(acme.client, f"{acme.trail}?action=runner_created&who=dana")
    older = re.search(r'href="([^"]+)">Older</a>', first)
    assert older
    second = read(acme.client, html.unescape(older[1]))
    assert len(events(second)) == 5
    assert "Newest" in words(second)


def test_filters_that_nothing_fits_say_which_to_drop(acme: Place) -> None:
    page = read(acme.client, f"{acme.trail}?who=nobody&action=runner_deleted")
    assert "Nothing on the trail fits these filters. Drop the name “nobody” , or drop all filters" in words(page)
    assert f'href="{acme.trail}?action=runner_deleted"' in page


def test_a_page_asks_the_database_no_more_often_for_more_events(acme: Place, session: Session) -> None:
    def number(address: str) -> int:
        with asked(session) as statements:
            read(acme.client, address)
        return len(statements)

    few = number(acme.trail)
    for each in range(30):
        acme.cast.runner((acme.cast.acme, acme.cast.platform, acme.cast.web)[each % 3])
    assert number(acme.trail) <= few + 2


# Links and exact values


def test_it_links_to_what_still_exists(cast: Cast, client: FlaskClient) -> None:
    runner = cast.runner(cast.web, RunnerSettings("Still here", run_untagged=True)).runner
    address = f"/acme/web/-/runners/{runner.id}"
    sign_in(client, "dana")
    for trail in ("/admin/trail", "/groups/acme/-/trail", "/acme/web/-/trail"):
        page = read(client, trail)
        assert address in links(page)
        assert f"/admin/people/{cast.dana.id}/trail" in links(page)
    assert "/acme/web" in links(page)
    number = runner.id
    cast.session.delete(runner)
    cast.session.commit()
    assert f"/acme/web/-/runners/{number}" not in links(read(client, "/admin/trail"))


def test_only_administrators_are_led_to_people(acme: Place) -> None:
    acme.create(description="By Alice")
    assert not [link for link in links(read(acme.client, acme.trail)) if link.startswith("/admin")]


def test_every_link_of_a_trail_leads_somewhere(place: Place) -> None:
    place.create(description="Build fleet")
    cast = place.cast
    for scope in (cast.acme, cast.platform, cast.web, cast.other, INSTANCE):
        cast.runner(scope)
    page = read(place.client, place.trail)
    for link in {each for each in links(page) if each.startswith("/") and "/static/" not in each}:
        assert place.client.get(link).status_code == 200, link


def test_the_exact_values_are_there_on_demand(acme: Place) -> None:
    acme.create(description="Build fleet", protected="y")
    details = read(acme.client, acme.trail).split('<details class="event-exact">')[1].split("</details>")[0]
    event = acme.cast.session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc()).limit(1)).one()
    says = words(details)
    assert f"Event {event.id} runner_created" in says
    assert f"Who user {acme.cast.alice.id} Alice Lam" in says
    assert f"On what runner {event.target_id} Build fleet" in says
    assert "protected null → true" in says
    assert event.request_id in says
    assert event.created_at.isoformat() in says
    assert "In the chain not yet" in says  # this test's transaction is never committed


# A person's and a runner's


def test_a_persons_trail_has_what_they_did_and_what_was_done_to_them(cast: Cast, client: FlaskClient) -> None:
    cast.runner(cast.other)
    sign_in(client, "dana")
    says = shown(client, f"/admin/people/{cast.dana.id}/trail")
    assert [each for each in says if "created the runner" in each]
    assert [each for each in says if "created the person Dana Kay" in each]
    assert not [each for each in says if "Alice" in each]
    read(client, "/admin/people/999999/trail", expect=404)
    read(sign_in(client.application.test_client(), "alice"), f"/admin/people/{cast.dana.id}/trail", expect=404)


def test_a_runners_trail_is_whole_and_for_those_who_look_after_it(cast: Cast, client: FlaskClient) -> None:
    runner = cast.runner(cast.acme, RunnerSettings("Busy", run_untagged=True)).runner
    for each in range(15):
        audit.record(cast.session, SYSTEM, f"change_{each}", runner, cast.acme)
    cast.session.commit()
    address = f"/groups/acme/-/runners/{runner.id}"
    sign_in(client, "alice")
    page = read(client, address)
    assert len(events(page)) == 10
    assert f"{address}/trail" in links(page)
    assert len(shown(client, f"{address}/trail")) == 16
    assert len(shown(client, f"{address}/trail?action=runner_created")) == 1
    bob = sign_in(client.application.test_client(), "bob")
    assert bob.get(f"/acme/web/-/runners/{runner.id}/trail").status_code in (403, 404)
    assert bob.get(f"/acme/web/-/runners/{runner.id}/trail/export").status_code in (403, 404)


# As a file


def lines_of(client: FlaskClient, address: str) -> list[dict[str, Any]]:
    answer = client.get(address)
    assert answer.status_code == 200
    return [json.loads(line) for line in answer.get_data(as_text=True).split("\n") if line]


def test_a_scopes_events_are_exported_as_json_lines_oldest_first(acme: Place) -> None:
    acme.create(description="Build fleet", tags="docker")
    answer = acme.client.get(f"{acme.trail}/export?format=jsonl")
    assert answer.mimetype == "application/x-ndjson"
    assert answer.headers["Content-Disposition"] == "attachment; filename=trail-acme.jsonl"
    assert answer.is_streamed
    told = lines_of(acme.client, f"{acme.trail}/export")
    assert told[0]["action"] == "group_created"
    assert (told[-1]["action"], told[-1]["actor_name"]) == ("runner_created", "Alice Lam")
    assert told[-1]["changes"]["tags"] == [None, ["docker"]]
    assert {"position", "hash", "previous_hash", *COLUMNS} == set(told[-1])


def test_an_export_has_what_fits_the_filters_and_nothing_beside_the_scope(cast: Cast, client: FlaskClient) -> None:
    cast.runner(cast.other)
    cast.runner(cast.web)
    sign_in(client, "alice")
    told = lines_of(client, "/groups/acme/-/trail/export?action=runner_created")
    assert [line["scope_path"] for line in told] == ["acme/web"]
    assert lines_of(client, "/groups/acme/-/trail/export?who=nobody") == []


def test_a_csv_export_has_a_heading_and_no_formula(acme: Place) -> None:
    for name in ("=1+1", "+1", "-1", "@x", "\tx"):
        actor = replace(SYSTEM, name=name)
        audit.record(acme.cast.session, actor, "tried", acme.scope, acme.scope, {name: (None, 1)})
    acme.cast.session.commit()
    answer = acme.client.get(f"{acme.trail}/export?format=csv&action=tried")
    assert answer.mimetype == "text/csv"
    heading, *rows = list(csv.reader(io.StringIO(answer.get_data(as_text=True))))
    assert heading[:4] == ["position", "hash", "previous_hash", "id"]
    assert [row[heading.index("actor_name")] for row in rows] == ["'=1+1", "'+1", "'-1", "'@x", "'\tx"]
    assert all(not cell.startswith(("=", "+", "-", "@", "\t")) for row in rows for cell in row)


def test_a_note_is_exported_for_those_who_see_it_and_named_as_withheld_for_others(
    cast: Cast, client: FlaskClient
) -> None:
    cast.member(cast.charlie, cast.acme, Role.MAINTAINER)
    runner = cast.runner(cast.acme, RunnerSettings("Build fleet", SECRET_NOTE, ("docker",))).runner
    sign_in(client, "charlie")
    for address in ("/groups/acme/-/trail/export", f"/groups/acme/-/runners/{runner.id}/trail/export"):
        for form in ("jsonl", "csv"):
            assert SECRET_NOTE not in client.get(f"{address}?format={form}").get_data(as_text=True)
        assert lines_of(client, address)[-1]["withheld"] == "maintenance_note"
    alice = sign_in(client.application.test_client(), "alice")
    assert lines_of(alice, "/groups/acme/-/trail/export")[-1]["changes"]["maintenance_note"] == [None, SECRET_NOTE]


def test_what_one_request_did_is_shown_alone(acme: Place) -> None:
    other = replace(acme.cast.as_(acme.cast.alice), request_id="another-request")
    audit.record(acme.cast.session, other, "group_renamed", acme.scope.group, acme.scope, {"name": ("A", "B")})
    acme.runner()
    assert len(events(read(acme.client, acme.trail))) > 1
    page = read(acme.client, f"{acme.trail}?request=another-request")
    assert len(events(page)) == 1
    assert "Of the request another-request alone. Drop this" in words(page)
    nothing = words(read(acme.client, f"{acme.trail}?request=nobody-sent-this"))
    assert "Nothing on the trail fits these filters" in nothing
    assert "Drop the request" in nothing
