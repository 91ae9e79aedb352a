"""What one poll, one heartbeat and one job cost a server process and PostgreSQL, measured shortly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import orjson
import psutil
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from bench import machine_rows
from bench.load_clients import TOLD, HeldPolls, poll
from bench.machine_rows import Fleet
from bench.runs import Run
from bench.servers import cpu_of, worker_of
from portal.database import now
from portal.domain import scopes
from portal.domain.jobs import jobs, queue_news
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.jobs.queue_news import Announcement
from portal.domain.machines.runner_managers import Contact
from portal.models import QueueScope, RunnerManager
from tests.api.processes import Process
from tests.cast import JOB_VAULT, SYSTEM, Cast
from tests.portals import RunningPortal

EACH = 10  # machines of each runner
PAUSE = 3.0  # seconds from an answer to a machine's next poll: gitlab-runner's check_interval
ANNOUNCED = 300  # announcements that are counted together
BATCHES = 8  # of heartbeats, of each kind
CHECKPOINT = 300.0  # seconds between two of PostgreSQL's, as it comes
PAGE = 8192


@dataclass(frozen=True)
class Costs:
    """Seconds of CPU, of a server process or (`db_…`) of PostgreSQL; bytes of memory and of write-ahead log."""

    idle: float  # of each second, of a process that nobody calls
    first: float  # of a machine that the process does not know: looked up, and written at once
    poll: float  # answered at once, its heartbeat written
    held: float  # answered at the hold's end, its heartbeat written
    hear: float  # of each process, for an announced job that none of its polls may take
    vain: float  # of a held poll that looks for a job which another has taken
    job: float  # handed out to a held poll and reported as done
    db_idle: float  # for each server process
    db_row: float  # of a machine whose heartbeat is written
    db_runner: float  # of a runner, and its token, that any of these machines are of
    db_vain: float
    db_job: float  # submitted, handed out and reported
    commit: float  # seconds, from the lock that announcements share to the end of the commit
    wal_row: float
    wal_runner: float
    wal_job: float
    hot_rows: float  # share of the heartbeats that touched no index
    memory: float  # of a process without polls
    memory_held: float  # of each held poll


@dataclass(frozen=True)
class Window:
    """What was used within so many seconds."""

    seconds: float
    polls: int
    cpu: float
    db_cpu: float
    wal: int

    @property
    def rate(self) -> float:
        return self.polls / self.seconds


class Meter:
    """One portal of one process, its database, and what both have used."""

    def __init__(self, run: Run, engine: Engine, portal: RunningPortal) -> None:
        self.engine, self.portal = engine, portal
        handle = run.server.handle
        self._postmaster = psutil.Process(handle.get_pid()) if handle is not None else None

    def db_cpu(self) -> float:
        """Of all processes of the database server. One that ends takes its share with it: few do."""
        if self._postmaster is None:
            raise RuntimeError("The fleet is calibrated on a database of the run's own: unset TEST_DATABASE_URL")
        found = 0.0
        for process in (self._postmaster, *self._postmaster.children()):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            found += float(times.user + times.system)
        return found

    def wal(self) -> int:
        """Bytes of write-ahead log so far."""
        with self.engine.connect() as connection:
            return int(connection.execute(text("SELECT pg_current_wal_insert_lsn() - '0/0'")).scalar_one())

    def memory(self) -> float:
        return float(worker_of(self.portal).memory_info().rss)

    def window(self, seconds: float, fleet: HeldPolls | None = None) -> Window:
        """What is used from now on, while these machines poll, or nobody does."""
        return self.during(lambda: time.sleep(seconds), fleet)

    def during(self, act: Callable[[], None], fleet: HeldPolls | None = None) -> Window:
        """What is used until this is done."""
        if fleet is not None:
            fleet.drain()
        began, cpu, db_cpu, wal = time.monotonic(), cpu_of(self.portal), self.db_cpu(), self.wal()
        act()
        polls = len(fleet.drain()) if fleet is not None else 0
        took = time.monotonic() - began
        return Window(took, polls, cpu_of(self.portal) - cpu, self.db_cpu() - db_cpu, self.wal() - wal)


@contextmanager
def metered(run: Run, url: str, hold: float) -> Iterator[Meter]:
    """A portal of one process that holds polls so many seconds."""
    settings = {"PORTAL_WORKERS": "1", "PORTAL_THREADS": "4", "PORTAL_POLL_HOLD": f"{hold:.0f}"}
    with run.engine(url) as engine, run.portal(url, **settings) as portal:
        yield Meter(run, engine, portal)


def made_known(run: Run, meter: Meter, fleet: Fleet, machines: int) -> Window:
    """Let the process hear of each machine, which costs more the first time. None of these polls is held."""

    def hear() -> None:
        poll(meter.portal.url, run.folder, fleet.machines[:machines], {"rounds": "1"}, echo=False)

    first = meter.during(hear)
    hear()
    time.sleep(2)
    return first


def playing(
    run: Run, meter: Meter, fleet: Fleet, machines: int, pause: float, *, hold: float = 0, report: bool = False
) -> HeldPolls:
    """So many machines of the fleet that poll, wait a moment and poll again."""
    asked = {"pause": f"{pause}s", "hold": f"{hold:.0f}s", "report": str(report).lower()}
    return HeldPolls(meter.portal.url, run.folder, fleet.machines[:machines], **asked)


def immediate(run: Run, meter: Meter, fleet: Fleet, machines: int, pause: float, seconds: float) -> Window:
    """So many machines whose polls are answered at once; the first ones are not counted."""
    with playing(run, meter, fleet, machines, pause) as polls:
        time.sleep(2 * pause + 1)
        return meter.window(seconds, polls)


@dataclass(frozen=True)
class Slope:
    """What each poll costs, from a smaller and a larger fleet: what does not grow with them is not theirs."""

    smaller: Window
    larger: Window

    def of(self, what: str) -> float:
        used = [float(getattr(each, what)) / each.seconds for each in (self.smaller, self.larger)]
        return max(0.0, (used[1] - used[0]) / (self.larger.rate - self.smaller.rate))


@dataclass(frozen=True)
class JobCosts:
    """Of held polls and of jobs."""

    held: float
    hear: float
    vain: float
    job: float
    db_vain: float
    db_job: float
    commit: float
    wal_job: float
    memory: float
    memory_held: float


def with_jobs(run: Run, url: str, fleet: Fleet, machines: int, seconds: float, number: int) -> JobCosts:
    """Machines that are held, then announcements, then jobs."""
    hold = 5
    with metered(run, url, hold) as meter, run.session(url) as session:
        made_known(run, meter, fleet, machines)
        memory, at_rest = meter.memory(), meter.window(seconds / 2)
        with playing(run, meter, fleet, machines, 0.1, hold=hold, report=True) as polls:
            time.sleep(hold + 1)
            waiting = meter.window(seconds, polls)
            memory_held = (meter.memory() - memory) / machines
            group = session.execute(text("SELECT id FROM namespaces WHERE path = 'acme'")).scalar_one()
            heard, _ = _announced(meter, session, polls, group + 1000)
            vain, commits = _announced(meter, session, polls, group)
            done = _jobs_done(meter, session, polls, number)
    each = max(0.0, (waiting.cpu / waiting.seconds - at_rest.cpu / at_rest.seconds) / waiting.rate)
    hear = _beside(heard, waiting, "cpu") / ANNOUNCED
    return JobCosts(
        held=each,
        hear=hear,
        vain=_beside(vain, waiting, "cpu") / ANNOUNCED - hear,
        job=_beside(done, waiting, "cpu") / number,
        db_vain=(_beside(vain, waiting, "db_cpu") - _beside(heard, waiting, "db_cpu")) / ANNOUNCED,
        db_job=_beside(done, waiting, "db_cpu") / number,
        commit=commits,
        wal_job=_beside(done, waiting, "wal") / number,
        memory=memory,
        memory_held=memory_held,
    )


def _beside(window: Window, usual: Window, what: str) -> float:
    """What was used more than the same machines use in the same time when nothing happens."""
    usually = getattr(usual, what) / usual.seconds
    return max(0.0, float(getattr(window, what) - usually * window.seconds))


def _announced(meter: Meter, session: Session, polls: HeldPolls, group_id: int) -> tuple[Window, float]:
    """Announcements of jobs that are not there, one a commit, and the seconds that each commit took."""
    took = []

    def announce() -> None:
        for _ in range(ANNOUNCED):
            queue_news.announce(session, [Announcement(1, ((QueueScope.GROUP, group_id),))])
            began = time.monotonic()
            session.commit()
            took.append(time.monotonic() - began)
        time.sleep(1)

    return meter.during(announce, polls), median(took)


def _jobs_done(meter: Meter, session: Session, polls: HeldPolls, number: int) -> Window:
    """Jobs from their submission to their end, one submission each."""
    project = scopes.find_project(session, "acme/web")

    def submit() -> None:
        already = polls.counts()["reported"]
        for _ in range(number):
            jobs.submit(session, SYSTEM, project, NewJob("build", ("make",)), JOB_VAULT)
            session.commit()
        deadline = time.monotonic() + 60
        while polls.counts()["reported"] - already < number:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not all of {number} jobs were reported: {polls.counts()}")
            time.sleep(0.1)

    return meter.during(submit, polls)


def fleet_of(run: Run, url: str, machines: int) -> Fleet:
    """Runners of the group acme with ten machines each, which have polled before."""
    with run.session(url) as session:
        return machine_rows.make(Cast(session), runners=machines // EACH, each=EACH)


@dataclass(frozen=True)
class RowCosts:
    """Of writing heartbeats, for each machine and for each runner that they are of."""

    db_row: float
    db_runner: float
    wal_row: float
    wal_runner: float
    hot_rows: float


def of_rows(run: Run, meter: Meter, url: str) -> RowCosts:
    """Heartbeats written by the portal's own code: of all machines, and of one machine of each runner."""
    process = Process(url)
    try:
        with run.session(url) as session:
            rows = session.execute(select(RunnerManager.runner_id, RunnerManager.token_id, RunnerManager.system_xid))
            everybody = [(row.runner_id, row.token_id or 0, row.system_xid) for row in rows]
        each = list({row[0]: row for row in everybody}.values())
        meter.during(lambda: _beats(process, everybody, 1))  # PostgreSQL has these pages in its memory from now on
        hot = _hot(meter.engine)
        many = meter.during(lambda: _beats(process, everybody, BATCHES))
        few = meter.during(lambda: _beats(process, each, BATCHES))
        rate = _hot(meter.engine)
    finally:
        process.close()
    runners, machines = len(each) * BATCHES, len(everybody) * BATCHES

    def solved(what: str) -> tuple[float, float]:
        """Of a machine and of a runner: `many` had all machines of each runner, `few` had one of each."""
        all_of_them, one_each = float(getattr(many, what)), float(getattr(few, what))
        row = max(0.0, (all_of_them - one_each) / (machines - runners))
        return row, max(0.0, one_each / runners - row)

    db, wal = solved("db_cpu"), solved("wal")
    written = rate[0] - hot[0]
    return RowCosts(db[0], db[1], wal[0], wal[1], (rate[1] - hot[1]) / written if written else 0.0)


def _beats(process: Process, rows: Sequence[tuple[int, int, str]], batches: int) -> None:
    for _ in range(batches):
        _collect(process, rows)
        process.background.write_heartbeats()


def _collect(process: Process, rows: Sequence[tuple[int, int, str]]) -> None:
    info = orjson.loads(TOLD)
    for runner_id, token_id, system_xid in rows:
        facts = process.heartbeats.facts_of(runner_id, system_xid, info)
        contact = Contact(runner_id, token_id, system_xid, now(), "192.0.2.7", polled=True, facts=facts)
        if not process.heartbeats.note(contact, info):
            process.heartbeats.remember(contact, info)
            process.heartbeats.note(contact, info)


def _hot(engine: Engine) -> tuple[int, int]:
    """How many rows of machines were written so far, and how many of them touched no index."""
    time.sleep(1.5)  # until the connection that wrote them has told
    query = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'ci_runner_machines'"
    with engine.connect() as connection:
        row = connection.execute(text(query)).one()
        return int(row[0]), int(row[1])


def together(first: float, idle: Window, slope: Slope, rows: RowCosts, more: JobCosts) -> Costs:
    """All that was measured."""
    return Costs(
        idle=idle.cpu / idle.seconds,
        first=first,
        poll=slope.of("cpu"),
        held=more.held,
        hear=more.hear,
        vain=max(0.0, more.vain),
        job=more.job,
        db_idle=idle.db_cpu / idle.seconds,
        db_row=rows.db_row,
        db_runner=rows.db_runner,
        db_vain=max(0.0, more.db_vain),
        db_job=more.db_job,
        commit=more.commit,
        wal_row=rows.wal_row,
        wal_runner=rows.wal_runner,
        wal_job=more.wal_job,
        hot_rows=rows.hot_rows,
        memory=more.memory,
        memory_held=more.memory_held,
    )
