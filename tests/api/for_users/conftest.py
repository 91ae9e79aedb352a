"""What the tests of the REST API share: scripts of everybody of the cast."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from portal.models import User
from tests.api.for_users.scripts import Script
from tests.cast import Cast

ScriptOf = Callable[..., Script]


@pytest.fixture
def session(session_beside: Session) -> Session:
    return session_beside


@pytest.fixture
def script_of(app: Flask, cast: Cast) -> ScriptOf:
    """`script_of(cast.alice, "read_api")`: a script with a new token of hers; `api` unless told otherwise."""

    def make(user: User, *scopes: str) -> Script:
        return Script(app.test_client(), cast.access_token(user, *scopes))

    return make


@pytest.fixture
def nobody(app: Flask) -> Script:
    """A script without a token."""
    return Script(app.test_client(), "")


@pytest.fixture
def danas(script_of: ScriptOf, cast: Cast) -> Script:
    """A script of the administrator's."""
    return script_of(cast.dana)
