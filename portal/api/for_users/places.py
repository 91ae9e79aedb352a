"""Groups and projects in addresses, by number or full path, and the instance; nothing of what one may not see."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.api import credentials
from portal.api.for_users.door import looking_for
from portal.api.for_users.parameters import LARGEST
from portal.database import db
from portal.domain import permissions, scopes
from portal.domain.errors import NOTHING_HERE, NotAllowed, NotFound
from portal.domain.permissions import Action
from portal.domain.scopes import INSTANCE, Scope
from portal.models import Group, Project


def group(text: str | int) -> Scope:
    """The group with this id or full path, if who asks may see it. Raises NotFound: "404 Group Not Found"."""
    with looking_for("Group"):
        return _seen(text, _group_by_id, scopes.find_group)


def project(text: str | int) -> Scope:
    """The project with this id or full path, if who asks may see it. Raises NotFound: "404 Project Not Found"."""
    with looking_for("Project"):
        return _seen(text, _project_by_id, scopes.find_project)


def instance(action: Action) -> Scope:
    """The instance, if who asks may do this there. Raises NotAllowed: that there is one is no secret."""
    if not permissions.may(db.session(), credentials.actor(), action, INSTANCE):
        sentence = f"You may not {action.value} (the instance): administrators may."
        raise NotAllowed(sentence, action=action.value, where=INSTANCE)
    return INSTANCE


def _seen(
    text: str | int, by_id: Callable[[Session, int], Scope | None], by_path: Callable[[Session, str], Scope]
) -> Scope:
    words = str(text)
    if "\0" in words:
        raise NotFound(NOTHING_HERE)
    scope = _numbered(words, by_id) if words.isascii() and words.isdecimal() else by_path(db.session(), words)
    permissions.require(db.session(), credentials.actor(), Action.SEE, scope)
    return scope


def _numbered(digits: str, by_id: Callable[[Session, int], Scope | None]) -> Scope:
    fits = len(digits) <= len(str(LARGEST)) and int(digits) <= LARGEST
    found = by_id(db.session(), int(digits)) if fits else None
    if found is None:
        raise NotFound(NOTHING_HERE)
    return found


def _group_by_id(session: Session, number: int) -> Scope | None:
    found = session.scalar(select(Group).where(Group.id == number))
    return scopes.of_group(found) if found is not None else None


def _project_by_id(session: Session, number: int) -> Scope | None:
    found = session.scalar(select(Project).where(Project.id == number))
    return scopes.of_project(found) if found is not None else None
