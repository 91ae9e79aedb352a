"""What the tests of GraphQL share: askers of everybody of the cast."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from portal.models import User
from tests.api.graphql.queries import Asker
from tests.cast import Cast

AskerOf = Callable[..., Asker]


@pytest.fixture
def session(session_beside: Session) -> Session:
    return session_beside


@pytest.fixture
def asker_of(app: Flask, cast: Cast) -> AskerOf:
    """`asker_of(cast.alice, "read_api")`: somebody with a new token of hers; `api` unless told otherwise."""

    def make(user: User, *scopes: str) -> Asker:
        return Asker(app.test_client(), cast.access_token(user, *scopes))

    return make


@pytest.fixture
def visitor(app: Flask, cast: Cast) -> Asker:
    """Somebody without a token."""
    return Asker(app.test_client())
