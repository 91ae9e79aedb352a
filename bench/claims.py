"""Claims: what one costs with a short and with a very long queue, and how many are made beside a bare one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import psycopg

from bench import long_queues, rounds
from bench.claimers import Claimers, Task, claimers
from bench.figures import Figure
from bench.long_queues import MACHINE, Queue
from bench.pgbench import Pgbench, claim_as_sql, claim_values
from bench.runs import Run

SHORT, LONG, LONGEST = 10_000, 200_000, 1_000_000
MOST_GROWTH = 1.5
CLIENTS = 8
KINDS = (
    "common_tags",
    "rare_tag",
    "nothing_matching",
    "all_tags",
    "small_group",
    "many_projects",
    "many_projects_rare_tag",
    "many_projects_nothing",
)
BARE = """
BEGIN;
SELECT id FROM bare_queue ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED \\gset
DELETE FROM bare_queue WHERE id = :id;
END;
"""
MAKE_BARE = """
DROP TABLE IF EXISTS bare_queue;
CREATE TABLE bare_queue (id bigint PRIMARY KEY, payload text);
INSERT INTO bare_queue SELECT n, repeat('x', 40) FROM generate_series(1, 200000) n;
ANALYZE bare_queue;
"""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long each thing is measured."""

    rounds: int
    claims: int  # of each client, in each round and queue
    seconds: int  # of pgbench


def figures(run: Run) -> Iterator[Figure]:
    """Growth for every kind of runner, then rates of 8 clients beside the bare claim."""
    pace = Pace(5, 40, 8) if run.full else Pace(4, 15, 4)
    longest = LONGEST if run.full else LONG
    with long_queues.filled(run, SHORT) as short, long_queues.filled(run, longest) as long, claimers(CLIENTS) as made:
        run.say(f"milliseconds at the median with {short.pending:,} and {long.pending:,} pending jobs")
        for clients in (1, CLIENTS):
            for kind in KINDS:
                yield growth(run, made, (short, long), kind, clients, pace)
        yield from rates(run, made, long, pace)


def growth(run: Run, made: Claimers, queues: tuple[Queue, Queue], kind: str, clients: int, pace: Pace) -> Figure:
    """How much more a claim costs in the long queue than in the short one."""
    took: dict[tuple[str, int], list[float]] = {}
    for number in range(pace.rounds + 1):
        for queue in queues:
            for way in ("statement", "claim"):
                done = made.claim(_task(queue, kind, way, pace.claims), clients)
                if number:  # the first round warms up
                    took.setdefault((way, queue.pending), []).extend(done.took)
    middle = {key: median(values) * 1000 for key, values in took.items()}
    short, long = (queue.pending for queue in queues)
    said = {way: f"{middle[way, short]:.2f} and {middle[way, long]:.2f}" for way in ("statement", "claim")}
    run.say(f"{kind:24} {clients} clients: claim {said['claim']}; its first statement alone {said['statement']}")
    ratio = middle["claim", long] / middle["claim", short]
    return Figure(f"claim_growth_{kind}_{clients}", round(ratio, 2), MOST_GROWTH, "lower", note=f"{said['claim']} ms")


def _task(queue: Queue, kind: str, way: str, times: int) -> Task:
    return Task(queue.url, queue.offers[kind], queue.classes[kind], MACHINE, times, way)


def rates(run: Run, made: Claimers, queue: Queue, pace: Pace) -> Iterator[Figure]:
    """Claims in a second: a bare one and ours as SQL in pgbench, and through the portal's code; 1 and 8 clients."""
    pgbench = Pgbench(queue.url, run.folder)
    found = rounds.medians(rounds.in_turn(3, _ways(made, queue, pgbench, pace)))
    run.say("claims in a second: " + ", ".join(f"{name} {rate:,.0f}" for name, rate in found.items()))
    scaling = {side: found[f"{side}_8"] / found[f"{side}_1"] for side in ("bare", "sql")}
    rates_of = "{}: {:,.0f} to {:,.0f}/s"
    note = ", ".join(rates_of.format(side, found[f"{side}_1"], found[f"{side}_8"]) for side in scaling)
    yield Figure("claim_scaling_of_bare", round(scaling["sql"] / scaling["bare"], 2), 0.7, "higher", note=note)
    relation = found["sql_8"] / found["bare_8"]
    yield Figure("claim_sql_rate_of_bare", round(relation, 2), 0.2, "higher", note="8 clients, all SQL of our claim")
    relation, through = found["portal_8"] / found["bare_8"], f"{found['portal_8']:,.0f}/s in 8 processes of Python"
    yield Figure("claim_portal_rate_of_bare", round(relation, 2), 0.05, "higher", note=through)


def _ways(made: Claimers, queue: Queue, pgbench: Pgbench, pace: Pace) -> dict[str, Callable[[], float]]:
    task = replace(_task(queue, "common_tags", "claim", pace.claims * 10), keep=True)
    offer, classes = queue.offers["common_tags"], queue.classes["common_tags"]
    values = claim_values(offer.runner_id, classes)

    def bare(clients: int) -> float:
        with psycopg.connect(long_queues.plain(queue.url), autocommit=True) as connection:
            connection.execute(MAKE_BARE)  # a fresh one, the least that a claim can be
        return pgbench.run(BARE, clients, pace.seconds)

    def sql(clients: int) -> float:
        return pgbench.run(f"BEGIN;\n{claim_as_sql()}END;\n", clients, pace.seconds, values)

    def portal(clients: int) -> float:
        return made.claim(task, clients).rate

    sides = {"bare": bare, "sql": sql, "portal": portal}
    return {f"{name}_{clients}": partial(side, clients) for name, side in sides.items() for clients in (1, CLIENTS)}
