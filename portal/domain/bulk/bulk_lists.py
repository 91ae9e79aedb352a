"""Finding acts on many runners again: those of a scope's list that matter now, and all that a report is kept of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, or_, select, true
from sqlalchemy.orm import Session, joinedload

from portal.database import now
from portal.domain import permissions
from portal.domain.actors import Actor
from portal.domain.bulk.bulk_acts import REPORTS_KEPT, UNFINISHED, scope_of
from portal.domain.permissions import Action
from portal.domain.scopes import Scope
from portal.models import BulkAct

PAGE_SIZE = 20
SHOWN = 5  # acts that the list of runners names
RECENT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of acts, the newest first; `after` is the id to go on behind, None on the last page."""

    acts: Sequence[BulkAct]
    after: int | None


def page(session: Session, actor: Actor, *, after: int | None = None, size: int = PAGE_SIZE) -> Page:
    """The actor's own acts that were started in the last thirty days; an administrator finds everybody's.

    A page leaves out those on runners that the actor may not see any more, and may so be shorter than `size`.
    """
    kept = and_(BulkAct.started_at.is_not(None), or_(UNFINISHED, BulkAct.finished_at > now() - REPORTS_KEPT))
    older = BulkAct.id < after if after is not None else true()
    found = _newest(session, size + 1, kept, older, true() if actor.is_admin else _own(actor))
    shown = found[:size]
    permissions.remember_roles(session, actor, [scope_of(act) for act in shown])
    visible = [act for act in shown if _stands(act) and _may_see(session, actor, act)]
    return Page(visible, shown[-1].id if len(found) > size else None)


def recent_in(session: Session, actor: Actor, scope: Scope) -> Sequence[BulkAct]:
    """The newest few acts from this scope's list that are under way, or the actor's own that ended within a day.

    Of those under way an administrator finds everybody's. The actor may see the scope's runners.
    """
    ended = and_(_own(actor), BulkAct.finished_at > now() - RECENT)
    under_way = UNFINISHED if actor.is_admin else and_(_own(actor), UNFINISHED)
    return _newest(
        session,
        SHOWN,
        or_(under_way, ended),
        BulkAct.group_id == scope.group.id if scope.group else BulkAct.group_id.is_(None),
        BulkAct.project_id == scope.project.id if scope.project else BulkAct.project_id.is_(None),
    )


def _own(actor: Actor) -> ColumnElement[bool]:
    return BulkAct.user_id == (actor.user.id if actor.user else None)


def _newest(session: Session, most: int, *conditions: ColumnElement[bool]) -> Sequence[BulkAct]:
    """Chosen by their ids first, so that only the chosen ones' long lists of runners are counted."""
    chosen = select(BulkAct.id).where(*conditions).order_by(BulkAct.id.desc()).limit(most)
    query = select(BulkAct).where(BulkAct.id.in_(chosen)).order_by(BulkAct.id.desc())
    whole = (joinedload(BulkAct.user), joinedload(BulkAct.group), joinedload(BulkAct.project))
    return session.scalars(query.options(*whole)).all()


def _stands(act: BulkAct) -> bool:
    """Whether the scope of the act is not deleted at present."""
    owner = act.project or act.group
    return owner is None or owner.deletion_id is None


def _may_see(session: Session, actor: Actor, act: BulkAct) -> bool:
    return permissions.may(session, actor, Action.READ_RUNNERS, scope_of(act))
