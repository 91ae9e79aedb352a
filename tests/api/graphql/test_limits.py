"""Limits: complexity, depth, length, pages, time; whatever is sent, they hold, and nothing fails on our side."""

import json
from typing import Any

import pytest
from graphql import get_introspection_query
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis_graphql import from_schema, nodes

from portal.api.graphql.global_ids import MODELS
from portal.api.graphql.schema import FILE
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import RunnerManager
from tests.api.graphql.conftest import AskerOf
from tests.api.graphql.queries import DOOR, Asker, gid
from tests.cast import Cast

QUIET = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)
# What the front end of GitLab asks for a list of runners, with all that it shows.
FRONT_END = """query getAllRunners($first: Int, $status: CiRunnerStatus, $sort: CiRunnerSort) {
  runners(first: $first, status: $status, sort: $sort) {
    nodes { ...ListItem }
    edges { webUrl editUrl }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
fragment ListItem on CiRunner {
  __typename id description runnerType shortSha paused locked jobCount tagList createdAt contactedAt status
  jobExecutionStatus accessLevel runUntagged maximumTimeout adminUrl editAdminUrl
  createdBy { id name username avatarUrl webUrl }
  groups(first: 1) { nodes { id name fullPath webUrl } }
  ownerProject { id name fullPath webUrl }
  projectCount
  managers(first: 100) { count nodes { id systemId version revision ipAddress platformName architectureName
    executorName status contactedAt createdAt } }
  userPermissions { updateRunner deleteRunner }
}"""


def test_a_query_tells_its_own_complexity(cast: Cast, asker_of: AskerOf, visitor: Asker) -> None:
    query = "{ queryComplexity { score limit } }"
    for asker, limit in ((visitor, 200), (asker_of(cast.alice), 250), (asker_of(cast.dana), 300)):
        assert asker.data(query) == {"queryComplexity": {"score": 3, "limit": limit}}


def test_a_page_costs_by_its_size(cast: Cast, asker_of: AskerOf) -> None:
    dana = asker_of(cast.dana)

    def score(arguments: str, **variables: Any) -> int:
        query = f"query($n: Int = 50) {{ runners({arguments}) {{ nodes {{ id }} }} queryComplexity {{ score }} }}"
        found: int = dana.data(query, **variables)["queryComplexity"]["score"]
        return found - 2

    assert score("first: $n") == score("first: $n", n=50) == 12
    assert {n: score("first: $n", n=n) for n in (0, 100, 5000, None)} == {0: 8, 100: 16, 5000: 16, None: 16}


def test_what_the_front_end_asks_is_within_the_limits_for_a_hundred_runners(cast: Cast, asker_of: AskerOf) -> None:
    cast.runner(cast.acme)
    found = asker_of(cast.dana).data(FRONT_END, first=100)
    assert len(found["runners"]["nodes"]) == 1
    as_owner = FRONT_END.replace("  runners(first", '  group(fullPath: "acme") { runners(first').replace(
        "}\nfragment", "} }\nfragment"
    )
    assert len(asker_of(cast.alice).data(as_owner, first=100)["group"]["runners"]["nodes"]) == 1


@pytest.mark.parametrize("size", [60, 100])
def test_too_complex_a_query_is_refused_before_it_is_carried_out(cast: Cast, asker_of: AskerOf, size: int) -> None:
    fields = " ".join(f"f{number}: description" for number in range(200))
    (error,) = asker_of(cast.dana).errors(f"{{ runners(first: {size}) {{ nodes {{ {fields} }} }} }}")
    assert "exceeds max complexity of 300" in error
    aliases = " ".join(f'a{number}: group(fullPath: "acme") {{ id }}' for number in range(130))
    (error,) = asker_of(cast.alice).errors(f"{{ {aliases} }}")
    assert "complexity of 260, which exceeds max complexity of 250" in error


def test_fragments_cost_wherever_they_are_used(cast: Cast, visitor: Asker) -> None:
    fragments = " ".join(
        f"fragment F{number} on Query {{ ...F{number + 1} ...F{number + 1} }}" for number in range(30)
    )
    (error,) = visitor.errors(f"{{ ...F0 }} {fragments} fragment F30 on Query {{ __typename }}")
    assert f"complexity of {2**30}" in error


def test_depth_is_limited(cast: Cast, asker_of: AskerOf, visitor: Asker) -> None:
    def nested(levels: int) -> str:
        inner = "id"
        for _ in range(levels):
            inner = f"managers(first: 1) {{ nodes {{ runner {{ {inner} }} }} }}"
        return f'{{ runner(id: "gid://gitlab/Ci::Runner/1") {{ {inner} }} }}'

    assert "data" in visitor.whole(nested(4))
    assert "depth of 17, which exceeds max depth of 15" in visitor.errors(nested(5))[0]
    assert "data" in asker_of(cast.alice).whole(nested(6))
    assert "depth of 23, which exceeds max depth of 20" in asker_of(cast.alice).errors(nested(7))[0]


def test_an_answer_has_so_many_nodes_at_most(cast: Cast, asker_of: AskerOf, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = cast.runner(cast.acme).runner
    cast.session.add_all(RunnerManager(runner_id=runner.id, system_xid=f"s_{number}") for number in range(30))
    cast.session.commit()
    monkeypatch.setattr("portal.api.graphql.context.MOST_NODES", 500)
    inner = "managers { nodes { runner { managers { nodes { id } } } } }"
    body = asker_of(cast.alice).whole(
        f"query($id: CiRunnerID!) {{ runner(id: $id) {{ {inner} }} }}", id=gid("Ci::Runner", runner.id)
    )
    assert {each["message"] for each in body["errors"]} == {
        "An answer has at most 500 nodes in all its lists: ask for shorter pages."
    }
    monkeypatch.setattr("portal.api.graphql.context.MOST_NODES", 0)
    many = (
        '{ group(fullPath: "acme") { ' + " ".join(f"a{n}: runners {{ nodes {{ id }} }}" for n in range(15)) + " } }"
    )
    monkeypatch.setattr("portal.api.graphql.problems.MOST_TOLD", 10)
    assert len(asker_of(cast.alice).whole(many)["errors"]) == 10


@pytest.mark.parametrize("query", ["{ runner(id: $id) { %s: id } }", "{ runner(id: $id) { a: id tagList } }"])
def test_the_answers_of_a_request_are_so_large_at_most(
    cast: Cast, asker_of: AskerOf, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    asker, runner = asker_of(cast.alice), cast.runner(cast.acme, RunnerSettings(tags=("t" * 250,))).runner
    monkeypatch.setattr("portal.api.graphql.budget.MOST_CHARACTERS", 1000)
    text = "query($id: CiRunnerID!) " + query.replace("%s", "a" * 250)
    body = {"query": text, "variables": {"id": gid("Ci::Runner", runner.id)}}

    def sent(times: int) -> Any:
        return asker.client.post(DOOR, json=[body] * times, headers=asker.headers)

    assert sent(3).status_code == 200
    assert sent(4).status_code == 422
    assert "too large" in sent(4).get_json()["errors"][0]["message"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"descriptions": False},
        {
            "specified_by_url": True,
            "directive_is_repeatable": True,
            "schema_description": True,
            "input_value_deprecation": True,
            "one_of": True,
        },
    ],
)
def test_the_standard_introspection_is_open_to_everybody(visitor: Asker, options: dict[str, bool]) -> None:
    found = visitor.data(get_introspection_query(**options))
    assert "CiRunner" in {each["name"] for each in found["__schema"]["types"]}


def test_a_text_has_so_many_fragments_at_most(visitor: Asker) -> None:
    def chained(number: int) -> str:
        links = (f"fragment F{n} on Query {{ ...F{n + 1} x: __typename }}" for n in range(number - 1))
        return "{ ...F0 } " + " ".join(links) + f" fragment F{number - 1} on Query {{ x: __typename }}"

    assert visitor.errors(chained(51)) == ["The query has more than 50 fragments. Send several queries."]
    assert visitor.data(chained(10)) == {"x": "Query"}


def test_introspection_that_explodes_is_refused(visitor: Asker) -> None:
    query = "{ __schema { types { fields { type { fields { type { fields { name } } } } } } } }"
    assert visitor.errors(query) == ["Maximum introspection depth exceeded"]


def test_at_most_five_problems_of_a_query_are_told(visitor: Asker) -> None:
    assert len(visitor.errors("{ " + " ".join(f"nonsense{number}" for number in range(50)) + " }")) == 5


@pytest.mark.parametrize(
    "query",
    [
        "{ " + "__typename " * 800 + "}",
        "{ " + " ".join(f"a{number}: __typename" for number in range(550)) + " }",
        "{ __typename } " + " ".join(f"fragment F{n} on Query {{ a a a a a }}" for n in range(200)),
        "{ ...F0 } " + " ".join(f"fragment F{n} on Query {{ ...F{n + 1} }}" for n in range(250)),
        "{ ...F0 } " + " ".join(f"fragment F{n} on Query {{ ...F{(n + 1) % 40} }}" for n in range(40)),
        "{ ...F0 } " + " ".join(f"fragment F{n} on Query {{ ...F{n + 1} x: __typename }}" for n in range(150)),
        "{" * 4000,
        "{ a" * 2400 + "}" * 2400,
        "{ a(b: " + "[" * 4000 + "]" * 4000 + ") }",
        "query(" + "$a: " + "[" * 4000 + "Int" + "]" * 4000 + ") { __typename }",
        "{ a(b: " + "{c: " * 1900 + "1" + "}" * 1900 + ") }",
        "#" * 9999,
        "{ __typename " + "@skip(if: false) " * 550 + "}",
        'query { runner(id: "' + "x" * 9900 + '") { id } }',
    ],
    ids=lambda query: query[:40],
)
def test_a_hostile_text_is_answered(visitor: Asker, query: str) -> None:
    body = visitor.whole(query)
    assert "errors" in body or body["data"] == {"__typename": "Query"}


BAD_IDS = [
    "gid://gitlab/Ci::Runner/99999999999999999999999",
    "gid://gitlab/Ci::Runner/9223372036854775808",
    "gid://gitlab/Ci::Runner/-1",
    "gid://gitlab/Ci::Runner/",
    "gid://gitlab/Ci::Runner/1\n",
    "gid://gitlab/Ci::Runner/١",
    "gid://gitlab/Project/1",
    "gid://other/Ci::Runner/1",
    "1",
    "",
    1,
    True,
    None,
    1.5,
    [],
    {},
]


@pytest.mark.parametrize("bad", BAD_IDS, ids=repr)
def test_an_id_that_is_none_is_told(cast: Cast, asker_of: AskerOf, bad: Any) -> None:
    dana = asker_of(cast.dana)
    body = dana.whole("query($id: CiRunnerID!) { runner(id: $id) { id } }", id=bad)
    assert body.get("data") is None
    if isinstance(bad, str):
        literal = json.dumps(bad)
        assert "not a valid" in dana.errors(f"{{ runner(id: {literal}) {{ id }} }}")[0]
        assert "not a valid" in body["errors"][0]["message"]


@pytest.mark.parametrize("number", [2**31 - 1, 2**31, 2**63, 10**30, -(2**31), 1e300])
def test_huge_numbers_are_refused_or_mean_what_they_say(cast: Cast, asker_of: AskerOf, number: float) -> None:
    dana = asker_of(cast.dana)
    body = json.dumps({"query": "query($n: Int) { runners(first: $n) { count } }", "variables": {"n": number}})
    answer = dana.client.post(DOOR, data=body, headers=dana.headers, content_type="application/json")
    assert answer.status_code == 200
    runner = cast.runner(cast.acme).runner
    given = {"id": gid("Ci::Runner", runner.id), "maximumTimeout": int(number)}
    assert (
        dana.send("mutation($i: RunnerUpdateInput!) { runnerUpdate(input: $i) { errors } }", i=given).status_code
        == 200
    )


TEXTS = st.text(max_size=60) | st.sampled_from(["\0", "\ud800", "é" * 300, "%", "_", "\\", "' OR 1=1 --", "🙂"])


@QUIET
@given(words=TEXTS, tags=st.lists(TEXTS, max_size=4), numbers=st.lists(st.integers(), min_size=2, max_size=2))
def test_whatever_stands_in_the_variables_is_answered(
    cast: Cast, visitor: Asker, words: str, tags: list[str], numbers: list[int]
) -> None:
    query = """query($words: String, $tags: [String!], $path: ID!, $first: Int) {
      runners(search: $words, tagList: $tags, versionPrefix: $words, creatorUsername: $words, ownerFullPath: $words,
        after: $words, first: $first) { count nodes { id managers(systemId: $words) { count } } }
      group(fullPath: $path) { id } project(fullPath: $path) { id } }"""
    dana = Asker(visitor.client, token_of(cast))
    variables = {"words": words, "tags": tags, "path": words, "first": numbers[0]}
    answered(dana.send(query, **variables))
    input_ = {"runnerType": "GROUP_TYPE", "groupId": gid("Group", cast.acme.id), "description": words}
    more = {"tagList": tags, "maintenanceNote": words, "maximumTimeout": numbers[1], "clientMutationId": words}
    create = "mutation($i: RunnerCreateInput!) { runnerCreate(input: $i) { errors clientMutationId runner { id } } }"
    answered(dana.send(create, i={**input_, **more}))


def token_of(cast: Cast) -> str:
    """One token for all examples."""
    if not hasattr(cast, "token"):
        cast.token = cast.access_token(cast.dana)  # type: ignore[attr-defined]
    found: str = cast.token  # type: ignore[attr-defined]
    return found


def answered(answer: Any) -> None:
    """An answer that is none of our failures."""
    assert answer.status_code in (200, 422), answer.get_data(as_text=True)[:500]
    assert "Internal server error" not in answer.get_data(as_text=True)


IDS = {
    name: st.integers(0, 2**70).map(lambda number, model=model: nodes.String(gid(model, number)))
    for name, model in MODELS.items()
}


@QUIET
@given(query=from_schema(FILE.read_text(), custom_scalars=IDS))
def test_whatever_the_schema_allows_is_answered(cast: Cast, visitor: Asker, query: str) -> None:
    answered(Asker(visitor.client, token_of(cast)).send(query))


@QUIET
@given(body=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_body_is_sent_is_answered(visitor: Asker, body: bytes) -> None:
    answered(visitor.client.post(DOOR, data=body, content_type="application/json"))
    as_query = json.dumps({"query": body.decode("utf-8", "replace")}).encode()
    answered(visitor.client.post(DOOR, data=as_query, content_type="application/json"))
