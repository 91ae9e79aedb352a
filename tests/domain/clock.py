"""Letting time pass: every moment that is stored moves into the past."""

from datetime import timedelta

from sqlalchemy import DateTime, update
from sqlalchemy.orm import Session

from portal.models import Runner


def let_pass(session: Session, time: timedelta) -> None:
    """As if so much time had gone by since everything that happened."""
    session.flush()
    for table in Runner.metadata.sorted_tables:
        moments = [column for column in table.columns if isinstance(column.type, DateTime)]
        if moments:
            session.execute(update(table).values({column: column - time for column in moments}))
    session.expire_all()
