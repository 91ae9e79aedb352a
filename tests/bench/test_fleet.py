"""The simulation of a fleet: it agrees with arithmetic where nothing queues, and shows what arithmetic cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.fleet import plan_of
from bench.fleet_costs import Costs, Slope, Window
from bench.fleet_simulation import Fleet, Plan, Seen, multiplied, written_runners

COSTS = Costs(
    idle=0.004,
    first=0.008,
    poll=60e-6,
    held=120e-6,
    hear=0.0004,
    vain=0.0012,
    job=0.014,
    db_idle=0.001,
    db_row=20e-6,
    db_runner=40e-6,
    db_vain=0.0004,
    db_job=0.006,
    commit=0.0005,
    wal_row=1000,
    wal_runner=2500,
    wal_job=15_000,
    hot_rows=0,
    memory=1.6e8,
    memory_held=25e3,
)
QUIET = Plan(2000, 0, 2.0, jobs=0, burst=1, processes=2, db_cores=2, reached=2)
BUSY = Plan(20_000, 50, 3.0, jobs=10, burst=1, processes=10, db_cores=8, reached=10)


def test_averages_are_those_of_arithmetic_where_nothing_queues() -> None:
    seen, load = Fleet(QUIET, COSTS).run(30), multiplied(QUIET, COSTS)
    assert seen.rows / 30 == pytest.approx(QUIET.polls, rel=0.06)
    assert sum(seen.app) / 30 == pytest.approx(load.app, rel=0.06)
    assert seen.db / 30 == pytest.approx(load.db, rel=0.1)
    assert Seen.at(seen.answers, 0.5) == pytest.approx(COSTS.poll, rel=0.5)


def test_the_same_seed_gives_the_same_fleet() -> None:
    assert Fleet(QUIET, COSTS).run(3).answers == Fleet(QUIET, COSTS).run(3).answers


def test_each_job_is_handed_out_once_and_looked_for_by_one_poll_of_each_process_reached() -> None:
    seen = Fleet(BUSY, COSTS).run(20)
    assert seen.handed == seen.queued > 100
    assert seen.vain == seen.queued * 9
    fewer = Fleet(replace(BUSY, reached=1), COSTS).run(20)
    assert fewer.handed == fewer.queued > 100
    assert fewer.vain == 0


def test_polls_wait_longer_behind_a_burst_of_jobs() -> None:
    one, many = (Fleet(replace(BUSY, jobs=40, burst=burst), COSTS).run(20) for burst in (1, 200))
    assert Seen.at(many.wakes, 0.99) > 3 * Seen.at(one.wakes, 0.99)


def test_batches_that_share_a_runner_take_turns() -> None:
    crowd = Plan(200_000, 0, 3.0, jobs=0, burst=1, processes=20, db_cores=20, reached=1)
    apart, shared = (Fleet(replace(crowd, shared=each), COSTS).run(1.5) for each in (False, True))
    assert max(shared.batches) > 2 * max(apart.batches)


def test_a_busy_process_answers_later() -> None:
    near = replace(QUIET, machines=60_000)  # 0.9 of each core
    assert Seen.at(Fleet(near, COSTS).run(1).answers, 0.99) > 4 * Seen.at(Fleet(QUIET, COSTS).run(3).answers, 0.99)


def test_a_plan_leaves_room_and_grows_with_its_fleet() -> None:
    plans = [plan_of(COSTS, machines) for machines in (10_000, 100_000, 1_000_000)]
    assert [plan.processes for plan in plans] == sorted(plan.processes for plan in plans)
    for plan in plans:
        assert multiplied(plan, COSTS).app / plan.processes < 0.8
        assert multiplied(plan, COSTS).db / plan.db_cores <= 0.6


def test_a_batch_of_one_machine_is_of_one_runner_and_never_of_more_than_there_are() -> None:
    assert written_runners(QUIET, 1) == pytest.approx(1, rel=0.01)
    assert written_runners(QUIET, 1_000_000) == pytest.approx(QUIET.machines / QUIET.machines_a_runner)


def test_what_does_not_grow_with_the_polls_is_not_theirs() -> None:
    slope = Slope(Window(10, 1000, cpu=3, db_cpu=0.5, wal=0), Window(10, 3000, cpu=5, db_cpu=0.4, wal=2000))
    assert slope.of("cpu") == pytest.approx(0.001)
    assert slope.of("db_cpu") == 0
    assert slope.of("wal") == pytest.approx(1)
