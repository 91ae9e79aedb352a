"""What runs beside the requests in every server process: heartbeats out, changes in, long acts on."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol

import orjson
import psycopg
from flask import Flask
from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from portal.database import db, now
from portal.domain.bulk import bulk_acts
from portal.domain.jobs import log_watches, lost_jobs, queue_news, waiting_jobs
from portal.domain.jobs.job_classes import KnownClasses
from portal.domain.jobs.log_watches import LogWatches
from portal.domain.jobs.lost_jobs import Attention, Look, Patience
from portal.domain.jobs.queue_news import Announcement, QueueNews
from portal.domain.last_uses import LastUses
from portal.domain.machines import runner_managers
from portal.domain.machines.heartbeats import Heartbeats
from portal.domain.machines.known_runners import KnownRunners
from portal.domain.people import access_tokens, user_sessions
from portal.domain.runners import runner_changes
from portal.housekeeping import Housekeeping
from portal.models import QueueScope

log = logging.getLogger(__name__)

WORK_EVERY = 0.5  # seconds between two looks for bulk acts that are not over
WRITE_EVERY = 1.0  # seconds between two writes of heartbeats; pages are at most two seconds behind
GIVE_UP_EVERY = 5.0  # seconds between two looks for lost jobs
LOOK_EVERY = 30.0  # seconds between two looks for jobs that wait although somebody held could take them
MOST_LOOKED_FOR = 100  # jobs of a class, at a time
HELLO = "portal_hello"  # the channel on which a process makes sure that it hears
HEARD_WITHIN = 5.0  # seconds; also when others announce much at the moment
LISTEN_TICK = 5.0  # seconds after which the listening connection is asked whether it still lives
STOP_TICK = 1.0  # seconds after which a stop is noticed
# A network that swallows packets without a word must not leave an old memory looking fresh.
ALIVE: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
TIDY_EVERY = 600.0  # seconds; stale runners are looked after as often, and each scope's at most once an hour


class Holder(Protocol):
    """Who holds polls in this process, and is told of what they wait for. From any thread."""

    def queued(self, said: Announcement) -> None:
        """Jobs can be had."""

    def changed(self, runner_id: int | None) -> None:
        """A runner changed; None for all of them."""

    def held_scopes(self) -> Sequence[tuple[QueueScope, int]]:
        """Where jobs would have to appear to be of use to anybody."""


class Background:
    """The threads of one server process. `start` once, `stop` once; nothing collected is lost by a stop.

    `holder` is told what is announced, after the memory of the process has it.
    """

    def __init__(self, app: Flask, holder: Holder | None = None) -> None:
        self.holder = holder
        with app.app_context():
            self.engine = db.engine
        self.heartbeats: Heartbeats = app.extensions["heartbeats"]
        self.known: KnownRunners = app.extensions["known_runners"]
        self.session_uses: LastUses = app.extensions["session_uses"]
        self.token_uses: LastUses = app.extensions["token_uses"]
        self.machine_uses: LastUses = app.extensions["machine_uses"]
        self.log_watches: LogWatches = app.extensions["log_watches"]
        self.news: QueueNews = app.extensions["queue_news"]
        self.classes: KnownClasses = app.extensions["known_classes"]
        self._stopping = threading.Event()
        self.housekeeping = Housekeeping(self.engine, app.config["PORTAL"], stopping=self._stopping.is_set)
        settings = app.config["PORTAL"]
        self.listen_url = settings.listen_url
        self.patience = Patience(unspoken=settings.job_taken_back, silent=settings.job_silent)
        self.attention = Attention()
        self._parent = os.getppid()
        self._threads = [
            threading.Thread(target=self._repeat, args=(self.write_heartbeats, WRITE_EVERY), name="heartbeats"),
            threading.Thread(target=self._repeat, args=(self.write_session_uses, WRITE_EVERY), name="session-uses"),
            threading.Thread(target=self._repeat, args=(self.write_token_uses, WRITE_EVERY), name="token-uses"),
            threading.Thread(target=self._repeat, args=(self.write_machine_uses, WRITE_EVERY), name="machine-uses"),
            threading.Thread(target=self._repeat, args=(self.write_log_watches, WRITE_EVERY), name="log-watches"),
            threading.Thread(target=self._listen, name="runner-changes"),
            threading.Thread(target=self._repeat, args=(self.look_for_waiting, LOOK_EVERY), name="waiting-jobs"),
            threading.Thread(target=self._repeat, args=(self.work_on_bulk_acts, WORK_EVERY), name="bulk-acts"),
            threading.Thread(target=self._repeat, args=(self.give_up_lost_jobs, GIVE_UP_EVERY), name="lost-jobs"),
            threading.Thread(target=self._repeat, args=(self.housekeeping.tidy_up, TIDY_EVERY), name="housekeeping"),
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
        self._guarded(self.write_token_uses)
        self._guarded(self.write_machine_uses)
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
                unwritten = runner_managers.write_heartbeats(session, contacts, _json)
                session.commit()
        except Exception:
            self.heartbeats.put_back(contacts)
            raise
        self.heartbeats.forget(unwritten.missing)
        self.heartbeats.tell_again(unwritten.late)
        return len(contacts) - len(unwritten.missing)

    def write_session_uses(self) -> None:
        """Write when sessions were used since the last time; losing a second of that is no loss."""
        if uses := self.session_uses.take():
            with Session(self.engine) as session:
                user_sessions.write_uses(session, uses)
                session.commit()

    def write_token_uses(self) -> None:
        """Write when access tokens were used since the last time; losing a second of that is no loss."""
        if uses := self.token_uses.take():
            with Session(self.engine) as session:
                access_tokens.write_uses(session, uses)
                session.commit()

    def write_machine_uses(self) -> None:
        """Write when machines spoke of their jobs since the last time: whoever runs one may not ask for another."""
        if uses := self.machine_uses.take():
            with Session(self.engine) as session:
                runner_managers.write_job_contacts(session, uses)
                session.commit()

    def write_log_watches(self) -> None:
        """Write which logs were looked at since the last time; their machines then send what they have sooner."""
        if watched := self.log_watches.take():
            with Session(self.engine) as session:
                log_watches.write(session, watched)
                session.commit()

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

    def look_for_waiting(self) -> int:
        """Wake held polls for jobs that wait. Nobody should be woken so: it bounds what an announcement missed costs.

        Returns how many announcements were made again.
        """
        scopes = self.holder.held_scopes() if self.holder is not None else ()
        if self.holder is None or not scopes:
            return 0
        with Session(self.engine) as session:
            found = waiting_jobs.waiting(session, scopes, MOST_LOOKED_FOR)
        for said in found:
            self.holder.queued(said)
        return len(found)

    def give_up_lost_jobs(self) -> int:
        """Take jobs back of which nobody heard, each in a transaction of its own. Returns how many were given up.

        Several processes may be at it: each job is held by one of them.
        """
        moment = now()
        look = Look(moment, self.attention.since(moment), self.patience)
        try:
            with Session(self.engine) as session:
                ids = lost_jobs.find(session, look)
        except Exception:
            self.attention.lapse()
            raise
        return sum([self._give_up(job_id, look) for job_id in ids])

    def _give_up(self, job_id: int, look: Look) -> bool:
        if self._stopping.is_set():
            return False
        try:
            with Session(self.engine) as session:
                loss = lost_jobs.give_up(session, job_id, look)
                session.commit()
        except Exception:  # the other jobs do not wait for this one
            log.exception("the lost job %d could not be given up; it is tried again", job_id)
            return False
        if loss is not None:
            log.warning("the job %d was given up: %s", job_id, loss)
        return loss is not None

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
            except (psycopg.Error, SQLAlchemyError) as failure:  # the second: of reading the mark
                log.warning("lost the connection that hears of runner changes: %s", failure)
            except Exception:  # deaf for ever would be worse than to hear it again
                log.exception("hearing of runner changes failed; it is tried again")
            finally:
                # Unheard changes may have happened: until we listen again, every look-up asks the database.
                self.news.stop()
                self.known.forget_all(listening=False)
                self.heartbeats.forget_all()
            self._stopping.wait(1.0)

    def _listen_once(self) -> None:
        url = make_url(self.listen_url or self.engine.url).set(drivername="postgresql")
        with psycopg.connect(
            url.render_as_string(hide_password=False), autocommit=True, connect_timeout=10, **ALIVE
        ) as connection:
            for channel in (runner_changes.CHANNEL, queue_news.CHANNEL, HELLO):
                connection.execute(f"LISTEN {channel}")
            self._make_sure_of(connection)
            with Session(self.engine) as session:
                mark = queue_news.present_mark(session)
            self.classes.forget()
            self._refresh_classes()
            self.news.start(mark)
            self.known.forget_all(listening=True)
            self._tell_changed(None)  # whoever is held may have missed something
            asked = monotonic()
            while not self._stopping.is_set():
                for notice in connection.notifies(timeout=STOP_TICK):
                    self._heard_on(notice)
                if monotonic() - asked >= LISTEN_TICK:  # a connection that is silent may be dead
                    connection.execute("SELECT 1")
                    asked = monotonic()

    def _make_sure_of(self, connection: psycopg.Connection[Any]) -> None:
        """Hear oneself. Behind a pooler that shares connections between transactions, nobody is heard, and no error
        says so: such a process must ask the database each time. Raises psycopg.Error when nothing is heard."""
        hello = uuid.uuid4().hex
        with Session(self.engine) as session:
            session.execute(text("SELECT pg_notify(:channel, :hello)"), {"channel": HELLO, "hello": hello})
            session.commit()
        until = monotonic() + HEARD_WITHIN
        while monotonic() < until and not self._stopping.is_set():
            for notice in connection.notifies(timeout=until - monotonic(), stop_after=1):
                if notice.payload == hello:
                    return
        raise psycopg.OperationalError(
            "it hears nothing. Behind a pooler in transaction mode, set PORTAL_LISTEN_URL to the database itself"
        )

    def _heard_on(self, notice: psycopg.Notify) -> None:
        if notice.channel == queue_news.CHANNEL:
            self._heard_of_jobs(notice.payload)
        elif notice.channel == runner_changes.CHANNEL:
            self._heard(notice.payload)

    def _heard_of_jobs(self, payload: str) -> None:
        said = queue_news.read(payload)
        if said is None:
            return
        self.news.hear(said, self.classes.expect)
        if self.holder is not None:
            self._refresh_classes()
            self.holder.queued(said)

    def _refresh_classes(self) -> None:
        """Here, where a query keeps no poll waiting."""
        with Session(self.engine) as session:
            self.classes.refresh(lambda: session)

    def _tell_changed(self, runner_id: int | None) -> None:
        if self.holder is not None:
            self.holder.changed(runner_id)

    def _heard(self, payload: str) -> None:
        if payload == runner_changes.SWITCHES:
            self.known.forget_refusals()
            return
        number, managers, _ = payload.partition(runner_changes.MANAGERS)
        if not number.isdecimal():
            self.known.forget_all()
            self.heartbeats.forget_all()
            self._tell_changed(None)
            return
        self.known.forget(int(number))
        if managers:
            self.heartbeats.forget_runner(int(number))
        self._tell_changed(int(number))


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
