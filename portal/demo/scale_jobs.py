"""The large demo's jobs, in the form that COPY reads: those that are over, those that run and those that wait."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import TypedDict

from portal.demo.scale_plan import DAY, HOUR, Plan, Planned, wanted_tags
from portal.demo.scale_rows import Copied, Rows, line, moment, system_xid
from portal.demo.scale_words import JOBS, PROTECTED_REF, REFS
from portal.domain.jobs.job_matching import Demand, queue_scopes
from portal.models import JobStatus

SPAN = 90 * DAY  # for so long there have been jobs, and a trail
QUIET = 2 * HOUR  # the last of those that are over was submitted so long ago; those since then run or wait
WAITING, RUNNING = 0.01, 0.002  # of all jobs
ENDS = (("success", None), ("failed", "script_failure"), ("canceled", None), ("failed", "runner_system_failure"))
OFTEN = (82, 11, 5, 2)
WITH_LOG = 20  # one of so many jobs that are over has kept its log
TRIES = 30

JOB_COLUMNS = (
    "id", "partition_id", "project_id", "definition_id", "user_id", "name", "ref", "ref_protected", "tag_list",
    "timeout", "status", "failure_reason", "exit_code", "retries_left", "runner_id", "runner_type",
    "effective_timeout", "created_at", "queued_at", "started_at", "acknowledged_at", "finished_at",
)  # fmt: skip
Class = tuple[tuple[str, ...], bool]


class Taken(TypedDict):
    """What follows from the runner that took a job: the numbers of runner and machine, the job's tags and ref."""

    runner: int
    machine: int
    tags: tuple[str, ...]
    ref: str


@dataclass(frozen=True, slots=True)
class Made:
    """One job before it is a row; times in seconds since 1970."""

    number: int
    project: int
    kind: int  # in JOBS
    ref: str
    tags: tuple[str, ...]
    status: str
    created: float
    failed: str | None = None
    runner: int | None = None
    machine: int | None = None
    started: float | None = None
    finished: float | None = None

    @property
    def protected(self) -> bool:
        return self.ref == PROTECTED_REF


@dataclass
class Work:
    """The jobs of a plan. `partition` is that of jobs that are submitted now; `ciphertext` holds no secret."""

    plan: Plan
    present: float
    partition: int
    ciphertext: bytes
    classes: dict[Class, int] = field(default_factory=dict)  # the numbers of those that wait, once they are known

    @cached_property
    def waiting(self) -> int:
        return max(1, round(self.plan.sizes["jobs"] * WAITING))

    @cached_property
    def over(self) -> int:
        """How many are over; the next ones run, and then come those that wait."""
        return self.plan.sizes["jobs"] - self.waiting - max(1, round(self.plan.sizes["jobs"] * RUNNING))

    @cached_property
    def _busy(self) -> list[int]:
        """Runners that were there all the time, by their places in the plan."""
        return [n for n, each in enumerate(self.plan.runners) if each.age > SPAN and each.silent is not None]

    @cached_property
    def _online(self) -> list[int]:
        return [
            n for n in self._busy if (self.plan.runners[n].silent or 0) < HOUR and not self.plan.runners[n].paused
        ]

    def job_at(self, seconds: float) -> int:
        """The number of the job that was submitted at about this moment."""
        since = seconds - (self.present - SPAN)
        return max(0, min(self.over - 1, int(self.over * since / (SPAN - QUIET))))

    def taken(self, start: int, stop: int) -> Iterator[Copied]:
        """Those that are over or run, with their machines and some of their logs."""
        made = list(self._taken(start, stop))
        yield from self._rows(made)
        machines = ("partition_id", "build_id", "runner_machine_id", "system_xid")
        yield Copied("p_ci_runner_machine_builds", machines, map(self._machine, made))
        logged = [(job, _log(job)) for job in made if job.status == JobStatus.RUNNING or job.number % WITH_LOG == 0]
        yield Copied("ci_job_logs", ("job_id", "size", "lines", "crc32", "heard_at"), map(self._log_row, logged))
        pieces = ("job_id", "attempt", "start", "lines_before", "data")
        first = self.plan.first["jobs"]
        rows = (line(first + job.number, 0, 0, 0, f"\\\\x{text.hex()}") for job, text in logged)
        yield Copied("ci_job_log_pieces", pieces, rows)

    def queued(self, start: int, stop: int) -> Iterator[Copied]:
        """Those that wait, with their places in the queue; `classes` must be known."""
        made = list(self._queued(start, stop))
        yield from self._rows(made)
        columns = ("scope_kind", "scope_id", "class_id", "turn", "job_id")
        yield Copied("ci_pending_builds", columns, self._places(made))

    def classes_that_wait(self) -> set[Class]:
        """What decides who may take those that wait."""
        return {(job.tags, job.protected) for job in self._queued(0, self.waiting)}

    def _taken(self, start: int, stop: int) -> Iterator[Made]:
        chance = self.plan.chance("jobs", start)
        for number in range(start, stop):
            created = self.present - SPAN + (SPAN - QUIET) * number / self.over
            yield self._over(number, created, chance) if number < self.over else self._runs(number, chance)

    def _over(self, number: int, created: float, chance: Random) -> Made:
        started = created + chance.uniform(1, 90)
        runner, project = self._found(self._busy, chance, lambda each: self.present - (each.silent or 0) > started)
        status, failed = chance.choices(ENDS, OFTEN)[0]
        kind = chance.randrange(len(JOBS))
        return Made(
            number=number,
            project=project,
            kind=kind,
            status=status,
            failed=failed,
            created=created,
            started=started,
            finished=started + JOBS[kind][2] * chance.uniform(0.6, 1.7),
            **self._on(runner, chance),
        )

    def _runs(self, number: int, chance: Random) -> Made:
        runner, project = self._found(self._online or self._busy, chance, lambda _: True)
        started = self.present - chance.uniform(5, 900)
        created = self.present - QUIET + HOUR * (number - self.over) / (self.plan.sizes["jobs"] - self.over)
        return Made(
            number=number,
            project=project,
            kind=chance.randrange(len(JOBS)),
            status=JobStatus.CANCELING if number % 50 == 0 else JobStatus.RUNNING,
            created=created,
            started=started,
            **self._on(runner, chance),
        )

    def _found(self, runners: list[int], chance: Random, fits: Callable[[Planned], bool]) -> tuple[int, int]:
        """A runner, and a project whose jobs it takes."""
        for _ in range(TRIES):
            number = runners[int(len(runners) * chance.random() ** 1.5)]
            project = self.plan.a_project_for(self.plan.runners[number], chance)
            if project is not None and fits(self.plan.runners[number]):
                break
        return number, project or 0

    def _on(self, number: int, chance: Random) -> Taken:
        runner = self.plan.runners[number]
        tags = () if runner.untagged and chance.random() < 0.3 else runner.tags[: chance.randint(1, 2)]
        begin, end = self.plan.machines_before[number : number + 2]
        ref = PROTECTED_REF if runner.protected or chance.random() < 0.5 else REFS[chance.randrange(len(REFS))]
        return {"runner": number, "machine": chance.randrange(begin, end), "tags": tags, "ref": ref}

    def _queued(self, start: int, stop: int) -> Iterator[Made]:
        chance, before = self.plan.chance("queue"), self.plan.sizes["jobs"] - self.waiting
        for number in range(stop):
            ref = PROTECTED_REF if chance.random() < 0.4 else REFS[chance.randrange(len(REFS))]
            job = Made(
                number=before + number,
                project=int(len(self.plan.projects) * chance.random() ** 1.5),
                kind=chance.randrange(len(JOBS)),
                ref=ref,
                tags=wanted_tags(chance),
                status=JobStatus.PENDING,
                created=self.present - HOUR * (1 - number / self.waiting),
            )
            if number >= start:
                yield job

    def _rows(self, made: list[Made]) -> Iterator[Copied]:
        columns = ("id", "config", "ciphertext", "created_at")
        yield Copied("p_ci_job_definitions", columns, map(self._definition, made))
        yield Copied("ci_builds", JOB_COLUMNS, map(self._job, made))

    def _definition(self, job: Made) -> str:
        config = json.dumps(
            {
                "name": JOBS[job.kind][0],
                "script": JOBS[job.kind][1],
                "after_script": [],
                "image": "",
                "services": [],
                "tags": job.tags,
                "ref": job.ref,
                "protected": None,
                "timeout": None,
                "artifacts": None,
                "commit": "",
                "retry": 0,
                "needs": [],
                "variable_names": [],
            }
        )
        first = self.plan.first["definitions"]
        return line(first + job.number, config, f"\\\\x{self.ciphertext.hex()}", moment(job.created))

    def _job(self, job: Made) -> str:
        plan, runner = self.plan, self.plan.runners[job.runner] if job.runner is not None else None
        started = None if job.started is None else moment(job.started)
        code = {"script_failure": 1}.get(job.failed or "", 0 if job.status == JobStatus.SUCCESS else None)
        return line(
            plan.first["jobs"] + job.number,
            self.partition,
            plan.projects[job.project].id,
            plan.first["definitions"] + job.number,
            plan.first["people"] + job.number * 7 % plan.sizes["people"],
            JOBS[job.kind][0],
            job.ref,
            job.protected,
            job.tags,
            HOUR,
            str(job.status),
            job.failed,
            code,
            0,
            None if job.runner is None else plan.first["runners"] + job.runner,
            None if runner is None else int(runner.type),
            None if runner is None else min(HOUR, runner.timeout or HOUR),
            moment(job.created),
            moment(job.created),
            started,
            started,
            None if job.finished is None else moment(job.finished),
        )

    def _machine(self, job: Made) -> str:
        first, number = self.plan.first, job.machine or 0
        return line(self.partition, first["jobs"] + job.number, first["machines"] + number, system_xid(number))

    def _log_row(self, logged: tuple[Made, bytes]) -> str:
        job, text = logged
        heard = moment(job.finished or self.present)
        return line(self.plan.first["jobs"] + job.number, len(text), text.count(b"\n"), zlib.crc32(text), heard)

    def _places(self, made: list[Made]) -> Rows:
        turns: dict[tuple[int, int], int] = {}
        for job in made:
            project, number = self.plan.projects[job.project], self.classes[job.tags, job.protected]
            turn = turns[project.id, number] = turns.get((project.id, number), -1) + 1
            demand = Demand(project_id=project.id, group_ids=project.group_ids)
            for kind, scope_id in queue_scopes(demand):
                yield line(int(kind), scope_id, number, turn, self.plan.first["jobs"] + job.number)


def _log(job: Made) -> bytes:
    """A short log of what the job ran."""
    ran = "".join(f"\x1b[32;1m$ {command}\x1b[0;m\nok\n" for command in JOBS[job.kind][1])
    end = {
        "success": "\x1b[32;1mJob succeeded\n\x1b[0;m",
        "failed": "\x1b[31;1mERROR: Job failed: exit code 1\n\x1b[0;m",
    }
    return f"Running with gitlab-runner 18.9.0 (07e534ba)\n{ran}{end.get(job.status, '')}".encode()
