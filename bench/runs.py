"""One run of the benchmarks: how long it may take, and the databases and portals that its parts get."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from tests.databases import Server
from tests.portals import RunningPortal


@dataclass
class Run:
    """What a part is given. `full` asks for the long form; `urls` are servers that run already, if any.

    `tokens` are files with a runner's token on each line (and a system ID after it, where the line has one): one for
    all servers of `urls`, or one for each. `folder` is the run's own and ends with it.
    """

    full: bool = False
    urls: tuple[str, ...] = ()
    tokens: tuple[Path, ...] = ()
    _scratch: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="portal-bench-")
    )

    @property
    def folder(self) -> Path:
        return Path(self._scratch.name)

    @cached_property
    def server(self) -> Server:
        """PostgreSQL on disk, as a portal has it: an embedded one of this run's own, or TEST_DATABASE_URL."""
        return Server(place=self.folder)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a migrated, empty database that nobody else uses."""
        with self.server.copy() as url:
            yield url

    @contextmanager
    def engine(self, url: str) -> Iterator[Engine]:
        """Connections to a database of ours, as another process has them."""
        engine = create_engine(url)
        try:
            yield engine
        finally:
            engine.dispose()

    @contextmanager
    def session(self, url: str) -> Iterator[Session]:
        """A session of a process beside the portal."""
        with self.engine(url) as engine, Session(engine) as session:
            yield session

    @contextmanager
    def portal(self, database_url: str, **environment: str) -> Iterator[RunningPortal]:
        """A running portal on this database, in processes of its own; `environment` are its settings."""
        with RunningPortal(database_url, **environment) as portal:
            yield portal

    def say(self, line: str) -> None:
        """Progress for people: absolute numbers, and what is being done. Figures are printed by the run itself."""
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Stop the database server, when there was one, and clear the folder."""
        if "server" in self.__dict__:
            self.server.stop()
        self._scratch.cleanup()
