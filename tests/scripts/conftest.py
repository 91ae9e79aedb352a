"""Outside tools against a portal that really runs, and the access tokens that they are given."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gitlab
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from tests.cast import Cast
from tests.portals import RunningPortal

GitlabCommand = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def stage(running_portal: RunningPortal, own_database: str) -> Iterator[Cast]:
    """The cast, on the running portal's own database."""
    engine = create_engine(own_database)
    with Session(engine) as session:
        yield Cast(session)
    engine.dispose()


@pytest.fixture
def cast_token(stage: Cast) -> dict[str, str]:
    """Access tokens of Dana and Alice, by name, that open everything."""
    return {"dana": stage.access_token(stage.dana), "alice": stage.access_token(stage.alice)}


@pytest.fixture
def dana(running_portal: RunningPortal, cast_token: dict[str, str]) -> gitlab.Gitlab:
    return gitlab.Gitlab(running_portal.url, private_token=cast_token["dana"])


@pytest.fixture
def alice(running_portal: RunningPortal, cast_token: dict[str, str]) -> gitlab.Gitlab:
    return gitlab.Gitlab(running_portal.url, private_token=cast_token["alice"])


@pytest.fixture
def gitlab_command(tmp_path: Path) -> GitlabCommand:
    """Start the command `gitlab` of python-gitlab with these words, at home in an empty folder."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).parent / "gitlab"), *words],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run
