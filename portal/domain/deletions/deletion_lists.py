"""What was deleted and can be restored by somebody: which acts these are, and what went by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select, true
from sqlalchemy.orm import Session, aliased, joinedload

from portal.database import now
from portal.domain.actors import CLEAN_UP, Actor
from portal.domain.deletions import deletions
from portal.domain.deletions.deletions import OF_RUNNERS
from portal.domain.errors import NOTHING_HERE, Hidden, NotFound
from portal.domain.groups.groups import owned_below
from portal.domain.permissions import Action, where_allowed
from portal.domain.scopes import INSTANCE, Scope, of_group, of_project
from portal.domain.scopes import of_runner as scope_of_runner
from portal.models import WITH_DELETED, Deletion, Group, Project, Runner, RunnerManager, RunnerProject

PAGE_SIZE = 20
SHOWN = 200  # runners of one act that a page lists


@dataclass(frozen=True, slots=True)
class Entry:
    """One act with what the reader may restore of it, and until when that can be done."""

    deletion: Deletion
    ends_at: datetime
    groups: int
    projects: int
    runners: int
    machines: int

    @property
    def of_runners(self) -> bool:
        return self.deletion.kind in OF_RUNNERS

    @property
    def title(self) -> str:
        """What a list calls it."""
        if self.deletion.kind == "runners":
            return f"{self.runners} runner{'' if self.runners == 1 else 's'}"
        return self.deletion.name if self.of_runners else self.deletion.path


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; `after` and `before` are the ids that the next and the previous page start from."""

    entries: list[Entry]
    after: int | None
    before: int | None


def page(
    session: Session,
    actor: Actor,
    kept: timedelta,
    *,
    words: str = "",
    after: int | None = None,
    before: int | None = None,
    size: int = PAGE_SIZE,
) -> Page:
    """The acts that the actor can undo now, at least in part, the newest first. `words` may stand in any name."""
    query = select(Deletion).where(deletions.open_at(now(), kept), _restorable(actor))
    if words:
        query = query.where(_named_like(actor, words))
    if before is not None:
        query = query.where(Deletion.id > before).order_by(Deletion.id)
    else:
        query = query.where(Deletion.id < after if after is not None else true()).order_by(Deletion.id.desc())
    found = list(session.scalars(query.limit(size + 1), execution_options=WITH_DELETED))
    more, found = len(found) > size, found[:size]
    if before is not None:
        found.reverse()
    older, newer = (True, more) if before is not None else (more, after is not None)
    return Page(
        _entries(session, actor, found, kept),
        after=found[-1].id if found and older else None,
        before=found[0].id if found and newer else None,
    )


def find(session: Session, actor: Actor, deletion_id: int, kept: timedelta) -> Entry:
    """One act that the actor can undo now, at least in part. Raises NotFound; Hidden for what others can undo."""
    query = select(Deletion).where(Deletion.id == deletion_id, deletions.open_at(now(), kept), _restorable(actor))
    found = session.scalar(query, execution_options=WITH_DELETED)
    if found is None:
        raise _nothing_here(session, deletion_id)
    return _entries(session, actor, [found], kept)[0]


def _nothing_here(session: Session, deletion_id: int) -> NotFound:
    deletion = session.get(Deletion, deletion_id)
    if deletion is None or deletion.final_at is not None:
        return NotFound(NOTHING_HERE)
    if deletion.kind in OF_RUNNERS:
        runners = runners_of(session, CLEAN_UP, deletion, limit=1)
        return Hidden(NOTHING_HERE, action="restore it", where=scope_of_runner(runners[0]) if runners else INSTANCE)
    return Hidden(NOTHING_HERE, action="restore it", where=scope_of(session, deletion))


def of_runner(session: Session, actor: Actor, runner_id: int, kept: timedelta) -> Entry:
    """The act that took this runner, if the actor can undo it. Raises NotFound."""
    query = select(Runner.deletion_id).where(Runner.id == runner_id)
    deletion_id = session.scalar(query, execution_options=WITH_DELETED)
    entry = find(session, actor, deletion_id or 0, kept)
    if entry.of_runners:
        mine = select(Runner.id).where(Runner.id == runner_id, restorable_runners(actor))
        if session.scalar(mine, execution_options=WITH_DELETED) is None:
            raise NotFound(NOTHING_HERE)
    return entry


def runners_of(
    session: Session, actor: Actor, deletion: Deletion, *, runner_id: int | None = None, limit: int = SHOWN
) -> list[Runner]:
    """The first of the runners of an act that the actor may restore, by number; or the one with this number.

    Their owners are loaded with them, deleted ones too.
    """
    query = select(Runner).where(Runner.deletion_id == deletion.id).order_by(Runner.id).limit(limit)
    if deletion.kind in OF_RUNNERS:
        query = query.where(restorable_runners(actor))
    if runner_id is not None:
        query = query.where(Runner.id == runner_id)
    query = query.options(joinedload(Runner.group), joinedload(Runner.project))
    return list(session.scalars(query, execution_options=WITH_DELETED))


def count_runners(session: Session, actor: Actor, scope: Scope, kept: timedelta) -> int:
    """How many runners of the scope and below were deleted by themselves and can be restored by the actor."""
    query = select(func.count(Runner.id)).join(Deletion, Deletion.id == Runner.deletion_id)
    fits = (deletions.open_at(now(), kept), Deletion.kind.in_(OF_RUNNERS), owned_below(scope))
    query = query.where(*fits, restorable_runners(actor))
    return session.scalar(query, execution_options=WITH_DELETED) or 0


def exists_any(session: Session, actor: Actor, kept: timedelta) -> bool:
    """Whether there is anything that the actor can restore now."""
    query = select(Deletion.id).where(deletions.open_at(now(), kept), _restorable(actor)).limit(1)
    return session.scalar(query, execution_options=WITH_DELETED) is not None


def scope_of(session: Session, deletion: Deletion) -> Scope:
    """The group or project that was deleted by this act, not what was below it. Raises NotFound."""
    its = {"execution_options": WITH_DELETED}
    if deletion.kind == "project":
        project = session.scalar(select(Project).where(Project.deletion_id == deletion.id), **its)
        found = of_project(project) if project is not None else None
    else:
        group = session.scalar(select(Group).where(Group.deletion_id == deletion.id, _is_top()), **its)
        found = of_group(group) if group is not None else None
    if found is None:
        raise NotFound(NOTHING_HERE)
    return found


def parent_of(session: Session, scope: Scope) -> Group | None:
    """The group that a group or project is in, a deleted one too; None at the top."""
    if scope.project is not None:
        return scope.project.group
    key = scope.group.parent_id if scope.group is not None else None
    return session.get(Group, key, execution_options=WITH_DELETED) if key is not None else None


def owner_of(runner: Runner) -> Group | Project | None:
    """The group or project that owns the runner, a deleted one too; None for the instance's."""
    return runner.project or runner.group


def restorable_runners(actor: Actor) -> ColumnElement[bool]:
    """Condition for runners that the actor could have deleted, so may restore. Asked with WITH_DELETED."""
    if actor.is_admin or actor.kind == "system":
        return true()
    groups, projects = where_allowed(actor, Action.WRITE_RUNNERS)
    theirs = or_(
        Runner.group_id.in_(select(Group.id).where(groups)),
        Runner.project_id.in_(select(Project.id).where(projects)),
    )
    # One that serves further projects, deleted ones aside, is deleted by administrators only: see runner_access.
    further = RunnerProject.project_id == Project.id, RunnerProject.runner_id == Runner.id
    return and_(theirs, ~exists().where(*further, Project.deletion_id.is_(None)))


def _restorable(actor: Actor) -> ColumnElement[bool]:
    groups, projects = where_allowed(actor, Action.DELETE)
    its_runners = select(Runner.id).where(Runner.deletion_id == Deletion.id, restorable_runners(actor))
    its_group = select(Group.id).where(Group.deletion_id == Deletion.id, _is_top(), groups)
    its_project = select(Project.id).where(Project.deletion_id == Deletion.id, projects)
    return or_(
        and_(Deletion.kind.in_(OF_RUNNERS), its_runners.exists()),
        and_(Deletion.kind == "group", its_group.exists()),
        and_(Deletion.kind == "project", its_project.exists()),
    )


def _is_top() -> ColumnElement[bool]:
    """Condition for the group that an act was about: what it is in went by no act, or by another one."""
    above = aliased(Group)
    return ~exists().where(above.id == Group.parent_id, above.deletion_id == Group.deletion_id)


def _named_like(actor: Actor, words: str) -> ColumnElement[bool]:
    def has(*columns: ColumnElement[str]) -> ColumnElement[bool]:
        return or_(*(func.strpos(func.lower(column), words.lower()) > 0 for column in columns))

    inside = and_(Runner.deletion_id == Deletion.id, has(Runner.description.expression))
    mine = or_(Deletion.kind.not_in(OF_RUNNERS), restorable_runners(actor))
    named = has(Deletion.name.expression, Deletion.path.expression)
    return or_(named, select(Runner.id).where(inside, mine).exists())


def _entries(session: Session, actor: Actor, found: Sequence[Deletion], kept: timedelta) -> list[Entry]:
    ids = [deletion.id for deletion in found]
    mine = or_(restorable_runners(actor), Runner.deletion_id.in_([d.id for d in found if d.kind not in OF_RUNNERS]))
    its = Runner.deletion_id.in_(ids)
    machines = select(Runner.deletion_id, func.count(RunnerManager.id))
    machines = machines.join(RunnerManager, RunnerManager.runner_id == Runner.id)
    runners = select(Runner.deletion_id, func.count())
    counts = [
        _counted(session, query)
        for query in (
            select(Group.deletion_id, func.count()).where(Group.deletion_id.in_(ids)).group_by(Group.deletion_id),
            select(Project.deletion_id, func.count())
            .where(Project.deletion_id.in_(ids))
            .group_by(Project.deletion_id),
            runners.where(its, mine).group_by(Runner.deletion_id),
            machines.where(its, mine).group_by(Runner.deletion_id),
        )
    ]
    return [
        Entry(each, deletions.ends_at(each, kept), *(count.get(each.id, 0) for count in counts)) for each in found
    ]


def _counted(session: Session, query: Select[int | None, int]) -> dict[int | None, int]:
    return {row[0]: row[1] for row in session.execute(query, execution_options=WITH_DELETED)}
