"""Three real machines share one short-lived token and renew it again and again: none is ever refused."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from portal.domain.runners import runner_settings, runners
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.domain.scopes import INSTANCE
from portal.models import AuditEvent, Runner, RunnerManager
from tests.api.processes import Process
from tests.cast import SYSTEM
from tests.portals import RunningPortal
from tests.real import clients
from tests.real.clients import Client, Home

LIFE = 20  # seconds, of which a client uses three quarters; the shortest that people may choose is an hour
ROTATIONS = 3  # of each machine; the first is of the shared token, the next are of its own
SYSTEM_IDS = ("r_machine00001", "r_machine00002", "r_machine00003")


def short_lived(process: Process) -> IssuedRunner:
    """A runner whose tokens live for seconds, from the first one on."""
    with process.session() as session:
        session.execute(text("ALTER TABLE ci_runners DROP CONSTRAINT ck_ci_runners_token_lives_an_hour"))
        issued = runners.create_runner(
            session, SYSTEM, INSTANCE, RunnerSettings(run_untagged=True, token_expiration_interval=LIFE)
        )
        session.commit()
        return issued


def tokens_in_use(process: Process) -> dict[str, int]:
    with process.session() as session:
        return {row.system_xid: row.token_id or 0 for row in session.scalars(select(RunnerManager))}


def watch(process: Process, homes: list[Home]) -> dict[str, list[int]]:
    """The tokens that each machine uses one after the other, until all have renewed theirs often enough."""
    seen: dict[str, list[int]] = defaultdict(list)
    deadline = time.monotonic() + (ROTATIONS + 2) * LIFE
    while len(seen) < len(SYSTEM_IDS) or min(map(len, seen.values())) <= ROTATIONS:
        told = "\n".join(home.log.read_text() for home in homes)
        assert time.monotonic() < deadline, f"{dict(seen)}\n{told}"
        for system_id, token in tokens_in_use(process).items():
            if token > max(seen[system_id], default=0):  # a heartbeat written late may show the older one once more
                seen[system_id].append(token)
        time.sleep(0.2)
    return dict(seen)


@clients.each(since=(15, 11))
def test_three_machines_that_share_a_short_lived_token_renew_it_several_times_without_a_refusal(
    running_portal: RunningPortal,
    process: Process,
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    homes = [Home(client, tmp_path / system_id) for system_id in SYSTEM_IDS]
    monkeypatch.setattr(runner_settings, "SHORTEST_TOKEN_LIFE", 1)
    issued = short_lived(process)
    words = ("register", "--non-interactive", "--url", running_portal.url, "--token", issued.token)
    for home, system_id in zip(homes, SYSTEM_IDS, strict=True):
        home.call_it(system_id)
        ended = home.run(*words, "--config", str(home.config), "--executor", "shell", "--description", system_id)
        assert ended.returncode == 0, ended.stdout
        home.hurry()
    with ExitStack() as all_of_them:
        running = [all_of_them.enter_context(home.running()) for home in homes]
        seen = watch(process, homes)
        assert [each.poll() for each in running] == [None] * len(homes)

    assert set(seen) == set(SYSTEM_IDS)
    later = [token for used in seen.values() for token in used[1:]]
    assert len(later) == len(set(later))  # each has tokens of its own from the first renewal on
    for home in homes:
        assert issued.token not in home.config.read_text()
        told = home.log.read_text().lower()
        for word in ("forbidden", "too many requests", "failed"):
            assert word not in told, told
    assert " ERROR " not in running_portal.output, running_portal.output
    with process.session() as session:
        assert session.scalar(select(func.count()).select_from(Runner)) == 1
        rotated = select(func.count()).select_from(AuditEvent).where(AuditEvent.action == "runner_token_rotated")
        # No client renewed in a loop.
        assert ROTATIONS * len(homes) <= (session.scalar(rotated) or 0) <= (ROTATIONS + 1) * len(homes)
