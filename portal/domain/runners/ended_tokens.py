"""Tokens of runners that are over for long: deleted, so that no family grows for ever."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, exists, or_, select
from sqlalchemy.orm import Session, aliased

from portal.domain import audit
from portal.domain.actors import CLEAN_UP
from portal.domain.scopes import INSTANCE
from portal.models import Runner, RunnerManager, RunnerToken, TokenOrigin

KEPT_FOR = timedelta(days=90)  # so long it can be looked up whose token it was; the trail names it for ever
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many tokens a batch took, and when the last of them was over: the next batch need not look before that."""

    taken: int
    since: datetime | None


def prune(session: Session, at: datetime, *, since: datetime | None = None, batch: int = BATCH) -> Pruned:
    """Delete at most `batch` tokens that had ended or expired for 90 days at this moment, those over first on top.

    Kept are one that a machine used last, the newest that a person was shown (a reset form names it), and the newest
    of all, by which a page says that the runner's token has expired. Runners and tokens that others hold are left for
    the next round: this never waits, so it stops no heartbeat, nor can the two wait for each other.
    """
    over = RunnerToken.over_since()
    query = select(RunnerToken.id).join(Runner, Runner.id == RunnerToken.runner_id).where(_prunable(at, since))
    held = query.order_by(over).limit(batch).with_for_update(of=[Runner, RunnerToken], skip_locked=True)
    ids = session.scalars(held).all()
    if not ids:
        return Pruned(0, since)
    # Asked again with the runners held: a machine may have come to use one of them just before.
    gone = session.scalars(
        delete(RunnerToken)
        .where(RunnerToken.id.in_(ids), _prunable(at, None))
        .returning(over)
        .execution_options(synchronize_session=False)
    ).all()
    if gone:
        audit.record(session, CLEAN_UP, "ended_tokens_deleted", INSTANCE, INSTANCE, {"tokens": (None, len(gone))})
    session.flush()
    return Pruned(len(gone), max(gone, default=since))


def _prunable(at: datetime, since: datetime | None) -> ColumnElement[bool]:
    newer, shown = aliased(RunnerToken), aliased(RunnerToken)
    over = RunnerToken.over_since()
    later = exists().where(newer.runner_id == RunnerToken.runner_id, newer.id > RunnerToken.id)
    shown_later = exists().where(
        shown.runner_id == RunnerToken.runner_id,
        shown.id > RunnerToken.id,
        shown.origin != TokenOrigin.RESET_BY_MACHINE.value,
    )
    parts = [
        over <= at - KEPT_FOR,
        RunnerToken.origin != TokenOrigin.IMPORTED.value,  # by which a page says where the runner came from
        or_(and_(RunnerToken.origin == TokenOrigin.RESET_BY_MACHINE.value, later), shown_later),
        ~exists().where(RunnerManager.token_id == RunnerToken.id),
    ]
    return and_(*parts, *([] if since is None else [over >= since]))
