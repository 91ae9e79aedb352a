"""Stale runners: which they are, when they are deleted, and which are kept all the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, any_, exists, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, joinedload

from portal.database import as_array, now
from portal.domain import audit
from portal.domain.actors import CLEAN_UP, Actor
from portal.domain.deletions import deletions
from portal.domain.errors import Invalid
from portal.domain.groups import scope_settings
from portal.domain.groups.groups import owned_below
from portal.domain.permissions import Action, require
from portal.domain.runners import runner_changes
from portal.domain.runners.runner_paging import among
from portal.domain.runners.runner_status import LAST_CONTACT
from portal.domain.scopes import INSTANCE, Scope, of_group, of_runner
from portal.domain.slices import count
from portal.models import (
    AuditEvent,
    Group,
    GroupSettings,
    InstanceSettings,
    ProjectSettings,
    RegistrationType,
    Runner,
    RunnerManager,
    RunnerToken,
)

FEWEST_DAYS, MOST_DAYS = 7, 3650
BATCH = 1000
EVERY = timedelta(hours=1)  # at most so often is a scope cleaned up by itself
NAMED = 50  # runners that a report names; all of them stand on the trail one by one
LONGEST_NAME = 80

Settings = InstanceSettings | GroupSettings


@dataclass(frozen=True, slots=True)
class Criteria:
    """From which time of silence on a runner is stale, in days, and whether only runners made by a token are."""

    days: int
    legacy_only: bool = False

    def problems(self) -> dict[str, list[str]]:
        """What is wrong, by field; empty when nothing is."""
        if FEWEST_DAYS <= self.days <= MOST_DAYS:
            return {}
        return {"days": [f"Write a number of days from {FEWEST_DAYS} to {MOST_DAYS}."]}


@dataclass(frozen=True, slots=True)
class CleanUp:
    """What is settled in one scope: `criteria` is None while its clean-up is off. `ran_at` is its last run."""

    scope: Scope
    criteria: Criteria | None
    ran_at: datetime | None

    def is_due(self, at: datetime) -> bool:
        """Whether nothing was cleaned up within the hour before: then it is, once it is on and looked after next."""
        return self.ran_at is None or self.ran_at <= at - EVERY


@dataclass(frozen=True, slots=True)
class Found:
    """Runners that a page lists: the first of them, and how many there are with how many machines."""

    runners: list[Runner]
    total: int
    machines: int = 0


@dataclass(frozen=True, slots=True)
class Gone:
    """One runner that was deleted, by the act `deletion_id`, or would be."""

    id: int
    name: str
    scope: str
    contacted_at: datetime | None
    deletion_id: int | None = None

    @classmethod
    def of(cls, runner: Runner) -> Gone:
        """What there is to say of it afterwards."""
        return cls(runner.id, name_of(runner), of_runner(runner).title, runner.contacted_at, runner.deletion_id)


def settled(session: Session, scope: Scope) -> list[CleanUp]:
    """What the instance, the groups above and the scope itself have settled, in this order; the last is its own."""
    levels = scope_settings.chain(session, scope).levels
    return [
        CleanUp(level.scope, _criteria(level.settings), level.settings.stale_runner_cleanup_ran_at)
        for level in levels
        if not isinstance(level.settings, ProjectSettings)
    ]


def change(session: Session, actor: Actor, scope: Scope, criteria: Criteria | None) -> bool:
    """Turn the scope's clean-up on with these criteria, or off with None. Returns whether anything changed.

    Raises NotFound, NotAllowed or Invalid.
    """
    require(session, actor, Action.CLEAN_UP_RUNNERS, scope)
    if problems := criteria.problems() if criteria else {}:
        raise Invalid(problems)
    settings = scope_settings.own_for_update(session, scope)
    if isinstance(settings, ProjectSettings):
        raise Invalid({"days": ["A project has no clean-up of its own; that of its groups covers it."]})
    old = _told(settings)
    settings.stale_runner_cleanup_days = criteria.days if criteria else None
    if criteria:
        settings.stale_runner_cleanup_legacy_only = criteria.legacy_only
    changed = audit.differences(old, _told(settings))
    if changed:
        audit.record(session, actor, "stale_runner_cleanup_changed", scope, scope, changed)
    session.flush()
    return bool(changed)


def _told(settings: Settings) -> dict[str, object]:
    return {
        "days_of_silence": settings.stale_runner_cleanup_days,
        "only_registered_by_token": settings.stale_runner_cleanup_legacy_only,
    }


def _criteria(settings: Settings) -> Criteria | None:
    days = settings.stale_runner_cleanup_days
    return None if days is None else Criteria(days, settings.stale_runner_cleanup_legacy_only)


def stale(scope: Scope, criteria: Criteria, at: datetime) -> ColumnElement[bool]:
    """Condition for the runners of the scope and of everything below it that are stale at this moment.

    GitLab's clean-up of a group takes only the group's own. A runner's silence counts from the latest of: its
    creation or restoring, its last poll, the making or last contact of any of its machines, and the making or last
    use of any of its tokens: a machine that only verified may be forgotten by now, and a new token waits for its
    machine.
    """
    deadline = at - timedelta(days=criteria.days)
    heard = exists().where(
        RunnerManager.runner_id == Runner.id,
        func.greatest(RunnerManager.created_at, RunnerManager.contacted_at) > deadline,
    )
    issued = exists().where(
        RunnerToken.runner_id == Runner.id,
        func.greatest(RunnerToken.created_at, RunnerToken.last_used_at) > deadline,
    )
    since = func.greatest(Runner.created_at, Runner.restored_at)
    silent = and_(since <= deadline, deadline >= LAST_CONTACT, ~heard, ~issued)
    parts = [owned_below(scope), silent, Runner.kept_when_stale.is_(False)]
    if criteria.legacy_only:
        parts.append(Runner.registration_type == RegistrationType.REGISTRATION_TOKEN)
    return and_(*parts)


def preview(session: Session, scope: Scope, criteria: Criteria, at: datetime, limit: int | None = None) -> Found:
    """What would go at this moment, the longest silent first.

    `limit` cuts the list, not the numbers: these are then counted up to one more than BATCH, which stands for more
    than that. The machines are those of the first BATCH runners, which would go at once. Raises Invalid.
    """
    if problems := criteria.problems():
        raise Invalid(problems)
    order = (LAST_CONTACT, Runner.id)
    first = select(Runner.id).where(stale(scope, criteria, at)).order_by(*order)
    ids = session.scalars(first.limit(BATCH + 1 if limit is not None else None)).all()
    shown = ids[:limit] if limit is not None else ids
    runners = {each.id: each for each in session.scalars(_with_owners().where(among(shown)))}
    machines = select(func.count()).where(RunnerManager.runner_id == any_(as_array(ids[:BATCH])))
    return Found(
        runners=[runners[each] for each in shown if each in runners],
        total=len(ids),
        machines=session.scalar(machines) or 0,
    )


def _with_owners() -> Select[Runner]:
    return select(Runner).options(joinedload(Runner.group), joinedload(Runner.project))


def delete_stale(
    session: Session, actor: Actor, scope: Scope, criteria: Criteria, at: datetime, *, batch: int = BATCH
) -> list[Gone]:
    """Delete at most `batch` runners that were stale at this moment and are so still. Returns them; all by one act.

    A moment to come counts as now. With a moment that a person has seen a list of, none can go that was not on it,
    unless it was taken off the protect list since. Runners of which somebody else holds a row are left alone: this
    never waits, so it stops no heartbeat. Raises NotFound, NotAllowed or Invalid.
    """
    require(session, actor, Action.CLEAN_UP_RUNNERS, scope)
    if problems := criteria.problems():
        raise Invalid(problems)
    condition = stale(scope, criteria, min(at, now()))
    query = _with_owners().where(condition).order_by(LAST_CONTACT, Runner.id).limit(batch)
    query = query.with_for_update(of=Runner, skip_locked=True).execution_options(populate_existing=True)
    held = {runner.id: runner for runner in session.scalars(query)}
    machines = _hold(session, held)
    # The statement asks again: with every row held, it sees all that was written before and nothing comes after.
    gone = _mark(session, actor, scope, [held[key] for key in held if key in machines], condition)
    for runner in gone:
        told = {"machines": (machines[runner.id], 0), "by_the_clean_up_of": (None, scope.title)}
        audit.record(session, actor, "runner_deleted", runner, of_runner(runner), told)
        runner_changes.announce(session, runner.id, managers_gone=True)
    if gone:
        _report(session, actor, scope, criteria, gone)
    session.flush()
    return [Gone.of(runner) for runner in gone]


def _mark(
    session: Session, actor: Actor, scope: Scope, held: list[Runner], condition: ColumnElement[bool]
) -> list[Runner]:
    """Delete those of these runners that the condition fits, by one act that can be undone. Returns them."""
    if not held:
        return []
    deletion = deletions.begin(session, actor, "runners", f"stale runners of {scope.title}", scope.full_path)
    mark = update(Runner).where(Runner.id.in_([runner.id for runner in held]), condition)
    marked = mark.values(deletion_id=deletion.id).returning(Runner.id)
    ids = set(session.scalars(marked.execution_options(synchronize_session=False)))
    if not ids:
        session.delete(deletion)
    for runner in held:
        session.expire(runner, ["deletion_id", "deletion"])
    return [runner for runner in held if runner.id in ids]


def _hold(session: Session, ids: Collection[int]) -> dict[int, int]:
    """Hold the machines and tokens of these runners, whose own rows are held. Returns how many machines each has.

    Left out are those of which somebody else holds a row: a machine of theirs is calling at this moment.
    """
    if not ids:
        return {}
    machines, busy = _free(session, RunnerManager.runner_id, ids)
    _, busy_too = _free(session, RunnerToken.runner_id, ids)
    return {runner_id: machines[runner_id] for runner_id in ids if runner_id not in busy | busy_too}


def _free(
    session: Session, of_runner_id: InstrumentedAttribute[int], ids: Collection[int]
) -> tuple[Counter[int], set[int]]:
    """Hold the rows of a table that belong to these runners: how many each has, and whose were not all free."""
    rows = select(of_runner_id).where(of_runner_id.in_(ids))
    there = Counter(session.scalars(rows))
    free = Counter(session.scalars(rows.with_for_update(skip_locked=True)))
    return there, {runner_id for runner_id in ids if there[runner_id] != free[runner_id]}


def _report(session: Session, actor: Actor, scope: Scope, criteria: Criteria, gone: Sequence[Runner]) -> None:
    told = {
        "runners": (None, len(gone)),
        "days_of_silence": (None, criteria.days),
        "only_registered_by_token": (None, criteria.legacy_only),
        "names": (None, [name_of(runner) for runner in gone[:NAMED]]),
    }
    audit.record(session, actor, "stale_runners_deleted", scope, scope, told)


def name_of(runner: Runner) -> str:
    """How a list names a runner: its description, which others may share, and its number."""
    if not runner.description:
        return runner.title
    words = runner.description
    return f"{words if len(words) <= LONGEST_NAME else words[: LONGEST_NAME - 1] + '…'} (#{runner.id})"


def reports(session: Session, scope: Scope, limit: int = 10) -> list[AuditEvent]:
    """What the scope's clean-up has deleted, the newest first: one event for each batch of at most 1,000."""
    about_it = (AuditEvent.target_kind == scope.kind.value) & (AuditEvent.target_id == scope.id)
    query = select(AuditEvent).where(about_it, AuditEvent.action == "stale_runners_deleted")
    return list(session.scalars(query.order_by(*audit.NEWEST_FIRST).limit(limit)))


def protected(session: Session, scope: Scope, limit: int | None = None) -> Found:
    """The runners of the scope and of everything below it that no clean-up takes, the newest first.

    They are counted up to one more than BATCH.
    """
    kept = and_(owned_below(scope), Runner.kept_when_stale)
    return Found(
        runners=list(session.scalars(_with_owners().where(kept).order_by(Runner.id.desc()).limit(limit))),
        total=count(session, select(Runner).where(kept), Runner.id, most=BATCH),
    )


def set_protected(session: Session, actor: Actor, scope: Scope, runner_id: int, kept: bool) -> tuple[Runner, bool]:
    """Put a runner of the scope, or of anything below it, on the protect list or take it off.

    It counts for every clean-up, also that of a scope above. Returns the runner and whether that changed anything.
    Raises NotFound, NotAllowed, or Invalid for a number that no runner here has.
    """
    require(session, actor, Action.CLEAN_UP_RUNNERS, scope)
    query = select(Runner).where(Runner.id == runner_id, owned_below(scope)).with_for_update(of=Runner)
    runner = session.scalar(query.execution_options(populate_existing=True))
    if runner is None:
        raise Invalid({"runner": [f"There is no runner #{runner_id} here. It may be deleted, or belong elsewhere."]})
    if runner.kept_when_stale == kept:
        return runner, False
    runner.kept_when_stale = kept
    audit.record(session, actor, "runner_protected" if kept else "runner_unprotected", runner, of_runner(runner))
    session.flush()
    return runner, True


def turned_on(session: Session) -> list[int | None]:
    """The ids of the groups whose clean-up is on, None for the instance, which stands first."""
    return [key for key, _ in _turned_on(session)]


def due(session: Session, at: datetime) -> list[int | None]:
    """Those of them that were not cleaned up within the last hour."""
    rows = _turned_on(session)
    return [key for key, ran_at in rows if ran_at is None or ran_at <= at - EVERY]


def _turned_on(session: Session) -> list[tuple[int | None, datetime | None]]:
    instance, group = InstanceSettings, GroupSettings
    runs = [
        (None, ran_at)
        for ran_at in session.scalars(
            select(instance.stale_runner_cleanup_ran_at).where(instance.stale_runner_cleanup_days.is_not(None))
        )
    ]
    query = select(group.group_id, group.stale_runner_cleanup_ran_at)
    query = query.where(group.stale_runner_cleanup_days.is_not(None)).order_by(group.group_id)
    return [*runs, *((row.group_id, row.stale_runner_cleanup_ran_at) for row in session.execute(query))]


def of_id(session: Session, group_id: int | None) -> CleanUp | None:
    """The clean-up of the group with this id, or of the instance; None when the group was deleted meanwhile."""
    if group_id is None:
        return settled(session, INSTANCE)[-1]
    group = session.get(Group, group_id)
    return settled(session, of_group(group))[-1] if group else None


def run(session: Session, group_id: int | None, at: datetime, *, batch: int = BATCH) -> list[Gone]:
    """Delete one batch as the scope has settled it, if its clean-up is on still. Returns what went.

    The settings are held meanwhile: once a person's "Turn off" is stored, nothing more goes.
    """
    clean_up = of_id(session, group_id) if _stored(session, group_id, read=True) else None
    if clean_up is None or clean_up.criteria is None:
        return []
    return delete_stale(session, CLEAN_UP, clean_up.scope, clean_up.criteria, at, batch=batch)


def note_run(session: Session, group_id: int | None, at: datetime) -> None:
    """Remember that the scope was cleaned up at this moment; the next time is an hour later."""
    settings = _stored(session, group_id, read=False)
    if settings is not None:
        settings.stale_runner_cleanup_ran_at = at
    session.flush()


def _stored(session: Session, group_id: int | None, *, read: bool) -> Settings | None:
    lock = {"read": read}
    if group_id is None:
        return session.get(InstanceSettings, 1, with_for_update=lock, populate_existing=True)
    return session.get(GroupSettings, group_id, with_for_update=lock, populate_existing=True)
