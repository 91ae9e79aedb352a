"""What every test may ask for: a database that forgets, the cast, a portal that really runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from portal import create_app
from portal.api.rate_limits import RateLimits
from portal.database import db
from portal.domain.people import accounts
from portal.domain.registration.registration import Configured
from tests import databases
from tests.api.processes import Process
from tests.cast import Cast
from tests.portals import RunningPortal


@pytest.fixture(scope="session")
def postgres() -> Iterator[databases.Server]:
    server = databases.Server()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _app(postgres: databases.Server) -> Iterator[Flask]:
    with postgres.copy() as url:
        app = create_app(databases.settings(url))
        app.config["TESTING"] = True
        app.config["PROPAGATE_EXCEPTIONS"] = False
        yield app
        with app.app_context():
            db.engine.dispose()


@pytest.fixture
def app(_app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """The app on one connection whose outer transaction is rolled back: views really commit, tests forget."""
    with _app.app_context():
        engine = db.engine
    with engine.connect() as connection:
        outer = connection.begin()
        factory = sessionmaker(bind=connection, join_transaction_mode="create_savepoint", expire_on_commit=True)
        monkeypatch.setattr(db, "session", scoped_session(factory))
        _app.extensions["known_runners"].forget_all(listening=False)
        _app.extensions["known_classes"].forget()
        _app.extensions["heartbeats"].forget_all()
        _app.extensions["heartbeats"].take()
        _app.extensions["rate_limits"] = RateLimits(_app.config["PORTAL"])
        yield _app
        db.session.remove()
        outer.rollback()


@pytest.fixture(autouse=True)
def _cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2 with its smallest cost, so that the cast is on stage at once; test_accounts.py looks at the real one."""
    monkeypatch.setattr(accounts, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def session(app: Flask) -> Session:
    """The session of the test; it shares the app's connection, and sees what views have committed."""
    found: Session = db.session()
    return found


@pytest.fixture
def session_beside(app: Flask) -> Iterator[Session]:
    """A session of the test's own on the app's connection: each request closes the app's, and the cast goes on."""
    with Session(db.session.get_bind(), join_transaction_mode="create_savepoint") as found:
        yield found


@pytest.fixture
def cast(session: Session) -> Cast:
    """Alice owns the group acme, Bob maintains its project, Charlie is a stranger, Dana is the administrator."""
    return Cast(session)


@pytest.fixture
def configured(app: Flask) -> Configured:
    """What the app's configuration says of registration tokens: allowed, and the key of the tests."""
    found: Configured = app.extensions["registration"]
    return found


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def own_database(postgres: databases.Server) -> Iterator[str]:
    """The URL of a migrated, empty database of the test's own, for threads and processes."""
    with postgres.copy() as url:
        yield url


@pytest.fixture
def process(own_database: str) -> Iterator[Process]:
    """One more process of the portal beside those that run: to look at their database with, and to change it."""
    process = Process(own_database)
    yield process
    process.close()


@pytest.fixture
def running_portal(own_database: str) -> Iterator[RunningPortal]:
    """The whole portal, started as a user starts it, on a database of its own."""
    with RunningPortal(own_database) as portal:
        yield portal
