"""Real PostgreSQL for the tests: one server for the run, one migrated template, a copy for whoever needs its own."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from flask_migrate import upgrade

from portal import create_app, embedded_postgres
from portal.config import Settings
from portal.database import db

_numbers = itertools.count(1)
ENCRYPTION_KEY = "another key for tests only of no use either"
SECRET_KEY = "a key for tests only, of no use to anybody else"
DATA_DIR = Path(tempfile.gettempdir()) / f"portal-tests-data-{os.getpid()}"  # nobody's artifacts lie there


class Server:
    """The PostgreSQL server of one test run: TEST_DATABASE_URL, or an embedded one in a folder of its own."""

    def __init__(self, place: Path | None = None) -> None:
        # In memory where the system has a place for that: a slow disk is no test of ours.
        memory = Path("/dev/shm")
        place = place or (memory if os.access(memory, os.W_OK | os.X_OK) else None)
        self.folder = Path(tempfile.mkdtemp(prefix="portal-tests-", dir=place))
        given = os.environ.get("TEST_DATABASE_URL", "")
        self.handle = None
        if given:
            self.address = given.replace("postgresql+psycopg://", "postgresql://", 1)
        else:
            url, self.handle = embedded_postgres.start(self.folder)
            self.address = url.replace("postgresql+psycopg://", "postgresql://", 1)
        self.name = f"portal_test_{os.getpid()}"
        self.template = f"{self.name}_template"
        self.create(self.template)
        self.migrate(self.template)

    def run(self, statement: str) -> None:
        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute(statement)

    def create(self, name: str, template: str = "template1") -> str:
        self.run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop(self, name: str) -> None:
        self.run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def url(self, name: str) -> str:
        info = psycopg.conninfo.conninfo_to_dict(self.address)
        host, port = info.get("host", "localhost"), info.get("port", "5432")
        user, password = info.get("user", "postgres"), info.get("password")
        login = f"{user}:{password}" if password else str(user)
        if str(host).startswith("/"):
            return f"postgresql+psycopg://{login}@/{name}?host={host}&port={port}"
        return f"postgresql+psycopg://{login}@{host}:{port}/{name}"

    def migrate(self, name: str) -> None:
        app = create_app(settings(self.url(name)))
        with app.app_context():
            upgrade()
            db.engine.dispose()

    @contextmanager
    def copy(self) -> Iterator[str]:
        """The URL of a migrated, empty database that nobody else uses."""
        name = f"{self.name}_{next(_numbers)}"
        try:
            yield self.create(name, self.template)
        finally:
            self.drop(name)

    def stop(self) -> None:
        self.drop(self.template)
        if self.handle is not None:
            self.handle.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)


def settings(database_url: str, **changes: str) -> Settings:
    """Settings for an app under test; `changes` are environment variables."""
    return Settings.from_environment(
        {
            "DATABASE_URL": database_url,
            "PORTAL_DATA_DIR": str(DATA_DIR),
            "SECRET_KEY": SECRET_KEY,
            "PORTAL_ENCRYPTION_KEYS": ENCRYPTION_KEY,
            "PORTAL_URL": "https://portal.example.com",
            **changes,
        }
    )
