"""Which runners in a project's reach are looked at one by one, where there are too many to look at all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, any_, func, select, union
from sqlalchemy.orm import Session, joinedload

from portal.domain.actors import Actor
from portal.domain.jobs.job_matching import Demand
from portal.domain.jobs.stuck_words import COUNTED
from portal.domain.runners import runner_lists, runner_queries
from portal.domain.runners.runner_status import LAST_CONTACT
from portal.domain.scopes import Scope
from portal.models import AccessLevel, Runner, RunnerType

LOOKED_AT = 200  # runners that are judged one by one
DRAWN = 500  # of each scope the newest, of those that probably may take it, and twice as many of those heard of last
LOOKED_FOR_TAKERS = 20_000  # runners among which those that probably may take it are drawn
LOOKED_FOR_ELSEWHERE = 5000


def looked_at(session: Session, scope: Scope, demand: Demand) -> Sequence[Runner]:
    """LOOKED_AT runners at most, and one more where there are more: those first that probably may take the job.

    They are chosen among those that are DRAWN, so that a reach of any size costs the same. Those that probably may
    take it are drawn wherever they stand: among LOOKED_FOR_TAKERS that have the tags, or of each scope.
    """
    reach = runner_lists.shown_in(scope, inherited=True)
    assert scope.project is not None  # noqa: S101
    places = [Runner.runner_type == RunnerType.INSTANCE, *(Runner.group_id == each for each in scope.group_ids)]
    places += [Runner.project_id == scope.id, runner_lists.assigned_to(scope.project)]
    drawn = [select(Runner.id).where(place).order_by(Runner.id.desc()).limit(DRAWN) for place in places]
    heard = select(Runner.id).order_by(LAST_CONTACT.desc(), Runner.id.desc()).limit(2 * DRAWN)
    drawn.append(select(Runner.id).where(Runner.id == any_(func.array(heard.scalar_subquery())), reach))
    if demand.tags:
        tagged = _told(demand).where(reach, Runner.tag_list.contains(sorted(demand.tags)))
        drawn.append(_best(tagged))
    else:
        drawn += [_best(_told(demand).where(place).order_by(Runner.id.desc())) for place in places]
    ids = union(*(select(each.subquery()) for each in drawn)).scalar_subquery()
    shown = (joinedload(Runner.group), joinedload(Runner.project))
    order = (_probably(demand).desc(), LAST_CONTACT.desc(), Runner.id.desc())
    query = select(Runner).options(*shown).where(Runner.id == any_(func.array(ids))).order_by(*order)
    return session.scalars(query.limit(LOOKED_AT + 1)).all()


def _told(demand: Demand) -> Select[int, datetime, bool]:
    """What is asked of a runner before it is drawn."""
    return select(Runner.id, LAST_CONTACT.label("heard"), _probably(demand).label("probably"))


def _best(told: Select[int, datetime, bool]) -> Select[Any]:
    """Those that probably may take the job, the one heard of last first, then the others."""
    some = told.limit(LOOKED_FOR_TAKERS).subquery()
    return select(some.c.id).order_by(some.c.probably.desc(), some.c.heard.desc(), some.c.id.desc()).limit(DRAWN)


def beyond(session: Session, scope: Scope) -> int:
    """How many there are in reach that are not looked at, up to one more than COUNTED."""
    reach = runner_lists.shown_in(scope, inherited=True)
    limited = select(Runner.id).where(reach).limit(LOOKED_AT + COUNTED + 1).subquery()
    return max(0, (session.scalar(select(func.count()).select_from(limited)) or 0) - LOOKED_AT)


def elsewhere(session: Session, actor: Actor, scope: Scope) -> int:
    """How many runners the actor looks after that are out of reach, up to one more than COUNTED.

    They are looked for among LOOKED_FOR_ELSEWHERE of the actor's.
    """
    # Where an owner is null, the condition is neither true nor false.
    here = func.coalesce(runner_lists.shown_in(scope, inherited=True), False)
    theirs = select(Runner.id, here.label("here")).where(runner_queries.available_to(session, actor))
    some = theirs.limit(LOOKED_FOR_ELSEWHERE).subquery()
    limited = select(some.c.id).where(~some.c.here).limit(COUNTED + 1).subquery()
    return session.scalar(select(func.count()).select_from(limited)) or 0


def _probably(demand: Demand) -> ColumnElement[bool]:
    """Only for the order in which runners are looked at: the rules themselves are asked of each."""
    parts: list[ColumnElement[bool]] = [Runner.active.is_(True)]
    if not demand.instance_runners:
        parts.append(Runner.runner_type != RunnerType.INSTANCE)
    if not demand.group_runners:
        parts.append(Runner.runner_type != RunnerType.GROUP)
    if not demand.ref_protected:
        parts.append(Runner.access_level == AccessLevel.NOT_PROTECTED)
    parts.append(Runner.tag_list.contains(sorted(demand.tags)) if demand.tags else Runner.run_untagged.is_(True))
    return and_(*parts)
