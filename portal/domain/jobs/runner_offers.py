"""What a runner takes, as the matching rules ask for it."""

from __future__ import annotations

from collections.abc import Sequence
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


def offers_of(session: Session, runners: Sequence[Runner]) -> dict[int, Offer]:
    """The offers of many runners as they were loaded, by the runner's number, with one query."""
    ids = [each.id for each in runners if each.type is RunnerType.PROJECT]
    further: dict[int, set[int]] = {}
    if ids:
        query = select(RunnerProject.runner_id, RunnerProject.project_id).where(RunnerProject.runner_id.in_(ids))
        for runner_id, project_id in session.execute(query):
            further.setdefault(runner_id, set()).add(project_id)
    return {each.id: _loaded(each, further.get(each.id, set())) for each in runners}


def _loaded(runner: Runner, further: set[int]) -> Offer:
    return Offer(
        runner_id=runner.id,
        type=runner.type,
        tags=frozenset(runner.tag_list),
        run_untagged=runner.run_untagged,
        protected=runner.protected,
        paused=runner.paused,
        group_id=runner.group_id,
        project_ids=frozenset({*further, runner.project_id} if runner.project_id is not None else further),
    )
