"""A runner, and machines that use its token."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from portal.database import db
from portal.domain.registration.registration import Configured
from portal.domain.runners.runner_tokens import IssuedRunner
from tests.api.machines import Machine, through
from tests.api.registering import Office
from tests.cast import Cast
from tests.portals import RunningPortal


@pytest.fixture
def session(app: Flask) -> Iterator[Session]:
    """A session of the test's own on the app's connection: the end of a request does not detach its objects."""
    own: Session = db.session.session_factory()
    yield own
    own.close()


@pytest.fixture
def portal(own_database: str) -> Iterator[RunningPortal]:
    """The whole portal in two server processes, on a database of its own."""
    with RunningPortal(own_database, PORTAL_WORKERS="2") as portal:
        yield portal


@pytest.fixture
def issued(cast: Cast) -> IssuedRunner:
    """A runner of the group acme, with its token in clear."""
    return cast.runner()


@pytest.fixture
def machine(client: FlaskClient, issued: IssuedRunner) -> Machine:
    """A machine that has the runner's token and has not called yet."""
    return Machine(through(client), issued.token)


@pytest.fixture
def stranger(client: FlaskClient) -> Machine:
    """A machine whose token belongs to no runner."""
    return Machine(through(client), "glrt-nobody-has-this-token")


@pytest.fixture
def office(cast: Cast, configured: Configured, session: Session) -> Office:
    """The registration tokens of the cast's scopes."""
    return Office(configured, session)


@pytest.fixture
def box(client: FlaskClient, office: Office, cast: Cast) -> Machine:
    """A machine that is not registered yet and has the registration token of acme."""
    return Machine(through(client), office.token(cast.acme), None)
