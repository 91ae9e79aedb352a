"""The tokens of runners: issuing, resetting by people and by machines, ending, and finding them by their text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit, tokens
from portal.domain.actors import Actor
from portal.domain.deletions import deletions
from portal.domain.errors import AlreadyIssued, KeyReused, NotFound, Stale, TokenUnknown, TryLater
from portal.domain.permissions import Action
from portal.domain.runners import runner_access, runner_changes, token_life
from portal.domain.scopes import of_runner
from portal.models import LEGACY, Runner, RunnerManager, RunnerToken, TokenOrigin

UNUSED_RESETS = 20  # a family may hold this many unused tokens minted by machines, or two for each machine
SHOWN = 100  # of a family; a runner whose machines renew their tokens has one for each machine


@dataclass(frozen=True, slots=True)
class IssuedRunner:
    """A runner with its new token in clear: the only type that carries one. Never stored, never logged."""

    runner: Runner
    record: RunnerToken
    token: str

    def __repr__(self) -> str:
        return f"IssuedRunner(runner={self.runner.id}, token=[not shown])"


def last_issued(session: Session, runner: Runner) -> RunnerToken:
    """The newest token that was shown to a person; what a reset page has seen when it asks to reset."""
    shown = (RunnerToken.runner_id == runner.id) & (RunnerToken.origin != TokenOrigin.RESET_BY_MACHINE)
    return session.scalars(select(RunnerToken).where(shown).order_by(RunnerToken.id.desc()).limit(1)).one()


def hold(session: Session, runner_id: int) -> bool:
    """Lock the runner's row until the transaction ends; false when there is none any more.

    Whoever writes rows of a runner's machines or tokens does this first, so that nobody waits for somebody who waits
    for him: the runner, then its machines, then its tokens; of several runners the one with the lower id first.
    """
    held = select(Runner.id).where(Runner.id == runner_id).with_for_update(key_share=True)
    return session.scalar(held) is not None


def family(session: Session, runner: Runner, *, limit: int = SHOWN) -> list[RunnerToken]:
    """The runner's tokens that machines may still use, the newest first; at most `limit` of them."""
    return list(
        session.scalars(select(RunnerToken).where(_of_family(runner)).order_by(RunnerToken.id.desc()).limit(limit))
    )


def count_family(session: Session, runner: Runner) -> int:
    """How many tokens of the runner machines may still use."""
    return session.scalar(select(func.count()).select_from(RunnerToken).where(_of_family(runner))) or 0


def _of_family(runner: Runner) -> ColumnElement[bool]:
    return (RunnerToken.runner_id == runner.id) & RunnerToken.lives(now())


def reset_token(
    session: Session,
    actor: Actor,
    runner: Runner,
    *,
    seen_token_id: int | None,
    request_key: UUID | None = None,
) -> IssuedRunner:
    """A person's reset: one new token, every older one of the family ends at once.

    `seen_token_id` is the newest token when the person decided; if somebody was quicker, Stale is raised,
    so that nobody walks away with a token that is dead already. Raises also AlreadyIssued, NotFound,
    NotAllowed.
    """
    scope = of_runner(runner)
    runner_access.require(session, actor, Action.WRITE_RUNNERS, runner)
    _hold_for_person(session, runner)
    refuse_repeated(session, request_key)
    if seen_token_id is not None and last_issued(session, runner).id != seen_token_id:
        raise Stale("Somebody else reset this token a moment ago. Ask them for it, or reset it once more.")
    old = ", ".join(sorted(_cut_all(session, runner)))
    issued = issue(session, runner, TokenOrigin.RESET_BY_PERSON, request_key=request_key, prefix=prefix_of(runner))
    audit.record(session, actor, "runner_token_reset", runner, scope, {"token": (old, issued.record.short)})
    runner_changes.announce(session, runner.id)
    return issued


def _hold_for_person(session: Session, runner: Runner) -> None:
    if not hold(session, runner.id):
        raise NotFound("This runner was deleted meanwhile.")


def _cut_all(session: Session, runner: Runner) -> list[str]:
    """End every token of the runner for good. Returns the short forms of those that had not ended by themselves.

    Those that had are cut as well: a first use that was slow to arrive must not bring one of them back either.
    """
    moment = now()
    ended = session.execute(
        update(RunnerToken)
        .where(RunnerToken.runner_id == runner.id, RunnerToken.cut.is_(False))
        .values(cut=True, ends_at=func.least(RunnerToken.ends_at, moment))
        .returning(RunnerToken.short, RunnerToken.ends_at)
    )
    return [row.short for row in ended if row.ends_at == moment]


def reset_token_by_machine(
    session: Session, token: str, *, grace: timedelta, address: str = "", request_id: str = ""
) -> IssuedRunner:
    """A machine's own reset: one more token of the family.

    The token it was made with, and the new one while nobody uses it, end after `grace`. The request does
    not say which machine asks, so each call mints: two machines with the same old token each get their own.
    Raises TokenUnknown, or TryLater when a family holds too many unused tokens (a loop somewhere).
    """
    known = token_row(session, token)
    query = select(Runner).where(Runner.id == known.runner_id).with_for_update(of=Runner, key_share=True)
    runner = session.scalar(query)
    if runner is None:
        raise deletions.refusal_of(session, known.runner_id)
    again = select(RunnerToken).where(RunnerToken.id == known.id).execution_options(populate_existing=True)
    moment = now()
    if session.scalar(again) is None or not known.is_live(moment):  # a person's reset came first, as we waited
        raise TokenUnknown("This token has ended.")
    _refuse_loop(session, runner, moment)
    end = moment + grace
    if known.first_used_at is None:
        known.first_used_at = moment
    _let_end(session, known, end)
    issued = issue(
        session,
        runner,
        TokenOrigin.RESET_BY_MACHINE,
        minted_from=known,
        ends_at=end,
        prefix=prefix_of(runner),
    )
    actor = _machine(runner, known, address, request_id)
    audit.record(
        session,
        actor,
        "runner_token_rotated",
        runner,
        of_runner(runner),
        {"token": (known.short, issued.record.short)},
    )
    runner_changes.announce(session, runner.id)
    return issued


def _let_end(session: Session, old: RunnerToken, end: datetime) -> None:
    """The token that a machine has replaced ends with the grace period.

    One that expires anyway lives until then while other machines use it: each of them gets a new one by itself, but
    at its own time, which may come after the grace period.
    """
    if old.expires_at is not None and _is_shared(session, old):
        end = max(end, old.expires_at)
    old.ends_at = min(old.ends_at, end) if old.ends_at else end


def _is_shared(session: Session, token: RunnerToken) -> bool:
    """Whether more than one machine may use it.

    Clients 15.3 to 15.7 renew tokens and send no system ID: all of a runner's are one row, which names the token of
    the one that called last and says nothing of the others'.
    """
    of_it = or_(RunnerManager.token_id == token.id, RunnerManager.system_xid == LEGACY)
    query = select(RunnerManager.system_xid).where(RunnerManager.runner_id == token.runner_id, of_it)
    users = session.scalars(query.limit(2)).all()
    return len(users) > 1 or LEGACY in users


def end_token(session: Session, actor: Actor, runner: Runner, token_id: int) -> RunnerToken:
    """End one token of the runner early, at once; the others of its family live on.

    Machines that use exactly this token are refused from their next poll on. Raises NotFound for a token that is
    not this runner's, Stale for one that has ended or expired already, and NotFound or NotAllowed for the actor.
    """
    scope = of_runner(runner)
    runner_access.require(session, actor, Action.WRITE_RUNNERS, runner)
    _hold_for_person(session, runner)
    token = session.scalar(
        select(RunnerToken)
        .where(RunnerToken.id == token_id, RunnerToken.runner_id == runner.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if token is None:
        raise NotFound("This runner has no such token.")
    moment = now()
    if not token.is_live(moment):
        raise Stale("This token has ended already. No machine can use it.")
    changes = {"token": (token.short, None), "ends_at": (_day(token.ends_at), _day(moment))}
    token.ends_at, token.cut = moment, True
    audit.record(session, actor, "runner_token_ended", runner, scope, changes)
    runner_changes.announce(session, runner.id)
    session.flush()
    return token


def _day(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None


def token_row(session: Session, token: str) -> RunnerToken:
    """The live token with this text. Raises TokenUnknown; a mistyped one is refused without a query."""
    if not token or len(token) > tokens.LONGEST or tokens.is_mistyped(token):
        raise TokenUnknown("No runner has this token.")
    row = session.scalar(select(RunnerToken).where(RunnerToken.digest == tokens.digest(token)))
    if row is None or not row.is_live(now()):
        raise TokenUnknown("No runner has this token.")
    return row


def mark_used(session: Session, runner_id: int, token_id: int) -> None:
    """Note a token's first use; an unused one that a machine's reset minted would end with the grace period.

    The caller holds the runner. One that was cut stays so, whatever this host's clock says.
    """
    moment = now()
    marked = session.execute(
        update(RunnerToken)
        .where(
            RunnerToken.id == token_id,
            RunnerToken.first_used_at.is_(None),
            RunnerToken.cut.is_(False),
            or_(RunnerToken.ends_at.is_(None), RunnerToken.ends_at > moment),
        )
        .values(first_used_at=moment, last_used_at=moment, ends_at=None)
        .returning(RunnerToken.id)
    ).all()
    if marked:
        runner_changes.announce(session, runner_id)


def _machine(runner: Runner, token: RunnerToken, address: str, request_id: str) -> Actor:
    return Actor("runner", f"runner {token.short}", runner.id, None, address, request_id)


def prefix_of(runner: Runner) -> str:
    """How the runner's tokens begin; the client decides by it what kind of runner it is."""
    return tokens.CREATED if runner.created_by_person else tokens.REGISTERED


def _refuse_loop(session: Session, runner: Runner, moment: datetime) -> None:
    unused = session.scalar(
        select(func.count()).where(
            RunnerToken.runner_id == runner.id,
            RunnerToken.origin == TokenOrigin.RESET_BY_MACHINE,
            RunnerToken.first_used_at.is_(None),
            RunnerToken.ends_at > moment,
        )
    )
    managers = session.scalar(select(func.count()).where(RunnerManager.runner_id == runner.id)) or 0
    if (unused or 0) >= max(UNUSED_RESETS, 2 * managers):
        raise TryLater("This runner has many new tokens that no machine uses yet. Use one of them, or wait.", 60)


def refuse_repeated(session: Session, request_key: UUID | None, request_digest: bytes | None = None) -> None:
    """Raise AlreadyIssued when a form or a request with this key was sent before.

    Raises KeyReused when what was asked for then has another digest.
    """
    if request_key is None:
        return
    query = select(RunnerToken.runner_id, RunnerToken.request_digest)
    before = session.execute(query.where(RunnerToken.request_key == request_key)).one_or_none()
    if before is None:
        return
    if before.request_digest != request_digest:
        raise KeyReused
    raise AlreadyIssued(before.runner_id)


def issue(
    session: Session,
    runner: Runner,
    origin: TokenOrigin,
    *,
    request_key: UUID | None = None,
    request_digest: bytes | None = None,
    minted_from: RunnerToken | None = None,
    ends_at: datetime | None = None,
    prefix: str = tokens.CREATED,
) -> IssuedRunner:
    """One more token of the runner's family; it expires as its scopes and the runner say. Asks and notes nothing."""
    clear = tokens.make(runner.runner_type, prefix=prefix)
    life = token_life.of_runner_tokens(session, runner)
    record = RunnerToken(
        runner_id=runner.id,
        digest=tokens.digest(clear),
        short=tokens.shorten(clear),
        origin=origin,
        request_key=request_key,
        request_digest=request_digest,
        minted_from_id=minted_from.id if minted_from else None,
        expires_at=now() + life.time if life else None,
        ends_at=ends_at,
    )
    session.add(record)
    session.flush()
    return IssuedRunner(runner, record, clear)
