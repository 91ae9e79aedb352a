"""Apps whose database has the demo, for tests that look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flask import Flask
from sqlalchemy.orm import Session

from portal import create_app
from portal.commands import DEMO_PASSWORD
from portal.database import db
from portal.demo import demo_story
from portal.domain.people import accounts
from tests import databases

ROOT_PASSWORD = "a password of its own"


@contextmanager
def with_demo(postgres: databases.Server, before: Callable[[Flask], None] | None = None) -> Iterator[Flask]:
    """An app with an administrator and the demo; `before` is called between the two, in the app's context."""
    with postgres.copy() as url:
        app = create_app(databases.settings(url))
        with app.app_context():
            accounts.ensure_first_administrator(db.session(), ROOT_PASSWORD)
            db.session.commit()
            if before is not None:
                before(app)
            extensions = (app.extensions[name] for name in ("registration", "job_vault", "artifact_store"))
            assert demo_story.fill(db.session(), DEMO_PASSWORD, *extensions) is not None
            db.session.commit()
        yield app
        with app.app_context():
            db.engine.dispose()


@contextmanager
def look_at(app: Flask) -> Iterator[Session]:
    """A fresh look at its database."""
    with app.app_context(), Session(db.engine) as session:
        yield session
