"""Runners of tests that machines have used, without the machines."""

from __future__ import annotations

from datetime import timedelta

from portal.database import now
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import Scope
from portal.models import Runner
from tests.cast import Cast

DOCKER = RunnerSettings(description="Docker fleet", tags=("docker", "linux"))


def heard_of(
    cast: Cast, scope: Scope | None = None, settings: RunnerSettings = DOCKER, *, silent: float = 0
) -> Runner:
    """A committed runner that asked for jobs so many seconds ago; in acme unless told otherwise."""
    made = cast.runner(scope, settings).runner
    made.contacted_at = now() - timedelta(seconds=silent)
    cast.session.commit()
    return made
