"""What a runner takes, as the matching rules ask for it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.jobs.job_matching import Offer
from portal.models import AccessLevel, Runner, RunnerProject, RunnerType

# What a query that finds a runner has to select for its offer, besides its number as `runner_id`.
COLUMNS = (
    Runner.runner_type,
    Runner.group_id,
    Runner.project_id,
    Runner.tag_list,
    Runner.run_untagged,
    Runner.access_level,
    Runner.active,
)


def offer_of(session: Session, runner: Runner) -> Offer:
    """Which jobs the runner takes, as it stands now."""
    query = select(Runner.id.label("runner_id"), *COLUMNS).where(Runner.id == runner.id)
    return offer(session, session.execute(query).one())


def offer(session: Session, row: Any) -> Offer:
    """The offer in a row with COLUMNS; one more query for a project's runner."""
    kind = RunnerType(row.runner_type)
    projects: list[int] = []
    if kind is RunnerType.PROJECT:
        further = select(RunnerProject.project_id).where(RunnerProject.runner_id == row.runner_id)
        projects = [row.project_id, *session.scalars(further)]
    return Offer(
        runner_id=row.runner_id,
        type=kind,
        tags=frozenset(row.tag_list),
        run_untagged=row.run_untagged,
        protected=row.access_level == AccessLevel.REF_PROTECTED,
        paused=not row.active,
        group_id=row.group_id,
        project_ids=frozenset(projects),
    )
