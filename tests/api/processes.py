"""One server process of the portal inside the test's own: the app, its memory, its work, its statements."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from flask import Flask
from sqlalchemy.orm import Session

from portal import create_app
from portal.background import Background, Holder
from portal.database import db
from portal.domain.machines.heartbeats import Heartbeats
from portal.domain.machines.known_runners import KnownRunners
from tests import databases
from tests.api.machines import Machine, through, until
from tests.domain.queries import sent_to


class Process:
    """The portal's app on a database of the test's own. With `with`, its background work runs."""

    def __init__(self, database_url: str, holder: Holder | None = None, **environment: str) -> None:
        self.app: Flask = create_app(databases.settings(database_url, **environment))
        self.background = Background(self.app, holder)
        self.engine = self.background.engine
        self.known: KnownRunners = self.app.extensions["known_runners"]
        self.heartbeats: Heartbeats = self.app.extensions["heartbeats"]

    def __enter__(self) -> Process:
        self.background.start()
        until(lambda: self.known.listening)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.background.stop()

    def machine(self, token: str, system_id: str | None = "r_machine00001") -> Machine:
        """A machine that calls this process."""
        return Machine(through(self.app.test_client()), token, system_id)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session beside the app's own, as another process has it."""
        with Session(self.engine) as session:
            yield session

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """What this thread's requests ask the database; the background's own statements are not among them."""
        mine = threading.get_ident()
        with sent_to(self.engine, lambda: threading.get_ident() == mine) as statements:
            yield statements

    def close(self) -> None:
        """For a process whose background work was never started."""
        with self.app.app_context():
            db.engine.dispose()
