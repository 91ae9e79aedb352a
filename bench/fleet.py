"""Fleets that no machine here can play: predicted by a simulation whose figures are measured in the same run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from math import ceil

from bench.figures import Figure
from bench.fleet_costs import (
    PAUSE,
    Costs,
    Slope,
    Window,
    fleet_of,
    immediate,
    made_known,
    metered,
    of_rows,
    together,
    with_jobs,
)
from bench.fleet_simulation import FULL, Fleet, Load, Plan, Seen, multiplied, processes_for
from bench.runs import Run

SIZES = (10_000, 100_000, 1_000_000)
HOLD = 50.0  # seconds, as PORTAL_POLL_HOLD comes
JOBS_EACH = 1.0  # jobs of a machine in an hour
BURST = 20  # jobs of a submission
MOST_HELD = 20_000  # machines of a process
MEASURED = (500, 1500)  # machines of the two smaller fleets
QUICK = 1.0  # seconds between their polls: as three times as many machines that poll every three seconds
PREDICTED = 2000  # machines of the fleet that is predicted, and then played as it is
IN_TIME = 1.0  # seconds between two writes of heartbeats


def figures(run: Run, measured: tuple[int, int] = MEASURED, predicted: int = PREDICTED) -> Iterator[Figure]:
    """Measure small fleets, predict a larger one and play it; then simulate those that cannot be played."""
    seconds = 20.0 if run.full else 9.0
    costs, slope, played = _measure(run, measured, predicted, seconds)
    _say(run, costs)
    yield _error(run, costs, slope, played, predicted)
    for machines in SIZES:
        yield from _planned(run, costs, machines)


def _measure(run: Run, measured: tuple[int, int], predicted: int, seconds: float) -> tuple[Costs, Slope, Window]:
    with run.database() as url:
        fleet = fleet_of(run, url, predicted)
        with metered(run, url, hold=0) as meter:
            first = made_known(run, meter, fleet, predicted).cpu / predicted
            idle = meter.window(seconds)
            smaller, larger = (immediate(run, meter, fleet, number, QUICK, seconds) for number in measured)
            played = immediate(run, meter, fleet, predicted, PAUSE, 2 * seconds)
            again = immediate(run, meter, fleet, measured[0], QUICK, seconds)
            rows = of_rows(run, meter, url)
        more = with_jobs(run, url, fleet, measured[0], seconds, number=300 if run.full else 100)
    slope = Slope(_both(smaller, again), larger)
    return together(first, idle, slope, rows, more), slope, played


def _both(one: Window, other: Window) -> Window:
    """Two windows of the same fleet, before and after the others, as one."""
    return Window(*(getattr(one, name) + getattr(other, name) for name in Window.__dataclass_fields__))


def _error(run: Run, costs: Costs, slope: Slope, played: Window, machines: int) -> Figure:
    """How far the prediction of a fleet is from what the fleet, played, has used: the worst of three."""
    # A busy machine plays them slower than asked; what is predicted is what these polls cost, as many as there were.
    plan = Plan(machines, 0, machines / played.rate, jobs=0, burst=1, processes=1, db_cores=2, reached=1)
    seen = Fleet(plan, costs).run(seconds=20)
    cpu = seen.app[0] / 20 - costs.idle + _whoever_polls(slope, "cpu")
    worst = 0.0
    for what, predicted in {"cpu": cpu, "db_cpu": seen.db / 20, "wal": seen.wal / 20}.items():
        real = getattr(played, what) / played.seconds
        run.say(f"  {machines} machines, {what} a second: predicted {predicted:.4g}, played {real:.4g}")
        worst = max(worst, abs(predicted - real) / real)
    note = f"{machines} machines in one process, {played.rate:.0f} polls/s; CPU of both servers and log, the worst"
    return Figure("fleet_prediction_error", worst, 0.25, "lower", note=note)


def _whoever_polls(slope: Slope, what: str) -> float:
    """What a fleet uses each second however many machines it has: the line through both, where nobody polls."""
    return max(0.0, float(getattr(slope.larger, what) / slope.larger.seconds - slope.of(what) * slope.larger.rate))


def plan_of(costs: Costs, machines: int, *, hold: float = HOLD, pause: float = PAUSE) -> Plan:
    """So many processes and cores that none is busier than planned, on average."""
    rate = machines / (hold + pause)
    poll = costs.held if hold else costs.poll
    jobs = machines * JOBS_EACH / 3600
    # Each process hears of each submission, so what that costs is taken off what it can do beside.
    overhead = costs.idle + jobs / BURST * costs.hear + BURST * jobs / BURST * costs.vain
    processes = processes_for(machines, rate, poll + costs.job * jobs / rate, min(overhead, FULL / 2), MOST_HELD)
    first = Plan(machines, hold, pause, jobs, BURST, processes, db_cores=1, reached=processes)
    cores = max(2, ceil(multiplied(first, costs).db / FULL))
    return Plan(machines, hold, pause, jobs, BURST, processes, cores, reached=processes)


def _planned(run: Run, costs: Costs, machines: int) -> Iterator[Figure]:
    plan = plan_of(costs, machines)
    events = (2_000_000 if run.full else 500_000) / (plan.polls + plan.jobs * plan.processes * 4)
    seconds = max(3.0, min(30.0, events))
    seen = Fleet(plan, costs).run(seconds)
    _tell(run, plan, costs, seen, seconds)
    at_once = plan_of(costs, machines, hold=0)
    _tell_load(run, f"{machines:,} machines, not held", at_once, multiplied(at_once, costs))
    crowded = Fleet(replace(plan, jobs=0, shared=True), costs).run(4)
    again = plan.machines / plan.processes * costs.first
    run.say(f"    all machines known again {again:.0f} s after the database was away")
    run.say(f"    longest write of heartbeats {max(crowded.batches):.2f} s where one runner has machines everywhere")
    name = f"fleet of {machines:,}"
    busiest = max(seen.app) / seconds
    yield Figure(f"{name}, share of a core that the busiest process uses", busiest, 0.8, "lower")
    yield Figure(f"{name}, answer of a poll, p99", Seen.at(seen.answers, 0.99) * 1000, 50, "lower", unit="ms")
    yield Figure(f"{name}, job handed out, p99", Seen.at(seen.wakes, 0.99) * 1000, 500, "lower", unit="ms")
    yield Figure(f"{name}, longest write of heartbeats", max(seen.batches), IN_TIME, "lower", unit="s")
    yield Figure(f"{name}, jobs that nobody got", 1 - seen.handed / max(1, seen.queued), 0.05, "lower")


def _tell(run: Run, plan: Plan, costs: Costs, seen: Seen, seconds: float) -> None:
    name = f"{plan.machines:,} machines, held"
    _tell_load(run, name, plan, multiplied(plan, costs))
    memory = plan.machines * costs.memory_held + plan.processes * costs.memory
    run.say(
        f"    simulated {seconds:.1f} s: {sum(seen.app) / seconds:.2f} cores of processes, {seen.db / seconds:.2f} "
        f"of PostgreSQL, {seen.rows / seconds:,.0f} rows/s, {seen.vain / max(1, seen.queued):.1f} vain looks a job, "
        f"memory {memory / 2**30:.1f} GiB"
    )


def _tell_load(run: Run, name: str, plan: Plan, load: Load) -> None:
    run.say(
        f"  {name}: {plan.polls:,.0f} polls/s, {plan.jobs:,.1f} jobs/s, {plan.processes} processes, "
        f"{plan.connections:,} connections, {load.app:.1f} cores, PostgreSQL {load.db:.1f} cores, "
        f"{load.wal / 1e6:.1f} MB/s of log, {load.statements:,.0f} statements/s"
    )


def _say(run: Run, costs: Costs) -> None:
    for name, value in asdict(costs).items():
        run.say(f"    {name:12} {value:.6g}")
