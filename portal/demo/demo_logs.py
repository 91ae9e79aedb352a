"""Logs of the demo's jobs: what gitlab-runner and a script would have written, with colours, sections and bars."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from portal.demo.demo_job_tables import FAILS, PRINTS
from portal.domain.jobs import job_checks
from portal.domain.jobs.job_definitions import NewJob
from portal.models import Job, JobStatus, RunnerManager

_CLEAR, _TITLE, _COMMAND, _BAD, _WARNED, _OFF = (
    f"\x1b[{code}" for code in ("0K", "36;1m", "32;1m", "31;1m", "33m", "0;m")
)


@dataclass(frozen=True, slots=True)
class Written:
    """What is known of a job for its log; `short` is of its runner's token."""

    job: Job
    what: NewJob
    machine: RunnerManager
    runner: str
    short: str

    def text(self) -> bytes:
        """The whole log; of a job that runs, as far as it has come."""
        return "".join(self._parts()).encode()

    def _parts(self) -> Iterator[str]:
        machine, start = self.machine, self.job.started_at or self.job.created_at
        executor = machine.executor_name or "shell"
        yield f"Running with gitlab-runner {machine.version} ({machine.revision})\n"
        yield f"  on {self.runner} {self.short}, system ID: {machine.system_xid}\n"
        using = f"Using the {executor} executor"
        using += f" with image {self.what.image} ...\n" if self.what.image else " ...\n"
        begun = int(start.timestamp())
        yield _section(begun, 2, "prepare_executor", f'Preparing the "{executor}" executor', using)
        where = f"Running on {machine.system_xid} ...\n"
        yield _section(begun + 2, 1, "prepare_script", "Preparing environment", where)
        if self.job.failure_reason == "runner_system_failure":
            yield f"{_BAD}ERROR: Job failed (system failure): the disk of this machine is full\n{_OFF}"
            return
        yield _section(begun + 3, 1, "get_sources", "Getting source from Git repository", "Nothing to fetch\n")
        yield from self._script(begun + 4)
        yield self._end()

    def _script(self, begun: int) -> Iterator[str]:
        ended = int((self.job.finished_at or self.job.created_at).timestamp()) - 3
        took = max(1, ended - begun)
        title = 'Executing "step_script" stage of the job script'
        lines = self.what.script if self._is_done else self.what.script[:2]
        body = "".join(self._printed(line, last=line == lines[-1]) for line in lines)
        whole = _section(begun, took, "step_script", title, body)
        yield whole if self._is_done else whole.rpartition("section_end:")[0]
        if self.job.state is not JobStatus.SUCCESS:
            return
        after = "".join(self._printed(line, last=False) for line in self.what.after_script)
        if after:
            yield _section(begun + took, 1, "after_script", "Running after_script", after)
        if self.what.artifacts is not None:
            found = "".join(f"{path}: found matching files\n" for path in self.what.artifacts.paths)
            title = "Uploading artifacts for successful job"
            yield _section(begun + took + 1, 2, "upload_artifacts_on_success", title, found)

    def _printed(self, line: str, *, last: bool) -> str:
        """A line of the script and what it prints; the last one fails with the job, or is not through."""
        failed = last and self.job.failure_reason == "script_failure"
        printed = (FAILS if failed else PRINTS | self._checked()).get(line, ())
        kept = printed if self._is_done or not last else printed[:-2]
        return "".join((f"{_COMMAND}$ {line}{_OFF}\n", *(f"{each}\n" for each in kept)))

    def _checked(self) -> dict[str, tuple[str, ...]]:
        """What the lines of a check print."""
        moment = f"{self.job.started_at:%a %b %d %H:%M:%S UTC %Y}"
        said = (f"Hello from {self.machine.system_xid}", f"It is {moment}, and this runner takes jobs.")
        return {line: (words,) for line, words in zip(job_checks.CHECK_SCRIPT, said, strict=False)}

    @property
    def _is_done(self) -> bool:
        return self.job.state in (JobStatus.SUCCESS, JobStatus.FAILED)

    def _end(self) -> str:
        if self.job.state is JobStatus.SUCCESS:
            return f"{_COMMAND}Job succeeded\n{_OFF}"
        if self.job.failure_reason == "job_execution_timeout":
            return f"{_BAD}ERROR: Job failed: execution took longer than 10m0s seconds\n{_OFF}"
        if self.job.state is JobStatus.FAILED:
            return f"{_BAD}ERROR: Job failed: exit code {self.job.exit_code}\n{_OFF}"
        if self.job.state is JobStatus.CANCELED:
            return f"{_WARNED}The job was canceled\n{_OFF}"
        return ""


def _section(at: int, seconds: int, name: str, title: str, body: str) -> str:
    opened = f"section_start:{at}:{name}\r{_CLEAR}{_TITLE}{title}{_OFF}\n"
    return f"{opened}{body}section_end:{at + seconds}:{name}\r{_CLEAR}"
