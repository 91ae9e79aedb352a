"""Letting the oldest events of the trail go, as many as the setting says, so that the rest can still be verified."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, select, text
from sqlalchemy.orm import Session

from portal.domain import audit
from portal.domain.actors import CLEAN_UP
from portal.domain.scopes import INSTANCE
from portal.models import AuditEvent, AuditLink

BATCH = 5000  # events that go in one transaction


def shorten(session: Session, kept: timedelta, at: datetime, *, batch: int = BATCH) -> int:
    """Delete events older than `kept`, at most `batch` of the oldest, and record up to where. Returns how many.

    Only what stands before the first younger event in the chain goes, so that the rest has no holes; the newest
    event always stays, since the chain goes on from it.
    """
    oldest = (
        select(AuditLink.position, AuditLink.event_id, AuditLink.hash, AuditEvent.created_at)
        .join(AuditEvent)
        .order_by(AuditLink.position)
        .limit(batch + 1)
        .with_for_update(of=AuditLink)
    )
    rows = session.execute(oldest).all()
    gone = 0
    while gone < len(rows) - 1 and rows[gone].created_at < at - kept:
        gone += 1
    if not gone:
        return 0
    last = rows[gone - 1]
    session.execute(text("SET LOCAL portal.shortens_trail = 'on'"))
    session.execute(delete(AuditLink).where(AuditLink.position <= last.position))
    session.execute(delete(AuditEvent).where(AuditEvent.id.in_([row.event_id for row in rows[:gone]])))
    session.execute(text("SET LOCAL portal.shortens_trail = 'off'"))
    stated = {
        "events": (gone, 0),
        "older_than": (None, (at - kept).isoformat()),
        "last_position": (None, last.position),
        "last_hash": (None, last.hash.hex()),
    }
    audit.record(session, CLEAN_UP, "trail_shortened", INSTANCE, INSTANCE, stated)
    return gone
