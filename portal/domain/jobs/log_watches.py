"""Which logs somebody watches: collected in memory, written once a second, so that a GET changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from portal.models import JobLog

EXACT_TO = timedelta(seconds=10)  # what was written less long ago is new enough


class LogWatches:
    """The jobs whose logs the pages of one process have shown since they were last written, and when."""

    def __init__(self) -> None:
        self._watched: dict[int, datetime] = {}
        self._lock = threading.Lock()

    def note(self, job_id: int, at: datetime) -> None:
        """Somebody looks at the log of this job."""
        with self._lock:
            self._watched[job_id] = at

    def take(self) -> dict[int, datetime]:
        """Everything noted since the last time."""
        with self._lock:
            taken, self._watched = self._watched, {}
        return taken


def write(session: Session, watched: Mapping[int, datetime]) -> None:
    """Write when these logs were last looked at. One that a machine holds just now waits for the next time."""
    if not watched:
        return
    latest = max(watched.values())
    due = or_(JobLog.watched_at.is_(None), JobLog.watched_at < latest - EXACT_TO)
    query = select(JobLog.job_id).where(JobLog.job_id.in_(sorted(watched)), due).order_by(JobLog.job_id)
    ids = session.scalars(query.with_for_update(skip_locked=True)).all()
    if ids:
        later = func.greatest(JobLog.watched_at, latest)  # greatest() passes over null
        changed = update(JobLog).where(JobLog.job_id.in_(ids)).values(watched_at=later)
        session.execute(changed.execution_options(synchronize_session=False))
