"""Groups and projects by the numbers in their global ids."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.errors import NOTHING_HERE, NotFound
from portal.domain.scopes import Scope, of_group, of_project
from portal.models import Group, Project, RunnerType


def find(session: Session, kind: RunnerType, number: int) -> Scope:
    """The group, or the project, with this number, whoever may see it. Raises NotFound."""
    if kind == RunnerType.GROUP:
        group = session.scalar(select(Group).where(Group.id == number))
        if group is not None:
            return of_group(group)
    else:
        project = session.scalar(select(Project).where(Project.id == number))
        if project is not None:
            return of_project(project)
    raise NotFound(NOTHING_HERE)
