"""The settings that count for a scope: its own and those of everything above it, the instance first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from portal.domain.scopes import INSTANCE, Scope, ScopeKind, ancestors, of_group
from portal.models import GroupSettings, InstanceSettings, ProjectSettings

AnySettings = InstanceSettings | GroupSettings | ProjectSettings
Kind = TypeVar("Kind", InstanceSettings, GroupSettings, ProjectSettings)


@dataclass(frozen=True, slots=True)
class Level:
    """One scope of a chain with its own settings."""

    scope: Scope
    settings: AnySettings


@dataclass(frozen=True, slots=True)
class Chain:
    """The settings from the instance down to one scope, itself included; what was never stored has its default."""

    instance: InstanceSettings
    groups: tuple[tuple[Scope, GroupSettings], ...] = ()
    project: tuple[Scope, ProjectSettings] | None = None

    @property
    def levels(self) -> list[Level]:
        """Every level, the instance first."""
        below = [Level(scope, settings) for scope, settings in self.groups]
        last = [Level(*self.project)] if self.project else []
        return [Level(INSTANCE, self.instance), *below, *last]

    @property
    def own(self) -> Level:
        """The level of the scope itself."""
        return self.levels[-1]


def chain(session: Session, scope: Scope) -> Chain:
    """All settings that count for the scope. Two queries for the instance, four at most for a project."""
    instance = session.get(InstanceSettings, 1) or InstanceSettings()
    if scope.kind is ScopeKind.INSTANCE:
        return Chain(instance)
    stored = {
        row.group_id: row
        for row in session.scalars(select(GroupSettings).where(GroupSettings.group_id.in_(scope.group_ids)))
    }
    above = [of_group(group) for group in ancestors(session, scope)]
    groups = [*above, scope] if scope.kind is ScopeKind.GROUP else above
    levels = tuple((each, stored.get(each.id or 0) or GroupSettings(group_id=each.id)) for each in groups)
    if scope.project is None:
        return Chain(instance, levels)
    project = session.get(ProjectSettings, scope.project.id) or ProjectSettings(project_id=scope.project.id)
    return Chain(instance, levels, (scope, project))


def own_for_update(session: Session, scope: Scope) -> AnySettings:
    """The scope's own settings as a row to change, locked until the transaction ends; made when there is none."""
    if scope.project is not None:
        session.execute(insert(ProjectSettings).values(project_id=scope.project.id).on_conflict_do_nothing())
        return _locked(session, ProjectSettings, scope.project.id)
    if scope.group is not None:
        session.execute(insert(GroupSettings).values(group_id=scope.group.id).on_conflict_do_nothing())
        return _locked(session, GroupSettings, scope.group.id)
    session.execute(insert(InstanceSettings).values(id=1).on_conflict_do_nothing())
    return _locked(session, InstanceSettings, 1)


def _locked(session: Session, kind: type[Kind], key: int) -> Kind:
    return session.get_one(kind, key, with_for_update=True, populate_existing=True)
