"""The lists of runners: who sees which, filters, order, pages, counts, addresses."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from portal.database import now
from portal.domain.runners import runner_projects
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE
from portal.models import CreationState, Runner, RunnerManager
from tests.api.graphql.conftest import AskerOf
from tests.api.graphql.queries import NOT_AVAILABLE, Asker, gid
from tests.cast import Cast, sign_in

PORTAL = "https://portal.example.com"


@pytest.fixture
def fleet(cast: Cast) -> dict[str, int]:
    """One runner of each kind, by description."""
    places = {
        "instance": INSTANCE,
        "acme": cast.acme,
        "platform": cast.platform,
        "web": cast.web,
        "other": cast.other,
    }
    made = {}
    for name, scope in places.items():
        settings = RunnerSettings(description=name, tags=(name, "all"))
        made[name] = cast.runner(scope, settings).runner.id
    return made


def names(asker: Asker, where: str, arguments: str = "") -> list[str]:
    """The descriptions of the runners of one list."""
    runners = f"runners{arguments} {{ count nodes {{ description }} }}"
    data = asker.data(f"{{ {where.replace('RUNNERS', runners)} }}")
    found = data["runners"] if where == "RUNNERS" else next(iter(data.values()))["runners"]
    assert found["count"] >= len(found["nodes"])
    return [each["description"] for each in found["nodes"]]


ALL = "RUNNERS"
ACME = 'group(fullPath: "acme") { RUNNERS }'
PLATFORM = 'group(fullPath: "ACME/platform") { RUNNERS }'
WEB = 'project(fullPath: "acme/web") { RUNNERS }'


def test_administrators_see_all_runners_and_others_do_not(
    fleet: dict[str, int], cast: Cast, asker_of: AskerOf, visitor: Asker
) -> None:
    assert names(asker_of(cast.dana), ALL) == ["other", "web", "platform", "acme", "instance"]
    for asker in (asker_of(cast.alice), asker_of(cast.charlie), visitor):
        body = asker.whole("{ runners { count } }")
        assert body["data"] == {"runners": None}
        assert [each["message"] for each in body["errors"]] == [NOT_AVAILABLE]


def test_a_group_shows_what_its_membership_filter_says(fleet: dict[str, int], cast: Cast, asker_of: AskerOf) -> None:
    alice = asker_of(cast.alice)
    assert names(alice, ACME) == ["web", "platform", "acme"]
    assert names(alice, ACME, "(membership: DIRECT)") == ["acme"]
    assert names(alice, ACME, "(membership: DESCENDANTS)") == ["web", "platform", "acme"]
    assert names(alice, PLATFORM, "(membership: ALL_AVAILABLE)") == ["platform", "acme", "instance"]
    assert names(alice, ACME, "(membership: null)") == ["web", "platform", "acme"]


def test_a_project_shows_all_that_can_take_its_jobs(fleet: dict[str, int], cast: Cast, asker_of: AskerOf) -> None:
    shared = cast.runner(cast.project("api", cast.acme), RunnerSettings(description="shared", run_untagged=True))
    runner_projects.assign(cast.session, cast.as_(cast.dana), shared.runner, cast.web)
    cast.session.commit()
    assert names(asker_of(cast.bob), WEB) == ["shared", "web", "acme", "instance"]


def test_who_sees_the_place_and_not_its_runners_is_told_so(
    fleet: dict[str, int], cast: Cast, asker_of: AskerOf
) -> None:
    erin = asker_of(cast.erin)
    for where in (ACME, WEB):
        body = erin.whole(f"{{ {where.replace('RUNNERS', 'fullPath runners { count }')} }}")
        assert next(iter(body["data"].values()))["runners"] is None
        assert [each["message"] for each in body["errors"]] == [NOT_AVAILABLE]


def test_a_place_that_may_not_be_seen_is_null(
    fleet: dict[str, int], cast: Cast, asker_of: AskerOf, visitor: Asker
) -> None:
    query = """{ group(fullPath: "acme") { id } project(fullPath: "acme/web") { id }
        a: group(fullPath: "nothing") { id } b: project(fullPath: "acme/nothing") { id } }"""
    for asker in (asker_of(cast.charlie), visitor):
        assert set(asker.data(query).values()) == {None}


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ("(type: INSTANCE_TYPE)", ["instance"]),
        ("(type: PROJECT_TYPE)", ["web"]),
        ("(paused: true)", ["acme"]),
        ("(paused: false)", ["other", "web", "platform", "instance"]),
        ("(active: true)", ["other", "web", "platform", "instance"]),
        ("(active: false)", ["other", "web", "platform", "acme", "instance"]),
        ("(active: true, paused: true)", ["acme"]),
        ("(status: ONLINE)", ["web"]),
        ("(status: OFFLINE)", ["platform"]),
        ("(status: NEVER_CONTACTED)", ["other", "acme", "instance"]),
        ("(status: STALE)", ["platform"]),
        ('(tagList: ["all", "web"])', ["web"]),
        ('(tagList: ["all", "nothing"])', []),
        ('(search: "ATFO")', ["platform"]),
        ('(versionPrefix: "17.5")', ["web"]),
        ('(versionPrefix: "17.50")', []),
        ('(creatorUsername: "dana")', ["other", "web", "platform", "acme", "instance"]),
        ('(creatorUsername: "nobody")', []),
        ('(ownerFullPath: "acme")', ["acme"]),
        ('(ownerFullPath: "acme/web")', ["web"]),
        ('(ownerFullPath: "nothing")', []),
        ("(ownerWildcard: ADMINISTRATORS)", ["instance"]),
        ("(sort: CREATED_ASC)", ["instance", "acme", "platform", "web", "other"]),
        ("(sort: CONTACTED_DESC, first: 2)", ["web", "platform"]),
        ("(sort: null, first: 1)", ["other"]),
        ("(sort: TOKEN_EXPIRES_AT_ASC, first: 1)", ["instance"]),
        ("(first: 0)", []),
        ("(first: 5000, type: GROUP_TYPE)", ["other", "platform", "acme"]),
    ],
)
def test_the_list_of_all_is_filtered_and_sorted(
    fleet: dict[str, int], cast: Cast, asker_of: AskerOf, arguments: str, found: list[str]
) -> None:
    rows = {each.description: each for each in cast.session.scalars(select(Runner))}
    rows["acme"].active = False
    rows["web"].contacted_at = now()
    rows["platform"].contacted_at = rows["platform"].created_at = now() - timedelta(days=8)
    rows["platform"].created_at = rows["acme"].created_at + (rows["web"].created_at - rows["acme"].created_at) / 2
    if "STALE" in arguments:
        rows["platform"].created_at = now() - timedelta(days=8)
    machine = RunnerManager(runner_id=rows["web"].id, system_xid="s_1", version="17.5.1")
    machine.contacted_at, machine.creation_state = now(), CreationState.FINISHED
    cast.session.add(machine)
    cast.session.commit()
    assert names(asker_of(cast.dana), ALL, arguments) == found


def test_a_list_is_searched_by_a_whole_token(cast: Cast, asker_of: AskerOf) -> None:
    issued = cast.runner(cast.acme)
    cast.runner(cast.acme)
    query = 'query($s: String) { group(fullPath: "acme") { runners(search: $s) { nodes { id } } } }'
    found = asker_of(cast.alice).data(query, s=issued.token)["group"]["runners"]["nodes"]
    assert found == [{"id": gid("Ci::Runner", issued.runner.id)}]
    assert asker_of(cast.alice).data(query, s=issued.token[:-1])["group"]["runners"]["nodes"] == []


def test_runners_of_one_creator_are_found_by_id(cast: Cast, asker_of: AskerOf) -> None:
    cast.runner(cast.acme)
    query = "query($id: UserID) { runners(creatorId: $id) { count } }"
    dana = asker_of(cast.dana)
    assert dana.data(query, id=gid("User", cast.dana.id)) == {"runners": {"count": 1}}
    assert dana.data(query, id=gid("User", cast.alice.id)) == {"runners": {"count": 0}}


def test_pages_go_forwards_and_backwards(cast: Cast, asker_of: AskerOf) -> None:
    for number in range(5):
        cast.runner(cast.acme, RunnerSettings(description=str(number), run_untagged=True))
    alice = asker_of(cast.alice)
    query = """query($first: Int, $last: Int, $after: String, $before: String) { group(fullPath: "acme") {
        runners(first: $first, last: $last, after: $after, before: $before) { count
            edges { cursor node { description } } nodes { description }
            pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } } }"""

    def page(**window: Any) -> tuple[str, dict[str, Any]]:
        found = alice.data(query, **window)["group"]["runners"]
        assert [each["node"] for each in found["edges"]] == found["nodes"]
        assert found["count"] == 5
        if found["edges"]:
            assert found["pageInfo"]["startCursor"] == found["edges"][0]["cursor"]
            assert found["pageInfo"]["endCursor"] == found["edges"][-1]["cursor"]
        return "".join(each["description"] for each in found["nodes"]), found["pageInfo"]

    shown, info = page(first=2)
    assert (shown, info["hasNextPage"], info["hasPreviousPage"]) == ("43", True, False)
    shown, info = page(first=2, after=info["endCursor"])
    assert (shown, info["hasNextPage"], info["hasPreviousPage"]) == ("21", True, True)
    shown, second = page(first=2, after=info["endCursor"])
    assert (shown, second["hasNextPage"]) == ("0", False)
    shown, info = page(last=2, before=info["startCursor"])
    assert (shown, info["hasNextPage"], info["hasPreviousPage"]) == ("43", True, False)
    assert page(last=1)[0] == "0"
    assert page()[0] == "43210"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("first: 1, last: 1", "not both"),
        ("first: -1", "negative"),
        ('after: "nonsense"', "cursor"),
        ('before: "%%%"', "cursor"),
        ('after: "Y29udGFjdGVkfi1pbmZpbml0eX4x"', "cursor"),
    ],
)
def test_a_page_that_cannot_be_is_told(cast: Cast, asker_of: AskerOf, arguments: str, said: str) -> None:
    runner = cast.runner(cast.acme).runner
    alice = asker_of(cast.alice)
    assert said in alice.errors(f'{{ group(fullPath: "acme") {{ runners({arguments}) {{ nodes {{ id }} }} }} }}')[0]
    managers = f"query($id: CiRunnerID!) {{ runner(id: $id) {{ managers({arguments}) {{ nodes {{ id }} }} }} }}"
    assert said in alice.errors(managers, id=gid("Ci::Runner", runner.id))[0]


def test_edges_lead_to_the_pages_of_the_place_that_was_asked(
    fleet: dict[str, int], cast: Cast, asker_of: AskerOf
) -> None:
    alice, bob, dana = asker_of(cast.alice), asker_of(cast.bob), asker_of(cast.dana)

    def edges(asker: Asker, where: str, arguments: str = "") -> dict[str, tuple[str | None, str | None]]:
        wanted = f"runners{arguments} {{ edges {{ webUrl editUrl node {{ description }} }} }}"
        data = asker.data(f"{{ {where.replace('RUNNERS', wanted)} }}")
        found = data["runners"] if where == ALL else next(iter(data.values()))["runners"]
        return {each["node"]["description"]: (each["webUrl"], each["editUrl"]) for each in found["edges"]}

    at = f"{PORTAL}/groups/acme/-/runners/{fleet['web']}"
    assert edges(alice, ACME)["web"] == (at, f"{at}/edit")
    assert edges(alice, ACME, "(membership: ALL_AVAILABLE)")["instance"][1] is None
    at = f"{PORTAL}/acme/web/-/runners/{fleet['acme']}"
    assert edges(bob, WEB)["acme"] == (at, None)
    assert edges(dana, ALL)["web"] == (None, None)


def test_those_addresses_are_pages(fleet: dict[str, int], cast: Cast, asker_of: AskerOf) -> None:
    alice = asker_of(cast.alice)
    query = '{ group(fullPath: "acme") { runners(membership: ALL_AVAILABLE) { edges { webUrl editUrl } } } }'
    edges = alice.data(query)["group"]["runners"]["edges"]
    browser = sign_in(alice.client.application.test_client(), "alice")
    for address in [each for edge in edges for each in edge.values() if each]:
        assert browser.get(address.removeprefix(PORTAL)).status_code == 200


def test_the_runners_of_several_groups_are_asked_one_by_one(cast: Cast, asker_of: AskerOf) -> None:
    for scope in (cast.acme, cast.platform):
        cast.runner(scope)
    alice = asker_of(cast.alice)
    nested = '{ group(fullPath: "acme") { runners { nodes { groups { nodes { fullPath runners { count } } } } } } }'
    assert "one Group at a time" in alice.errors(nested)[0]
    aliased = """{ a: group(fullPath: "acme") { runners { count } }
        b: group(fullPath: "acme/platform") { runners { count } } }"""
    assert alice.data(aliased) == {"a": {"runners": {"count": 2}}, "b": {"runners": {"count": 1}}}
