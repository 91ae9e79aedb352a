"""The API's description of itself: it is valid, it leaves nothing out, and what it says is what is checked."""

import re
from typing import Any

import pytest
from flask import Flask
from openapi_spec_validator import validate

from portal.api.for_users import openapi_answers, openapi_words
from portal.api.for_users.operations import OPERATIONS
from tests.house.test_doors import RULES

BY_HAND = {("delete", "/runners"), ("get", "/openapi.json")}


@pytest.fixture
def document(app: Flask) -> dict[str, Any]:
    found: dict[str, Any] = app.test_client().get("/api/v4/openapi.json").get_json()
    return found


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method, path): each for path, item in document["paths"].items() for method, each in item.items()}


def test_the_description_is_valid_openapi(document: dict[str, Any]) -> None:
    validate(document)
    assert document["openapi"].startswith("3.1")
    assert document["servers"] == [{"url": "https://portal.example.com/api/v4"}]


def test_every_address_of_the_rest_api_is_described_and_nothing_else(document: dict[str, Any]) -> None:
    answered = {
        (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule.removeprefix("/api/v4")))
        for rule in RULES
        if rule.rule.startswith("/api/v4/")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert set(operations(document)) == answered


def test_every_operation_has_a_stable_name_of_its_own(document: dict[str, Any]) -> None:
    names = [each["operationId"] for each in operations(document).values()]
    assert len(names) == len(set(names))
    assert set(OPERATIONS) <= set(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]+", name) for name in names)


def test_every_room_is_described(document: dict[str, Any]) -> None:
    used = {tag for each in operations(document).values() for tag in each["tags"]}
    assert used <= set(openapi_words.ROOMS)
    assert used == {each["name"] for each in document["tags"]}


def test_every_parameter_and_attribute_that_is_taken_is_explained(document: dict[str, Any]) -> None:
    silent = set()
    for (method, path), each in operations(document).items():
        for parameter in each.get("parameters", ()):
            if not parameter["description"]:
                silent.add(f"{method} {path} {parameter['name']}")
    for name, schema in document["components"]["schemas"].items():
        if name.endswith("Body"):
            silent |= {f"{name} {key}" for key, value in schema["properties"].items() if not value.get("description")}
    assert silent == set()


def test_every_operation_says_how_it_may_be_refused(document: dict[str, Any]) -> None:
    for declared in OPERATIONS.values():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", declared.path)
        told = set(operations(document)[declared.method.lower(), path]["responses"])
        always = {"401", "403", "429"} | ({"404"} if declared.places else set())
        assert always | {str(status) for status in declared.refuses} <= told


def test_every_answer_that_machines_hear_of_jobs_is_told(document: dict[str, Any]) -> None:
    found = operations(document)
    for method, path, statuses, headers in (
        ("post", "/jobs/request", {"201", "204", "400", "403", "409", "410", "413", "429"}, set()),
        ("put", "/jobs/{job_id}", {"200", "202", "400", "403", "404", "412", "413"}, {"Job-Status"}),
        ("patch", "/jobs/{job_id}/trace", {"202", "400", "403", "404", "413", "416"}, {"Job-Status", "Range"}),
        ("post", "/jobs/{job_id}/artifacts/authorize", {"200", "400", "403", "404", "413"}, set()),
        ("post", "/jobs/{job_id}/artifacts", {"201", "400", "403", "404", "413", "503"}, set()),
        ("get", "/jobs/{job_id}/artifacts", {"200", "206", "401", "403", "404", "503"}, set()),
    ):
        responses = found[method, path]["responses"]
        assert set(responses) == statuses, path
        assert headers <= set(responses[min(responses)]["headers"]), path
    for status, header in ((416, "Range"), (503, "Retry-After")):
        assert header in document["components"]["responses"][openapi_answers.name_of(status)]["headers"]


def test_every_declared_refusal_has_a_shape() -> None:
    known = {str(status) for each in OPERATIONS.values() for status in each.refuses}
    assert known <= {str(status) for status in openapi_answers._WHY}


def test_a_flag_in_an_address_a_body_and_a_list_say_what_is_taken(document: dict[str, Any]) -> None:
    shown = operations(document)["get", "/runners/{runner_id}"]
    place, projects = shown["parameters"][:2]
    assert place["schema"] == {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}
    assert {"type": "boolean"} in projects["schema"]["anyOf"]
    assert shown["security"] == [{"token": []}, {"bearer": []}, {"session": []}]
    assert shown["x-scopes"] == ["api", "read_api", "manage_runner"]
    answered = shown["responses"]["200"]["content"]["application/json"]["schema"]
    assert answered == {"$ref": "#/components/schemas/RunnerDetails"}
    assert document["components"]["responses"]["TooManyRequests"]["headers"]["Retry-After"]


def test_every_example_of_a_body_is_one_that_is_taken(document: dict[str, Any]) -> None:
    for (_, path), each in operations(document).items():
        example = each.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
        if example is not None:
            declared = OPERATIONS[each["operationId"]]
            assert example, path
            places = {name: openapi_words.example(declared.name, name) for name in declared.places}
            taken = declared.takes.model_validate({**places, **example})
            assert set(example) <= taken.model_fields_set


def test_an_example_of_a_refusal_is_the_operations_own(document: dict[str, Any]) -> None:
    found = operations(document)

    def example(method: str, path: str) -> Any:
        return found[method, path]["responses"]["400"]["content"]["application/json"]["example"]["error"]

    assert example("post", "/users") == "username is missing"
    assert example("get", "/users") == "page is invalid: a whole number"
    assert example("put", "/runners/{runner_id}") == "description is invalid: a text"


def test_what_need_not_be_asked_is_filled_in_by_no_viewer(document: dict[str, Any]) -> None:
    for each in operations(document).values():
        assert all(one["required"] for one in each.get("parameters", ()) if "example" in one)


def test_no_title_is_made_up_and_a_property_of_that_name_stays() -> None:
    from portal.api.for_users.openapi import _plain

    given = {"title": "Made Up", "properties": {"title": {"title": "Title", "type": "string"}}}
    assert _plain(given) == {"properties": {"title": {"type": "string"}}}


def test_the_description_is_public_kept_by_browsers_and_asked_for_again(app: Flask) -> None:
    client = app.test_client()
    first = client.get("/api/v4/openapi.json")
    assert first.headers["Cache-Control"] == "no-cache"
    again = client.get("/api/v4/openapi.json", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert "RateLimit-Remaining" in again.headers


def test_it_is_made_once(app: Flask) -> None:
    description = app.extensions["api_description"]
    client = app.test_client()
    client.get("/api/v4/openapi.json")
    made = description.document
    client.get("/api/v4/openapi.json")
    assert description.document is made
