"""What was deleted is deleted for good: when its time is over, or when somebody says so before."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.orm import Session, joinedload

from portal.database import now
from portal.domain import audit
from portal.domain.actors import CLEAN_UP, Actor
from portal.domain.bulk import bulk_acts
from portal.domain.deletions import deletions
from portal.domain.deletions.deletion_lists import restorable_runners, scope_of
from portal.domain.deletions.deletions import OF_RUNNERS
from portal.domain.errors import NOTHING_HERE, NotFound
from portal.domain.permissions import Action, may
from portal.domain.runners import runner_changes
from portal.domain.scopes import of_runner
from portal.models import WITH_DELETED, BulkAct, Deletion, Group, Project, Runner

BATCH = 1000


def end(session: Session, actor: Actor, deletion_id: int, kept: timedelta) -> None:
    """Delete for good what the actor could restore of an act.

    From now on nobody can undo it. What is more than a batch is taken by the next `purge`. Raises NotFound.
    """
    bulk_acts.hold_of(session, BulkAct.deletion_id == deletion_id)
    deletion = deletions.hold(session, deletion_id, kept)
    if deletion.kind in OF_RUNNERS:
        deletion = _split_off(session, actor, deletion)
    elif not may(session, actor, Action.DELETE, scope_of(session, deletion)):
        raise NotFound(NOTHING_HERE)
    _finish(session, actor, deletion, now())
    _take(session, deletion, BATCH)


def purge(session: Session, at: datetime, kept: timedelta, *, batch: int = BATCH) -> int:
    """Delete for good a batch of what was deleted longer than `kept` before this moment, or was given up since.

    Returns how much was taken, 0 when nothing is left. An act that somebody restores just now is left alone.
    """
    over = or_(Deletion.final_at.is_not(None), Deletion.created_at <= at - kept)
    query = select(Deletion).where(over).order_by(Deletion.id).limit(1).with_for_update(of=Deletion, skip_locked=True)
    deletion = session.scalar(query.execution_options(populate_existing=True))
    if deletion is None:
        return 0
    if deletion.final_at is None:
        _finish(session, CLEAN_UP, deletion, at)
    return 1 + _take(session, deletion, batch)


def _split_off(session: Session, actor: Actor, deletion: Deletion) -> Deletion:
    """The part of an act on runners that the actor gives up, as an act of its own: the rest can be undone still."""
    its = Runner.deletion_id == deletion.id
    options = {"execution_options": WITH_DELETED}
    ids = session.scalars(
        select(Runner.id).where(its, restorable_runners(actor)).order_by(Runner.id).with_for_update(), **options
    ).all()
    if not ids:
        raise NotFound(NOTHING_HERE)
    if session.scalar(select(Runner.id).where(its, Runner.id.not_in(ids)).limit(1), **options) is None:
        return deletion
    part = Deletion(
        kind=deletion.kind,
        name=deletion.name,
        path=deletion.path,
        user_id=deletion.user_id,
        actor_name=deletion.actor_name,
        created_at=deletion.created_at,
    )
    session.add(part)
    session.flush()
    moved = update(Runner).where(Runner.id.in_(ids)).values(deletion_id=part.id)
    session.execute(moved.execution_options(synchronize_session=False, **WITH_DELETED))
    return part


def _finish(session: Session, actor: Actor, deletion: Deletion, at: datetime) -> None:
    """From here on there is no way back; the trail says so of the group or project, or of each runner."""
    deletion.final_at = at
    if deletion.kind in OF_RUNNERS:
        query = select(Runner).where(Runner.deletion_id == deletion.id).order_by(Runner.id)
        query = query.options(joinedload(Runner.group), joinedload(Runner.project))
        for runner in session.scalars(query, execution_options=WITH_DELETED):
            audit.record(session, actor, "deleted_for_good", runner, of_runner(runner))
    elif _has_any(session, deletion):
        scope = scope_of(session, deletion)
        event = audit.record(session, actor, "deleted_for_good", scope.project or scope.group, scope)
        event.target_name = event.scope_path = deletion.path  # not the path that has made room
    runner_changes.announce_everything(session)
    session.flush()


def _has_any(session: Session, deletion: Deletion) -> bool:
    kind = Project if deletion.kind == "project" else Group
    its = select(kind.id).where(kind.deletion_id == deletion.id).limit(1)
    return session.scalar(its, execution_options=WITH_DELETED) is not None


def _take(session: Session, deletion: Deletion, batch: int) -> int:
    """Delete at most `batch` runners of an act that is final, or all the rest when it is not more than that.

    Owners are held before their runners, as by everybody else. Groups and projects that were deleted before inside
    of this one go with it.
    """
    options = {"execution_options": WITH_DELETED}
    marked = select(Group.traversal_ids).where(Group.deletion_id == deletion.id)
    tops = [ids[-1] for ids in session.scalars(marked, **options)]
    in_groups = Group.traversal_ids.overlap(tops) if tops else Group.id.is_(None)
    groups = session.scalars(
        select(Group.id).where(in_groups).order_by(Group.id).with_for_update(of=Group), **options
    )
    group_ids = groups.all()
    in_projects = or_(Project.deletion_id == deletion.id, Project.group_id.in_(group_ids))
    projects = select(Project.id).where(in_projects).order_by(Project.id).with_for_update(of=Project)
    project_ids = session.scalars(projects, **options).all()
    theirs = or_(
        Runner.deletion_id == deletion.id, Runner.group_id.in_(group_ids), Runner.project_id.in_(project_ids)
    )
    runners = select(Runner.id).where(theirs).order_by(Runner.id).limit(batch).with_for_update(of=Runner)
    runner_ids = session.scalars(runners, **options).all()
    _delete(session, Runner, Runner.id.in_(runner_ids))
    if len(runner_ids) < batch:
        _delete(session, Project, Project.id.in_(project_ids))
        _delete(session, Group, Group.id.in_(group_ids))
        session.delete(deletion)
    session.flush()
    return len(runner_ids)


def _delete(
    session: Session, kind: type[Runner] | type[Project] | type[Group], condition: ColumnElement[bool]
) -> None:
    gone = delete(kind).where(condition).execution_options(synchronize_session="fetch", **WITH_DELETED)
    session.execute(gone)
