"""Runner managers: what a machine tells of itself, its row, its heartbeats, and how it is forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Integer,
    Interval,
    Select,
    case,
    column,
    delete,
    func,
    literal,
    literal_column,
    select,
    text,
    true,
    update,
    values,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, joinedload

from portal.database import now
from portal.domain import audit, runner_changes, runner_tokens
from portal.domain.actors import Actor, system
from portal.domain.errors import BadRequest, ManagerUnknown, TokenUnknown, TryLater
from portal.domain.runner_status import STALE_AFTER
from portal.domain.scopes import of_runner
from portal.models import EXECUTORS, LEGACY, CreationState, Executor, Runner, RunnerManager, RunnerToken

LONGEST_SYSTEM_ID = 64
_LIMITS = {"version": 2048, "revision": 255, "platform": 255, "architecture": 255}
_MOST_ENTRIES = 256  # of features, config and labels
_LONGEST_ENTRY = 1024
NEW_ROWS = 1000  # a runner may get this many new managers …
NEW_ROWS_WINDOW = timedelta(minutes=10)  # … in this time; reference/users.md section 4.1
PRUNE_BATCH = 1000
CLEAN_UP = system("clean-up")  # who does, on the trail, what nobody asked for one by one


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What `info` says of a machine; None where it says nothing."""

    version: str | None = None
    revision: str | None = None
    platform: str | None = None
    architecture: str | None = None
    executor_type: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, bool] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contact:
    """One sign of life. `polled` is true for a poll for jobs, false for a verification.

    `facts` is None when the request told nothing (verify before 19.3): what is stored then stays.
    """

    runner_id: int
    token_id: int
    system_xid: str
    at: datetime
    address: str
    polled: bool
    facts: MachineFacts | None


def read_system_id(value: object) -> str:
    """The system ID of a request; `<legacy>` when there is none. Raises BadRequest."""
    if value is None or value == "":
        return LEGACY
    if not isinstance(value, str) or len(value) > LONGEST_SYSTEM_ID or "\0" in value:
        raise BadRequest(f"system_id must be a text of at most {LONGEST_SYSTEM_ID} characters.")
    return value


def read_facts(info: object) -> MachineFacts | None:
    """The facts in a request's `info`; unknown keys are ignored. Raises BadRequest for what cannot be stored."""
    if info is None:
        return None
    if not isinstance(info, Mapping):
        raise BadRequest("info must be an object.")
    texts = {name: _read_text(info, name, limit) for name, limit in _LIMITS.items()}
    executor = _read_text(info, "executor", 255)
    return MachineFacts(
        **texts,
        executor_type=EXECUTORS.get(executor, Executor.UNKNOWN) if executor else None,
        config=_read_object(info, "config", (str, int, float, bool, type(None))),
        features=_read_object(info, "features", (bool, type(None))),
        labels=_read_object(info, "labels", (str,)),
    )


def _read_text(info: Mapping[str, Any], name: str, limit: int) -> str | None:
    value = info.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > limit or "\0" in value:
        raise BadRequest(f"info.{name} must be a text of at most {limit} characters.")
    return value


def _read_object(info: Mapping[str, Any], name: str, kinds: tuple[type, ...]) -> dict[str, Any]:
    value = info.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping) or len(value) > _MOST_ENTRIES:
        raise BadRequest(f"info.{name} must be an object with at most {_MOST_ENTRIES} entries.")
    for key, entry in value.items():
        if (
            not isinstance(entry, kinds)
            or len(key) > 255
            or len(str(entry)) > _LONGEST_ENTRY
            or "\0" in f"{key}{entry}"
        ):
            raise BadRequest(f"info.{name}.{key[:80]} has a value of a wrong type or length.")
    return dict(value)


def record_contact(session: Session, contact: Contact) -> None:
    """Make or refresh the manager of (runner, system ID) at once; safe under any number of concurrent calls.

    Raises TokenUnknown when the runner was deleted meanwhile, TryLater when it gets too many new managers.
    """
    if not runner_tokens.hold(session, contact.runner_id):
        raise TokenUnknown("This runner was deleted.")
    try:
        with session.begin_nested():
            inserted = session.execute(_upsert(contact)).scalar_one()
            if inserted:
                _refuse_flood(session, contact)
            runner_tokens.mark_used(session, contact.runner_id, contact.token_id)
            if contact.polled:
                _note_poll(session, contact)
    except IntegrityError:  # the token ended so long ago that it was deleted
        raise TokenUnknown("This token is over.") from None


def _upsert(contact: Contact) -> Any:
    values = {
        "runner_id": contact.runner_id,
        "system_xid": contact.system_xid,
        "creation_state": CreationState.FINISHED if contact.polled else CreationState.STARTED,
        "created_at": contact.at,
        "contacted_at": contact.at,
        "token_id": contact.token_id,
        "ip_address": contact.address,
        **_fact_columns(contact.facts or MachineFacts()),
    }
    statement = insert(RunnerManager).values(**values)
    new = statement.excluded
    refreshed: dict[str, Any] = {
        "creation_state": func.greatest(RunnerManager.creation_state, new.creation_state),
        "contacted_at": func.greatest(RunnerManager.contacted_at, new.contacted_at),
    }
    told = ["token_id", "ip_address", *(_fact_columns(contact.facts) if contact.facts is not None else ())]
    late = RunnerManager.contacted_at > new.contacted_at  # another process was quicker with something newer
    refreshed |= {name: case((late, getattr(RunnerManager, name)), else_=new[name]) for name in told}
    return statement.on_conflict_do_update(index_elements=["runner_id", "system_xid"], set_=refreshed).returning(
        literal_column("xmax = 0")
    )  # true for a row that is new


def _fact_columns(facts: MachineFacts) -> dict[str, Any]:
    return {
        "version": facts.version,
        "revision": facts.revision,
        "platform": facts.platform,
        "architecture": facts.architecture,
        "executor_type": facts.executor_type,
        "config": dict(facts.config),
        "runtime_features": dict(facts.features),
        "labels": dict(facts.labels),
    }


def _refuse_flood(session: Session, contact: Contact) -> None:
    recent = session.scalar(
        select(func.count()).where(
            RunnerManager.runner_id == contact.runner_id,
            RunnerManager.contacted_at > contact.at - NEW_ROWS_WINDOW,
            RunnerManager.created_at > contact.at - NEW_ROWS_WINDOW,
        )
    )
    if (recent or 0) > NEW_ROWS:
        raise TryLater(
            f"This runner got {NEW_ROWS} new machines within ten minutes. If they are containers that start "
            "again and again, keep /etc/gitlab-runner on a volume so that each keeps its system ID.",
            600,
        )


def _note_poll(session: Session, contact: Contact) -> None:
    session.execute(
        update(Runner)
        .where(Runner.id == contact.runner_id)
        .values(
            contacted_at=func.greatest(func.coalesce(Runner.contacted_at, contact.at), contact.at),
            creation_state=CreationState.FINISHED,
        )
    )


# Without it, writers of the same rows would hold some of them and wait for each other: see runner_tokens.hold.
_HOLD = text("SELECT id FROM ci_runners WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id FOR NO KEY UPDATE")

# One statement for a second's heartbeats. One that is older than what is stored (another process was quicker) says
# nothing of the machine any more. It only refreshes rows that exist: a machine that was
# unregistered, pruned or whose runner was deleted a moment ago is not brought back by a late heartbeat, and
# nothing in the batch can fail because of it. The caller learns which machines had no row.
_REFRESH = text("""
WITH beats AS (
  SELECT * FROM unnest(
    CAST(:runner_ids AS bigint[]), CAST(:system_xids AS text[]), CAST(:token_ids AS bigint[]),
    CAST(:ats AS timestamptz[]), CAST(:addresses AS text[]), CAST(:polls AS boolean[]), CAST(:tells AS boolean[]),
    CAST(:versions AS text[]), CAST(:revisions AS text[]), CAST(:platforms AS text[]),
    CAST(:architectures AS text[]), CAST(:executors AS smallint[]), CAST(:configs AS jsonb[]),
    CAST(:features AS jsonb[]), CAST(:labels AS jsonb[])
  ) AS b(runner_id, system_xid, token_id, at, address, polled, tells, version, revision, platform,
         architecture, executor_type, config, features, labels)
),
touched_runners AS (
  UPDATE ci_runners r SET contacted_at = greatest(r.contacted_at, b.at)
  FROM (SELECT runner_id, max(at) AS at FROM beats WHERE polled GROUP BY runner_id) b WHERE r.id = b.runner_id
),
touched_tokens AS (
  UPDATE ci_runner_tokens t SET last_used_at = greatest(t.last_used_at, b.at)
  FROM (SELECT token_id, max(at) AS at FROM beats GROUP BY token_id) b WHERE t.id = b.token_id
)
UPDATE ci_runner_machines m SET
  contacted_at = greatest(m.contacted_at, b.at),
  creation_state = CASE WHEN b.polled THEN 100 ELSE m.creation_state END,
  token_id = CASE WHEN b.at < m.contacted_at THEN m.token_id
    ELSE (SELECT t.id FROM ci_runner_tokens t WHERE t.id = b.token_id) END,
  ip_address = CASE WHEN b.at < m.contacted_at THEN m.ip_address ELSE b.address END,
  version = CASE WHEN b.tells AND (b.at < m.contacted_at) IS NOT TRUE THEN b.version ELSE m.version END,
  revision = CASE WHEN b.tells AND (b.at < m.contacted_at) IS NOT TRUE THEN b.revision ELSE m.revision END,
  platform = CASE WHEN b.tells AND (b.at < m.contacted_at) IS NOT TRUE THEN b.platform ELSE m.platform END,
  architecture = CASE WHEN b.tells AND (b.at < m.contacted_at) IS NOT TRUE
    THEN b.architecture ELSE m.architecture END,
  executor_type = CASE WHEN b.tells AND (b.at < m.contacted_at) IS NOT TRUE
    THEN b.executor_type ELSE m.executor_type END,
  config = CASE WHEN b.tells AND (b.at < m.contacted_at) IS NOT TRUE THEN b.config ELSE m.config END,
  runtime_features = CASE WHEN b.tells AND (b.at < m.contacted_at) IS NOT TRUE
    THEN b.features ELSE m.runtime_features END,
  labels = CASE WHEN b.tells AND (b.at < m.contacted_at) IS NOT TRUE THEN b.labels ELSE m.labels END
FROM beats b WHERE m.runner_id = b.runner_id AND m.system_xid = b.system_xid
RETURNING m.runner_id, m.system_xid
""")


def write_heartbeats(session: Session, contacts: Sequence[Contact], encode: Any) -> set[tuple[int, str]]:
    """Write many contacts together: their runners are held, then one statement writes them all.

    Returns (runner id, system ID) of those without a row.

    `encode` turns a mapping into JSON text.
    """
    facts = [contact.facts or MachineFacts() for contact in contacts]
    columns = {
        "runner_ids": [c.runner_id for c in contacts],
        "system_xids": [c.system_xid for c in contacts],
        "token_ids": [c.token_id for c in contacts],
        "ats": [c.at for c in contacts],
        "addresses": [c.address for c in contacts],
        "polls": [c.polled for c in contacts],
        "tells": [c.facts is not None for c in contacts],
        "versions": [f.version for f in facts],
        "revisions": [f.revision for f in facts],
        "platforms": [f.platform for f in facts],
        "architectures": [f.architecture for f in facts],
        "executors": [f.executor_type for f in facts],
        "configs": [encode(f.config) for f in facts],
        "features": [encode(f.features) for f in facts],
        "labels": [encode(f.labels) for f in facts],
    }
    session.execute(_HOLD, {"ids": sorted({c.runner_id for c in contacts})})
    found = {(row.runner_id, row.system_xid) for row in session.execute(_REFRESH, columns)}
    return {(c.runner_id, c.system_xid) for c in contacts} - found


def of_runner_newest_first(session: Session, runner: Runner, limit: int) -> list[RunnerManager]:
    """The runner's managers, the most recently heard of first."""
    newest = RunnerManager.contacted_at.desc().nulls_last()
    query = select(RunnerManager).where(RunnerManager.runner_id == runner.id).order_by(newest, RunnerManager.id)
    return list(session.scalars(query.limit(limit)))


def newest_with_token(session: Session, runner: Runner, token: RunnerToken) -> RunnerManager | None:
    """The manager heard of last that uses this token, or one that a machine's reset minted after it."""
    mine = (RunnerManager.runner_id == runner.id) & (RunnerManager.token_id >= token.id)
    newest = RunnerManager.contacted_at.desc().nulls_last()
    return session.scalar(select(RunnerManager).where(mine).order_by(newest, RunnerManager.id).limit(1))


def count(session: Session, runner: Runner) -> int:
    """How many machines use the runner."""
    return session.scalar(select(func.count()).where(RunnerManager.runner_id == runner.id)) or 0


def remove(session: Session, actor: Actor, runner: Runner, system_xid: str) -> None:
    """Delete one manager on its machine's request; the runner stays. Raises ManagerUnknown."""
    runner_tokens.hold(session, runner.id)
    gone = session.execute(
        delete(RunnerManager)
        .where(RunnerManager.runner_id == runner.id, RunnerManager.system_xid == system_xid)
        .returning(RunnerManager.id)
    ).all()
    if not gone:
        raise ManagerUnknown("This runner has no machine with this system ID.")
    audit.record(session, actor, "machine_unregistered", runner, of_runner(runner), {"system_id": (system_xid, None)})
    runner_changes.announce(session, runner.id, managers_gone=True)


def remove_only_one(session: Session, actor: Actor, runner: Runner) -> None:
    """The same for clients up to 15.11, which name no system ID: it is clear only if there is just one."""
    ids = session.scalars(select(RunnerManager.system_xid).where(RunnerManager.runner_id == runner.id).limit(2)).all()
    if len(ids) == 1:
        remove(session, actor, runner, ids[0])


def prune(
    session: Session, *, at: datetime | None = None, silent_for: timedelta = STALE_AFTER, batch: int = PRUNE_BATCH
) -> int:
    """Delete at most `batch` managers that were silent for that long at this moment; their runners stay.

    A runner may say for itself how long its managers are remembered (`machines_forgotten_after`). A manager is as old
    as the later of its making and its last contact, and goes exactly at its deadline, as `runner_status` has it.
    Returns how many went. Each runner counts its own, and the trail tells of them by runner.

    Rows that others hold are left for the next round, so that a prune never waits for heartbeats: two that write
    runners in different orders would otherwise stop each other.
    """
    moment = at or now()
    silent: dict[int, int] = {}
    for query in _silent(moment, silent_for, batch):
        if len(silent) < batch:
            silent |= {row.id: row.runner_id for row in session.execute(query.limit(batch - len(silent)))}
    held = select(Runner.id).where(Runner.id.in_(set(silent.values())))
    runner_ids = set(session.scalars(held.with_for_update(key_share=True, skip_locked=True))) if silent else set()
    taken = [manager_id for manager_id, runner_id in silent.items() if runner_id in runner_ids]
    gone = Counter(silent[manager_id] for manager_id in taken)
    if gone:
        session.execute(delete(RunnerManager).where(RunnerManager.id.in_(taken)))
        _note_forgotten(session, gone, moment)
    return len(taken)


_SECOND = literal_column("interval '1 second'", Interval)


def _silent(at: datetime, silent_for: timedelta, batch: int) -> Iterator[Select[int, int]]:
    """The managers to delete (id, runner id), held, in three queries that share no row and have an index each.

    One query for all would read the whole table each time, because a row's deadline stands in another table.
    """
    manager, own = RunnerManager, Runner.machines_forgotten_after
    usual, special = at - silent_for, literal(at) - own * _SECOND
    found = select(manager.id, manager.runner_id)
    of_runners = found.join(Runner, Runner.id == manager.runner_id)
    old = manager.contacted_at <= usual, manager.created_at <= usual
    yield _held(of_runners.where(own.is_(None), *old).order_by(manager.contacted_at))
    never = manager.contacted_at.is_(None), manager.created_at <= func.coalesce(special, usual)
    yield _held(of_runners.where(*never))
    # Lateral, so that each such runner's managers are looked up by its id and deadline.
    its = manager.runner_id == Runner.id, manager.contacted_at <= special, manager.created_at <= special
    each = _held(found.where(*its).correlate(Runner).limit(batch)).lateral("each")
    yield select(each.c.id, each.c.runner_id).select_from(Runner).join(each, true()).where(own.is_not(None))


def _held(query: Select[int, int]) -> Select[int, int]:
    return query.with_for_update(of=RunnerManager, skip_locked=True)


def _note_forgotten(session: Session, gone: Counter[int], at: datetime) -> None:
    names = column("runner_id", BigInteger), column("machines", Integer)
    forgotten = values(*names, name="forgotten").data(list(gone.items()))
    session.execute(
        update(Runner)
        .where(Runner.id == forgotten.c.runner_id)
        .values(machines_forgotten=Runner.machines_forgotten + forgotten.c.machines, machines_forgotten_at=at)
        .execution_options(synchronize_session=False)
    )
    whose = select(Runner).where(Runner.id.in_(gone)).order_by(Runner.id).execution_options(populate_existing=True)
    for runner in session.scalars(whose.options(joinedload(Runner.group), joinedload(Runner.project))):
        told = {"machines": (None, gone[runner.id])}
        audit.record(session, CLEAN_UP, "machines_forgotten", runner, of_runner(runner), told)
        runner_changes.announce(session, runner.id, managers_gone=True)


def tokens_in_use(session: Session, managers: Sequence[RunnerManager]) -> dict[int, RunnerToken]:
    """The tokens that these managers used last, by id."""
    ids = {manager.token_id for manager in managers if manager.token_id}
    if not ids:
        return {}
    return {row.id: row for row in session.scalars(select(RunnerToken).where(RunnerToken.id.in_(ids)))}
