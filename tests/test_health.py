"""`/healthz` says that the process answers, `/readyz` that it can work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from flask_migrate import upgrade

from portal import create_app
from portal.database import db
from tests import databases
from tests.databases import Server


@pytest.fixture
def empty_database(postgres: Server) -> Iterator[str]:
    """The name of a database in which nothing has run yet."""
    name = f"{postgres.name}_empty"
    postgres.create(name)
    yield name
    postgres.drop(name)


@pytest.fixture
def young(postgres: Server, empty_database: str) -> Iterator[FlaskClient]:
    """A portal whose database has no tables."""
    app = create_app(databases.settings(postgres.url(empty_database)))
    yield app.test_client()
    with app.app_context():
        db.engine.dispose()


def test_both_say_ok(client: FlaskClient) -> None:
    for path in ("/healthz", "/readyz"):
        answer = client.get(path)
        assert (answer.status_code, answer.json) == (200, {"status": "ok"})


def test_nobody_is_sent_to_sign_in(client: FlaskClient) -> None:
    assert client.get("/readyz", headers={"Cookie": "portal_session=nonsense"}).status_code == 200


def test_a_database_without_tables_is_not_ready(young: FlaskClient) -> None:
    answer = young.get("/readyz")
    assert answer.status_code == 503
    assert answer.json == {
        "status": "unavailable",
        "reason": "Migrations are not current: run flask --app app db upgrade.",
    }
    assert young.get("/healthz").status_code == 200


def test_after_the_migrations_it_is_ready(young: FlaskClient) -> None:
    with young.application.app_context():
        upgrade()
    assert young.get("/readyz").status_code == 200


def test_a_database_of_another_release_is_not_ready(young: FlaskClient, postgres: Server) -> None:
    with young.application.app_context():
        upgrade()
        with db.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999_of_next_year'")
    assert young.get("/readyz").status_code == 503


def test_a_database_that_is_gone_is_not_ready(young: FlaskClient, postgres: Server, empty_database: str) -> None:
    with young.application.app_context():
        upgrade()
    assert young.get("/readyz").status_code == 200
    postgres.drop(empty_database)
    answer = young.get("/readyz")
    assert answer.status_code == 503
    assert answer.json == {"status": "unavailable", "reason": "The database does not answer."}
    assert young.get("/healthz").status_code == 200
