"""A large demo: a hundred thousand runners and all that belongs to them, copied into the tables piece by piece."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import Queue
from typing import Any, TypeVar, cast

import psycopg
from sqlalchemy import Connection, func, select, text
from sqlalchemy.orm import Session

from portal.database import now
from portal.demo import demo_story
from portal.demo.demo_story import ACTOR
from portal.demo.scale_jobs import Work
from portal.demo.scale_plan import TABLES, Plan, sizes
from portal.demo.scale_rows import Copied, Organisation
from portal.demo.scale_trail import EVENT_COLUMNS, LINK_COLUMNS, Trail, links
from portal.domain import audit
from portal.domain.errors import Invalid
from portal.domain.jobs import job_classes, job_definitions, job_partitions
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.scopes import INSTANCE
from portal.domain.vault import Vault
from portal.models import AuditEvent

FILLED = "demo_filled"
SMALLEST, LARGEST = 0.1, 1000.0
PIECE = 50_000  # rows that are made and committed together
CHUNK = 1000  # rows that go over the wire together
_FILLING = 0x706F7274616C05  # advisory lock of the connection: two fillings at once would fill twice
_CHAIN = 31641693411434500  # the lock that keeps the trail's chain in one line (migration 0003)
_TRIGGERS = (("audit_events", "audit_chain"), ("audit_links", "audit_append_only"))
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one part is: rows of how many, and where it went on from when it was interrupted before."""

    part: str
    rows: int
    of: int
    begun_at: int


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the filling. `make` is given two numbers and makes the rows between, before `store` stores them."""

    name: str
    rows: int
    make: Callable[[int, int], Any]
    store: Callable[[int, Any], None]


def fill(session: Session, scale: float, job_vault: Vault) -> Iterator[Progress]:
    """Fill the tables, from where an interrupted filling has stopped. The caller commits after each progress.

    Nothing that exists is changed; what is stored after each progress is whole. The session is of one connection
    from beginning to end. Raises Invalid for a portal that holds something else than the demo, or one of another
    scale; nothing is yielded when all is there.
    """
    if not session.scalar(select(func.pg_try_advisory_lock(_FILLING))):
        raise _wrong("This portal is being filled at this moment by somebody else.")
    try:
        filling = _Filling(session, _plan(session, scale), job_vault)
        done = _done(session)
        session.commit()
        for part in filling.parts():
            begun_at = done.get(part.name, 0)
            for rows in filling.fill(part, begun_at):
                yield Progress(part.name, rows, part.rows, begun_at)
    finally:
        session.rollback()
        session.execute(select(func.pg_advisory_unlock(_FILLING)))


def _wrong(sentence: str) -> Invalid:
    return Invalid({"scale": [sentence]})


def require(session: Session, scale: float) -> dict[str, int] | None:
    """The first ids of the filling that was begun here; None where one can begin.

    Raises Invalid for a scale that is none or not the one that was begun with, and for a portal that holds groups,
    projects or runners that are not the demo's, deleted ones too.
    """
    if not SMALLEST <= scale <= LARGEST:
        raise _wrong(f"SCALE is a number from {SMALLEST:g} to {LARGEST:g}; 100 is the portal of a large company.")
    for told in _told(session):
        if "first_ids" in told:
            if told["scale"][1] != f"{scale:g}":
                raise _wrong(
                    f"This portal was filled with SCALE={told['scale'][1]}. Say the same again to go on, or fill an "
                    "empty portal: set PORTAL_DATA_DIR to a new folder, or DATABASE_URL to an empty database."
                )
            return cast(dict[str, int], told["first_ids"][1])
    if demo_story.is_among_others(session):
        raise _wrong(
            "This portal has groups, projects or runners that are not the demo's, maybe deleted ones. Nothing was "
            "changed. Fill an empty portal instead: set PORTAL_DATA_DIR to a new folder, or DATABASE_URL to an empty "
            "database."
        )
    return None


def _plan(session: Session, scale: float) -> Plan:
    """The plan of the filling that was begun here, or of a new one: its ids are taken now."""
    first = require(session, scale)
    if first is None:
        first = _take_ids(session, scale)
        begun = {"scale": (None, f"{scale:g}"), "first_ids": (None, first)}
        audit.record(session, ACTOR, FILLED, INSTANCE, INSTANCE, begun)
    return Plan(scale, first)


def _told(session: Session) -> Sequence[dict[str, Any]]:
    """What the trail tells of the fillings there were."""
    ours = (AuditEvent.actor_kind == ACTOR.kind) & (AuditEvent.actor_name == ACTOR.name)
    query = select(AuditEvent.changes).where(AuditEvent.action == FILLED, ours)
    return session.scalars(query.order_by(AuditEvent.id)).all()


def _done(session: Session) -> dict[str, int]:
    """How far each part is."""
    return {told["part"][1]: told["rows"][1] for told in _told(session) if "part" in told}


def _take_ids(session: Session, scale: float) -> dict[str, int]:
    """Ids in one row for each kind, so that what belongs together is found by counting: the first of each."""
    wanted = sizes(scale)
    machines = Plan(scale, dict.fromkeys(TABLES, 1)).machines_before[-1]
    wanted |= {"tokens": wanted["runners"], "definitions": wanted["jobs"], "machines": machines}
    first = {}
    for name, table in TABLES.items():
        session.execute(text(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))
        sequence = session.scalar(select(func.pg_get_serial_sequence(table, "id")))
        first[name] = int(session.scalar(select(func.nextval(sequence))) or 0)
        session.execute(select(func.setval(sequence, first[name] + wanted[name])))
    return first


def count_all(connection: Connection) -> None:
    """Let PostgreSQL count anew what it plans by, and note which pages every transaction sees; outside of one."""
    for table in (*TABLES.values(), "audit_links", "routes", "members", "ci_job_logs", "ci_pending_builds"):
        connection.execute(text(f"VACUUM (ANALYZE) {table}"))


class _Filling:
    """One filling: what is made of the plan, and how it is stored."""

    def __init__(self, session: Session, plan: Plan, job_vault: Vault) -> None:
        self.session, self.plan, at = session, plan, now()
        present = at.timestamp()
        job_partitions.make_ahead(session, at)
        secrets = job_definitions.stored(NewJob(name="nothing secret", script=("true",)), job_vault).ciphertext
        self.rows = Organisation(plan, present)
        self.work = Work(plan, present, job_partitions.current(session, at), secrets)
        self.trail = Trail(plan, self.work, present)

    def parts(self) -> Iterator[Part]:
        """In the order in which they need each other."""
        size, rows, work = self.plan.sizes, self.rows, self.work
        yield self._copied("people", size["people"], rows.people)
        yield self._copied("groups", size["groups"], rows.groups)
        yield self._copied("projects", size["projects"], rows.projects)
        yield self._copied("members", size["people"], rows.members)
        yield self._copied("runners", size["runners"], rows.runners)
        yield self._copied("machines", self.plan.machines_before[-1], rows.machines)
        yield self._copied("jobs", size["jobs"] - work.waiting, work.taken)
        yield Part("jobs that wait", work.waiting, self._queued, self._store)
        yield Part("trail", size["events"], self._told, self._store_told)

    def _copied(self, name: str, rows: int, make: Callable[[int, int], Iterable[Copied]]) -> Part:
        def made(start: int, stop: int) -> list[tuple[Copied, list[str]]]:
            return [(each, _chunks(each.rows)) for each in make(start, stop)]

        return Part(name, rows, made, self._store)

    def _queued(self, start: int, stop: int) -> list[tuple[Copied, list[str]]]:
        return [(each, _chunks(each.rows)) for each in self.work.queued(start, stop)]

    def fill(self, part: Part, begun_at: int) -> Iterator[int]:
        """Store the part piece by piece, the next one being made meanwhile; yields how many rows there are."""
        if part.name == "jobs that wait" and begun_at < part.rows:
            for tags, protected in sorted(self.work.classes_that_wait()):
                self.work.classes[tags, protected] = job_classes.class_of(self.session, tags, protected)
            # Their numbers are held until the jobs are there: otherwise they would be swept away.
        starts = range(begun_at, part.rows, PIECE)
        ranges = [(start, min(part.rows, start + PIECE)) for start in starts]
        for (start, stop), made in zip(ranges, _ahead(ranges, part.make), strict=True):
            self.session.execute(text("SET LOCAL synchronous_commit = off"))
            part.store(start, made)
            told = {"part": (None, part.name), "rows": (start, stop)}
            audit.record(self.session, ACTOR, FILLED, INSTANCE, INSTANCE, told)
            yield stop

    def _store(self, _: int, made: list[tuple[Copied, list[str]]]) -> None:
        for copied, chunks in made:
            self._copy(copied.table, copied.columns, chunks)

    def _told(self, start: int, stop: int) -> tuple[list[str], list[str]]:
        told = list(self.trail.texts(start, stop))
        return _chunks(row for row, _ in told), [each for _, each in told]

    def _store_told(self, start: int, made: tuple[list[str], list[str]]) -> None:
        """Events and their links: the database would make each link by itself, ten times as slowly."""
        rows, texts = made
        for table, trigger in _TRIGGERS:
            self.session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}"))
        self.session.execute(select(func.pg_advisory_xact_lock(_CHAIN)))
        self._copy("audit_events", EVENT_COLUMNS, rows)
        head = self.session.execute(
            text("SELECT position, hash FROM audit_links ORDER BY position DESC LIMIT 1")
        ).first()
        position, last = (head.position, bytes(head.hash)) if head else (0, None)
        linked = links(texts, self.plan.first["events"] + start, position, last)
        self._copy("audit_links", LINK_COLUMNS, _chunks(linked))
        for table, trigger in _TRIGGERS:
            self.session.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER {trigger}"))

    def _copy(self, table: str, columns: Sequence[str], chunks: Iterable[str]) -> None:
        connection = cast(psycopg.Connection[Any], self.session.connection().connection.driver_connection)
        with connection.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
            for chunk in chunks:
                copy.write(chunk)


def _chunks(rows: Iterable[str]) -> list[str]:
    found = list(rows)
    return ["".join(found[start : start + CHUNK]) for start in range(0, len(found), CHUNK)]


def _ahead(ranges: Sequence[tuple[int, int]], make: Callable[[int, int], T]) -> Iterator[T]:
    """What is made of each range, one after the other, the next one while the last one is being used."""
    made: Queue[tuple[T | None, BaseException | None]] = Queue(maxsize=1)
    over = threading.Event()

    def work() -> None:
        for start, stop in ranges:
            if over.is_set():
                return
            try:
                made.put((make(start, stop), None))
            except BaseException as failure:  # told to whoever waits for it
                made.put((None, failure))
                return

    thread = threading.Thread(target=work, name="demo", daemon=True)
    thread.start()
    try:
        for _ in ranges:
            result, failure = made.get()
            if failure is not None:
                raise failure
            yield cast(T, result)
    finally:
        over.set()
