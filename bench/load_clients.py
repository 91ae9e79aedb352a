"""The load generator of bench/load, a Go program: how it is built, started and asked."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from tests.api.machines import info_of

SOURCES = Path(__file__).resolve().parent / "load"
BUILT = SOURCES.parent / ".built"
TOLD = json.dumps(info_of("18.6.6"), separators=(",", ":"))  # by every machine, with each poll


class Machine(NamedTuple):
    """Whom the load generator plays: one line of its file."""

    token: str
    system_id: str


@dataclass(frozen=True)
class Load:
    """What a closed loop of polls has counted; `cpu` is what the load generator itself used, in seconds.

    The latencies are those under full load: a closed loop sends less where it is answered slowly.
    """

    requests: int
    seconds: float
    statuses: dict[str, int]
    errors: int
    p50_us: int
    p99_us: int
    p999_us: int
    cpu: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    def only(self, status: int) -> Load:
        """Itself. Raises ValueError when anything but this status was answered: what was measured is then not it."""
        if self.errors or set(self.statuses) != {str(status)}:
            raise ValueError(f"expected only {status}, got {self.statuses} and {self.errors} broken connections")
        return self

    def __str__(self) -> str:
        return (
            f"{self.rate:,.0f}/s, p50 {self.p50_us / 1000:.2f} ms, p99 {self.p99_us / 1000:.2f} ms, "
            f"the client used {self.cpu / self.seconds:.0%} of a core"
        )


def program() -> Path:
    """The built load generator. Raises RuntimeError where there is no Go to build it with."""
    sources = [*sorted(SOURCES.glob("*.go")), SOURCES / "go.mod"]
    made_of = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    built = BUILT / f"load-{made_of}"
    if built.exists():
        return built
    beside = Path(sys.executable).with_name("go")  # from the wheel that `make bench` installs
    go = shutil.which("go") or (str(beside) if beside.exists() else "")
    if not go:
        raise RuntimeError("The load generator needs Go. `make bench` installs it; or put a `go` on PATH.")
    BUILT.mkdir(exist_ok=True)
    draft = BUILT / f"{built.name}.{os.getpid()}"
    offline = {"GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off", "CGO_ENABLED": "0"}
    subprocess.run([go, "build", "-o", draft, "."], cwd=SOURCES, env={**os.environ, **offline}, check=True)
    draft.replace(built)
    return built


def poll(
    url: str,
    folder: Path,
    machines: Sequence[Machine],
    asked: Mapping[str, str],
    *,
    connections: int = 64,
    echo: bool = True,
) -> Load:
    """Poll as fast as the server answers. `asked` are the program's options: time, warm, or rounds instead."""
    command = _command("closed", url, folder, machines, connections=str(connections), **asked)
    done = subprocess.run([*command, f"-echo={str(echo).lower()}"], check=True, capture_output=True, timeout=900)
    return Load(**json.loads(done.stdout))


def _command(mode: str, url: str, folder: Path, machines: Sequence[Machine], **asked: str) -> list[str]:
    told, fleet = folder / "told.json", folder / "machines.txt"
    told.write_text(TOLD)
    fleet.write_text("".join(f"{each.token} {each.system_id}\n" for each in machines))
    options = [f"-{name}={value}" for name, value in asked.items()]
    return [str(program()), mode, f"-url={url}", f"-machines={fleet}", f"-info={told}", *options]


class Heard(NamedTuple):
    """One answer that a machine got; status 0 is the end of its connection.

    `at` is the wall clock in nanoseconds when the answer's last byte was there, `waited` how long the machine had
    waited for it, `job` the number of the job it was handed, or 0.
    """

    machine: int
    status: int
    at: int
    waited: int
    job: int
    echoed: int


class HeldPolls:
    """Machines that keep a poll open each. Ends with the `with` that it was made for; the connections close then."""

    def __init__(self, url: str, folder: Path, machines: Sequence[Machine], **asked: str) -> None:
        self.number = len(machines)
        command = _command("held", url, folder, machines, **asked)
        self.hung_up = 0
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> HeldPolls:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=30)

    def _ask(self, command: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def counts(self) -> dict[str, float]:
        """How many polls wait, what the machines got so far, and the CPU seconds of the load generator."""
        found: dict[str, float] = self._ask("counts")
        return found

    def drain(self) -> list[Heard]:
        """The answers since the last time."""
        return [Heard(*row) for row in self._ask("drain")]

    def hang_up(self, number: int) -> list[int]:
        """Close so many connections, as machines that stop do. Returns whose."""
        found: list[int] = self._ask(f"hangup {number}")
        self.hung_up += len(found)
        return found

    def wait_until_held(self, *, quiet: float = 1.0, seconds: float = 180) -> None:
        """Return when every open connection waits and nothing was answered for a while.

        Raises TimeoutError: the server does not hold, or cannot take so many connections.
        """
        deadline = time.monotonic() + seconds
        calm_since = time.monotonic()
        while time.monotonic() < deadline:
            counts = self.counts()
            there = counts["open"] + counts["lost"] + self.hung_up
            if counts["waiting"] < counts["open"] or there < self.number or self.drain():
                calm_since = time.monotonic()
            elif time.monotonic() - calm_since >= quiet:
                if counts["lost"]:
                    raise TimeoutError(f"{counts['lost']:.0f} of {self.number} connections were lost")
                return
            time.sleep(0.2)
        raise TimeoutError(f"not all of {self.number} polls were held within {seconds:.0f} s: {self.counts()}")
