"""How long a runner's tokens live, who decided that, and which of them are due."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Float, Interval, Select, and_, exists, func, literal, or_, select
from sqlalchemy.orm import Session, aliased

from portal.database import now
from portal.domain import scope_settings
from portal.domain.scope_settings import Chain
from portal.domain.scopes import INSTANCE, Scope, ScopeKind, of_runner
from portal.models import Runner, RunnerManager, RunnerToken

# gitlab-runner resets a token by itself at this part of its life (commands/multi.go): one that is older waits for
# a person, or its machine is away.
DUE_AT = 0.75


@dataclass(frozen=True, slots=True)
class Life:
    """How many seconds a new token lives, and the scope that decided it; None: the runner itself."""

    seconds: int
    by: Scope | None

    @property
    def time(self) -> timedelta:
        return timedelta(seconds=self.seconds)


def of_new_runners(session: Session, scope: Scope) -> Life | None:
    """The shortest life that the instance, the groups above or the scope itself give its runners' tokens; or None.

    Rule: the minimum over the chain (reference/rest.md section 4.2).
    """
    return _shortest(scope_settings.chain(session, scope), scope.kind)


def of_runner_tokens(session: Session, runner: Runner) -> Life | None:
    """The same for one runner, which may have a shorter life of its own."""
    scope = of_runner(runner)
    decided = of_new_runners(session, scope)
    own = runner.token_expiration_interval
    if own is not None and (decided is None or own < decided.seconds):
        return Life(own, None)
    return decided


def _shortest(chain: Chain, kind: ScopeKind) -> Life | None:
    lives = [Life(seconds, scope) for scope, seconds in _intervals(chain, kind) if seconds is not None]
    return min(lives, key=lambda life: life.seconds, default=None)


def _intervals(chain: Chain, kind: ScopeKind) -> Iterator[tuple[Scope, int | None]]:
    instance = chain.instance
    if kind is ScopeKind.INSTANCE:
        yield INSTANCE, instance.runner_token_expiration_interval
        return
    groups = chain.groups
    if kind is ScopeKind.PROJECT:
        yield INSTANCE, instance.project_runner_token_expiration_interval
        yield from ((scope, row.project_runner_token_expiration_interval) for scope, row in groups)
        if chain.project:
            yield chain.project[0], chain.project[1].runner_token_expiration_interval
        return
    yield INSTANCE, instance.group_runner_token_expiration_interval
    yield from ((scope, row.subgroup_runner_token_expiration_interval) for scope, row in groups[:-1])
    yield from ((scope, row.runner_token_expiration_interval) for scope, row in groups[-1:])


def is_due(token: RunnerToken, at: datetime) -> bool:
    """Whether an expiring token has outlived the moment at which its machine should have got a new one."""
    if token.expires_at is None or not token.is_live(at):
        return False
    return token.created_at + (token.expires_at - token.created_at) * DUE_AT <= at


def due(at: datetime) -> ColumnElement[bool]:
    """Condition for runners with a token that is due or has expired, and that nothing newer has replaced.

    A machine uses it still, or it is the runner's newest. A token that was cut or replaced is nobody's business.
    """
    return Runner.id.in_(_due_tokens(at))


def _due_tokens(at: datetime) -> Select[int]:
    return select(RunnerToken.runner_id).where(_is_due_or_over(at))


def _is_due_or_over(at: datetime) -> ColumnElement[bool]:
    newer = aliased(RunnerToken)
    expires, life = RunnerToken.expires_at, (RunnerToken.expires_at - RunnerToken.created_at).self_group()
    most_of_it = life.op("*", return_type=Interval())(literal(DUE_AT, Float()))
    replaced = exists().where(
        newer.runner_id == RunnerToken.runner_id,
        newer.id > RunnerToken.id,
        or_(newer.ends_at.is_(None), newer.ends_at > at),
        or_(newer.expires_at.is_(None), newer.expires_at > at),
    )
    in_use = exists().where(RunnerManager.token_id == RunnerToken.id)
    return and_(
        expires.is_not(None),
        RunnerToken.created_at + most_of_it <= at,
        or_(RunnerToken.ends_at.is_(None), RunnerToken.ends_at > at),
        or_(in_use, ~replaced),
    )


def count_due(session: Session, within: ColumnElement[bool]) -> int:
    """How many of these runners have a token that is due or has expired."""
    return session.scalar(select(func.count()).select_from(Runner).where(within, due(now()))) or 0


@dataclass(frozen=True, slots=True)
class DueToken:
    """A token that is due or has expired, with the machines that use it: those heard of last first, and how many."""

    token: RunnerToken
    expired: bool
    machines: list[RunnerManager]
    total: int


def due_of_runner(session: Session, runner: Runner) -> list[DueToken]:
    """The runner's tokens that `due` is about, those that ended first on top."""
    moment = now()
    mine = (RunnerToken.runner_id == runner.id) & _is_due_or_over(moment)
    found = list(session.scalars(select(RunnerToken).where(mine).order_by(RunnerToken.expires_at, RunnerToken.id)))
    return [_with_machines(session, token, moment) for token in found]


def _with_machines(session: Session, token: RunnerToken, moment: datetime) -> DueToken:
    expired = token.expires_at is not None and token.expires_at <= moment
    return DueToken(token, expired, *machines_with(session, token))


def machines_with(session: Session, token: RunnerToken, *, limit: int = 10) -> tuple[list[RunnerManager], int]:
    """The machines that used exactly this token last, those heard of last first; and how many there are in all."""
    theirs = RunnerManager.token_id == token.id
    newest = RunnerManager.contacted_at.desc().nulls_last()
    machines = session.scalars(select(RunnerManager).where(theirs).order_by(newest, RunnerManager.id).limit(limit))
    return list(machines), session.scalar(select(func.count()).select_from(RunnerManager).where(theirs)) or 0
