"""What the page tests share: a place (one of the three scopes) with somebody who may do everything there."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from argon2 import PasswordHasher
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from portal.domain.people import accounts
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.domain.scopes import INSTANCE, Scope
from tests.cast import TAGGED, Cast, send, sign_in

KINDS = ("instance", "group", "project")


@dataclass(frozen=True)
class Place:
    """One scope's runner pages, and the client of a person who may create runners there."""

    kind: str
    url: str
    trail: str
    scope: Scope
    client: FlaskClient
    cast: Cast

    def runner(self, settings: RunnerSettings = TAGGED) -> IssuedRunner:
        return self.cast.runner(self.scope, settings)

    def create(self, **fields: str):
        """Fill in the form for a new runner and send it."""
        return send(self.client, f"{self.url}/new", **{"tags": "docker, linux", **fields})


def place_of(kind: str, cast: Cast, client: FlaskClient) -> Place:
    who, base, scope = {
        "instance": ("dana", "/admin", INSTANCE),
        "group": ("alice", "/groups/acme/-", cast.acme),
        "project": ("bob", "/acme/web/-", cast.web),
    }[kind]
    return Place(kind, f"{base}/runners", f"{base}/trail", scope, sign_in(client, who), cast)


@pytest.fixture
def session(session_beside: Session) -> Session:
    return session_beside


@pytest.fixture(autouse=True)
def _cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same Argon2 with a smaller bill: each test makes six people and signs in."""
    monkeypatch.setattr(accounts, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, cast: Cast, client: FlaskClient) -> Place:
    """The instance with Dana, acme with Alice, acme/web with Bob: for rules that are the same everywhere."""
    return place_of(request.param, cast, client)


@pytest.fixture
def acme(cast: Cast, client: FlaskClient) -> Place:
    """Alice in her group."""
    return place_of("group", cast, client)
