"""What is swept away in time: silent machines, ended tokens, stale runners, what was deleted, events, old jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from portal.config import Settings
from portal.database import now
from portal.domain.bulk import bulk_acts
from portal.domain.deletions import deletion_purge
from portal.domain.jobs import job_artifacts, job_classes, job_partitions, old_jobs
from portal.domain.jobs.artifact_store import ArtifactStore
from portal.domain.machines import silent_machines
from portal.domain.people import access_tokens, sign_in_throttle, user_sessions
from portal.domain.people.user_sessions import Limits
from portal.domain.runners import ended_tokens, runner_cleanup
from portal.domain.trail import audit_retention

log = logging.getLogger(__name__)

# Advisory lock: one process prunes or cleans up at a time. A stale runner whose machines are just being pruned would
# look as if one of them was calling, and stay for another hour.
PRUNE_LOCK = 0x706F7274616C01
ORPHANS_EVERY = timedelta(days=1)  # looking for them reads the names of all files in the store


def in_batches(
    session: Session,
    take: Callable[[], int],
    *,
    say: Callable[[int], object],
    stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Repeat `take`, each time in a transaction of its own, until it takes nothing. Returns how many it took.

    `say` hears after each batch how many were taken so far. `take` must look at one fixed moment, so that it ends.
    """
    gone = 0
    while not stopping():
        taken = take()
        session.commit()
        if not taken:
            break
        gone += taken
        say(gone)
    return gone


class Housekeeping:
    """The sweeping of one server process; `stopping` says that it shall leave the rest for the next time."""

    def __init__(self, engine: Engine, settings: Settings, *, stopping: Callable[[], bool] = lambda: False) -> None:
        self.engine = engine
        self.trail_kept = settings.trail_kept
        self.session_limits = Limits(settings.session_idle, settings.session_longest)
        self.deleted_kept = settings.deleted_kept
        self.jobs_kept = settings.jobs_kept
        self.artifact_store = ArtifactStore(settings)
        self._orphans_sought: datetime | None = None
        self._stopping = stopping

    def tidy_up(self) -> None:
        """Everything, one after the other; what fails is logged and tried again next time."""
        for work in (
            self.prune,
            self.prune_tokens,
            self.prune_access_tokens,
            self.clean_up,
            self.purge_deleted,
            self.prune_sessions,
            self.forget_bulk_acts,
            self.prune_sign_ins,
            self.shorten_trail,
            self.make_partitions,
            self.forget_jobs,
            self.sweep_definitions,
            self.sweep_classes,
            self.drop_partitions,
            self.sweep_artifacts,
            self.sweep_orphaned_artifacts,
        ):
            try:
                work()
            except Exception:
                log.exception("%s failed; it is tried again", work.__name__)

    def prune(self) -> int:
        """Delete managers that have been silent for too long, unless another process is at it. Returns how many."""
        moment = now()
        return self._sweep(lambda session: silent_machines.prune(session, at=moment), "silent machines forgotten")

    def prune_tokens(self) -> int:
        """Delete tokens that ended long ago, unless another process is at it. Returns how many."""
        moment, last = now(), ended_tokens.Pruned(0, None)

        def take(session: Session) -> int:
            nonlocal last
            last = ended_tokens.prune(session, moment, since=last.since)
            return last.taken

        return self._sweep(take, "ended tokens deleted")

    def prune_access_tokens(self) -> int:
        """Delete access tokens that ended a year ago, unless another process is at it. Returns how many."""
        moment = now()
        return self._sweep(lambda session: access_tokens.prune(session, moment), "ended access tokens deleted")

    def purge_deleted(self) -> int:
        """Delete for good what was deleted for too long, unless another process is at it. Returns how much."""
        moment = now()
        return self._sweep(
            lambda session: deletion_purge.purge(session, moment, self.deleted_kept),
            "deleted things deleted for good",
        )

    def shorten_trail(self) -> int:
        """Delete events older than the setting says, unless another process is at it. Returns how many."""
        kept, moment = self.trail_kept, now()
        if kept is None:
            return 0
        return self._sweep(
            lambda session: audit_retention.shorten(session, kept, moment), "old events of the trail deleted"
        )

    def make_partitions(self) -> int:
        """Make the partitions for the jobs of this month and the next ones. Returns how many were missing."""
        return self._at_once(lambda session: job_partitions.make_ahead(session, now()))

    def forget_jobs(self) -> int:
        """Delete jobs that ended longer ago than the setting says, with their logs. Returns how many."""
        if self.jobs_kept is None:
            return 0
        before = now() - self.jobs_kept
        return self._sweep(lambda session: old_jobs.prune(session, before), "old jobs deleted")

    def sweep_definitions(self) -> int:
        """Delete definitions of jobs that nothing refers to any more. Returns how many."""
        moment = now()
        return self._sweep(
            lambda session: old_jobs.prune_definitions(session, moment), "unused definitions of jobs deleted"
        )

    def sweep_classes(self) -> int:
        """Delete classes of jobs in which none waits. Returns how many."""
        return self._sweep(job_classes.prune, "empty classes of jobs deleted")

    def drop_partitions(self) -> int:
        """Drop partitions whose jobs are gone, unless another process is at it. Returns how many."""
        with self._alone() as alone:
            return self._at_once(lambda session: job_partitions.drop_empty(session, now())) if alone else 0

    def sweep_artifacts(self) -> int:
        """Delete artifacts that have expired or whose job is gone, files first. Returns how many."""
        moment = now()
        return self._sweep(
            lambda session: job_artifacts.sweep(session, self.artifact_store, moment), "artifacts deleted"
        )

    def sweep_orphaned_artifacts(self) -> int:
        """Delete files of the store that no artifact names, once a day. Returns how many."""
        moment = now()
        if self._orphans_sought is not None and moment - self._orphans_sought < ORPHANS_EVERY:
            return 0
        with self._alone() as alone:
            if not alone:
                return 0
            with Session(self.engine) as session:
                gone = job_artifacts.delete_orphans(session, self.artifact_store, moment)
        self._orphans_sought = moment
        if gone:
            log.info("files without an artifact deleted: %d", gone)
        return gone

    def clean_up(self) -> int:
        """Delete stale runners where that is turned on and was not done within the hour. Returns how many.

        Another process that is at it is left alone with it.
        """
        with self._alone() as alone:
            if not alone:
                return 0
            with Session(self.engine) as session:
                moment = now()
                return sum(
                    self._clean_up(session, group_id, moment) for group_id in runner_cleanup.due(session, moment)
                )

    def _clean_up(self, session: Session, group_id: int | None, at: datetime) -> int:
        where = f"group {group_id}" if group_id else "the instance"
        try:
            gone = self._in_batches(
                session, lambda: len(runner_cleanup.run(session, group_id, at)), f"stale runners of {where} deleted"
            )
            if not self._stopping():
                runner_cleanup.note_run(session, group_id, at)
                session.commit()
        except Exception:  # the other groups' clean-ups do not wait for this one
            session.rollback()
            log.exception("the clean-up of %s failed; it is tried again", where)
            return 0
        return gone

    def prune_sessions(self) -> int:
        """Delete sessions whose time is over. Returns how many."""
        return self._at_once(lambda session: user_sessions.prune(session, self.session_limits, now()))

    def prune_sign_ins(self) -> int:
        """Delete attempts to sign in that count no more, and networks not used for long. Returns how many."""
        return self._at_once(lambda session: sign_in_throttle.prune(session, now()))

    def forget_bulk_acts(self) -> int:
        """Delete old drafts and reports of bulk acts. Returns how many."""
        return self._at_once(lambda session: bulk_acts.prune(session, now()))

    def _sweep(self, take: Callable[[Session], int], what: str) -> int:
        """Repeat `take` in batches until it takes nothing, unless another process is at it. Returns how many."""
        with self._alone() as alone:
            if not alone:
                return 0
            with Session(self.engine) as session:
                return self._in_batches(session, lambda: take(session), what)

    def _at_once(self, take: Callable[[Session], int]) -> int:
        """What is little, and may be done by several processes at once. Returns how many."""
        with Session(self.engine) as session:
            gone = take(session)
            session.commit()
        return gone

    def _in_batches(self, session: Session, take: Callable[[], int], what: str) -> int:
        return in_batches(
            session, take, say=lambda gone: log.info("%s: %d so far", what, gone), stopping=self._stopping
        )

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether this is the one process that has the advisory lock, for the length of the block."""
        with self.engine.connect() as guard:
            if not guard.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": PRUNE_LOCK}):
                yield False
                return
            try:
                yield True
            finally:
                guard.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": PRUNE_LOCK})
