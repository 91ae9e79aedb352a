"""Who may create runners at all, and how many: switches and limits that are independent of registration tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import permissions
from portal.domain.actors import Actor
from portal.domain.errors import LimitReached, NotAllowed, Worded
from portal.domain.groups import scope_settings
from portal.domain.permissions import Action
from portal.domain.runners.runner_status import STALE_AFTER
from portal.domain.scopes import INSTANCE, Scope, ScopeKind
from portal.models import Group, GroupSettings, InstanceSettings, Runner


@dataclass(frozen=True, slots=True)
class Limit:
    """How many recent runners a scope may have, and who decided it. `most` of 0 is no limit."""

    most: int
    by: Scope


def closed_because(session: Session, scope: Scope) -> str:
    """Why nobody but administrators may create runners here; empty when the scope is open.

    Rule: `valid_runner_registrars` of the instance and `runner_registration_enabled` of the group and every group
    above (reference/rest.md section 3); both count for the old way and the new one.
    """
    return closed_among(session, [scope])[0]


def closed_among(session: Session, scopes: Sequence[Scope]) -> list[str]:
    """The same for each of these scopes, in their order; two queries, however many they are."""
    if all(scope.kind is ScopeKind.INSTANCE for scope in scopes):
        return [""] * len(scopes)
    instance = session.get(InstanceSettings, 1) or InstanceSettings()
    ids = {group_id for scope in scopes for group_id in scope.group_ids}
    shut = select(Group).join(GroupSettings, GroupSettings.group_id == Group.id)
    shut = shut.where(Group.id.in_(ids), GroupSettings.runner_registration_enabled.is_(False))
    groups = {group.id: group.full_path for group in session.scalars(shut)}
    return [_closed(scope, instance, groups) for scope in scopes]


def _closed(scope: Scope, instance: InstanceSettings, shut: Mapping[int, str]) -> str:
    if scope.kind is ScopeKind.INSTANCE:
        return ""
    if scope.kind.value not in instance.valid_runner_registrars:
        return f"The administrators of this portal let nobody else create runners in {scope.kind}s."
    path = next((shut[each] for each in scope.group_ids if each in shut), "")
    return f"The administrators of this portal let nobody else create runners in {path} and below." if path else ""


def may_create(session: Session, actor: Actor, scope: Scope) -> bool:
    """Whether the actor may create a runner here: by role, and because the scope is open."""
    if not permissions.may(session, actor, Action.WRITE_RUNNERS, scope):
        return False
    return _above_switches(actor) or not closed_because(session, scope)


def require_may_create(session: Session, actor: Actor, scope: Scope) -> None:
    """Refuse to create a runner here: NotFound or NotAllowed."""
    permissions.require(session, actor, Action.WRITE_RUNNERS, scope)
    if not _above_switches(actor):
        require_open(session, scope)


def require_open(session: Session, scope: Scope) -> None:
    """Refuse with NotAllowed when nobody but administrators may create runners here."""
    if reason := closed_because(session, scope):
        raise NotAllowed(f"{reason} Ask one of them to create it.")


def _above_switches(actor: Actor) -> bool:
    return actor.is_admin or actor.kind == "system"


def limit(session: Session, scope: Scope) -> Limit | None:
    """How many runners the scope may have: what the nearest group says, else the instance. None for the instance."""
    if scope.kind is ScopeKind.INSTANCE:
        return None
    name = f"ci_registered_{scope.kind}_runners"
    chain = scope_settings.chain(session, scope)
    for group, settings in reversed(chain.groups):
        if (most := getattr(settings, name)) is not None:
            return Limit(most, group)
    return Limit(getattr(chain.instance, name), INSTANCE)


def recent(session: Session, scope: Scope) -> int:
    """How many of the scope's own runners count: created or heard of in the last seven days."""
    deadline = now() - STALE_AFTER
    owner = Runner.project_id == scope.project.id if scope.project else Runner.group_id == scope.id
    fresh = or_(Runner.created_at > deadline, Runner.contacted_at > deadline)
    return session.scalar(select(func.count()).select_from(Runner).where(owner, fresh)) or 0


def hold(session: Session, scope: Scope) -> None:
    """Wait for everybody else who makes runners in the scope and counts them, and go first until the end."""
    session.execute(
        select(func.pg_advisory_xact_lock(func.hashtextextended(f"runners of {scope.kind} {scope.id}", 0)))
    )


def room(session: Session, scope: Scope) -> int | None:
    """How many more runners the scope may have now; None for no limit. Only who holds the scope may count on it."""
    allowed = limit(session, scope)
    if allowed is None or allowed.most == 0:
        return None
    return max(0, allowed.most - recent(session, scope))


def require_room(session: Session, scope: Scope, *, adding: int = 1) -> None:
    """Refuse with LimitReached when the scope has no room for so many more runners.

    Counted under a lock that is held until the transaction ends: of two creations at once one waits.
    """
    allowed = limit(session, scope)
    if allowed is None or allowed.most == 0:
        return
    hold(session, scope)
    if recent(session, scope) + adding > allowed.most:
        raise LimitReached(
            {
                "base": [
                    Worded(
                        f"{scope.full_path} has as many runners as it may have: {allowed.most}, counted are those "
                        "created or heard of in the last seven days. Delete some, or ask an administrator of this "
                        "portal for a higher limit.",
                        gitlab=f"Maximum number of ci registered {scope.kind} runners ({allowed.most}) exceeded",
                    )
                ]
            }
        )
