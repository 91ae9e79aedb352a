"""Deleting so that it can be undone: the act itself, until when it can be undone, and what is said meanwhile."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.actors import Actor
from portal.domain.errors import NOTHING_HERE, NotFound, RunnerDeleted, TokenUnknown
from portal.models import WITH_DELETED, Deletion, Runner

OF_RUNNERS = ("runner", "runners")
KINDS = (*OF_RUNNERS, "group", "project")
LONGEST_NAME = 1024


def begin(session: Session, actor: Actor, kind: str, name: str, path: str = "") -> Deletion:
    """A new act of deleting by this actor; whatever is marked with it is deleted, and restored together.

    `kind` is one of KINDS, `name` what people call what goes, `path` the full path where it was. Checks nothing.
    """
    if kind not in KINDS:
        raise ValueError(f"a deletion is of one of {KINDS}, not of {kind}")
    deletion = Deletion(
        kind=kind,
        name=name[:LONGEST_NAME],
        path=path,
        user_id=actor.user.id if actor.user else None,
        actor_name=actor.name[:255],
        created_at=now(),
    )
    session.add(deletion)
    session.flush()
    return deletion


def ends_at(deletion: Deletion, kept: timedelta) -> datetime:
    """Until when the act can be undone; afterwards what it took is gone for good."""
    return deletion.created_at + kept


def open_at(at: datetime, kept: timedelta) -> ColumnElement[bool]:
    """Condition for acts that can be undone at this moment."""
    return and_(Deletion.final_at.is_(None), Deletion.created_at > at - kept)


def hold(session: Session, deletion_id: int, kept: timedelta) -> Deletion:
    """The act, locked until the transaction ends: of who restores and who deletes for good only one wins.

    Raises NotFound when it cannot be undone any more.
    """
    query = select(Deletion).where(Deletion.id == deletion_id, open_at(now(), kept)).with_for_update(of=Deletion)
    held = session.scalar(query.execution_options(populate_existing=True))
    if held is None:
        raise NotFound(NOTHING_HERE)
    return held


def refusal_of(session: Session, runner_id: int) -> TokenUnknown:
    """What a machine is told whose runner is not there: that it was deleted, and when if it can be restored."""
    query = select(Deletion.created_at).join(Runner, Runner.deletion_id == Deletion.id)
    query = query.where(Runner.id == runner_id, Deletion.final_at.is_(None))
    deleted_at = session.scalar(query, execution_options=WITH_DELETED)
    return TokenUnknown("This runner was deleted") if deleted_at is None else RunnerDeleted(runner_id, deleted_at)
