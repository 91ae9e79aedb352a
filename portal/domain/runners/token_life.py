"""How long a runner's tokens live, who decided that, and which of them are due."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Float, Interval, and_, exists, func, literal, or_, select, union_all
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.selectable import Subquery

from portal.database import now
from portal.domain.groups import scope_settings
from portal.domain.groups.scope_settings import Chain
from portal.domain.scopes import INSTANCE, Scope, ScopeKind, of_runner
from portal.domain.slices import count
from portal.models import Runner, RunnerManager, RunnerToken

# gitlab-runner resets a token by itself at this part of its life (commands/multi.go): one that is older waits for
# a person, or its machine is away.
DUE_AT = 0.75
COUNTED = 1000  # runners with such tokens; counts stop there
SHOWN = 10  # due tokens of a runner, and machines of a token


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
    last = _last_due(at)
    newer = aliased(RunnerToken)
    # Each token is looked at once: all tokens of one runner before its last due one are replaced if that one is.
    replaced = exists().where(newer.runner_id == last.c.runner_id, newer.id > last.c.id, newer.lives(at))
    found = union_all(
        select(last.c.runner_id).where(~replaced),
        select(RunnerToken.runner_id).where(_is_due_or_over(at), _in_use()),
    ).cte("due")  # found once, however often a statement asks for it
    return Runner.id.in_(select(found.c.runner_id))


def _in_use() -> ColumnElement[bool]:
    return exists().where(RunnerManager.token_id == RunnerToken.id)


def _last_due(at: datetime) -> Subquery:
    last = func.max(RunnerToken.id).label("id")
    query = select(RunnerToken.runner_id, last).where(_is_due_or_over(at)).group_by(RunnerToken.runner_id)
    return query.subquery("last_due")


def _is_due_or_over(at: datetime) -> ColumnElement[bool]:
    """Condition for tokens that expire and are past that part of their life, if nobody ended them before."""
    expires, life = RunnerToken.expires_at, (RunnerToken.expires_at - RunnerToken.created_at).self_group()
    most_of_it = life.op("*", return_type=Interval())(literal(DUE_AT, Float()))
    return and_(
        expires.is_not(None),
        RunnerToken.created_at + most_of_it <= at,
        RunnerToken.cut.is_(False),
        or_(RunnerToken.ends_at.is_(None), RunnerToken.ends_at > at),
    )


def count_due(session: Session, within: ColumnElement[bool]) -> int:
    """How many of these runners have a token that is due or has expired, up to one more than COUNTED.

    Token by token, which can stop; only where runners have several such tokens all of these are looked at.
    """
    at, newer = now(), aliased(RunnerToken)
    replaced = exists().where(newer.runner_id == RunnerToken.runner_id, newer.id > RunnerToken.id, newer.lives(at))
    tokens = select(RunnerToken.runner_id).join(Runner, Runner.id == RunnerToken.runner_id)
    tokens = tokens.where(within, _is_due_or_over(at), or_(~replaced, _in_use()))
    first = session.scalars(tokens.limit(COUNTED + 1)).all()
    found = len(set(first))
    if len(first) <= COUNTED or found > COUNTED:
        return found
    return count(session, select(Runner).where(within, due(at)), Runner.id, most=COUNTED)


@dataclass(frozen=True, slots=True)
class DueToken:
    """A token that is due or has expired, with the machines that use it: those heard of last first, and how many."""

    token: RunnerToken
    expired: bool
    machines: list[RunnerManager]
    total: int


@dataclass(frozen=True, slots=True)
class DueTokens:
    """The first of a runner's tokens that are due or have expired, and how many there are in all."""

    first: list[DueToken]
    total: int

    def __iter__(self) -> Iterator[DueToken]:
        return iter(self.first)


def due_of_runner(session: Session, runner: Runner, *, limit: int = SHOWN) -> DueTokens:
    """The runner's tokens that `due` is about, those that ended first on top; at most `limit`, in two queries."""
    moment, token = now(), RunnerToken
    living = aliased(RunnerToken)
    newest = select(func.max(living.id)).where(living.runner_id == runner.id, living.lives(moment)).scalar_subquery()
    in_use = exists().where(RunnerManager.token_id == token.id)
    mine = and_(
        token.runner_id == runner.id, _is_due_or_over(moment), or_(token.id >= func.coalesce(newest, 0), in_use)
    )
    query = select(token, func.count().over()).where(mine).order_by(token.expires_at, token.id).limit(limit)
    found = session.execute(query).all()
    machines = _machines_of(session, [row[0].id for row in found])
    due_tokens = [DueToken(row[0], not row[0].is_live(moment), *machines.get(row[0].id, ([], 0))) for row in found]
    return DueTokens(due_tokens, found[0][1] if found else 0)


def _machines_of(session: Session, token_ids: Sequence[int]) -> dict[int, tuple[list[RunnerManager], int]]:
    """The machines with each of these tokens: those heard of last, and how many there are; by the token's id."""
    if not token_ids:
        return {}
    newest, its = RunnerManager.contacted_at.desc().nulls_last(), RunnerManager.token_id
    place = func.row_number().over(partition_by=its, order_by=(newest, RunnerManager.id)).label("place")
    total = func.count().over(partition_by=its).label("total")
    ranked = select(RunnerManager.id, place, total).where(its.in_(token_ids)).subquery()
    query = select(RunnerManager, ranked.c.total).join(ranked, ranked.c.id == RunnerManager.id)
    found: dict[int, tuple[list[RunnerManager], int]] = {}
    for row in session.execute(query.where(ranked.c.place <= SHOWN).order_by(its, ranked.c.place)):
        machines, _ = found.setdefault(row[0].token_id, ([], row[1]))
        machines.append(row[0])
    return found


def machines_with(session: Session, token: RunnerToken, *, limit: int = SHOWN) -> tuple[list[RunnerManager], int]:
    """The machines that used exactly this token last, those heard of last first; and how many there are in all."""
    theirs = RunnerManager.token_id == token.id
    newest = RunnerManager.contacted_at.desc().nulls_last()
    machines = session.scalars(select(RunnerManager).where(theirs).order_by(newest, RunnerManager.id).limit(limit))
    return list(machines), session.scalar(select(func.count()).select_from(RunnerManager).where(theirs)) or 0
