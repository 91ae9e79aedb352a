"""A script at the GraphQL door: an access token, and queries."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from portal.api.graphql import problems

DOOR = "/api/graphql"
NOT_AVAILABLE = problems.NOT_AVAILABLE


class Asker:
    """Somebody who sends queries; without a token, a visitor."""

    def __init__(self, client: FlaskClient, token: str = "", **headers: str) -> None:
        self.client = client
        self.headers = {**({"PRIVATE-TOKEN": token} if token else {}), **headers}

    def send(self, query: str, headers: dict[str, str] | None = None, **variables: Any) -> TestResponse:
        """The answer as it came."""
        body = {"query": query, "variables": variables}
        return self.client.post(DOOR, json=body, headers={**self.headers, **(headers or {})})

    def whole(self, query: str, **variables: Any) -> dict[str, Any]:
        """The body of the answer, data and errors."""
        answer = self.send(query, **variables)
        assert answer.status_code == 200, f"{answer.status_code}: {answer.get_data(as_text=True)[:1000]}"
        return dict(answer.get_json())

    def data(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of an answer without errors."""
        whole = self.whole(query, **variables)
        assert "errors" not in whole, whole["errors"]
        return dict(whole["data"])

    def errors(self, query: str, **variables: Any) -> list[str]:
        """What is wrong, in the words of the top-level errors."""
        return [each["message"] for each in self.whole(query, **variables).get("errors", ())]

    def change(self, mutation: str, wanted: str = "", headers: dict[str, str] | None = None, **given: Any) -> Any:
        """The payload of one mutation whose input is `given`; `wanted` is what its payload is asked for."""
        query = mutation_of(mutation, wanted)
        answer = self.send(query, headers=headers, input=given)
        assert answer.status_code == 200, f"{answer.status_code}: {answer.get_data(as_text=True)[:1000]}"
        body = answer.get_json()
        assert "errors" not in body, body["errors"]
        return body["data"][mutation]

    def refused(self, mutation: str, wanted: str = "", **given: Any) -> list[str]:
        """The top-level errors of one mutation, which answered null."""
        body = self.whole(mutation_of(mutation, wanted), input=given)
        assert body["data"] == {mutation: None}
        return [each["message"] for each in body["errors"]]


def mutation_of(name: str, wanted: str = "") -> str:
    """The text of one mutation with a variable `input`."""
    kind = name[0].upper() + name[1:]
    return f"mutation($input: {kind}Input!) {{ {name}(input: $input) {{ clientMutationId errors {wanted} }} }}"


def gid(kind: str, number: int | None) -> str:
    """A global id."""
    return f"gid://gitlab/{kind}/{number}"
