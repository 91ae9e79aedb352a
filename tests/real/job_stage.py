"""Real clients run real jobs: a portal, a runner of acme, its machine's configuration, and what came of a job."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text, update
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.jobs import job_logs, jobs
from portal.models import Job, JobLog, JobStatus, Runner
from tests.api.machines import until
from tests.cast import Cast
from tests.portals import RunningPortal
from tests.real.clients import Home

OUTPUT_LIMIT = 64 * 1024  # KiB


@dataclass
class Stage:
    """A running portal with the cast on it, and a runner of acme that takes any. The jobs are acme/web's."""

    portal: RunningPortal
    session: Session
    cast: Cast
    token: str

    def configure(self, home: Home) -> None:
        """Write what `register` would, with a limit for long logs."""
        lines = [
            "check_interval = 1",
            "concurrent = 1",
            "[[runners]]",
            f'  url = "{self.portal.url}"',
            f'  token = "{self.token}"',
            '  name = "box1"',
            '  executor = "shell"',
            '  shell = "bash"',
            f"  output_limit = {OUTPUT_LIMIT}",
        ]
        home.config.write_text("\n".join(lines) + "\n")

    def limit_runner(self, seconds: int) -> None:
        """No job of the runner may take longer. Nobody may set less than ten minutes, which no test can wait for."""
        self.session.execute(text("ALTER TABLE ci_runners DROP CONSTRAINT ck_ci_runners_timeout_at_least_600"))
        self.session.execute(update(Runner).values(maximum_timeout=seconds))
        self.session.commit()

    def submit(self, *script: str, **asked: Any) -> int:
        """The number of a new job, which waits; as if its page were open, so that its machine sends what it has."""
        self.session.rollback()
        job_id = self.cast.job(name="a test's", script=script, **asked).id
        self.session.add(JobLog(job_id=job_id, watched_at=now() + timedelta(minutes=10)))
        self.session.commit()
        return job_id

    def job(self, job_id: int) -> Job:
        """The job as it stands now."""
        self.session.rollback()
        return self.session.get_one(Job, job_id)

    def ended(self, job_id: int, *, seconds: float = 60) -> Job:
        """The job, once it is over."""

        def over() -> Job | None:
            return job if (job := self.job(job_id)).state.is_over else None

        return until(over, seconds=seconds, why=f"the job {job_id} is over")

    def writes(self, job_id: int, words: bytes, *, seconds: float = 60) -> None:
        """Wait until this stands in the log."""
        until(lambda: words in self.log(job_id), seconds=seconds, why=f"the job {job_id} writes {words!r}")

    def log(self, job_id: int) -> bytes:
        """The log as it stands now."""
        self.session.rollback()
        return b"".join(job_logs.pieces(self.session, job_logs.extent(self.session, job_id)))

    def cancel(self, job_id: int, *, force: bool = False) -> JobStatus:
        """Cancel the job as Dana. Returns its status then."""
        status = jobs.cancel(self.session, self.cast.as_(self.cast.dana), self.job(job_id), force=force).state
        self.session.commit()
        return status


def repository(folder: Path) -> tuple[Path, str, str]:
    """A bare repository with the branches main and x and the tag v1; its path, main's first commit and its newest."""
    work, bare = folder / "work", folder / "web.git"
    git(folder, "init", "--quiet", "--initial-branch", "main", str(work))
    for number in (1, 2):
        (work / "file").write_text(f"main {number}\n")
        git(work, "add", "file")
        git(work, "commit", "--quiet", "--message", f"main {number}")
    first, newest = git(work, "rev-parse", "HEAD~1"), git(work, "rev-parse", "HEAD")
    git(work, "tag", "v1", first)
    git(work, "checkout", "--quiet", "-b", "x")
    (work / "file").write_text("x\n")
    git(work, "commit", "--quiet", "--all", "--message", "x")
    git(folder, "clone", "--quiet", "--bare", str(work), str(bare))
    git(bare, "config", "uploadpack.allowAnySHA1InWant", "true")
    return bare, first, newest


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=Bob Ray", "-c", "user.email=bob@acme.example", "-c", "safe.directory=*")
    ran = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    return ran.stdout.strip()
