"""Held polls: what each costs, how soon work and changes reach them, what waits and stops cost."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

from sqlalchemy.orm import Session

from bench import machine_rows
from bench.figures import Figure
from bench.load_clients import Heard, HeldPolls, poll
from bench.machine_rows import Fleet
from bench.rounds import percentile
from bench.runs import Run
from bench.servers import cpu_of, worker_of
from portal.domain.jobs import jobs
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.runners import runners
from portal.models import Runner
from tests.cast import JOB_VAULT, Cast
from tests.portals import RunningPortal

MACHINES = 10_000
RUNNERS = 1_000  # of the fleet; the crowd is the machines of a single one
HOLD, PAUSE = 50, 3  # seconds: the portal's default, and gitlab-runner's between two polls
SETTINGS = {"PORTAL_WORKERS": "1", "PORTAL_THREADS": "4", "PORTAL_POLL_HOLD": f"{HOLD}s"}
JOB = NewJob(name="build", script=("make",))


@dataclass(frozen=True)
class Stage:
    """A portal, and a process beside it that submits jobs and changes runners: this one."""

    run: Run
    session: Session
    cast: Cast
    portal: RunningPortal

    def hold(self, stack: ExitStack, fleet: Fleet) -> HeldPolls:
        asked = {"hold": f"{HOLD}s", "pause": f"{PAUSE}s", "report": "true"}
        return stack.enter_context(HeldPolls(self.portal.url, self.run.folder, fleet.machines, **asked))

    def submit(self) -> tuple[int, int]:
        """A committed job: its number, and when its commit began (wall clock, nanoseconds)."""
        number = self.queue()
        began = time.time_ns()
        self.session.commit()
        return number, began

    def queue(self) -> int:
        """A job that is committed later."""
        dana = self.cast.as_(self.cast.dana)
        return jobs.submit(self.session, dana, self.cast.web, JOB, JOB_VAULT).id


def figures(run: Run, machines: int = MACHINES) -> Iterator[Figure]:
    """One portal with one worker: a fleet of many runners is held, then a crowd that shares one runner."""
    with ExitStack() as stack:
        url = stack.enter_context(run.database())
        session = stack.enter_context(run.session(url))
        cast = Cast(session)
        crowd = machine_rows.make(cast, runners=1, each=machines)
        fleet = machine_rows.make(cast, runners=max(1, machines * RUNNERS // MACHINES), each=MACHINES // RUNNERS)
        portal = stack.enter_context(run.portal(url, **SETTINGS))
        stage = Stage(run, session, cast, portal)
        yield from _fleet(stage, fleet)
        yield from _crowd(stage, crowd)


def _fleet(stage: Stage, fleet: Fleet) -> Iterator[Figure]:
    with ExitStack() as stack:
        # Each machine is known before, so that what is counted is the price of being held.
        poll(stage.portal.url, stage.run.folder, fleet.machines, {"rounds": "2"}, echo=False).only(204)
        before = worker_of(stage.portal).memory_info().rss
        held = stage.hold(stack, fleet)
        held.wait_until_held()
        yield memory(stage, held, before)
        yield idle(stage, held)  # before there are jobs: after one, each machine asks once more what is new
        yield wake_one(stage, held)
        yield from many_jobs(stage, held)


def _crowd(stage: Stage, crowd: Fleet) -> Iterator[Figure]:
    with ExitStack() as stack:
        poll(stage.portal.url, stage.run.folder, crowd.machines, {"rounds": "1"}, echo=False).only(204)
        held = stage.hold(stack, crowd)
        yield wake_all(stage, held, crowd.runner_ids[0])
        yield hung_up(stage, held)
        yield stop(stage, held)


def memory(stage: Stage, held: HeldPolls, before: int) -> Figure:
    """Growth of the server process from all machines known to all of them held."""
    grown = worker_of(stage.portal).memory_info().rss - before
    note = f"{before / 2**20:,.0f} MiB and {grown / 2**20:,.0f} MiB more with {held.number:,} held"
    return Figure("memory of a held poll", grown / 1024 / held.number, 25, "lower", "KB", note)


def wake_one(stage: Stage, held: HeldPolls) -> Figure:
    """From the beginning of a job's commit to the last byte of the answer with it.

    Jobs come at their own pace, whether the last one was answered or not, so that no slow answer hides behind a
    fast one.
    """
    held.wait_until_held()
    asked = 1000 if stage.run.full else 200
    began: dict[int, int] = {}
    commits: list[float] = []
    for _ in range(asked):
        number, since = stage.submit()
        began[number] = since
        commits.append((time.time_ns() - since) / 1e6)
        time.sleep(0.1)
    heard = _jobs_in(_until_answered(held, asked))
    took = [(heard[each].at - since) / 1e6 if each in heard else float("inf") for each, since in began.items()]
    note = f"{asked} jobs, p50 {median(took):.1f} ms, of which the commit itself {median(commits):.1f} "
    note += f"(p99 {percentile(commits, 0.99):.1f}); {held.number:,} held"
    return Figure("one waiter woken, p99", percentile(took, 0.99), 20, "lower", "ms", note)


def many_jobs(stage: Stage, held: HeldPolls) -> Iterator[Figure]:
    """Jobs that are queued in one transaction, for ten times as many held polls that could take any of them.

    In vain is an answer without a job before the hold's end, as often as it comes.
    """
    asked = max(1, held.number // 10)
    held.wait_until_held()
    before = held.counts()
    for _ in range(asked):
        stage.queue()
    began = time.time_ns()
    stage.session.commit()
    answers = _until_answered(held, asked)
    heard = [each for each in answers if each.status == 201 and each.at > began]
    time.sleep(PAUSE)
    vain = held.counts()["vain"] - before["vain"]
    woken = [each for each in answers + held.drain() if each.status == 204 and began < each.at < began + each.waited]
    early = sum(each.waited < HOLD * 0.8e9 for each in woken)
    took = [(each.at - began) / 1e9 for each in heard]
    note = f"{vain:.0f} answered in vain, {early} of them held when the jobs came; half of the jobs "
    note += f"were out after {percentile(took, 0.5):.1f} s, all after {max(took, default=0):.1f} s"
    yield Figure("answers in vain for each of many jobs", vain / asked, 1, "lower", note=note)
    left = asked - len({each.job for each in heard})
    yield Figure("jobs left of many", left, 0, "lower", note=f"of {asked:,} queued at once")


def idle(stage: Stage, held: HeldPolls) -> Figure:
    """CPU time of the server process over whole rounds of holding, as a share of one core."""
    held.wait_until_held()
    seconds = (HOLD + PAUSE) * (4 if stage.run.full else 2)
    client, before, began = held.counts()["cpu"], cpu_of(stage.portal), time.monotonic()
    time.sleep(seconds)
    share = (cpu_of(stage.portal) - before) / (time.monotonic() - began) * 100
    polls = held.drain()
    used = (held.counts()["cpu"] - client) / seconds * 100
    note = f"{len(polls):,} answers to {held.number:,} machines in {seconds} s; the client used {used:.1f} %"
    return Figure("an idle fleet, of one core", share, 3, "lower", "%", note)


def wake_all(stage: Stage, held: HeldPolls, runner_id: int) -> Figure:
    """From the beginning of the commit that changes a runner to the last byte of each answer to its machines."""
    rounds: list[float] = []
    middles: list[float] = []
    for number in range(15 if stage.run.full else 5):
        held.wait_until_held()
        began = _change(stage, runner_id, f"changed for the {number}. time")
        took = [(each.at - began) / 1e6 for each in _first_answers(held, began)]
        rounds.append(percentile(took + [float("inf")] * (held.number - len(took)), 0.99))
        middles.append(percentile(took, 0.5))
        stage.run.say(f"  {len(took):,} woken: p50 {middles[-1]:.0f} ms, p99 {rounds[-1]:.0f} ms")
    note = f"median of {len(rounds)} rounds, p50 {median(middles):.0f} ms, worst p99 {max(rounds):.0f} ms"
    return Figure("all waiters of a runner woken, p99", median(rounds), 300, "lower", "ms", note)


def _change(stage: Stage, runner_id: int, description: str) -> int:
    runner = stage.session.get_one(Runner, runner_id)
    runners.change_settings(stage.session, stage.cast.as_(stage.cast.dana), runner, description=description)
    began = time.time_ns()
    stage.session.commit()
    return began


def _first_answers(held: HeldPolls, began: int, seconds: float = 10) -> list[Heard]:
    """What each machine heard first after this moment; ends when all have."""
    first: dict[int, Heard] = {}
    deadline = time.monotonic() + seconds
    while len(first) < held.number and time.monotonic() < deadline:
        time.sleep(0.5)  # the load generator is left alone while it counts
        for each in held.drain():
            if each.at >= began:
                first.setdefault(each.machine, each)
    return list(first.values())


def hung_up(stage: Stage, held: HeldPolls) -> Figure:
    """Jobs that are queued right after a third of the machines have closed their connections."""
    held.wait_until_held()
    gone = held.hang_up(held.number // 3)
    asked = max(1, min(100, held.number // 10))
    submitted = {stage.submit()[0] for _ in range(asked)}
    heard = _jobs_in(_until_answered(held, asked))
    note = f"{asked} jobs, {len(gone):,} of {held.number:,} had hung up"
    return Figure("jobs given to machines that hung up", len(submitted - set(heard)), 0, "lower", note=note)


def stop(stage: Stage, held: HeldPolls) -> Figure:
    """From the signal to the last answer, or end of a connection, of those who are held."""
    held.wait_until_held()
    waiting = held.counts()["open"]
    process = stage.portal.process
    assert process is not None
    began = time.time_ns()
    ending = threading.Thread(target=stage.portal.stop, args=(signal.SIGTERM,))
    ending.start()
    ending.join(timeout=60)
    heard = [each for each in held.drain() if each.at >= began]
    answered = {each.machine for each in heard if each.status == 204}
    ended: dict[int, int] = {}
    for each in heard:
        ended.setdefault(each.machine, each.at)
    took = (max(ended.values(), default=began) - began) / 1e9 if len(ended) >= waiting else float("inf")
    note = f"{len(answered):,} of {waiting:,.0f} answered before their connections were closed"
    return Figure("server stopped: the last poll over", took, 5, "lower", "s", note)


def _until_answered(held: HeldPolls, jobs_wanted: int, seconds: float = 120) -> list[Heard]:
    """The answers until so many jobs were among them, or nothing more comes."""
    heard: list[Heard] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        heard += held.drain()
        if sum(each.status == 201 for each in heard) >= jobs_wanted:
            break
        time.sleep(0.5)
    return heard


def _jobs_in(heard: list[Heard]) -> dict[int, Heard]:
    return {each.job: each for each in heard if each.job}
