"""A fleet in simulated time: polls, heartbeats and bursts of jobs over many server processes and one database."""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass, field
from math import ceil, expm1
from typing import Any

import simpy

from bench.fleet_costs import CHECKPOINT, PAGE, Costs
from portal.background import WRITE_EVERY

Steps = Generator[simpy.Event, Any, None]
FULL = 0.6  # of a core that is planned to be used: what is left takes the bursts
SLICE = 0.005  # seconds that a thread keeps the interpreter
COMMIT = 0.001  # seconds until the log is on a fast disk
ROWS_A_PAGE = 12  # machines on a page of their table
INDEXES_A_ROW = 7  # pages of indexes that a heartbeat touches when it is not a heap-only one


@dataclass(frozen=True)
class Plan:
    """A fleet and what serves it. `hold` 0: polls are answered at once, and come again after `pause` seconds.

    `jobs` a second in the whole fleet, `burst` of them in each submission. `reached` is in how many processes a
    submission finds polls that may take it.
    """

    machines: int
    hold: float
    pause: float
    jobs: float
    burst: int
    processes: int
    db_cores: int
    reached: int
    machines_a_runner: int = 10
    shared: bool = False  # a runner has so many machines that each batch of heartbeats has one of them

    @property
    def polls(self) -> float:
        """A second."""
        return self.machines / (self.hold + self.pause)

    @property
    def connections(self) -> int:
        """At most, with the four threads of each process as they come, and the one that listens."""
        return self.processes * (4 + 4 + 4 + 1)


@dataclass(frozen=True)
class Load:
    """What a fleet asks of its servers, multiplied out: cores, bytes a second, statements a second."""

    app: float
    db: float
    wal: float
    statements: float


def multiplied(plan: Plan, costs: Costs) -> Load:
    """Without any queue: the averages."""
    poll = costs.held if plan.hold else costs.poll
    runners = plan.processes * written_runners(plan, plan.polls / plan.processes)
    submissions = plan.jobs / plan.burst
    vain = submissions * max(0, plan.reached - 1) * plan.burst
    app = plan.processes * (costs.idle + submissions * costs.hear) + plan.polls * poll
    app += plan.jobs * costs.job + vain * costs.vain
    db = plan.processes * costs.db_idle + plan.polls * costs.db_row + runners * costs.db_runner
    db += plan.jobs * costs.db_job + vain * costs.db_vain
    wal = plan.polls * costs.wal_row + runners * costs.wal_runner + plan.jobs * costs.wal_job
    wal += full_pages(plan, costs)
    return Load(app, db, wal, statements=2 * plan.processes + JOB_STATEMENTS * plan.jobs + 2 * vain)


def written_runners(plan: Plan, rows: float) -> float:
    """How many runners so many heartbeats of one batch are of, when each process has machines of all of them."""
    runners = plan.machines / plan.machines_a_runner
    return runners * -expm1(-rows / runners)


JOB_STATEMENTS = 60  # of a job, from its submission to its end; counted by the tests of its parts


def full_pages(plan: Plan, costs: Costs) -> float:
    """Bytes a second of whole pages: the first time after a checkpoint that each of them is touched."""
    pages = plan.machines / ROWS_A_PAGE * (1 + (1 - costs.hot_rows) * INDEXES_A_ROW / 4)
    return min(pages / CHECKPOINT, plan.polls) * PAGE


def processes_for(machines: int, polls: float, poll: float, idle: float, most: int) -> int:
    """So many that none is busier than planned, and none has more than `most` machines."""
    return max(ceil(polls * poll / (FULL - idle)), ceil(machines / most), 2)


@dataclass
class Seen:
    """What happened in simulated time, in seconds and numbers."""

    answers: list[float] = field(default_factory=list)  # from a poll's end of waiting to its answer
    wakes: list[float] = field(default_factory=list)  # from a job's commit to the answer that hands it out
    batches: list[float] = field(default_factory=list)  # from taking heartbeats to their commit
    handed: int = 0
    vain: int = 0
    rows: int = 0
    queued: int = 0
    app: list[float] = field(default_factory=list)  # seconds of CPU of each process
    db: float = 0.0
    wal: float = 0.0

    @staticmethod
    def at(values: list[float], share: float) -> float:
        """The value that this share of them does not exceed."""
        ordered = sorted(values)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@dataclass
class Queue:
    """The jobs of one submission that nobody has yet."""

    left: int
    committed: float


class Fleet:
    """One run. Each process has one core to itself, as Python has one; PostgreSQL has several."""

    def __init__(self, plan: Plan, costs: Costs, seed: int = 1) -> None:
        self.plan, self.costs, self.seen = plan, costs, Seen(app=[0.0] * plan.processes)
        self.chance = random.Random(seed)  # noqa: S311
        self.world = simpy.Environment()
        self.cores = [simpy.PriorityResource(self.world, 1) for _ in range(plan.processes)]
        self.db = simpy.Resource(self.world, plan.db_cores)
        self.announcing, self.runner = simpy.Resource(self.world, 1), simpy.Resource(self.world, 1)
        self.heartbeats = [0] * plan.processes
        self.last = 0.0

    def run(self, seconds: float) -> Seen:
        """Let so much simulated time go by. In the last second no jobs come, so that all can be handed out."""
        self.last = seconds - 1
        for number in range(self.plan.processes):
            self.world.process(self._polls(number))
            self.world.process(self._writes(number))
        if self.plan.jobs:
            self.world.process(self._submissions())
        self.world.run(until=seconds)
        return self.seen

    def _works(self, number: int, cost: float, priority: int = 0) -> Steps:
        """One thread after the other, each for a slice of time: so Python lets them take turns."""
        self.seen.app[number] += cost
        while cost > 0:
            piece = min(cost, SLICE)
            with self.cores[number].request(priority) as turn:
                yield turn
                yield self.world.timeout(piece)
            cost -= piece

    def _asks(self, cost: float) -> Steps:
        with self.db.request() as turn:
            yield turn
            yield self.world.timeout(cost)
        self.seen.db += cost

    def _commits(self, cost: float) -> Steps:
        yield from self._asks(cost)
        yield self.world.timeout(COMMIT)

    def _polls(self, number: int) -> Steps:
        """Many machines that each come at regular times are, together, chance."""
        rate = self.plan.polls / self.plan.processes
        while True:
            yield self.world.timeout(self.chance.expovariate(rate))
            self.world.process(self._poll(number))

    def _poll(self, number: int) -> Steps:
        came = self.world.now
        yield from self._works(number, self.costs.held if self.plan.hold else self.costs.poll)
        self.heartbeats[number] += 1
        self.seen.answers.append(self.world.now - came)

    def _writes(self, number: int) -> Steps:
        yield self.world.timeout(self.chance.random())
        while True:
            # A machine that came twice since the last time is written once.
            began = self.world.now
            rows = min(self.heartbeats[number], self.plan.machines // self.plan.processes)
            self.heartbeats[number] = 0
            runners = written_runners(self.plan, rows)
            yield from self._works(number, self.costs.idle, priority=1)
            cost = self.costs.db_idle + rows * self.costs.db_row + runners * self.costs.db_runner
            if self.plan.shared:
                with self.runner.request() as turn:
                    yield turn
                    yield from self._commits(cost)
            else:
                yield from self._commits(cost)
            self.seen.rows += rows
            self.seen.wal += rows * self.costs.wal_row + runners * self.costs.wal_runner
            self.seen.batches.append(self.world.now - began)
            yield self.world.timeout(WRITE_EVERY)

    def _submissions(self) -> Steps:
        while self.world.now < self.last:
            yield self.world.timeout(self.chance.expovariate(self.plan.jobs / self.plan.burst))
            self.world.process(self._submission())

    def _submission(self) -> Steps:
        yield from self._asks(self.plan.burst * self.costs.db_job / 3)
        with self.announcing.request() as turn:
            yield turn
            yield self.world.timeout(self.costs.commit)
        self.seen.queued += self.plan.burst
        queue = Queue(self.plan.burst, self.world.now)
        reached = set(self.chance.sample(range(self.plan.processes), min(self.plan.reached, self.plan.processes)))
        for number in range(self.plan.processes):
            self.world.process(self._hears(number, queue, wakes=number in reached))

    def _hears(self, number: int, queue: Queue, *, wakes: bool) -> Steps:
        yield from self._works(number, self.costs.hear)
        if wakes and self.plan.hold:
            for _ in range(min(self.plan.burst, self.plan.machines // self.plan.processes)):
                self.world.process(self._looks(number, queue))

    def _looks(self, number: int, queue: Queue) -> Steps:
        """A woken poll: the first who look get the jobs; the others wait on."""
        yield from self._works(number, self.costs.vain)
        yield from self._asks(self.costs.db_vain)
        if queue.left:
            queue.left -= 1
            yield from self._works(number, max(0.0, self.costs.job / 2 - self.costs.vain))
            yield from self._asks(max(0.0, self.costs.db_job / 3 - self.costs.db_vain))
            self.seen.wakes.append(self.world.now - queue.committed)
            self.seen.handed += 1
            self.seen.wal += self.costs.wal_job
            yield from self._works(number, self.costs.job / 2)
            yield from self._asks(self.costs.db_job / 3)
            return
        self.seen.vain += 1
