"""How queries come in: bodies, batches, credentials, sessions, rate limits, and what is refused as a whole."""

import json
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, text

from portal.api.graphql.budget import LONGEST
from portal.api.rate_limits import RateLimits
from portal.domain.runners import runner_queries
from portal.models import Runner
from tests.api.graphql.conftest import AskerOf
from tests.api.graphql.queries import DOOR, Asker, gid, mutation_of
from tests.cast import Cast, csrf_of, sign_in

ME = "{ currentUser { username } }"


def errors_of(answer: Any, status: int) -> list[str]:
    """The errors of a request that was refused as a whole."""
    assert answer.status_code == status, answer.get_data(as_text=True)[:500]
    body = answer.get_json()
    assert set(body) == {"errors"}
    return [each["message"] for each in body["errors"]]


def test_a_visitor_is_answered_with_what_is_nobodys(cast: Cast, visitor: Asker) -> None:
    runner = cast.runner(cast.acme).runner
    query = """query($id: CiRunnerID!) { currentUser { id } runner(id: $id) { id } group(fullPath: "acme") { id }
        project(fullPath: "acme/web") { id } metadata { version } }"""
    found = visitor.data(query, id=gid("Ci::Runner", runner.id))
    assert found.pop("metadata")["version"]
    assert set(found.values()) == {None}


def test_both_headers_of_gitlabs_clients_open_the_door(cast: Cast, app: Flask) -> None:
    token = cast.access_token(cast.alice, "read_api")
    for headers in ({"PRIVATE-TOKEN": token}, {"Authorization": f"Bearer {token}"}):
        answer = app.test_client().post(DOOR, json={"query": ME}, headers=headers)
        assert answer.get_json() == {"data": {"currentUser": {"username": "alice"}}}
        assert answer.headers["Cache-Control"] == "no-store"


def test_a_token_in_an_address_is_not_read(cast: Cast, app: Flask) -> None:
    token = cast.access_token(cast.alice)
    for name in ("private_token", "access_token"):
        answer = app.test_client().get(DOOR, query_string={"query": ME, name: token})
        assert answer.get_json() == {"data": {"currentUser": None}}


def test_a_token_in_the_query_of_an_address_is_refused(cast: Cast, app: Flask) -> None:
    token, headers = cast.runner(cast.acme).token, {"PRIVATE-TOKEN": cast.access_token(cast.dana)}
    literal = {"query": f'{{ runners(search: "{token}") {{ count }} }}'}
    variables = json.dumps({"s": token})
    for asked in (literal, {"query": "query($s: String) { runners(search: $s) { count } }", "variables": variables}):
        (said,) = errors_of(app.test_client().get(DOOR, query_string=asked, headers=headers), 422)
        assert "POST" in said
        assert token not in said


def test_errors_do_not_repeat_a_token(cast: Cast, asker_of: AskerOf) -> None:
    token, alice = cast.runner(cast.acme).token, asker_of(cast.alice)
    runners = 'group(fullPath: "acme") { runners(first: $s) { count } }'
    kinds = {"CiRunnerID!": "runner(id: $s) { id }", "Int": runners}
    for kind, asked in kinds.items():
        (said,) = alice.errors(f"query($s: {kind}) {{ {asked} }}", s=token)
        assert "[redacted]" in said
        assert token not in said
    assert token not in alice.errors(f'{{ runner(id: "{token}") {{ id }} }}')[0]


@pytest.mark.parametrize("shown", ["glpat-nonsense", "x", "glenrol-nobodys"])
def test_a_token_that_is_no_good_is_refused(cast: Cast, app: Flask, shown: str) -> None:
    answer = app.test_client().post(DOOR, json={"query": ME}, headers={"PRIVATE-TOKEN": shown})
    assert errors_of(answer, 401) == ["Invalid token"]
    assert "Bearer" in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("scope", ["create_runner", "manage_runner"])
def test_a_token_of_a_narrow_scope_does_not_open_the_door(cast: Cast, asker_of: AskerOf, scope: str) -> None:
    answer = asker_of(cast.dana, scope).send(ME)
    assert "read_api" in errors_of(answer, 403)[0]


def test_a_token_that_only_reads_changes_nothing(cast: Cast, asker_of: AskerOf) -> None:
    runner = cast.runner(cast.acme).runner
    query = mutation_of("runnerDelete")
    answer = asker_of(cast.alice, "read_api").send(query, input={"id": gid("Ci::Runner", runner.id)})
    assert "api" in errors_of(answer, 403)[0]
    assert cast.session.get(Runner, runner.id) is not None


def test_a_get_answers_queries_and_carries_out_no_mutation(cast: Cast, app: Flask) -> None:
    headers, client = {"PRIVATE-TOKEN": cast.access_token(cast.alice)}, app.test_client()
    query = "query A($path: ID!) { group(fullPath: $path) { name } } query B { currentUser { username } }"
    asked = {"query": query, "variables": json.dumps({"path": "acme"}), "operationName": "A"}
    answer = client.get(DOOR, query_string=asked, headers=headers)
    assert answer.get_json() == {"data": {"group": {"name": "Acme"}}}
    change = {"query": 'mutation { runnerDelete(input: {id: "gid://gitlab/Ci::Runner/1"}) { errors } }'}
    assert "POST" in errors_of(client.get(DOOR, query_string=change, headers=headers), 422)[0]


def test_a_mutation_beside_the_query_that_is_asked_for_counts_as_one(cast: Cast, asker_of: AskerOf) -> None:
    query = "query A { currentUser { id } } mutation B { bulkRunnerDelete(input: {}) { errors } }"
    asker = asker_of(cast.alice, "read_api")
    body = {"query": query, "operationName": "A"}
    errors_of(asker.client.post(DOOR, json=body, headers=asker.headers), 403)


def test_a_list_of_queries_is_answered_with_a_list(cast: Cast, asker_of: AskerOf) -> None:
    asker = asker_of(cast.alice)
    body = [{"query": ME}, {"query": "{ nonsense }"}, {"query": "{ __typename }", "variables": None}]
    answers = asker.client.post(DOOR, json=body, headers=asker.headers).get_json()
    assert answers[0] == {"data": {"currentUser": {"username": "alice"}}}
    assert set(answers[1]) == {"errors"}
    assert answers[2] == {"data": {"__typename": "Query"}}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"1",
        b"[]",
        b"[1]",
        b'"{ a }"',
        b"\xff\xfe",
        b"[" * 3000,
        b'{"query": 1}',
        b'{"query": "{ __typename }", "variables": [1]}',
        b'{"query": "{ __typename }", "variables": "{"}',
        b'{"query": "{ __typename }", "variables": {"a": "\\u0000"}}',
        b'{"query": "{ __typename }", "variables": {"a": "\\ud800"}}',
        b'{"query": "{ __typename }", "operationName": {}}',
        json.dumps([{"query": "{ __typename }"}] * 21).encode(),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(visitor: Asker, body: bytes) -> None:
    answer = visitor.client.post(DOOR, data=body, content_type="application/json")
    errors_of(answer, 422)


def test_the_text_of_all_queries_together_is_limited(visitor: Asker) -> None:
    long = "{ __typename } #" + "x" * 4990
    assert "data" in visitor.whole(long)
    answer = visitor.client.post(DOOR, json=[{"query": long}, {"query": long}])
    assert "10,000" in errors_of(answer, 422)[0]


def test_a_body_that_is_too_large_is_refused_in_the_same_shape(visitor: Asker) -> None:
    limit = visitor.client.application.config["MAX_CONTENT_LENGTH"]
    errors_of(visitor.client.post(DOOR, data=b"x" * (limit + 1), content_type="application/json"), 413)


@pytest.mark.parametrize(
    ("query", "name"), [("", None), ("   ", None), ("{", None), ("fragment A on Query { __typename }", None)]
)
def test_a_text_that_is_no_query_is_told(visitor: Asker, query: str, name: str | None) -> None:
    assert visitor.errors(query)


def test_several_operations_need_a_name(visitor: Asker) -> None:
    query = "query A { __typename } query B { metadata { revision } }"
    assert "operationName" in visitor.errors(query)[0]
    for name, data in (("A", {"__typename": "Query"}), ("C", None)):
        body = visitor.client.post(DOOR, json={"query": query, "operationName": name}).get_json()
        assert body.get("data") == data


def test_errors_of_a_query_say_where_they_are(visitor: Asker) -> None:
    error = visitor.whole("{ nonsense }")["errors"][0]
    assert error["locations"] == [{"line": 1, "column": 3}]
    error = visitor.whole("{ runners { count } }")["errors"][0]
    assert error["path"] == ["runners"]


# ---- the browser's session


def csrf(client: FlaskClient) -> str:
    return csrf_of(client.get("/-/account").get_data(as_text=True))


def test_the_browsers_session_reads(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    expected = {"data": {"currentUser": {"username": "alice"}}}
    assert client.post(DOOR, json={"query": ME}).get_json() == expected
    assert client.get(DOOR, query_string={"query": ME}).get_json() == expected


def test_the_browsers_session_changes_something_with_the_csrf_token_only(cast: Cast, client: FlaskClient) -> None:
    runner = cast.runner(cast.acme).runner
    body = {"query": mutation_of("runnerDelete"), "variables": {"input": {"id": gid("Ci::Runner", runner.id)}}}
    sign_in(client, "alice")
    for headers in ({}, {"X-CSRFToken": "forged"}):
        assert "X-CSRFToken" in errors_of(client.post(DOOR, json=body, headers=headers), 422)[0]
    answer = client.post(DOOR, json=body, headers={"X-CSRFToken": csrf(client)})
    assert answer.get_json() == {"data": {"runnerDelete": {"clientMutationId": None, "errors": []}}}


def test_a_person_who_must_choose_a_password_first_is_told_so(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    cast.alice.must_change_password = True
    cast.session.commit()
    assert "password" in errors_of(client.post(DOOR, json={"query": ME}), 401)[0]


# ---- rate limits


def limited(app: Flask, monkeypatch: pytest.MonkeyPatch, **limits: int) -> None:
    monkeypatch.setitem(app.extensions, "rate_limits", RateLimits(replace(app.config["PORTAL"], **limits)))


def test_every_query_of_a_batch_counts(
    app: Flask, cast: Cast, asker_of: AskerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(app, monkeypatch, rate_limit_token=5)
    asker = asker_of(cast.alice)
    answer = asker.client.post(DOOR, json=[{"query": ME}] * 4, headers=asker.headers)
    assert (answer.status_code, answer.headers["RateLimit-Remaining"]) == (200, "1")
    assert asker.send(ME).status_code == 200
    answer = asker.send(ME)
    assert errors_of(answer, 429)
    assert int(answer.headers["Retry-After"]) > 0


def test_visitors_are_limited_by_their_address(app: Flask, visitor: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(app, monkeypatch, rate_limit_address=2)
    assert [visitor.send(ME).status_code for _ in range(3)] == [200, 200, 429]


# ---- our own failures


def test_a_failure_of_ours_tells_nothing(cast: Cast, asker_of: AskerOf, caplog: pytest.LogCaptureFixture) -> None:
    asker, runner = asker_of(cast.dana), cast.runner(cast.acme).runner
    cast.session.execute(text("ALTER TABLE ci_runner_machines RENAME TO gone"))
    cast.session.commit()
    query = "query($id: CiRunnerID!) { runner(id: $id) { id managers { nodes { id } } } }"
    answer = asker.send(query, id=gid("Ci::Runner", runner.id))
    assert errors_of(answer, 500) == ["Internal server error"]
    assert "Retry-After" in answer.headers
    assert "ci_runner_machines" in caplog.text


def test_a_failure_of_a_field_is_told_with_what_others_answer(
    cast: Cast, asker_of: AskerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker, runner = asker_of(cast.dana), cast.runner(cast.acme).runner
    monkeypatch.setattr("portal.domain.machines.machine_lists.of_each", lambda *_args, **_more: {})
    query = "query($id: CiRunnerID!) { runner(id: $id) { id managers { nodes { id } } } }"
    body = asker.whole(query, id=gid("Ci::Runner", runner.id))
    assert body["data"]["runner"]["managers"] == {"nodes": None}
    assert [each["message"] for each in body["errors"]] == ["Internal server error"]


def test_a_query_that_the_database_fails_undoes_the_whole_request(cast: Cast, asker_of: AskerOf) -> None:
    asker, runner = asker_of(cast.dana), cast.runner(cast.acme).runner
    cast.session.execute(text("ALTER TABLE ci_runner_machines RENAME TO gone"))
    cast.session.commit()
    given = {"runnerType": "GROUP_TYPE", "groupId": gid("Group", cast.acme.id), "description": "of nobody's"}
    machines = "query($id: CiRunnerID!) { runner(id: $id) { managers { nodes { id } } } }"
    body = [
        {"query": mutation_of("runnerCreate", "runner { id }"), "variables": {"input": given}},
        {"query": machines, "variables": {"id": gid("Ci::Runner", runner.id)}},
    ]
    errors_of(asker.client.post(DOOR, json=body, headers=asker.headers), 500)
    assert cast.session.scalar(select(Runner.id).where(Runner.description == "of nobody's")) is None


def test_a_batch_that_takes_too_long_after_it_has_written_has_written_nothing(
    cast: Cast, asker_of: AskerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker, runner = asker_of(cast.dana), cast.runner(cast.acme).runner
    monkeypatch.setattr("portal.domain.runners.runner_queries.everywhere", late(monkeypatch))
    given = {"id": gid("Ci::Runner", runner.id), "paused": True}
    body = [
        {"query": mutation_of("runnerUpdate"), "variables": {"input": given}},
        {"query": "{ runners { count } }"},
        {"query": ME},
    ]
    errors_of(asker.client.post(DOOR, json=body, headers=asker.headers), 503)
    cast.session.refresh(runner)
    assert not runner.paused


def late(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A list that takes until all time is over."""
    everywhere = runner_queries.everywhere

    def found() -> Any:
        monkeypatch.setattr("portal.api.graphql.budget.monotonic", lambda: monotonic() + LONGEST)
        return everywhere()

    return found


def test_a_whole_failure_is_told_in_the_same_shape(cast: Cast, asker_of: AskerOf) -> None:
    asker = asker_of(cast.dana)
    cast.session.execute(text("ALTER TABLE personal_access_tokens RENAME TO gone"))
    cast.session.commit()
    assert errors_of(asker.send(ME), 500) == ["Internal server error"]


def test_a_query_that_takes_too_long_is_given_up(
    cast: Cast, asker_of: AskerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = asker_of(cast.dana)
    monkeypatch.setattr("portal.api.graphql.view.IN_TIME", text("SET LOCAL statement_timeout = 1"))
    monkeypatch.setattr("portal.domain.runners.runner_queries.everywhere", lambda: text("pg_sleep(1) IS NOT NULL"))
    cast.runner(cast.acme)
    answer = asker.send("{ runners { count } }")
    assert "too long" in errors_of(answer, 503)[0]
    assert "Retry-After" in answer.headers
