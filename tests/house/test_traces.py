"""Every change leaves a trace: public functions of the domain that write also record, or are named here."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.house.trees import modules, name_of

WRITES = {"insert", "update", "delete", "pg_insert"}  # the statements
SILENT = {
    # What machines do all the time: heartbeats, which the runner's page shows.
    "runner_managers.record_contact",
    "runner_managers.write_heartbeats",
    "runner_tokens.mark_used",
    # Who was where and when is on the session's row; that sessions are over by age is no act of anybody's.
    "user_sessions.write_uses",
    "user_sessions.prune",
    "access_tokens.write_uses",
    "last_uses.write",
    # Logs of jobs, which are their own trace. Who erases one says so.
    "job_logs.append",
    "job_logs.begin_again",
    "job_logs.settle",
    "job_logs.erase",
    "log_watches.write",
    # What machines do with jobs, and what becomes of them by itself: the job's row and its log tell of it.
    "job_claims.claim",
    "job_reports.hear",
    "job_reports.finish",
    "job_reports.take_back",
    "job_reports.forget_machine",
    "lost_jobs.give_up",
    "old_jobs.prune",
    "old_jobs.prune_definitions",
    # Parts of acts, whose callers record them.
    "job_needs.link",
    "job_needs.replace",
    "job_rows.save",
    "job_rows.again",
    "job_rows.end",
    # The ways to a waiting job, and what classes and partitions there are.
    "pending_jobs.put",
    "pending_jobs.take_out",
    "job_classes.class_of",
    "job_classes.prune",
    "job_partitions.make_ahead",
    "job_partitions.drop_empty",
    # Artifacts come with a job and go with it or in time; who deletes or erases one says so.
    "job_artifacts.keep",
    "job_artifacts.erase",
    "job_artifacts.sweep",
    "job_artifacts.sweep_now",
    # Memory of the throttle, which forgets by itself. What it refuses is recorded.
    "sign_in_throttle.prune",
    # Parts of an act, whose callers record it.
    "audit.record",
    "user_sessions.end_all",
    "deletions.begin",
    "runner_tokens.issue",
    "scope_settings.own_for_update",
    # What somebody has chosen on a page and not yet done.
    "bulk_acts.draft",
    "bulk_acts.prune",
}


@cache
def functions() -> dict[str, ast.FunctionDef]:
    """The functions of the domain, by module and name."""
    found = {}
    for path in modules("domain"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                found[f"{path.stem}.{node.name}"] = node
    return found


def calls(name: str) -> set[str]:
    """What the function calls: names with their module where they have one, `session.add` and the like."""
    module = name.partition(".")[0]
    found = set()
    for node in ast.walk(functions()[name]):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            found.add(f"{node.func.value.id}.{node.func.attr}")
        elif isinstance(node.func, ast.Name):
            found.add(f"{module}.{node.func.id}")
            found |= {f"{node.func.id}()"}
    return found


@cache
def reach(name: str) -> frozenset[str]:
    """Everything that the function calls, by whatever way."""
    found: set[str] = set()
    ahead, behind = {name}, set()
    while ahead:
        here = ahead.pop()
        behind.add(here)
        found |= calls(here)
        ahead = {each for each in found if each in functions()} - behind
    return frozenset(found)


def writes(name: str) -> bool:
    own = calls(name)
    return bool(own & {"session.add", "session.add_all", "session.delete", *(f"{word}()" for word in WRITES)})


def public(path: Path) -> list[str]:
    return [
        name for name in functions() if name.startswith(f"{path.stem}.") and not name.split(".")[1].startswith("_")
    ]


@pytest.mark.parametrize("path", modules("domain"), ids=name_of)
def test_what_writes_also_records(path: Path) -> None:
    def traceless(name: str) -> bool:
        below = {each for each in reach(name) if each in functions()} | {name}
        return any(writes(each) for each in below) and "audit.record" not in reach(name)

    assert {name for name in public(path) if traceless(name)} - SILENT == set()


def test_the_check_sees_what_writes_and_what_records() -> None:
    assert writes("audit.record")
    assert "audit.record" in reach("runners.create_runner")
    assert {name for name in SILENT if name not in functions()} == set()
