"""Immediate polls: how many a second beside a bare Flask route, what they ask the database, what a refusal costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

from sqlalchemy import Engine, text

from bench import machine_rows, running_servers
from bench.figures import Figure
from bench.load_clients import Load, Machine, poll
from bench.machine_rows import Fleet
from bench.rounds import in_turn, medians
from bench.runs import Run
from bench.servers import BareServer, FlaskServer, cpu_of
from tests.cast import Cast
from tests.portals import RunningPortal

MACHINES = 10_000
UNKNOWN = 100  # tokens that belong to nobody: a fleet whose runners were deleted
WARM = 1  # seconds of polling before the counting
SETTINGS = {"PORTAL_WORKERS": "1", "PORTAL_THREADS": "4", "PORTAL_POLL_HOLD": "0"}
STATISTICS_LATE = 11  # seconds until PostgreSQL has counted what an idle connection did

# Triggers count statements, whatever number of rows they write.
COUNT_WRITES = """
CREATE SEQUENCE bench_writes;
CREATE FUNCTION bench_count() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM nextval('bench_writes'); RETURN NULL; END $$;
CREATE TRIGGER bench_count AFTER INSERT OR UPDATE OR DELETE ON ci_runner_machines
  FOR EACH STATEMENT EXECUTE FUNCTION bench_count();
"""


@dataclass(frozen=True)
class Stage:
    """What is measured: the portal, the same without its gate, a bare route, and whom the load generator plays."""

    run: Run
    engine: Engine
    fleet: Fleet
    portal: RunningPortal
    flask: RunningPortal
    bare: RunningPortal

    def load(self, server: RunningPortal, machines: tuple[Machine, ...], **asked: str) -> Load:
        return poll(server.url, self.run.folder, machines, asked)


def figures(run: Run, machines: int = MACHINES) -> Iterator[Figure]:
    """With --url the given servers beside a bare route; else everything, of a portal of this run's own."""
    if run.urls:
        yield from _side_by_side(run)
        return
    with ExitStack() as stack:
        stage = _set_up(run, stack, machines)
        yield from throughput(stage)
        yield from queries(stage)
        yield heartbeats(stage)
        yield from refusals(stage)


def _set_up(run: Run, stack: ExitStack, machines: int) -> Stage:
    url = stack.enter_context(run.database())
    with run.session(url) as session:
        fleet = machine_rows.make(Cast(session), runners=machines)
        session.connection().exec_driver_sql(COUNT_WRITES)
        session.commit()
    stage = Stage(
        run,
        stack.enter_context(run.engine(url)),
        fleet,
        stack.enter_context(run.portal(url, **SETTINGS)),
        stack.enter_context(FlaskServer(url, **SETTINGS)),
        stack.enter_context(BareServer(url, **SETTINGS)),
    )
    for server in (stage.portal, stage.flask):
        stage.load(server, fleet.machines, rounds="3").only(
            204
        )  # each machine's row, token and runner are known then
    return stage


def _length(run: Run) -> dict[str, str]:
    return {"time": "10s" if run.full else "4s", "warm": f"{WARM}s"}


def throughput(stage: Stage) -> Iterator[Figure]:
    """The three servers in turn, 64 keep-alive connections, every poll of the next machine."""
    asked = _length(stage.run)

    def side(name: str, server: RunningPortal) -> Callable[[], float]:
        def measure() -> float:
            before = cpu_of(server)
            load = stage.load(server, stage.fleet.machines, **asked).only(204)
            each = (cpu_of(server) - before) / (load.requests * (1 + WARM / load.seconds))
            stage.run.say(f"  {name}: {load}, the server about {each * 1e6:.0f} µs of CPU a poll")
            return load.rate

        return measure

    measured = in_turn(
        7 if stage.run.full else 3,
        {
            "bare": side("bare Flask route", stage.bare),
            "flask": side("the portal's Flask app alone", stage.flask),
            "portal": side("the portal", stage.portal),
        },
    )
    rate = medians(measured)
    told = {name: f"{each:,.0f} polls/s beside {rate['bare']:,.0f}" for name, each in rate.items()}
    yield Figure(
        "poll through the portal, of a bare route", rate["portal"] / rate["bare"], 2.0, "higher", note=told["portal"]
    )
    yield Figure(
        "poll through Flask alone, of a bare route", rate["flask"] / rate["bare"], 0.85, "higher", note=told["flask"]
    )


def queries(stage: Stage) -> Iterator[Figure]:
    """Transactions that polls add to those of a portal that nobody polls, in the same time."""
    machines = stage.fleet.machines
    rounds = {"rounds": "20" if stage.run.full else "10"}
    before = _transactions(stage.engine)
    time.sleep(10)
    at_rest = (_transactions(stage.engine) - before) / (10 + STATISTICS_LATE)
    sides = {
        "an idle poll": (machines, 204),
        "a poll with unknown token": (machine_rows.unknown(stage.fleet, different=UNKNOWN), 403),
        "a poll with mistyped token": (machine_rows.mistyped(stage.fleet), 403),
    }
    for name, (asked, status) in sides.items():
        before, began = _transactions(stage.engine), time.monotonic()
        load = stage.load(stage.portal, asked, **rounds).only(status)
        counted = _transactions(stage.engine) - before
        background = round(at_rest * (time.monotonic() - began))
        each = round(max(0, counted - background) / load.requests, 2)
        note = f"{counted} transactions beside {load.requests:,} polls; at rest it has {background} in that time"
        yield Figure(f"queries of {name}", each, 0, "lower", note=note)


def _transactions(engine: Engine) -> int:
    time.sleep(STATISTICS_LATE)
    with engine.connect() as connection:
        counted = text("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")
        return int(connection.execute(counted).scalar_one())


def heartbeats(stage: Stage) -> Figure:
    """Statements a second that write managers, while all machines poll as fast as they can."""
    seconds = 30 if stage.run.full else 10
    written = _writes(stage.engine)
    load = stage.load(stage.portal, stage.fleet.machines, time=f"{seconds}s", warm="0s").only(204)
    statements = _writes(stage.engine) - written
    note = (
        f"{statements} statements in {load.seconds:.0f} s, {load.requests:,} polls of {len(stage.fleet.machines):,}"
    )
    return Figure("statements a second that write heartbeats", statements / load.seconds, 2, "lower", note=note)


def _writes(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT last_value FROM bench_writes")).scalar_one())


def refusals(stage: Stage) -> Iterator[Figure]:
    """CPU time of the server process for a refused poll, of that for a good one."""
    wrong = {
        "unknown": machine_rows.unknown(stage.fleet, different=UNKNOWN),
        "mistyped": machine_rows.mistyped(stage.fleet),
    }

    def side(name: str, machines: tuple[Machine, ...], status: int) -> Callable[[], float]:
        def measure() -> float:
            before = cpu_of(stage.portal)
            load = stage.load(stage.portal, machines, time="3s", warm="0s").only(status)
            cost = (cpu_of(stage.portal) - before) / load.requests
            stage.run.say(f"  {name}: {cost * 1e6:.0f} µs of the server's CPU each, {load}")
            return cost

        return measure

    sides = {"good": side("good token", stage.fleet.machines, 204)}
    sides |= {name: side(f"{name} token", machines, 403) for name, machines in wrong.items()}
    cost = medians(in_turn(5 if stage.run.full else 3, sides))
    for name in wrong:
        note = f"{cost[name] * 1e6:.0f} µs of CPU beside {cost['good'] * 1e6:.0f}"
        yield Figure(f"poll with {name} token, of a good one", cost[name] / cost["good"], 1.0, "lower", note=note)


def _side_by_side(run: Run) -> Iterator[Figure]:
    """The servers of --url and a bare route of ours in turn. Ratios say something where all share one machine."""
    with ExitStack() as stack:
        fleet_of = running_servers.fleets_of(run, stack)
        bare = stack.enter_context(BareServer("postgresql://nobody@127.0.0.1/nothing", **SETTINGS))
        fleet_of[bare.url] = fleet_of[run.urls[0]]

        def side(url: str) -> Callable[[], float]:
            def measure() -> float:
                load = poll(url, run.folder, fleet_of[url], _length(run)).only(204)
                run.say(f"  {'bare Flask route' if url == bare.url else url}: {load}")
                return load.rate

            return measure

        for url in run.urls:
            poll(url, run.folder, fleet_of[url], {"rounds": "2"})
        measured = in_turn(7 if run.full else 3, {url: side(url) for url in (bare.url, *run.urls)})
    for url in run.urls:
        rate, beside = median(measured[url]), median(measured[bare.url])
        first = rate / median(measured[run.urls[0]])
        note = f"{rate:,.0f} polls/s beside {beside:,.0f}; {first:.2f} of the first server"
        yield Figure(f"poll at {url}, of a bare route", rate / beside, 2.0, "higher", note=note)
