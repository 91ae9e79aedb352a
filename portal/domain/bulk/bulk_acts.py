"""One act on many runners: drafted, started, done in batches, stopped, forgotten."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, or_, select
from sqlalchemy.orm import Session, joinedload

from portal.database import now
from portal.domain import actors, audit, permissions
from portal.domain.actors import Actor
from portal.domain.bulk.bulk_changes import Act, Rules, Wanted
from portal.domain.deletions import deletions
from portal.domain.errors import NOTHING_HERE, Invalid, NotAllowed, NotFound, Refusal
from portal.domain.permissions import Action
from portal.domain.runners import runner_changes, runner_lists, runners
from portal.domain.runners.runner_lists import RunnerFilter
from portal.domain.scopes import INSTANCE, Scope, of_group, of_project
from portal.models import BulkAct, Deletion, Runner, RunnerManager, User

MOST = 50_000  # runners in one act
BATCH = 100  # runners in one transaction
DRAFTS_KEPT = timedelta(days=1)
REPORTS_KEPT = timedelta(days=30)
LONGEST_NAME = 80
UNFINISHED = and_(BulkAct.started_at.is_not(None), BulkAct.finished_at.is_(None))


def draft(
    session: Session, actor: Actor, scope: Scope, wanted: Wanted, chosen: RunnerFilter | Collection[int]
) -> BulkAct:
    """A new act on the runners of the scope's list that fit the filter now, or on those with these ids.

    Nothing happens to them before `start`, and none comes in that fits the filter later. Ids that the list does not
    show are left out. Raises NotFound, NotAllowed, or Invalid, also for more than MOST runners or for none, and for
    words with which so much begins that not all was looked at: nobody would know on which runners it acts.
    """
    permissions.require(session, actor, Action.READ_RUNNERS, scope)
    problems = wanted.problems()
    ids = runner_lists.ids(session, scope, chosen, limit=MOST + 1)
    if isinstance(chosen, RunnerFilter) and runner_lists.is_cut(session, scope, chosen):
        problems["runners"] = [_cut(chosen)]
    elif not ids:
        problems["runners"] = ["Choose at least one runner."]
    elif len(ids) > MOST:
        problems["runners"] = [f"These are more than {MOST:,} runners. Narrow the filter."]
    if actor.user is None:
        raise NotAllowed("Only a person can do this.")
    if problems:
        raise Invalid(problems)
    act = BulkAct(
        user_id=actor.user.id,
        group_id=scope.group.id if scope.group else None,
        project_id=scope.project.id if scope.project else None,
        act=wanted.act.value,
        details=wanted.told(),
        runner_ids=ids,
    )
    session.add(act)
    session.flush()
    return act


def _cut(chosen: RunnerFilter) -> str:
    return (
        f"So many tokens, system IDs or addresses begin with “{chosen.words.strip()}” that not all were looked at: "
        "these may not be all that fit. Search for more of the word, or choose runners one by one."
    )


def wanted_by(act: BulkAct) -> Wanted:
    """What a stored act wants."""
    told = act.details
    tags = {name: tuple(told.get(name, ())) for name in ("add", "remove")}
    return Wanted(Act(act.act), **tags, protected=bool(told.get("protected")))


def scope_of(act: BulkAct) -> Scope:
    """The scope on whose list the runners were chosen."""
    if act.project is not None:
        return of_project(act.project)
    return of_group(act.group) if act.group is not None else INSTANCE


def name_of(runner: Runner) -> str:
    """How a list of many names a runner: the beginning of its description."""
    title = runner.title
    return title if len(title) <= LONGEST_NAME else title[: LONGEST_NAME - 1] + "…"


def gone() -> NotFound:
    """The refusal for a runner that is no more."""
    return NotFound("It was deleted meanwhile.")


def find(session: Session, actor: Actor, act_id: int) -> BulkAct:
    """The act with this id: the person's own, or anybody's for an administrator.

    Raises NotFound; NotAllowed for who may not see the runners any more.
    """
    act = session.get(BulkAct, act_id)
    mine = act is not None and actor.user is not None and act.user_id == actor.user.id
    if act is None or not (mine or actor.is_admin):
        raise NotFound(NOTHING_HERE)
    permissions.require(session, actor, Action.READ_RUNNERS, scope_of(act))
    return act


def start(session: Session, actor: Actor, act_id: int) -> bool:
    """Begin what was drafted; from now on batches are taken. Returns whether it was this call that began it.

    Asking again, or twice at once, begins nothing again. Raises NotFound, or NotAllowed for somebody else's draft.
    """
    act = find(session, actor, act_id)
    session.refresh(act, with_for_update={"of": BulkAct})
    if actor.user is None or act.user_id != actor.user.id:
        raise NotAllowed(f"{act.user.name} chose these runners; only {act.user.name} can start this.")
    if act.started_at is not None:
        return False
    act.started_at, act.address, act.request_id = now(), actor.address, actor.request_id
    _record(session, actor, act, "bulk_act_started", {"act": (None, act.act), "runners": (None, act.total)})
    session.flush()
    return True


def stop(session: Session, actor: Actor, act_id: int) -> bool:
    """Do no further batch; waits for the one that is being done. Returns whether there was anything to stop.

    Raises NotFound.
    """
    act = find(session, actor, act_id)
    session.refresh(act, with_for_update={"of": BulkAct})
    if act.started_at is None or act.finished_at is not None:
        return False
    _finish(session, actor, act, "bulk_act_stopped")
    return True


def hold_of(session: Session, condition: ColumnElement[bool]) -> list[int]:
    """Lock the acts that fit, the lower id first; returns their ids. An act comes before its deletion and runners."""
    query = select(BulkAct.id).where(condition).order_by(BulkAct.id).with_for_update(of=BulkAct)
    return list(session.scalars(query))


def unfinished(session: Session) -> list[int]:
    """The ids of the acts that were started and are not over, the oldest first."""
    return list(session.scalars(select(BulkAct.id).where(UNFINISHED).order_by(BulkAct.id)))


def take_batch(session: Session, act_id: int, *, size: int = BATCH) -> bool:
    """Do the next `size` runners of an act, with their events and its numbers: the caller commits all or nothing.

    Rules and roles are those of this moment. Returns whether anything was done: not when the act is over or somebody
    else is at it. Held are, in this order, the person (whose blocking waits, and then counts), the act, the runners.
    """
    user_id = session.scalar(select(BulkAct.user_id).where(BulkAct.id == act_id, UNFINISHED))
    user = session.get(User, user_id, with_for_update={"read": True}, populate_existing=True) if user_id else None
    query = select(BulkAct).where(BulkAct.id == act_id, UNFINISHED).with_for_update(of=BulkAct, skip_locked=True)
    act = session.scalar(query.execution_options(populate_existing=True)) if user else None
    if user is None or act is None:
        return False
    actor = actors.person(user, address=act.address, request_id=act.request_id)
    ids: Sequence[int] = (
        session.scalar(select(BulkAct.runner_ids[act.done + 1 : act.done + size]).where(BulkAct.id == act.id)) or ()
    )
    batch = _Batch(session, actor, act, ids)
    for runner_id in ids:
        batch.take(runner_id)
    batch.write()
    if act.done >= act.total:
        _finish(session, actor, act, "bulk_act_finished")
    session.flush()
    return True


class _Batch:
    """Some runners of an act, held, and what became of them."""

    def __init__(self, session: Session, actor: Actor, act: BulkAct, ids: Sequence[int]) -> None:
        self.session, self.actor, self.act, self.ids = session, actor, act, ids
        self.wanted = wanted_by(act)
        self.deletes = self.wanted.act is Act.DELETE
        query = select(Runner).where(Runner.id.in_(ids)).order_by(Runner.id)
        query = query.options(joinedload(Runner.group), joinedload(Runner.project))
        # The lower id first, as everybody locks. A runner that only changes may go on getting machines and tokens.
        query = query.with_for_update(of=Runner, key_share=not self.deletes)
        found = session.scalars(query.execution_options(populate_existing=True))
        self.held = {runner.id: runner for runner in found}
        self.rules = Rules(session, actor, self.wanted, self.held.values())
        self.machines = self._machines() if self.deletes else {}
        self.changed: list[int] = []
        self.refused: list[tuple[int, str, str]] = []

    def _machines(self) -> dict[int, int]:
        query = select(RunnerManager.runner_id, func.count()).where(RunnerManager.runner_id.in_(self.held))
        return {row[0]: row[1] for row in self.session.execute(query.group_by(RunnerManager.runner_id))}

    def take(self, runner_id: int) -> None:
        """Do it to one runner, or note why not."""
        runner = self.held.get(runner_id)
        try:
            if runner is None:
                raise gone()
            if self._do(runner):
                self.changed.append(runner_id)
        except Refusal as refusal:
            name = name_of(runner) if runner else f"Runner #{runner_id}"
            self.refused.append((runner_id, name, str(refusal)))

    def _do(self, runner: Runner) -> bool:
        if self.actor.user is not None and self.actor.user.blocked_at is not None:
            raise NotAllowed(f"The account of {self.actor.name} was blocked meanwhile.")
        _, settings = self.rules.allow(runner)
        if not self.deletes:
            return runners.change_held(self.session, self.actor, runner, settings)
        machines = self.machines.get(runner.id, 0)
        runners.delete_held(self.session, self.actor, runner, self.deletion, machines=machines)
        return True

    @cached_property
    def deletion(self) -> Deletion:
        """That of the batches before, held; another one when somebody deleted for good what those took."""
        query = select(Deletion).where(Deletion.id == self.act.deletion_id, Deletion.final_at.is_(None))
        query = query.with_for_update(read=True, key_share=True, of=Deletion)
        found = self.session.scalar(query.execution_options(populate_existing=True))
        if found is None:
            scope = scope_of(self.act)
            found = deletions.begin(self.session, self.actor, "runners", f"runners of {scope.title}", scope.full_path)
            self.act.deletion = found
        return found

    def write(self) -> None:
        """Write the numbers, and tell the server processes of what changed."""
        act = self.act
        act.done += len(self.ids)
        act.changed += len(self.changed)
        act.unchanged += len(self.ids) - len(self.changed) - len(self.refused)
        if self.refused:
            act.refused = [*act.refused, *map(list, self.refused)]
        runner_changes.announce_many(self.session, self.changed, managers_gone=self.deletes)


def _finish(session: Session, actor: Actor, act: BulkAct, action: str) -> None:
    act.finished_at = now()
    told = {"changed": act.changed, "unchanged": act.unchanged, "refused": len(act.refused)}
    left = {"not_done": (None, act.total - act.done)} if act.done < act.total else {}
    _record(session, actor, act, action, {"act": (None, act.act), **{n: (None, v) for n, v in told.items()}, **left})
    session.flush()


def _record(session: Session, actor: Actor, act: BulkAct, action: str, told: dict[str, tuple[Any, Any]]) -> None:
    scope, wanted = scope_of(act), wanted_by(act).told()
    changes = {"number": (None, act.id), **told, **{name: (None, it) for name, it in wanted.items()}}
    audit.record(session, actor, action, scope, scope, changes)


def prune(session: Session, at: datetime) -> int:
    """Forget drafts that nobody started within a day, and reports after thirty. Returns how many."""
    old_draft = and_(BulkAct.started_at.is_(None), BulkAct.created_at <= at - DRAFTS_KEPT)
    old_report = BulkAct.finished_at <= at - REPORTS_KEPT
    gone_ids = session.scalars(delete(BulkAct).where(or_(old_draft, old_report)).returning(BulkAct.id))
    return len(gone_ids.all())
