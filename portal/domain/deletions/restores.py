"""Undoing a deletion: runners, groups and projects come back as they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, joinedload

from portal.database import now
from portal.domain import audit
from portal.domain.actors import Actor
from portal.domain.deletions import deletions
from portal.domain.deletions.deletion_lists import (
    Entry,
    owner_of,
    parent_of,
    restorable_runners,
    runners_of,
    scope_of,
)
from portal.domain.deletions.deletions import OF_RUNNERS
from portal.domain.errors import NOTHING_HERE, Invalid, NotFound, Stale
from portal.domain.groups import groups
from portal.domain.jobs import pending_jobs
from portal.domain.names import path_problems
from portal.domain.permissions import Action, may
from portal.domain.runners import runner_changes, runner_creation
from portal.domain.runners.runner_status import STALE_AFTER
from portal.domain.scopes import INSTANCE, Scope, is_there, of_group, of_runner
from portal.models import WITH_DELETED, Deletion, Group, Project, Route, Runner, RunnerManager


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back: the group or project, or runners. `left` counts runners whose owner is deleted still."""

    scope: Scope | None = None
    runners: Sequence[Runner] = ()
    left: int = 0


def restore(
    session: Session,
    actor: Actor,
    deletion_id: int,
    kept: timedelta,
    *,
    path: str | None = None,
    runner_id: int | None = None,
) -> Restored:
    """Undo an act of deleting, for as much of it as the actor could have deleted; `runner_id`: that one runner only.

    `path` is another last part of its path for a group or project whose own is taken by now. Tokens work again at
    once in every process. Raises NotFound; Stale when something above must be restored before; Invalid for a path
    that is taken, too long or none; LimitReached where as many runners as may be came since.
    """
    deletion = deletions.hold(session, deletion_id, kept)
    if deletion.kind in OF_RUNNERS:
        return _restore_runners(session, actor, deletion, runner_id)
    if runner_id is not None:
        raise NotFound(NOTHING_HERE)
    return _restore_scope(session, actor, deletion, path)


def first_to_undo(session: Session, actor: Actor, entry: Entry) -> Deletion | None:
    """The act that must be undone before anything of this one can be; None when nothing is in the way."""
    if not entry.of_runners:
        parent = parent_of(session, scope_of(session, entry.deletion))
        return parent.deletion if parent is not None else None
    owners = [owner_of(runner) for runner in runners_of(session, actor, entry.deletion)]
    if any(owner is None or owner.deletion is None for owner in owners):
        return None
    return next((owner.deletion for owner in owners if owner is not None), None)


def path_is_taken(session: Session, deletion: Deletion) -> bool:
    """Whether somebody has the path by now at which the group or project was."""
    scope = scope_of(session, deletion)
    parent, owner = parent_of(session, scope), scope.project or scope.group
    above = of_group(parent) if parent is not None else INSTANCE
    wanted = groups.joined(above, owner.path if owner is not None else "")
    return session.scalar(select(Route.id).where(func.lower(Route.path) == wanted.lower())) is not None


def in_the_way(owner: Group | Project | None) -> str:
    """Why nothing can be restored to this group or project yet; empty when it can."""
    if owner is None or owner.deletion is None:
        return ""
    kind = "project" if isinstance(owner, Project) else "group"
    return f"The {kind} that it belongs to was deleted too ({owner.deletion.path}). Restore that first."


def _restore_runners(session: Session, actor: Actor, deletion: Deletion, runner_id: int | None) -> Restored:
    wanted = [Runner.deletion_id == deletion.id, restorable_runners(actor)]
    if runner_id is not None:
        wanted.append(Runner.id == runner_id)
    query = select(Runner).where(*wanted).order_by(Runner.id)
    query = query.options(joinedload(Runner.group), joinedload(Runner.project))
    found = list(session.scalars(query, execution_options=WITH_DELETED))
    if not found:
        raise NotFound(NOTHING_HERE)
    _require_room(session, [runner for runner in found if not in_the_way(owner_of(runner))])
    scopes = _hold_owners(session, found)
    homeless = [runner for runner in found if _key(of_runner(runner)) not in scopes]
    back = [runner for runner in found if _key(of_runner(runner)) in scopes]
    if not back:
        raise Stale(in_the_way(owner_of(homeless[0])) or "What it belongs to is being deleted.")
    ids = [runner.id for runner in back]
    session.execute(
        select(Runner.id).where(Runner.id.in_(ids)).order_by(Runner.id).with_for_update(),
        execution_options=WITH_DELETED,
    )
    machines = _machines(session, ids)
    moment = now()
    for runner in back:
        runner.deletion, runner.restored_at = None, moment
        told = {"machines": (0, machines[runner.id])}
        audit.record(session, actor, "runner_restored", runner, of_runner(runner), told)
    _announce(session, ids)
    session.flush()
    return Restored(runners=back, left=len(homeless))


def _key(scope: Scope) -> tuple[str, int | None]:
    return scope.kind.value, scope.id


def _hold_owners(session: Session, runners: Sequence[Runner]) -> set[tuple[str, int | None]]:
    """Those of the runners' scopes that are there, and stay so until the transaction ends; lower ids first."""
    return {key for key, scope in _scopes(runners) if is_there(session, scope)}


def _require_room(session: Session, back: Sequence[Runner]) -> None:
    """Deleting, creating others and restoring shall not lead past a scope's limit."""
    fresh = now() - STALE_AFTER
    counted = [r for r in back if r.created_at > fresh or (r.contacted_at is not None and r.contacted_at > fresh)]
    adding = Counter(_key(of_runner(runner)) for runner in counted)
    for key, scope in _scopes(counted):
        runner_creation.require_room(session, scope, adding=adding[key])


def _scopes(runners: Sequence[Runner]) -> list[tuple[tuple[str, int | None], Scope]]:
    scopes = {_key(of_runner(runner)): of_runner(runner) for runner in runners}
    return sorted(scopes.items(), key=lambda each: (each[0][0], each[0][1] or 0))


def _machines(session: Session, ids: Sequence[int]) -> Counter[int]:
    query = select(RunnerManager.runner_id, func.count()).where(RunnerManager.runner_id.in_(ids))
    return Counter({row[0]: row[1] for row in session.execute(query.group_by(RunnerManager.runner_id))})


def _announce(session: Session, ids: Sequence[int], most: int = 100) -> None:
    if len(ids) > most:
        runner_changes.announce_everything(session)
        return
    for runner_id in ids:
        runner_changes.announce(session, runner_id)


def _restore_scope(session: Session, actor: Actor, deletion: Deletion, path: str | None) -> Restored:
    scope = scope_of(session, deletion)
    if not may(session, actor, Action.DELETE, scope):
        raise NotFound(NOTHING_HERE)
    parent = parent_of(session, scope)
    if sentence := in_the_way(parent):
        raise Stale(sentence)
    above = of_group(parent) if parent is not None else INSTANCE
    groups.hold_still(session, above)
    for kind in (Group, Project, Runner):
        its = select(kind.id).where(kind.deletion_id == deletion.id).order_by(kind.id).with_for_update(of=kind)
        session.execute(its, execution_options=WITH_DELETED)
    old = deletion.path
    marked = select(Project.id).where(Project.deletion_id == deletion.id)
    project_ids = session.scalars(marked, execution_options=WITH_DELETED).all()
    came = {name: (0, number) for name, number in _move_back(session, scope, above, path, deletion).items()}
    if scope.full_path != old:
        came["path"] = (old, scope.full_path)  # type: ignore[assignment]
    audit.record(session, actor, f"{scope.kind}_restored", scope.project or scope.group, scope, came)
    runner_changes.announce_everything(session)
    session.flush()
    projects = select(Project).where(Project.id.in_(project_ids)).options(joinedload(Project.group))
    pending_jobs.unpark(session, session.scalars(projects).all())
    return Restored(scope=scope)


def _move_back(session: Session, scope: Scope, above: Scope, path: str | None, deletion: Deletion) -> dict[str, int]:
    """Take the path again and the mark off everything. Returns how much came back, the scope itself not counted."""
    owner = scope.project or scope.group
    if owner is None:
        raise NotFound(NOTHING_HERE)
    segment = owner.path if path is None else path
    problems = path_problems(segment, at_the_top=above.group is None) if path is not None else []
    session.refresh(owner.route)
    old, new = owner.route.path, groups.joined(above, segment)
    refused = {"path": problems} if problems else groups.too_long(new, groups.deepest_below(session, old))
    if refused:
        raise Invalid(refused)
    try:
        with session.begin_nested():
            groups.move_paths(session, old, new)
    except IntegrityError:
        raise groups.taken(new) from None
    owner.path = segment
    count = {
        "groups": _unmark(session, Group, deletion),
        "projects": _unmark(session, Project, deletion),
        "runners": _unmark(session, Runner, deletion),
    }
    count[f"{scope.kind}s"] -= 1
    session.expire_all()
    return count


def _unmark(session: Session, kind: type[Group] | type[Project] | type[Runner], deletion: Deletion) -> int:
    values = {"deletion_id": None, **({"restored_at": now()} if kind is Runner else {})}
    mark = update(kind).where(kind.deletion_id == deletion.id).values(**values)
    done = session.execute(mark.execution_options(synchronize_session=False, **WITH_DELETED))
    return int(done.rowcount)  # type: ignore[attr-defined]
