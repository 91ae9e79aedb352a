"""A portal that really runs: `python app.py` in a process of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from portal.config import ROOT
from tests.databases import ENCRYPTION_KEY, SECRET_KEY

ROOT_PASSWORD = "correct horse battery"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RunningPortal:
    """Start with `with`; `url` is where it answers, `output` what it has printed. root's password is known."""

    command: tuple[str, ...] = ("app.py",)

    def __init__(self, database_url: str, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = Path(tempfile.mkstemp(prefix="portal-", suffix=".log")[1])
        self.data = Path(tempfile.mkdtemp(prefix="portal-", suffix="-data"))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PORTAL_")},
            "DATABASE_URL": database_url,
            "PORTAL_DATA_DIR": str(self.data),
            "SECRET_KEY": SECRET_KEY,
            "PORTAL_ENCRYPTION_KEYS": ENCRYPTION_KEY,
            "PORTAL_PORT": str(self.port),
            "PORTAL_ROOT_PASSWORD": ROOT_PASSWORD,
            **environment,
        }
        if not database_url:
            del self.environment["DATABASE_URL"]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> str:
        return self._log.read_text()

    def __enter__(self) -> RunningPortal:
        return self.start()

    def start(self) -> RunningPortal:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.command],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def _wait_until_ready(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"the portal ended with {self.process.returncode}:\n{self.output}")
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/readyz", timeout=2):
                return
            time.sleep(0.1)
        raise AssertionError(f"the portal was not ready in {seconds} s:\n{self.output}")

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Ask it to stop, as Ctrl-C does, and wait. Returns its exit status."""
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        """kill -9 to all of its processes at once."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=30)

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()
        self._log.unlink(missing_ok=True)
        shutil.rmtree(self.data, ignore_errors=True)
