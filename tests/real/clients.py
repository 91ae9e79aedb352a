"""Real gitlab-runner binaries: which ones there are, and running one in a home of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

# What would change a command behind the test's back.
_FOREIGN = re.compile(
    r"CI_SERVER_.*|RUNNER_.*|REGISTER_.*|REGISTRATION_TOKEN|CONFIG_FILE|TEMPLATE_CONFIG_FILE|(all|https?|no)_proxy",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Client:
    """One binary. `number` is its version, such as (18, 6)."""

    path: str
    version: str
    number: tuple[int, int]


@cache
def found() -> tuple[Client, ...]:
    """The binaries that GITLAB_RUNNER names, separated by colons; else the one on PATH."""
    named = [path for path in os.environ.get("GITLAB_RUNNER", "").split(":") if path]
    paths = named or [path for path in [shutil.which("gitlab-runner")] if path]
    return tuple(_look_at(path) for path in paths)


def _look_at(path: str) -> Client:
    told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    version = re.search(r"^Version:\s+(\S.*?)\s*$", told, re.MULTILINE)
    assert version, f"{path} tells no version: {told}"
    parts = re.match(r"(\d+)\.(\d+)", version[1])
    # An unstamped build is somebody's own, made from a recent source.
    return Client(path, version[1], (int(parts[1]), int(parts[2])) if parts else (99, 0))


def each(*, since: tuple[int, int] = (0, 0), before: tuple[int, int] = (1000, 0)) -> pytest.MarkDecorator:
    """Run the test with each client of these versions; skipped, with the reason, when there is none."""
    fitting = [client for client in found() if since <= client.number < before]
    reason = "no gitlab-runner of a fitting version on PATH or in GITLAB_RUNNER"
    none = pytest.param(None, marks=pytest.mark.skip(reason=reason), id="none")
    cases = [pytest.param(client, id=client.version) for client in fitting]
    return pytest.mark.parametrize("client", cases or [none])


class Home:
    """A machine's home: its configuration folder, and the commands that are run in it."""

    def __init__(self, client: Client, folder: Path) -> None:
        self.client = client
        self.folder = folder
        self.config = folder / "etc" / "config.toml"
        self.log = folder / "run.log"
        self.config.parent.mkdir(parents=True)
        (folder / "bin").mkdir()
        (folder / "bin" / "gitlab-runner").symlink_to(client.path)

    @property
    def environment(self) -> Mapping[str, str]:
        kept = {name: value for name, value in os.environ.items() if not _FOREIGN.fullmatch(name)}
        path = f"{self.folder / 'bin'}{os.pathsep}{kept.get('PATH', '')}"
        return {**kept, "HOME": str(self.folder), "CONFIG_FILE": str(self.config), "PATH": path}

    @property
    def system_id(self) -> str:
        """The machine's system ID, as it stands beside the configuration."""
        return (self.config.parent / ".runner_system_id").read_text().strip()

    def call_it(self, system_id: str) -> None:
        """Give this home a system ID of its own: all homes of one computer would have the same."""
        (self.config.parent / ".runner_system_id").write_text(system_id)

    def paste(self, text: str, shell: str = "bash", **environment: str) -> subprocess.CompletedProcess[str]:
        """Paste a text into a shell."""
        return self._run([shell, "-c", text], **environment)

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._run([self.client.path, *words], **environment)

    def _run(self, words: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            cwd=self.folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )

    def hurry(self) -> None:
        """Poll every second."""
        text = self.config.read_text() if self.config.exists() else ""
        text = re.sub(r"^check_interval = .*\n", "", text, flags=re.MULTILINE)
        self.config.write_text(f"check_interval = 1\n{text}")

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """`gitlab-runner run` (or what is said), until the end of the block."""
        command = words or ("run", "--config", str(self.config), "--working-directory", str(self.folder))
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [self.client.path, *command],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=30)
