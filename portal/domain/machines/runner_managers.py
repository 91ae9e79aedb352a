"""Runner managers: their rows, their heartbeats, and how a machine leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    case,
    delete,
    func,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.domain import audit
from portal.domain.actors import Actor
from portal.domain.deletions import deletions
from portal.domain.errors import NOTHING_HERE, ManagerUnknown, NotFound, TokenUnknown, TryLater
from portal.domain.machines.machine_facts import MachineFacts
from portal.domain.runners import runner_changes, runner_tokens
from portal.domain.scopes import of_runner
from portal.models import CreationState, Runner, RunnerManager, RunnerToken

NEW_ROWS = 1000  # a runner may get this many new managers …
NEW_ROWS_WINDOW = timedelta(minutes=10)  # … in this time; reference/users.md section 4.1


class Contact(NamedTuple):
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


def record_contact(session: Session, contact: Contact) -> None:
    """Make or refresh the manager of (runner, system ID) at once; safe under any number of concurrent calls.

    Raises TokenUnknown when the runner was deleted meanwhile, TryLater when it gets too many new managers.
    """
    if not runner_tokens.hold(session, contact.runner_id):
        raise deletions.refusal_of(session, contact.runner_id)
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
_HOLD = text(
    "SELECT id FROM ci_runners WHERE id = ANY(CAST(:ids AS bigint[])) AND deletion_id IS NULL "
    "ORDER BY id FOR NO KEY UPDATE"
)

# One statement for a second's heartbeats. One that is older than what is stored (another process was quicker) says
# nothing of the machine any more. It only refreshes rows that exist: a machine that was
# unregistered, pruned or whose runner was deleted a moment ago is not brought back by a late heartbeat, and
# nothing in the batch can fail because of it. The caller learns which machines had no row.
# When a token was used last is told in minutes and written no oftener, since its row costs as much as the machine's.
# The very last use of one may never be written.
# The batch comes as one JSON text: as an array for each column, most of the time would go into writing them out.
_REFRESH = text("""
WITH beats AS MATERIALIZED (
  SELECT * FROM jsonb_to_recordset(CAST(:beats AS jsonb)) AS b(
    runner_id bigint, system_xid text, token_id bigint, at timestamptz, address text, polled boolean, tells boolean,
    version text, revision text, platform text, architecture text, executor_type smallint, config jsonb,
    features jsonb, labels jsonb)
),
touched_runners AS (
  UPDATE ci_runners r SET contacted_at = greatest(r.contacted_at, b.at)
  FROM (SELECT runner_id, max(at) AS at FROM beats WHERE polled GROUP BY runner_id) b WHERE r.id = b.runner_id
),
touched_tokens AS (
  UPDATE ci_runner_tokens t SET last_used_at = greatest(t.last_used_at, b.at)
  FROM (SELECT token_id, max(at) AS at FROM beats GROUP BY token_id) b
  WHERE t.id = b.token_id AND (t.last_used_at > b.at - interval '1 minute') IS NOT TRUE
),
touched_machines AS (
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
RETURNING m.runner_id, m.system_xid, m.contacted_at
)
SELECT b.runner_id, b.system_xid, t.runner_id IS NULL AS missing
FROM beats b LEFT JOIN touched_machines t ON t.runner_id = b.runner_id AND t.system_xid = b.system_xid
WHERE t.runner_id IS NULL OR (b.tells AND b.at < t.contacted_at)
""")


@dataclass(frozen=True, slots=True)
class Unwritten:
    """Machines whose heartbeats were not, or not wholly, written, by (runner id, system ID).

    `missing` have no row. Of the `late` something newer was known, perhaps by somebody who does not tell what the
    machine is: what it told was not written.
    """

    missing: set[tuple[int, str]]
    late: set[tuple[int, str]]


def write_heartbeats(session: Session, contacts: Sequence[Contact], encode: Any) -> Unwritten:
    """Write many contacts together: their runners are held, then one statement writes them all.

    Returns whose heartbeats were not written. What machines of a deleted runner said before counts no more, and they
    are among the missing: restored, their first call is recorded at once.

    `encode` turns a list of mappings into JSON text.
    """
    runner_ids = {contact.runner_id for contact in contacts}
    held = set(session.scalars(_HOLD, {"ids": f"{{{','.join(map(str, sorted(runner_ids)))}}}"}))
    missing = {(c.runner_id, c.system_xid) for c in contacts if c.runner_id not in held}
    beats = encode([_beat(contact) for contact in contacts if contact.runner_id in held])
    late: set[tuple[int, str]] = set()
    for row in session.execute(_REFRESH, {"beats": beats}):
        (missing if row.missing else late).add((row.runner_id, row.system_xid))
    return Unwritten(missing, late)


def _beat(contact: Contact) -> dict[str, Any]:
    facts = contact.facts
    said = {
        "runner_id": contact.runner_id,
        "system_xid": contact.system_xid,
        "token_id": contact.token_id,
        "at": contact.at,
        "address": contact.address,
        "polled": contact.polled,
        "tells": facts is not None,
    }
    if facts is None:
        return said
    return {
        **said,
        "version": facts.version,
        "revision": facts.revision,
        "platform": facts.platform,
        "architecture": facts.architecture,
        "executor_type": facts.executor_type,
        "config": facts.config,
        "features": facts.features,
        "labels": facts.labels,
    }


_JOB_CONTACTS = text("""
WITH words AS (
  SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:ats AS timestamptz[]), CAST(:addresses AS text[]))
    AS w(id, at, address)
),
touched AS (
  UPDATE ci_runner_machines m SET contacted_at = greatest(m.contacted_at, w.at),
    ip_address = CASE WHEN w.at < m.contacted_at THEN m.ip_address ELSE w.address END
  FROM words w WHERE m.id = w.id AND m.runner_id = ANY(CAST(:held AS bigint[])) RETURNING m.runner_id, m.contacted_at
)
UPDATE ci_runners r SET contacted_at = greatest(r.contacted_at, t.at)
FROM (SELECT runner_id, max(contacted_at) AS at FROM touched GROUP BY runner_id) t WHERE r.id = t.runner_id
""")


def write_job_contacts(session: Session, uses: Mapping[int, tuple[datetime, str]]) -> None:
    """Write when machines last spoke of their jobs, by their numbers; their runners are held first, as always.

    What machines of a deleted runner say counts no more.
    """
    ids = sorted(uses)
    runners = select(RunnerManager.runner_id).where(RunnerManager.id.in_(ids)).distinct()
    held = session.scalars(_HOLD, {"ids": sorted(session.scalars(runners))}).all()
    ats, addresses = [uses[each][0] for each in ids], [uses[each][1] for each in ids]
    session.execute(_JOB_CONTACTS, {"held": held, "ids": ids, "ats": ats, "addresses": addresses})


def of_runner_newest_first(session: Session, runner: Runner, limit: int) -> list[RunnerManager]:
    """The runner's managers, the most recently heard of first."""
    newest = RunnerManager.contacted_at.desc().nulls_last()
    query = select(RunnerManager).where(RunnerManager.runner_id == runner.id).order_by(newest, RunnerManager.id)
    return list(session.scalars(query.limit(limit)))


def find(session: Session, runner: Runner, system_xid: str) -> RunnerManager:
    """The runner's machine with this system ID. Raises NotFound."""
    mine = (RunnerManager.runner_id == runner.id) & (RunnerManager.system_xid == system_xid)
    found = session.scalar(select(RunnerManager).where(mine))
    if found is None:
        raise NotFound(NOTHING_HERE)
    return found


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


def tokens_in_use(session: Session, managers: Sequence[RunnerManager]) -> dict[int, RunnerToken]:
    """The tokens that these managers used last, by id."""
    ids = {manager.token_id for manager in managers if manager.token_id}
    if not ids:
        return {}
    return {row.id: row for row in session.scalars(select(RunnerToken).where(RunnerToken.id.in_(ids)))}
