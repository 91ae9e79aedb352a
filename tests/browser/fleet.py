"""A small fleet to look at: runners with machines in every status."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from portal.database import now
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.domain.scopes import INSTANCE
from portal.models import RunnerManager
from portal.models.runner import CreationState
from tests.cast import Cast

SILENT_FOR = {"Online": timedelta(seconds=20), "Offline": timedelta(hours=5), "Stale": timedelta(days=20)}


@dataclass(frozen=True)
class Fleet:
    """Addresses of the runners by their description, and the number of one of their tokens."""

    runners: dict[str, int]
    token_of_online: int

    def at(self, base: str, name: str, page: str = "") -> str:
        return f"{base}/{self.runners[name]}{page}"


def fill(cast: Cast) -> Fleet:
    """One runner of each status in acme, one each in the instance and in acme/web, with machines."""
    made = {
        "Online": cast.runner(cast.acme, _settings("Online", "docker", protected=True)),
        "Offline": cast.runner(cast.acme, _settings("Offline", "macos", paused=True, maximum_timeout=5400)),
        "Stale": cast.runner(cast.acme, _settings("Stale", "windows")),
        "New": cast.runner(cast.acme, _settings("New", "docker")),
        "Shared": cast.runner(INSTANCE, RunnerSettings("Shared", run_untagged=True)),
        "Locked": cast.runner(cast.web, _settings("Locked", "docker", locked=True)),
    }
    for status, silent_for in SILENT_FOR.items():
        for number in range(3):
            _machine(cast, made[status], f"s_{status.lower()}{number}", silent_for)
    cast.session.commit()
    return Fleet({name: issued.runner.id for name, issued in made.items()}, made["Online"].record.id)


def _settings(name: str, tag: str, **changes: object) -> RunnerSettings:
    return RunnerSettings(name, "Rack 7, call Bob", (tag, "linux"), **changes)  # type: ignore[arg-type]


def _machine(cast: Cast, issued: IssuedRunner, system_id: str, silent_for: timedelta) -> None:
    moment = now() - silent_for
    issued.runner.contacted_at = moment
    issued.runner.created_at = moment - timedelta(days=1)
    cast.session.add(
        RunnerManager(
            runner_id=issued.runner.id,
            system_xid=system_id,
            creation_state=CreationState.FINISHED,
            created_at=moment - timedelta(days=1),
            contacted_at=moment,
            token_id=issued.record.id,
            version="18.9.0",
            revision="07e534ba",
            platform="linux",
            architecture="amd64",
            ip_address="2001:db8:85a3:8d3:1319:8a2e:370:7348",
            executor_type=3,
            labels={"region": "eu-central-1", "pool": "large"},
        )
    )
