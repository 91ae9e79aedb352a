"""Project runners whose project is about to go: the next project that they serve becomes their owner."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.domain import audit
from portal.domain.actors import Actor
from portal.domain.runners import runner_changes
from portal.domain.scopes import of_project
from portal.models import Project, Runner, RunnerProject

_KEY = func.hashtextextended("runners that are handed over", 0)


def begin(session: Session) -> None:
    """Wait for all who assign runners or delete their projects, and go alone until the end. Before any other lock.

    Of two projects that share a runner and are deleted at once, the second must know what the first left to it.
    """
    session.execute(select(func.pg_advisory_xact_lock(_KEY)))


def keep_out(session: Session) -> None:
    """Let nobody hand runners over until the transaction ends: for who assigns one. Before any other lock."""
    session.execute(select(func.pg_advisory_xact_lock_shared(_KEY)))


def hand_over(session: Session, actor: Actor, projects: Iterable[Project]) -> int:
    """Give runners of projects that are about to be deleted to the next project they serve. Returns how many.

    The oldest assignment to a project that stays becomes the owner (reference/rest.md section 9). The old owner is
    noted as a further project, so that it has the runner again when it is restored.
    """
    going = {project.id: project for project in projects}
    rows = session.execute(
        select(Runner, RunnerProject)
        .join(RunnerProject, RunnerProject.runner_id == Runner.id)
        .join(Project, Project.id == RunnerProject.project_id)
        .where(Runner.project_id.in_(going), RunnerProject.project_id.not_in(going))
        .order_by(Runner.id, RunnerProject.id)
        # An assignment that is being taken away is waited for, and then left out.
        .with_for_update(of=[Runner, RunnerProject])
        .execution_options(populate_existing=True)
    ).all()
    handed: set[int] = set()
    for runner, heir in rows:
        if runner.id in handed or runner.project_id not in going:
            continue
        old, new = going[runner.project_id], heir.project
        runner.project, heir.project = new, old
        session.flush()
        handed.add(runner.id)
        told = {"owner": (old.full_path, new.full_path)}
        audit.record(session, actor, "runner_handed_over", runner, of_project(new), told)
        runner_changes.announce(session, runner.id)
    return len(handed)
