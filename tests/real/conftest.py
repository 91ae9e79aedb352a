"""A portal that runs, root signed in, homes for real machines, and a look into the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from portal.domain.runners.runner_settings import RunnerSettings
from tests.api.people import Person
from tests.cast import Cast
from tests.portals import RunningPortal
from tests.real.clients import Client, Home
from tests.real.job_stage import Stage

Homes = Callable[..., Home]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.real)


@pytest.fixture
def root(running_portal: RunningPortal) -> Person:
    return Person(running_portal.url).sign_in()


@pytest.fixture
def home(client: Client, tmp_path: Path) -> Home:
    """The home of one machine with this client."""
    return Home(client, tmp_path / "home")


@pytest.fixture
def second_home(client: Client, tmp_path: Path) -> Home:
    return Home(client, tmp_path / "second")


@pytest.fixture
def stage(own_database: str) -> Iterator[Stage]:
    """A portal whose jobs real clients run."""
    engine = create_engine(own_database)
    with RunningPortal(own_database) as portal, Session(engine) as session:
        cast = Cast(session)
        token = cast.runner(settings=RunnerSettings(run_untagged=True)).token
        yield Stage(portal, session, cast, token)
    engine.dispose()
