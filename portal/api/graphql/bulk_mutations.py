"""Mutations of several runners at once: what the asker may is done, and the rest is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ariadne import MutationType
from sqlalchemy import select
from sqlalchemy.orm import joinedload

from portal.api.graphql.context import Context
from portal.api.graphql.mutations import Payload, changes, numbered
from portal.api.graphql.siblings import RunnerNode, runner_nodes
from portal.domain.deletions import deletions
from portal.domain.errors import Refusal
from portal.domain.runners import runners
from portal.models import Deletion, Runner

MOST = 50  # in one call
mutation = MutationType()


@changes(mutation, "bulkRunnerDelete")
def delete(asked: Context, given: dict[str, Any]) -> Payload:
    """Delete these runners, as one act that people can undo."""
    if given.get("ids") is None:
        return {}
    nodes, problems = _chosen(asked, given["ids"], RunnerNode.may_delete, "delete")
    deletion = _deletion(asked, nodes)

    def one(runner: Runner) -> None:
        runners.delete_runner(asked.session, asked.actor, runner, deletion=deletion)

    gone = _each(asked, nodes, one, problems)
    if deletion is not None and not gone:
        asked.session.delete(deletion)
    return {"deleted_count": len(gone), "deleted_ids": [each.runner.id for each in gone], "errors": problems}


@changes(mutation, "runnerBulkPause")
def pause(asked: Context, given: dict[str, Any]) -> Payload:
    """Pause these runners, or let them go on."""
    nodes, problems = _chosen(asked, given["ids"], RunnerNode.may_write, "change")

    def one(runner: Runner) -> None:
        runners.set_paused(asked.session, asked.actor, runner, given["paused"])

    done = _each(asked, nodes, one, problems)
    return {"updated_count": len(done), "updated_runners": done, "errors": problems}


def _chosen(
    asked: Context, ids: Sequence[int], may: Callable[[RunnerNode], bool], what: str
) -> tuple[list[RunnerNode], list[str]]:
    """The runners that the asker may do this with, the lower id first as everybody locks, and the problems."""
    wanted = list(dict.fromkeys(ids))
    problems = []
    if len(wanted) > MOST:
        problems.append(f"One call takes {MOST} runners: the last {len(wanted) - MOST} were ignored.")
        wanted = wanted[:MOST]
    owners = (joinedload(Runner.group), joinedload(Runner.project), joinedload(Runner.creator))
    query = select(Runner).where(Runner.id.in_(wanted)).options(*owners).order_by(Runner.id)
    nodes = [each for each in runner_nodes(asked, list(asked.session.scalars(query))) if may(each)]
    allowed = {each.runner.id for each in nodes}
    if wanted and not nodes:
        problems.append(f"You may not {what} any of these runners.")
    elif refused := [each for each in wanted if each not in allowed]:
        problems.append(f"You may not {what} these runners, or they do not exist: {numbered(refused)}.")
    return nodes, problems


def _each(
    asked: Context, nodes: Sequence[RunnerNode], act: Callable[[Runner], object], problems: list[str]
) -> list[RunnerNode]:
    """Do it to each by itself. Returns those that it was done to; why not to others is added to the problems."""
    done = []
    for node in nodes:
        try:
            with asked.session.begin_nested():
                act(node.runner)
            done.append(node)
        except Refusal as refusal:
            problems.append(f"#{node.runner.id}: {refusal}")
    return done


def _deletion(asked: Context, nodes: Sequence[RunnerNode]) -> Deletion | None:
    """The act by which several go together; a single one has its own."""
    if len(nodes) < 2:
        return None
    return deletions.begin(asked.session, asked.actor, "runners", f"{len(nodes)} runners")
