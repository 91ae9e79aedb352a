"""Machines that are refused although they were heard of a moment ago, or that will be: which, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import and_, exists, or_, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.actors import Actor
from portal.domain.registration import registration_readers
from portal.domain.registration.registration import Configured, Decision
from portal.domain.scopes import of_runner
from portal.models import LEGACY, Runner, RunnerManager, RunnerToken

RENEWS_SINCE = (15, 3)  # gitlab-runner's first version that resets its token by itself (reference/wire.md section 5)
_VERSION = re.compile(r"\s*v?(\d{1,6})\.(\d{1,6})", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class TooOld:
    """The machines of one runner that send no system ID (they share a row), and the decision that refuses them."""

    machine: RunnerManager
    because: Decision


def too_old(session: Session, actor: Actor, runners: Sequence[Runner], configured: Configured) -> dict[int, TooOld]:
    """Those of these runners with machines that are refused for want of a system ID, by the runner's id.

    The door refuses such machines while registration tokens are off in their runner's scope. One query for all
    runners, and a decision for each scope with such a machine.
    """
    legacy = RunnerManager.runner_id.in_([runner.id for runner in runners]), RunnerManager.system_xid == LEGACY
    machines = (
        {row.runner_id: row for row in session.scalars(select(RunnerManager).where(*legacy))} if runners else {}
    )
    scopes = {runner.id: of_runner(runner) for runner in runners if runner.id in machines}
    decided = {
        (scope.kind, scope.id): registration_readers.decision_for(session, actor, scope, configured)
        for scope in {(scope.kind, scope.id): scope for scope in scopes.values()}.values()
    }
    because = {runner_id: decided[scope.kind, scope.id] for runner_id, scope in scopes.items()}
    return {key: TooOld(machines[key], found) for key, found in because.items() if not found.allowed}


def cut_off(session: Session, runner_ids: Sequence[int]) -> set[int]:
    """Those of these runners that nobody can use with the tokens that their machines have.

    Every token of the runner is over, or a person's reset left all of its machines with tokens that are. One query.
    """
    if not runner_ids:
        return set()
    mine, its = RunnerToken.runner_id == Runner.id, RunnerManager.runner_id == Runner.id
    live = RunnerToken.lives(now())
    refused = exists().where(RunnerToken.id == RunnerManager.token_id, ~live)
    over = or_(~exists().where(mine, live), and_(exists().where(its), ~exists().where(its, ~refused)))
    return set(session.scalars(select(Runner.id).where(Runner.id.in_(runner_ids), over)))


def renews(version: str | None) -> bool | None:
    """Whether a gitlab-runner of this version renews its token by itself; None where the version tells nothing."""
    found = _VERSION.match(version or "")
    return (int(found[1]), int(found[2])) >= RENEWS_SINCE if found else None
