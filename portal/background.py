"""What runs beside the requests in every server process: heartbeats out, changes in, what is stale away."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import orjson
import psycopg
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from portal.database import db, now
from portal.domain import (
    audit_retention,
    bulk_acts,
    deletion_purge,
    ended_tokens,
    runner_changes,
    runner_cleanup,
    runner_managers,
    sign_in_throttle,
    silent_machines,
    user_sessions,
)
from portal.domain.heartbeats import Heartbeats
from portal.domain.known_runners import KnownRunners
from portal.domain.user_sessions import Limits, SessionUses

log = logging.getLogger(__name__)

WORK_EVERY = 0.5  # seconds between two looks for bulk acts that are not over
WRITE_EVERY = 1.0  # seconds between two writes of heartbeats; pages are at most two seconds behind
LISTEN_TICK = 5.0  # seconds after which a silent connection is asked whether it still lives
# A network that swallows packets without a word must not leave an old memory looking fresh.
ALIVE: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
PRUNE_EVERY = 600.0  # seconds; stale runners are looked after as often, and each scope's at most once an hour
# Advisory lock: one process prunes or cleans up at a time. A stale runner whose machines are just being pruned would
# look as if one of them was calling, and stay for another hour.
PRUNE_LOCK = 0x706F7274616C01


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


class Background:
    """The threads of one server process. `start` once, `stop` once; nothing collected is lost by a stop."""

    def __init__(self, app: Flask) -> None:
        with app.app_context():
            self.engine = db.engine
        self.heartbeats: Heartbeats = app.extensions["heartbeats"]
        self.known: KnownRunners = app.extensions["known_runners"]
        self.session_uses: SessionUses = app.extensions["session_uses"]
        self.trail_kept: timedelta | None = app.config["PORTAL"].trail_kept
        self.session_limits = Limits(app.config["PORTAL"].session_idle, app.config["PORTAL"].session_longest)
        self.deleted_kept = app.config["PORTAL"].deleted_kept
        self._stopping = threading.Event()
        self._parent = os.getppid()
        self._threads = [
            threading.Thread(target=self._repeat, args=(self.write_heartbeats, WRITE_EVERY), name="heartbeats"),
            threading.Thread(target=self._repeat, args=(self.write_session_uses, WRITE_EVERY), name="session-uses"),
            threading.Thread(target=self._listen, name="runner-changes"),
            threading.Thread(target=self._repeat, args=(self.work_on_bulk_acts, WORK_EVERY), name="bulk-acts"),
            threading.Thread(target=self._repeat, args=(self._forget, PRUNE_EVERY), name="forget"),
            threading.Thread(target=self._repeat, args=(self._leave_with_the_parent, WRITE_EVERY), name="parent"),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def stop(self) -> None:
        """End the threads and write what is still collected."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=LISTEN_TICK + 5)
        self._guarded(self.write_heartbeats)
        self._guarded(self.write_session_uses)
        self.engine.dispose()

    def _repeat(self, work: Callable[[], object], seconds: float) -> None:
        while not self._stopping.is_set():
            self._guarded(work)
            self._stopping.wait(seconds)

    def _guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception:
            log.exception("%s failed; it is tried again", getattr(work, "__name__", "background work"))

    def write_heartbeats(self) -> int:
        """Write what was collected since the last time. Returns how many contacts were written."""
        contacts = self.heartbeats.take()
        if not contacts:
            return 0
        try:
            with Session(self.engine) as session:
                missing = runner_managers.write_heartbeats(session, contacts, _json)
                session.commit()
        except Exception:
            self.heartbeats.put_back(contacts)
            raise
        self.heartbeats.forget(missing)
        return len(contacts) - len(missing)

    def write_session_uses(self) -> None:
        """Write when sessions were used since the last time; losing a second of that is no loss."""
        if uses := self.session_uses.take():
            with Session(self.engine) as session:
                user_sessions.write_uses(session, uses)
                session.commit()

    def prune_sessions(self) -> int:
        """Delete sessions whose time is over. Returns how many."""
        with Session(self.engine) as session:
            gone = user_sessions.prune(session, self.session_limits, now())
            session.commit()
        return gone

    def prune_sign_ins(self) -> int:
        """Delete attempts to sign in that count no more, and networks not used for long. Returns how many."""
        with Session(self.engine) as session:
            gone = sign_in_throttle.prune(session, now())
            session.commit()
        return gone

    def work_on_bulk_acts(self) -> int:
        """Go on with the bulk acts that are not over, a batch of each in turn. Returns how many batches were done."""
        batches = 0
        while not self._stopping.is_set():
            with Session(self.engine) as session:
                done = sum([self._take_batch(session, act_id) for act_id in bulk_acts.unfinished(session)])
            batches += done
            if not done:
                break
        return batches

    def _take_batch(self, session: Session, act_id: int) -> bool:
        if self._stopping.is_set():
            return False
        try:
            done = bulk_acts.take_batch(session, act_id)
            session.commit()
        except Exception:  # the other acts do not wait for this one
            session.rollback()
            log.exception("a batch of the bulk act %d failed; it is tried again", act_id)
            return False
        return done

    def forget_bulk_acts(self) -> int:
        """Delete old drafts and reports of bulk acts. Returns how many."""
        with Session(self.engine) as session:
            forgotten = bulk_acts.prune(session, now())
            session.commit()
        return forgotten

    def _forget(self) -> None:
        self._guarded(self.prune)
        self._guarded(self.prune_tokens)
        self._guarded(self.clean_up)
        self._guarded(self.purge_deleted)
        self._guarded(self.prune_sessions)
        self._guarded(self.forget_bulk_acts)
        self._guarded(self.prune_sign_ins)
        self._guarded(self.shorten_trail)

    def prune(self) -> int:
        """Delete managers that have been silent for too long, unless another process is at it. Returns how many."""
        with self._alone() as alone:
            if not alone:
                return 0
            with Session(self.engine) as session:
                moment = now()
                return self._in_batches(
                    session, lambda: silent_machines.prune(session, at=moment), "silent machines forgotten"
                )

    def prune_tokens(self) -> int:
        """Delete tokens that ended long ago, unless another process is at it. Returns how many."""
        with self._alone() as alone:
            if not alone:
                return 0
            with Session(self.engine) as session:
                moment, last = now(), ended_tokens.Pruned(0, None)

                def take() -> int:
                    nonlocal last
                    last = ended_tokens.prune(session, moment, since=last.since)
                    return last.taken

                return self._in_batches(session, take, "ended tokens deleted")

    def shorten_trail(self) -> int:
        """Delete events older than the setting says, unless another process is at it. Returns how many."""
        if self.trail_kept is None:
            return 0
        with self._alone() as alone:
            if not alone:
                return 0
            kept, moment = self.trail_kept, now()
            with Session(self.engine) as session:
                return self._in_batches(
                    session, lambda: audit_retention.shorten(session, kept, moment), "old events of the trail deleted"
                )

    def purge_deleted(self) -> int:
        """Delete for good what was deleted for too long, unless another process is at it. Returns how much."""
        with self._alone() as alone:
            if not alone:
                return 0
            with Session(self.engine) as session:
                moment = now()
                return self._in_batches(
                    session,
                    lambda: deletion_purge.purge(session, moment, self.deleted_kept),
                    "deleted things deleted for good",
                )

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
            if not self._stopping.is_set():
                runner_cleanup.note_run(session, group_id, at)
                session.commit()
        except Exception:  # the other groups' clean-ups do not wait for this one
            session.rollback()
            log.exception("the clean-up of %s failed; it is tried again", where)
            return 0
        return gone

    def _in_batches(self, session: Session, take: Callable[[], int], what: str) -> int:
        return in_batches(
            session, take, say=lambda gone: log.info("%s: %d so far", what, gone), stopping=self._stopping.is_set
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

    def _leave_with_the_parent(self) -> None:
        """A server process whose parent was killed would hold the port for ever, and nobody could stop it."""
        if os.getppid() == self._parent:
            return
        log.warning("the process that started this one is gone; stopping")
        self._guarded(self.write_heartbeats)
        os._exit(1)

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen_once()
            except psycopg.Error as failure:
                log.warning("lost the connection that hears of runner changes: %s", failure)
            finally:
                # Unheard changes may have happened: until we listen again, every look-up asks the database.
                self.known.forget_all(listening=False)
                self.heartbeats.forget_all()
            self._stopping.wait(1.0)

    def _listen_once(self) -> None:
        url = self.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True, connect_timeout=10, **ALIVE) as connection:
            connection.add_notify_handler(lambda notice: self._heard(notice.payload))
            connection.execute(f"LISTEN {runner_changes.CHANNEL}")
            self.known.forget_all(listening=True)
            while not self._stopping.is_set():
                select.select([connection.fileno()], [], [], min(LISTEN_TICK, 1.0))
                connection.execute("SELECT 1")  # hands over what has arrived, and fails when the server is gone

    def _heard(self, payload: str) -> None:
        if payload == runner_changes.SWITCHES:
            self.known.forget_refusals()
            return
        number, managers, _ = payload.partition(runner_changes.MANAGERS)
        if not number.isdecimal():
            self.known.forget_all()
            self.heartbeats.forget_all()
            return
        self.known.forget(int(number))
        if managers:
            self.heartbeats.forget_runner(int(number))


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
