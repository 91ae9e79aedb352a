"""Claimers: processes that claim jobs of a queue on command, and put each back so that it keeps its length."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

from sqlalchemy import Engine, create_engine, delete
from sqlalchemy.orm import Session

from portal.domain.errors import LostRace
from portal.domain.jobs import job_claims, job_reports, pending_jobs
from portal.domain.jobs.job_claims import Claim
from portal.domain.jobs.job_matching import Offer
from portal.models import Job, JobLog, JobStatus
from tests.cast import JOB_VAULT


@dataclass(frozen=True, slots=True)
class Task:
    """Claim so many times in this database, as this runner. `way` is one of WAYS.

    What was claimed is put back, so that the queue keeps its length, unless `keep` says that it is not.
    """

    url: str
    offer: Offer
    classes: tuple[int, ...]
    system_xid: str
    times: int
    way: str
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """How long each claim took in seconds, how often others were quicker, and how long it took all together."""

    took: tuple[float, ...]
    lost: int
    seconds: float

    @property
    def rate(self) -> float:
        """Claims in a second."""
        return len(self.took) / self.seconds


class Claimers:
    """So many processes, each with connections of its own."""

    def __init__(self, processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._lines: list[Connection] = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            context.Process(target=_work, args=(theirs,), daemon=True).start()
            self._lines.append(ours)

    def claim(self, task: Task, clients: int) -> Done:
        """Have so many of them claim at once."""
        begun = perf_counter()
        for line in self._lines[:clients]:
            line.send(task)
        done: list[Done] = [line.recv() for line in self._lines[:clients]]
        took = tuple(each for one in done for each in one.took)
        return Done(took, sum(one.lost for one in done), perf_counter() - begun)

    def close(self) -> None:
        for line in self._lines:
            line.send(None)


@contextmanager
def claimers(processes: int) -> Iterator[Claimers]:
    """Processes that end with the block."""
    made = Claimers(processes)
    try:
        yield made
    finally:
        made.close()


def _work(line: Connection) -> None:
    engines: dict[str, Engine] = {}
    while (task := line.recv()) is not None:
        if task.url not in engines:
            engines[task.url] = create_engine(task.url)
        line.send(run(engines[task.url], task))
    for engine in engines.values():
        engine.dispose()


def run(engine: Engine, task: Task) -> Done:
    """Do the task in this process."""
    took: list[float] = []
    lost, started = 0, perf_counter()
    once = WAYS[task.way]
    while len(took) < task.times:
        begun = perf_counter()
        job_id = once(engine, task)
        if job_id is LOST:
            lost += 1
            continue
        took.append(perf_counter() - begun)
        if job_id is not None and not task.keep:
            _put_back(engine, job_id)
    return Done(tuple(took), lost, perf_counter() - started)


LOST = object()


def _through_the_domain(engine: Engine, task: Task) -> Any:
    """One claim as the portal makes it, without what it answers."""
    claim = Claim(task.offer, token_id=1, system_xid=task.system_xid, request_id=str(perf_counter()))
    with Session(engine) as session:
        try:
            handed = job_claims.claim(session, claim, task.classes, JOB_VAULT)
        except LostRace:
            return LOST
        session.commit()
        return handed.job.id if handed is not None else None


def _statement_alone(engine: Engine, task: Task) -> None:
    """Only the statement that finds and holds the job, which then stays where it is."""
    with Session(engine) as session:
        pending_jobs.take(session, task.offer, task.classes, task.system_xid, b"\0" * 32)
        session.commit()


def _put_back(engine: Engine, job_id: int) -> None:
    """The job waits again, as the last of its project: it stands for a new one."""
    with Session(engine) as session:
        job = session.get_one(Job, job_id)
        job_reports.forget_machine(session, job)
        session.execute(delete(JobLog).where(JobLog.job_id == job_id))
        job.status = JobStatus.PENDING
        pending_jobs.put(session, job)
        session.commit()


WAYS: dict[str, Callable[[Engine, Task], Any]] = {"claim": _through_the_domain, "statement": _statement_alone}
