"""Names of groups and projects with those of the groups above, such as "Acme / Platform / Web"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain import permissions
from portal.domain.actors import Actor
from portal.domain.permissions import Action
from portal.domain.scopes import Scope, of_group
from portal.models import Group

SEPARATOR = " / "


@dataclass(frozen=True, slots=True)
class FullNames:
    """Who is called what: the names of those groups that the reader may see, by id."""

    seen: Mapping[int, str]

    def of(self, scope: Scope) -> str:
        """The full name. Of a group above that the reader may not see it has the path, which they know anyway."""
        above = zip(scope.group_ids, scope.full_path.split("/"), strict=False)
        parts = [self.seen.get(group_id, segment) for group_id, segment in above]
        return SEPARATOR.join([*parts, scope.name] if scope.project is not None else parts)


def of_scopes(session: Session, actor: Actor, scopes: Iterable[Scope]) -> FullNames:
    """What is needed to name these groups and projects in full, in two statements for all of them."""
    ids = {group_id for scope in scopes for group_id in scope.group_ids}
    found = [of_group(each) for each in session.scalars(select(Group).where(Group.id.in_(ids)))] if ids else []
    permissions.remember_roles(session, actor, found)
    seen = [each for each in found if permissions.may(session, actor, Action.SEE, each)]
    return FullNames({each.group.id: each.name for each in seen if each.group is not None})
