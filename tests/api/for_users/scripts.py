"""A script at the REST API: an access token, and the methods of HTTP."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

API = "/api/v4"


class Script:
    """Somebody's script. Paths are taken below /api/v4; keyword arguments are the parameters."""

    def __init__(self, client: FlaskClient, token: str) -> None:
        self.client, self.token = client, token

    def ask(self, method: str, path: str, /, *, headers: dict[str, str] | None = None, **given: Any) -> TestResponse:
        """One request: parameters in the query of a GET and as JSON otherwise."""
        shown = {"PRIVATE-TOKEN": self.token} if self.token else {}
        body = {"query_string": given or None} if method in ("GET", "HEAD") else {"json": given}
        return self.client.open(API + path, method=method, headers={**shown, **(headers or {})}, **body)

    def get(self, path: str, /, expect: int = 200, **given: Any) -> Any:
        """The body of what a GET answers."""
        return self._body(self.ask("GET", path, **given), expect)

    def post(self, path: str, /, expect: int = 201, **given: Any) -> Any:
        """The body of what a POST answers."""
        return self._body(self.ask("POST", path, **given), expect)

    def put(self, path: str, /, expect: int = 200, **given: Any) -> Any:
        """The body of what a PUT answers."""
        return self._body(self.ask("PUT", path, **given), expect)

    def delete(self, path: str, /, expect: int = 204, **given: Any) -> Any:
        """The body of what a DELETE answers."""
        return self._body(self.ask("DELETE", path, **given), expect)

    @staticmethod
    def _body(answer: TestResponse, expect: int) -> Any:
        assert answer.status_code == expect, f"{answer.status_code}: {answer.get_data(as_text=True)[:1000]}"
        return answer.get_json() if answer.data else None
