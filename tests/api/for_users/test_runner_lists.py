"""Lists of runners for scripts: who gets which, filters, pages and their headers, machines in the same answer."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from portal.api.for_users import paging, runner_lists
from portal.database import db, now
from portal.domain.runners import runner_projects
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE, Scope
from portal.models import Role, Runner, RunnerManager, RunnerProject
from tests.api.for_users.conftest import ScriptOf
from tests.api.for_users.scripts import Script
from tests.cast import Cast
from tests.domain.queries import asked

LIST_ITEM = {
    "id", "description", "ip_address", "active", "paused", "is_shared", "runner_type", "name", "online", "created_by",
    "created_at", "status", "job_execution_status",
}  # fmt: skip
GROUP, PROJECT = "/groups/acme/runners", "/projects/acme%2Fweb/runners"
LISTS = ("/runners", GROUP, PROJECT, "/runners/all")


class Fleet:
    """One runner of each place: the instance, acme, acme/platform, acme/web, and other, which is nobody's."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self.instance, self.acme = self.runner("instance", INSTANCE), self.runner("acme", cast.acme)
        self.platform, self.web = self.runner("platform", cast.platform), self.runner("web", cast.web)
        self.other = self.runner("other", cast.other)
        cast.session.commit()

    def runner(self, name: str, scope: Scope, *tags: str, **more: Any) -> Runner:
        return self.cast.runner(scope, RunnerSettings(name, tags=tags, run_untagged=True, **more)).runner

    def machine(self, runner: Runner, system_id: str, *, version: str = "18.5.0", hours: int = 0) -> None:
        at = now() - timedelta(hours=hours)
        self.cast.session.add(
            RunnerManager(
                runner_id=runner.id,
                system_xid=system_id,
                version=version,
                ip_address="198.51.100.7",
                contacted_at=at,
                created_at=at,
                creation_state=100,
            )
        )
        self.cast.session.commit()


@pytest.fixture
def fleet(cast: Cast) -> Fleet:
    return Fleet(cast)


def names(answer: list[dict[str, Any]]) -> list[str]:
    return [each["description"] for each in answer]


def test_a_script_gets_the_runners_that_its_person_looks_after(script_of: ScriptOf, cast: Cast, fleet: Fleet) -> None:
    assert names(script_of(cast.alice, "read_api").get("/runners")) == ["acme", "platform", "web"]
    assert names(script_of(cast.bob).get("/runners")) == ["web"]
    assert script_of(cast.erin).get("/runners") == []
    assert script_of(cast.charlie).get("/runners") == []
    assert names(script_of(cast.dana).get("/runners")) == ["acme", "platform", "web", "other"]


def test_a_maintainer_of_a_group_looks_after_the_runners_of_its_projects_only(
    script_of: ScriptOf, cast: Cast, fleet: Fleet
) -> None:
    cast.member(cast.charlie, cast.acme, Role.MAINTAINER)
    cast.session.commit()
    assert names(script_of(cast.charlie).get("/runners")) == ["web"]


def test_a_runner_that_was_assigned_to_a_project_is_among_its_maintainers(
    script_of: ScriptOf, cast: Cast, fleet: Fleet
) -> None:
    elsewhere = cast.project("elsewhere", cast.other)
    shared = fleet.runner("shared", elsewhere)
    runner_projects.assign(cast.session, cast.as_(cast.dana), shared, cast.web)
    cast.session.commit()
    bob = script_of(cast.bob)
    assert names(bob.get("/runners")) == ["web", "shared"]
    assert "shared" in names(bob.get(PROJECT))


def test_administrators_get_every_runner_and_others_are_refused(
    script_of: ScriptOf, cast: Cast, fleet: Fleet
) -> None:
    everything = ["instance", "acme", "platform", "web", "other"]
    assert names(script_of(cast.dana, "read_api").get("/runners/all")) == everything
    for user in (cast.alice, cast.charlie):
        assert "Only administrators" in script_of(user).get("/runners/all", expect=403)["message"]


def test_a_group_has_its_own_runners_those_above_and_the_instances_and_none_from_below(
    script_of: ScriptOf, cast: Cast, fleet: Fleet
) -> None:
    alice = script_of(cast.alice)
    assert names(alice.get(GROUP)) == ["instance", "acme"]
    assert names(alice.get(f"/groups/{cast.acme.id}/runners")) == ["instance", "acme"]
    assert names(alice.get("/groups/acme%2Fplatform/runners")) == ["instance", "acme", "platform"]


def test_a_project_has_its_own_runners_those_of_its_groups_and_the_instances(
    script_of: ScriptOf, cast: Cast, fleet: Fleet
) -> None:
    bob = script_of(cast.bob)
    for address in (PROJECT, f"/projects/{cast.web.id}/runners"):
        assert names(bob.get(address)) == ["instance", "acme", "web"]


@pytest.mark.parametrize(
    ("who", "address", "status"),
    [
        ("charlie", GROUP, 404),
        ("charlie", PROJECT, 404),
        ("bob", GROUP, 404),
        ("erin", GROUP, 403),
        ("erin", PROJECT, 403),
        ("alice", "/groups/nowhere/runners", 404),
        ("alice", "/projects/0/runners", 404),
        ("alice", "/groups/other/runners", 404),
    ],
)
def test_who_may_not_see_the_place_finds_nothing_and_who_may_not_see_its_runners_is_refused(
    script_of: ScriptOf, cast: Cast, who: str, address: str, status: int
) -> None:
    script_of(getattr(cast, who)).get(address, expect=status)


@pytest.mark.parametrize("address", LISTS)
def test_a_token_for_managing_runners_or_creating_them_opens_no_list(
    script_of: ScriptOf, cast: Cast, address: str
) -> None:
    for scope in ("manage_runner", "create_runner"):
        refused = script_of(cast.dana, scope).get(address, expect=403)
        assert (refused["error"], refused["scope"]) == ("insufficient_scope", "api read_api")


def test_a_line_has_gitlabs_attributes_and_no_others(script_of: ScriptOf, cast: Cast, fleet: Fleet) -> None:
    for address in LISTS:
        assert {frozenset(each) for each in script_of(cast.dana).get(address)} == {frozenset(LIST_ITEM)}
    shown = script_of(cast.bob).get(PROJECT)[0]
    assert (shown["is_shared"], shown["runner_type"], shown["status"]) == (True, "instance_type", "never_contacted")
    assert (shown["online"], shown["created_by"]["username"]) == (None, "dana")


def test_a_list_is_narrowed_by_type_tags_pause_creator_and_words(
    script_of: ScriptOf, cast: Cast, fleet: Fleet
) -> None:
    fleet.runner("mac builder", cast.acme, "mac", "xcode")
    fleet.runner("mac tester", cast.acme, "mac", paused=True)
    dana = script_of(cast.dana)
    ask = {
        "type=group_type": {"acme", "platform", "other", "mac builder", "mac tester"},
        "type=": {*names(dana.get("/runners/all"))},
        "tag_list=mac": {"mac builder", "mac tester"},
        "tag_list=mac,xcode": {"mac builder"},
        "tag_list[]=mac&tag_list[]=xcode": {"mac builder"},
        "paused=true": {"mac tester"},
        "paused=false&tag_list=mac": {"mac builder"},
        "status=paused": {"mac tester"},
        "status=active&tag_list=mac": {"mac builder"},
        "search=C+Build": {"mac builder"},
        "search=100%25": set(),
        "creator=DANA&tag_list=mac": {"mac builder", "mac tester"},
        "creator=nobody": set(),
    }
    for query, expected in ask.items():
        assert set(names(dana.get(f"/runners/all?{query}"))) == expected, query


def test_a_list_is_narrowed_by_status_in_gitlabs_sense(script_of: ScriptOf, cast: Cast, fleet: Fleet) -> None:
    for runner, hours in ((fleet.instance, 1), (fleet.acme, 3), (fleet.platform, 24 * 8)):
        runner.contacted_at, runner.created_at = now() - timedelta(hours=hours), now() - timedelta(days=9)
    fleet.web.created_at = now() - timedelta(days=9)
    cast.session.commit()
    dana = script_of(cast.dana)
    by = {status: names(dana.get("/runners/all", status=status)) for status in runner_lists.runner_queries.STATUSES}
    assert by["online"] == ["instance"]
    assert by["offline"] == ["acme", "platform"]
    assert by["never_contacted"] == ["web", "other"]
    assert by["stale"] == ["platform", "web"]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("15", {"acme", "web"}),
        ("15.", {"acme", "web"}),
        ("15.1", {"acme"}),
        ("15.1.2", {"acme"}),
        ("15.11", {"web"}),
        ("1", set()),
        ("150", {"platform"}),
        ("15.1.2-beta", {"acme"}),
        ("+", set()),
        ("1." * 30_000, set()),
        ("15" + ".1" * 30_000, set()),
        ("", {"acme", "platform", "web"}),
    ],
)
def test_a_version_is_compared_in_whole_components(
    script_of: ScriptOf, cast: Cast, fleet: Fleet, prefix: str, expected: set[str]
) -> None:
    fleet.machine(fleet.acme, "s_1", version="15.1.2")
    fleet.machine(fleet.acme, "s_2", version="14.9.0")
    fleet.machine(fleet.web, "s_3", version="15.11.1~beta.3.g1234")
    fleet.machine(fleet.platform, "s_4", version="150.1.0")
    assert set(names(script_of(cast.alice).get("/runners", version_prefix=prefix))) == expected


@pytest.mark.parametrize(
    ("address", "query", "said"),
    [
        ("/runners", "status=asleep", "status does not have a valid value"),
        ("/runners", "type=shared", "type does not have a valid value"),
        ("/runners", "version_prefix=v15", "version_prefix is invalid"),
        ("/runners", "paused=perhaps", "paused is invalid"),
        ("/runners", "scope=asleep", "scope does not have a valid value"),
        ("/runners/all", "scope=asleep", "scope does not have a valid value"),
        (PROJECT, "scope=asleep", "scope does not have a valid value"),
        ("/runners", "include=jobs", "include does not have a valid value"),
        ("/runners", "search=glrt-t1_abc", "search takes no token"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(
    script_of: ScriptOf, cast: Cast, address: str, query: str, said: str
) -> None:
    assert said in script_of(cast.dana).get(f"{address}?{query}", expect=400)["error"]


def test_the_older_filter_takes_statuses_everywhere_and_types_where_there_are_all(
    script_of: ScriptOf, cast: Cast, fleet: Fleet
) -> None:
    dana = script_of(cast.dana)
    assert names(dana.get("/runners/all", scope="shared")) == ["instance"]
    assert names(dana.get("/runners/all", scope="specific")) == ["acme", "platform", "web", "other"]
    assert names(dana.get(PROJECT, scope="project_type")) == ["web"]
    assert names(dana.get(PROJECT, scope="online")) == []
    assert names(dana.get("/runners", scope="never_contacted", type="project_type")) == ["web"]
    assert "Scope contains invalid value" in dana.get("/runners", expect=400, scope="shared")["message"]
    assert names(dana.get(GROUP, scope="shared")) == ["instance", "acme"]  # GitLab's group list has none


def links(answer: Any) -> dict[str, str]:
    """The addresses in the header Link, below /api/v4."""
    found = re.findall(r'<[^>]*?/api/v4([^>]+)>; rel="(\w+)"', answer.headers.get("Link", ""))
    return {relation: address for address, relation in found}


def test_pages_by_number_have_gitlabs_headers(script_of: ScriptOf, cast: Cast, fleet: Fleet) -> None:
    dana = script_of(cast.dana)
    answer = dana.ask("GET", "/runners/all", per_page=2, page=2, type="")
    assert names(answer.get_json()) == ["platform", "web"]
    told = {name: answer.headers[name] for name, _ in answer.headers if name.startswith("X-")}
    wanted = {"X-Total": "5", "X-Total-Pages": "3", "X-Page": "2", "X-Per-Page": "2", "X-Next-Page": "3"}
    assert wanted.items() <= told.items()
    assert told["X-Prev-Page"] == "1"
    assert set(links(answer)) == {"prev", "next", "first", "last"}
    assert names(dana.get(links(answer)["last"])) == ["other"]


def test_above_so_many_the_totals_are_left_out(
    script_of: ScriptOf, cast: Cast, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_lists, "MOST_COUNTED", 4)
    answer = script_of(cast.dana).ask("GET", "/runners/all", per_page=2)
    assert "X-Total" not in answer.headers
    assert "X-Total-Pages" not in answer.headers
    assert answer.headers["X-Next-Page"] == "2"
    assert set(links(answer)) == {"next", "first"}
    assert script_of(cast.dana).ask("GET", "/runners/all", per_page=2, page=3).headers["X-Next-Page"] == ""
    assert paging.MOST_COUNTED == 10_000


@pytest.mark.parametrize(("sort", "expected"), [("asc", 1), ("desc", -1)])
def test_a_list_by_cursor_has_each_runner_once(
    script_of: ScriptOf, cast: Cast, fleet: Fleet, sort: str, expected: int
) -> None:
    dana = script_of(cast.dana)
    found, address = [], f"/runners/all?pagination=keyset&order_by=id&per_page=2&sort={sort}"
    while address:
        answer = dana.ask("GET", address)
        found += names(answer.get_json())
        assert "X-Total" not in answer.headers
        address = links(answer).get("next", "")
    assert found == ["instance", "acme", "platform", "web", "other"][::expected]


def test_a_cursor_that_is_none_is_refused(script_of: ScriptOf, cast: Cast) -> None:
    for cursor in ("x", "!!!", "é", "Y3JlYXRlZH5-MQ", "a" * 5000):
        given = {"pagination": "keyset", "cursor": cursor}
        assert "no cursor" in script_of(cast.dana).get("/runners", expect=400, **given)["message"]


def test_the_machines_come_in_the_same_answer_those_heard_of_last_first(
    script_of: ScriptOf, cast: Cast, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        fleet.machine(fleet.web, f"s_{number}", hours=3 - number)
    monkeypatch.setattr(runner_lists, "MOST_MANAGERS", 2)
    by = {each["description"]: each for each in script_of(cast.bob).get(PROJECT, include="managers")}
    assert [each["system_id"] for each in by["web"]["managers"]] == ["s_2", "s_1"]
    assert by["acme"]["managers"] == []
    only = script_of(cast.bob).get(f"/runners/{fleet.web.id}/managers")
    assert by["web"]["managers"] == only[:2]


def test_the_addresses_of_inherited_machines_are_told_to_those_who_look_after_them(
    script_of: ScriptOf, cast: Cast, fleet: Fleet
) -> None:
    for runner in (fleet.instance, fleet.acme, fleet.web):
        fleet.machine(runner, "s_1")

    def addresses(script: Any) -> list[str | None]:
        return [each["managers"][0]["ip_address"] for each in script.get(PROJECT, include="managers")]

    assert addresses(script_of(cast.bob)) == [None, None, "198.51.100.7"]
    assert addresses(script_of(cast.alice)) == [None, "198.51.100.7", "198.51.100.7"]
    assert addresses(script_of(cast.dana)) == ["198.51.100.7"] * 3


WAYS = [{}, {"include": "managers"}, {"pagination": "keyset", "include": "managers"}, {"version_prefix": "18"}]


def test_a_list_of_a_hundred_asks_the_database_no_more_than_a_list_of_two(script_of: ScriptOf, cast: Cast) -> None:
    elsewhere = [cast.project(f"p{number}", cast.acme) for number in range(5)]
    made, counted = 0, []
    scripts = [script_of(cast.alice), script_of(cast.dana)]
    for size in (1, 10, 50):  # of each kind: lists of 2, 20 and 100
        for number in range(made, size):
            stand(cast, cast.acme)
            runner = stand(cast, (cast.web, elsewhere[1])[number % 2])
            cast.session.add(RunnerProject(runner_id=runner.id, project=elsewhere[0].project))
            cast.session.add(RunnerProject(runner_id=runner.id, project=elsewhere[2 + number % 3].project))
        made = size
        cast.session.commit()
        asks = [
            (script, address, way) for script in scripts for address in ("/runners", GROUP, PROJECT) for way in WAYS
        ]
        asks += [(scripts[1], "/runners/all", way) for way in WAYS]
        counted.append([statements_of(*ask, at_least=-(-size // 2)) for ask in asks])
    assert counted[0] == counted[1] == counted[2]
    assert max(counted[0]) <= 10


def stand(cast: Cast, scope: Scope) -> Runner:
    """A runner with a machine, put there without further ado."""
    group, project = (scope.group, None) if scope.project is None else (None, scope.project)
    runner = Runner(
        runner_type=scope.runner_type, group=group, project=project, creator=cast.alice, registration_type=1
    )
    cast.session.add(runner)
    cast.session.flush()
    cast.session.add(RunnerManager(runner_id=runner.id, system_xid="s_1", version="18.5.0"))
    return runner


def statements_of(script: Script, address: str, way: dict[str, str], *, at_least: int) -> int:
    """How many statements this list takes."""
    with asked(db.session()) as statements:
        found = script.get(address, per_page=100, **way)
    assert len(found) >= at_least
    return len([each for each in statements if "SAVEPOINT" not in each])


def test_the_total_is_right_on_the_first_the_last_and_no_page(script_of: ScriptOf, cast: Cast, fleet: Fleet) -> None:
    dana = script_of(cast.dana)
    for given in ({}, {"per_page": 5}, {"per_page": 2}, {"per_page": 2, "page": 3}, {"page": 9}):
        assert dana.ask("GET", "/runners/all", **given).headers["X-Total"] == "5"
    assert dana.ask("GET", "/runners/all", search="nowhere").headers["X-Total"] == "0"
