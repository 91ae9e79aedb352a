"""Whatever a client sends, the answer is one that it understands, and never a failure of ours."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portal.domain.runners.runner_tokens import IssuedRunner
from tests.api.machines import JSON, Answer, Machine, info_of, through
from tests.api.registering import FORM

UNDERSTOOD = {200, 201, 204, 400, 403, 404, 410, 413, 429}
THE_RUNNERS_OWN = "the runner's own"  # stands for the live token, which exists only when the test runs
THE_SCOPES_OWN = "the scope's own"  # the same for the registration token of acme

doors = st.sampled_from(
    [
        ("POST", "/api/v4/runners/verify"),
        ("POST", "/api/v4/jobs/request"),
        ("POST", "/api/v4/runners/reset_authentication_token"),
        ("POST", "/api/v4/runners"),
        ("DELETE", "/api/v4/runners"),
        ("DELETE", "/api/v4/runners/managers"),
    ]
)
texts = st.text(max_size=80) | st.sampled_from(["", "\0", "\ud800", "x" * 3000, "<legacy>", "r_machine00001"])
numbers = st.integers() | st.floats() | st.sampled_from([2**63, -(2**64), 1e308, 10**400])
scalars = st.none() | st.booleans() | numbers | texts
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4)
)
facts = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("version", "revision", "platform", "architecture", "executor", "shell"), texts | anything),
        "features": st.dictionaries(texts, st.booleans() | scalars, max_size=5) | anything,
        "config": st.dictionaries(texts, scalars | anything, max_size=5) | anything,
        "labels": st.dictionaries(texts, texts | scalars, max_size=5) | anything,
    },
)
bodies = st.fixed_dictionaries(
    {"token": st.just(THE_RUNNERS_OWN) | texts | anything},
    optional={
        "system_id": texts | anything,
        "info": st.just(info_of("18.6.6")) | facts | anything,
        "last_update": anything,
        "session": anything,
    },
)
calm = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def is_understood(answer: Answer) -> bool:
    assert answer.status in UNDERSTOOD, answer
    assert "Location" not in answer.headers
    if answer.status >= 400:
        message = answer.json["message"]
        sentences = [message] if isinstance(message, str) else [each for field in message.values() for each in field]
        assert sentences
        assert all(isinstance(each, str) and len(each) > len("400 Bad Request - ") for each in sentences)
    return True


def with_token(body: Any, placeholder: str, token: str) -> Any:
    mine = isinstance(body, dict) and body.get("token") == placeholder
    return {**body, "token": token} if mine else body


@calm
@given(door=doors, body=bodies)
def test_any_json_object_is_answered(
    client: FlaskClient, issued: IssuedRunner, door: tuple[str, str], body: dict[str, Any]
) -> None:
    sent = with_token(body, THE_RUNNERS_OWN, issued.token)
    assert is_understood(through(client)(*door, json.dumps(sent).encode(), JSON))


flags = st.booleans() | st.sampled_from(["true", "0", "on", ""]) | anything
tag_lists = texts | st.lists(texts, max_size=60) | st.sampled_from(["a,b", ["a", "b,c"]]) | anything
registrations = st.fixed_dictionaries(
    {"token": st.just(THE_SCOPES_OWN) | texts | anything},
    optional={
        **dict.fromkeys(("description", "maintenance_note", "maintainer_note"), texts | anything),
        **dict.fromkeys(("active", "paused", "locked", "run_untagged"), flags),
        "access_level": st.sampled_from(["not_protected", "ref_protected"]) | texts | anything,
        "maximum_timeout": st.integers(599, 10**10) | st.sampled_from(["600", "-1", ""]) | anything,
        "tag_list": tag_lists,
        "info": st.just(info_of("13.12.0")) | facts | anything,
    },
)


@calm
@given(body=registrations, request_id=st.sampled_from(["", "0" * 32]))
def test_any_registration_is_answered(box: Machine, body: dict[str, Any], request_id: str) -> None:
    sent = json.dumps(with_token(body, THE_SCOPES_OWN, box.token)).encode()
    assert is_understood(box.way("POST", "/api/v4/runners", sent, {**JSON, "X-Request-Id": request_id}))


@settings(calm, max_examples=100)
@given(door=doors, body=anything)
def test_any_json_is_answered(client: FlaskClient, issued: IssuedRunner, door: tuple[str, str], body: Any) -> None:
    assert is_understood(through(client)(*door, json.dumps(body).encode(), JSON))


@settings(calm, max_examples=100)
@given(door=doors, body=st.binary(max_size=200), kind=st.sampled_from([JSON, FORM, {}, {"Content-Type": "a/b; c"}]))
def test_any_bytes_are_answered(
    client: FlaskClient, issued: IssuedRunner, door: tuple[str, str], body: bytes, kind: dict[str, str]
) -> None:
    assert is_understood(through(client)(*door, body, kind))


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@settings(calm, max_examples=100)
@given(
    door=doors,
    fields=st.lists(
        st.tuples(st.sampled_from(["token", "system_id", "info", "tag_list"]) | words, words), max_size=6
    ),
)
def test_any_form_is_answered(
    client: FlaskClient, issued: IssuedRunner, door: tuple[str, str], fields: list[tuple[str, str]]
) -> None:
    for body in (urlencode(fields), urlencode([("token", issued.token), *fields])):
        assert is_understood(through(client)(*door, body.encode(), FORM))


PARAMETERS = (
    "description maintainer_note maintenance_note active paused locked run_untagged access_level maximum_timeout "
    "tag_list tag_list[] tag_list[a] info info[] info[version] info[features] info[a][b] [] ] token"
)
parameters = st.sampled_from(PARAMETERS.split())


@settings(calm, max_examples=200)
@given(fields=st.lists(st.tuples(parameters | words, words | st.sampled_from(["true", "false", "600"])), max_size=8))
def test_any_form_that_registers_is_answered(box: Machine, fields: list[tuple[str, str]]) -> None:
    body = urlencode([("token", box.token), *fields])
    assert is_understood(box.way("POST", "/api/v4/runners", body.encode(), FORM))


headers = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)


@settings(calm, max_examples=50)
@given(door=doors, value=headers)
def test_any_header_is_answered(client: FlaskClient, issued: IssuedRunner, door: tuple[str, str], value: str) -> None:
    said = dict.fromkeys(("Runner-Token", "Private-Token", "Job-Token", "X-Request-Id", "User-Agent"), value)
    assert is_understood(through(client)(*door, b"{}", {**JSON, **said}))
