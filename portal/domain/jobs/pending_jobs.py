"""The queue: pending jobs, with a row for each scope through which runners find them (reference/performance.md 4)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.orm import Session

from portal.domain.jobs import job_classes, queue_news
from portal.domain.jobs.job_matching import Demand, Offer, queue_scopes
from portal.domain.jobs.queue_news import Announcement
from portal.models import Job, PendingJob, Project, ProjectSettings, QueueScope

# First jobs of classes that are compared before one of them is chosen: in one scope, and in many projects together.
MOST_IN_ONE, MOST_IN_MANY = 500, 100
PARKED = 0  # in place of a scope's kind: the project is deleted, and nobody finds its jobs until it is restored
_TURNS_LOCK = 0x706A6F62
# Who queues for a project, or changes how its jobs are found, holds its place until the commit, the lower place
# first. Projects share so many places: the database has no room for a lock of each project below a large group.
_PLACES = 512
_HOLD_TURNS = text("""
SELECT pg_advisory_xact_lock(:lock, place) FROM (
  SELECT DISTINCT CAST(project_id % :places AS integer) AS place
  FROM unnest(CAST(:project_ids AS bigint[])) AS p(project_id) ORDER BY place
) AS places
""")
# Who has a job's row may take the job out of the queue, and would not see rows that come in meanwhile.
_HOLD_PENDING = text("""
SELECT count(*) FROM (
  SELECT 1 FROM ci_builds WHERE project_id = ANY(:project_ids) AND status = 'pending' ORDER BY id FOR UPDATE
) AS held
""")

# A job's turn comes after that of its project's job before it, and not before the turn that it is now: so the first
# jobs of all projects come before the second of any (start-time fair queueing, every job counting the same).
_TURN = text("""
SELECT coalesce(greatest(
  (SELECT turn FROM ci_pending_builds WHERE scope_kind = :kind AND scope_id = :scope_id AND class_id = :class_id
   ORDER BY turn LIMIT 1),
  (SELECT turn + 1 FROM ci_pending_builds WHERE scope_kind = 3 AND scope_id = :project_id AND class_id = :class_id
   ORDER BY turn DESC LIMIT 1)), 0)
""")
_FIRST_TURN = text("""
SELECT coalesce((SELECT turn FROM ci_pending_builds
  WHERE scope_kind = :kind AND scope_id = :scope_id AND class_id = :class_id ORDER BY turn LIMIT 1), 0)
""")

# One step of the index for each class that waits in a scope and that the runner may take, and at most one more for
# each class that it may take: `classes` are in order, and what is looked for next is the first of them above the
# class that was found. So neither a long queue nor many other classes cost anything.
_STEPS = """
  WITH RECURSIVE steps(class_id, job_id) AS (
    (SELECT p.class_id, p.job_id FROM ci_pending_builds p
     WHERE p.scope_kind = :kind AND p.scope_id = scope.id AND p.class_id >= :lowest AND p.class_id <= :highest
     ORDER BY p.class_id, p.turn, p.job_id LIMIT 1)
    UNION ALL
    SELECT higher.class_id, higher.job_id FROM steps CROSS JOIN LATERAL (
      SELECT p.class_id, p.job_id FROM ci_pending_builds p
      WHERE p.scope_kind = :kind AND p.scope_id = scope.id AND p.class_id <= :highest
        AND p.class_id >= (CAST(:classes AS bigint[]))[width_bucket(steps.class_id, CAST(:classes AS bigint[])) + 1]
      ORDER BY p.class_id, p.turn, p.job_id LIMIT 1) AS higher
  )
  SELECT class_id, job_id FROM steps
  WHERE (CAST(:classes AS bigint[]))[width_bucket(class_id, CAST(:classes AS bigint[]))] = class_id
"""
# The first job of each class in each scope; checks of the runner go before everything else. Where projects share an
# instance runner, the one goes first whose last job on such a runner began the longest ago; else the oldest job.
# These rows are looked at without a lock. Then the runner is held, if there is anything to take, and the job at the
# first of these places that nobody else holds. The runner is held before its job: who deletes a group holds its
# runners, and then waits for the jobs that are pending. It is not waited for here: what is found would be as it was
# before. Who holds the job's row has the job: the queue's rows are only the way to it, and a job has several of them.
# Its status is looked at once more when it is locked, since another may have taken it and committed meanwhile. The
# last step goes through `heads` one by one in their order; to sort there again would lock a job at every place first.
_BEFORE_STEPS = """
WITH again AS MATERIALIZED (
  SELECT id FROM (
    SELECT id, status, acknowledged_at FROM ci_builds WHERE claim_digest = CAST(:digest AS bytea) OFFSET 0
  ) AS asked WHERE status = 'running' AND acknowledged_at IS NULL
), first AS MATERIALIZED (
  SELECT scope.id AS scope_id, found.class_id, found.job_id
  FROM {scopes} AS scope(id){round} CROSS JOIN LATERAL (
"""
_AFTER_STEPS = """
  ) AS found
  WHERE NOT EXISTS (SELECT 1 FROM again) LIMIT {most}
), heads AS MATERIALIZED (
  SELECT kind, scope_id, class_id FROM (
    SELECT 0 AS rank, 4 AS kind, CAST(:runner_id AS bigint) AS scope_id, CAST(:untagged AS bigint) AS class_id,
      CAST(0 AS bigint) AS job_id, CAST(NULL AS timestamptz) AS served_at
    WHERE EXISTS (
      SELECT 1 FROM ci_pending_builds p JOIN ci_builds b ON b.id = p.job_id
      WHERE p.scope_kind = 4 AND p.scope_id = :runner_id AND p.class_id = :untagged
        AND (b.system_xid IS NULL OR b.system_xid = :system_xid)
    ) AND NOT EXISTS (SELECT 1 FROM again)
    UNION ALL
    SELECT 1, CAST(:kind AS smallint), scope_id, class_id, job_id, CASE WHEN :kind = 1 THEN (
      SELECT (SELECT d.started_at FROM ci_builds d WHERE d.project_id = b.project_id AND d.runner_type = 1
        ORDER BY d.started_at DESC LIMIT 1)
      FROM ci_builds b WHERE b.id = first.job_id
    ) END FROM first
  ) AS places ORDER BY rank, served_at NULLS FIRST, job_id LIMIT 100
), runner AS MATERIALIZED (
  SELECT id FROM ci_runners WHERE id = :runner_id AND deletion_id IS NULL
    AND (EXISTS (SELECT 1 FROM heads) OR EXISTS (SELECT 1 FROM again))
  FOR KEY SHARE SKIP LOCKED
), taken AS MATERIALIZED (
  SELECT next.id FROM runner CROSS JOIN heads CROSS JOIN LATERAL (
    SELECT b.id FROM ci_pending_builds p JOIN ci_builds b ON b.id = p.job_id
    WHERE p.scope_kind = heads.kind AND p.scope_id = heads.scope_id AND p.class_id = heads.class_id
      AND b.status = 'pending' AND (b.system_xid IS NULL OR b.system_xid = :system_xid) AND runner.id IS NOT NULL
    ORDER BY p.turn, p.job_id LIMIT 1 FOR UPDATE OF b SKIP LOCKED
  ) AS next LIMIT 1
)
SELECT EXISTS (SELECT 1 FROM heads) AS waits, (SELECT id FROM again) AS given_before,
  (SELECT id FROM runner) AS runner_id, (SELECT id FROM taken) AS job_id
"""
# Who takes more classes than are compared begins at any of them and goes round: through those above it, then through
# those below it. What is found first is what is compared: with the same beginning every time, the rest would starve.
_ROUND = """
  CROSS JOIN (VALUES (CAST(:start AS bigint), CAST(:highest AS bigint)),
    (CAST(:lowest AS bigint), CAST(:start AS bigint) - 1)) AS stretch(lowest, highest)"""
# Said apart, since the database makes a plan for one scope once, and one for an array anew for each.
_ONE_SCOPE, _SCOPES = "(SELECT CAST(:scope_id AS bigint))", "unnest(CAST(:scope_ids AS bigint[]))"


def _taking(scopes: str, most: int, *, around: bool = False) -> str:
    steps = _STEPS
    if around:
        steps = steps.replace(":lowest", "stretch.lowest").replace(":highest", "stretch.highest")
    before = _BEFORE_STEPS.replace("{scopes}", scopes).replace("{round}", _ROUND if around else "")
    return before + steps + _AFTER_STEPS.replace("{most}", str(most))


TAKE_FROM_ONE = _taking(_ONE_SCOPE, MOST_IN_ONE)
_ONE, _MANY = text(TAKE_FROM_ONE), text(_taking(_SCOPES, MOST_IN_MANY))
_ONE_ROUND = text(_taking(_ONE_SCOPE, MOST_IN_ONE, around=True))
_MANY_ROUND = text(_taking(_SCOPES, MOST_IN_MANY, around=True))

# The scopes of a project's jobs besides the project itself follow from its switches; turns stay as they were.
_FORGET_WIDER = text("""
DELETE FROM ci_pending_builds w USING ci_pending_builds p
WHERE p.scope_kind = 3 AND p.scope_id = ANY(:project_ids) AND w.job_id = p.job_id AND w.scope_kind IN (1, 2)
""")
_REACH_WIDER = text("""
INSERT INTO ci_pending_builds (scope_kind, scope_id, class_id, turn, job_id)
SELECT s.kind, s.id, p.class_id, p.turn, p.job_id
FROM ci_pending_builds p, unnest(CAST(:kinds AS smallint[]), CAST(:scope_ids AS bigint[])) AS s(kind, id)
WHERE p.scope_kind = 3 AND p.scope_id = :project_id ON CONFLICT DO NOTHING
""")
_MOVE = text("""
UPDATE ci_pending_builds SET scope_kind = :into WHERE scope_kind = :out_of AND scope_id = ANY(:project_ids)
""")

# As they stand now, whatever the session has read of them before.
_SETTINGS = select(ProjectSettings).execution_options(populate_existing=True)


def demand_of(session: Session, job: Job) -> Demand:
    """What the job asks of a runner, as its project's switches stand now."""
    return demands_of(session, [job])[job.id]


def demands_of(session: Session, jobs: Sequence[Job]) -> dict[int, Demand]:
    """The same for many jobs with one query, by the job's number."""
    ids = {job.project_id for job in jobs if job.project_id is not None}
    settings = {
        row.project_id: row
        for row in (session.scalars(_SETTINGS.where(ProjectSettings.project_id.in_(ids))) if ids else ())
    }
    return {job.id: _demand(job, settings.get(job.project_id or 0)) for job in jobs}


def _demand(job: Job, settings: ProjectSettings | None) -> Demand:
    return Demand(
        tags=frozenset(job.tag_list),
        ref_protected=job.ref_protected,
        project_id=job.project_id,
        group_ids=tuple(job.project.group.traversal_ids) if job.project is not None else (),
        instance_runners=settings is None or settings.shared_runners_enabled,
        group_runners=settings is None or settings.group_runners_enabled,
        runner_id=job.checks_runner_id,
        system_xid=job.system_xid,
    )


def put(session: Session, job: Job, *, first: bool = False) -> None:
    """Put a pending job into the queue, at the end of its project's, and tell every process.

    `first` is for one that was handed out and taken back: its turn is now. Where the project is deleted, nobody finds
    the job until it is restored.
    """
    _hold(session, [job.project_id or 0])
    demand = demand_of(session, job)
    check = demand.runner_id is not None
    class_id = job_classes.UNTAGGED if check else job_classes.class_of(session, demand.tags, demand.ref_protected)
    scopes = tuple(queue_scopes(demand))
    kind, scope_id = scopes[0]
    asked = {
        "project_id": demand.project_id or 0,
        "kind": int(kind),
        "scope_id": scope_id,
        "class_id": class_id,
    }
    turn = session.scalar(_FIRST_TURN if first else _TURN, asked) or 0
    parked = not check and _is_deleted(session, job)
    found_in = [(PARKED, demand.project_id)] if parked else [(int(kind), number) for kind, number in scopes]
    rows = [
        {"scope_kind": kind, "scope_id": number, "class_id": class_id, "turn": turn, "job_id": job.id}
        for kind, number in found_in
    ]
    session.execute(insert(PendingJob), rows)
    if not parked:
        queue_news.announce(session, [Announcement(class_id, scopes, system_xid=demand.system_xid or "")])


def _hold(session: Session, project_ids: Sequence[int]) -> None:
    """Let nobody else queue for these projects, nor change how what waits is found, until the transaction ends."""
    values = {"lock": _TURNS_LOCK, "places": _PLACES, "project_ids": list(project_ids)}
    session.execute(_HOLD_TURNS, values)


def _is_deleted(session: Session, job: Job) -> bool:
    return session.scalar(select(Project.id).where(Project.id == job.project_id)) is None


def take_out(session: Session, job_id: int) -> None:
    """Nobody finds this job any more. The caller holds its row."""
    session.execute(delete(PendingJob).where(PendingJob.job_id == job_id))


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of looking for a job: `job_id` is held until the transaction ends, and so is the runner then.

    `waits` says that there were jobs, also where others have taken them all. `given_before` is the job that the same
    request got before, which is not held. `runner_held` is false where the runner is gone, or nothing was found.
    """

    job_id: int | None
    waits: bool
    given_before: int | None
    runner_held: bool


def take(session: Session, offer: Offer, classes: Sequence[int], system_xid: str, digest: bytes | None) -> Taken:
    """Hold the job whose turn it is of those that this machine of the runner may take, with one statement.

    `classes` are those that the runner may take, `digest` is of the request, which may have got a job before. A
    runner of many projects goes through them in any order until it has seen MOST_IN_MANY places, each project as
    likely to be among the first as any other, and so does one of very many classes through these; where fewer wait,
    the oldest job is the one, as everywhere.
    """
    kind, scope_ids = _where(offer)
    values: dict[str, object] = {
        "runner_id": offer.runner_id,
        "untagged": job_classes.UNTAGGED,
        "kind": kind,
        "classes": sorted(classes),
        "system_xid": system_xid,
        "digest": digest,
    }
    one = len(scope_ids) == 1
    values |= {"scope_id": scope_ids[0]} if one else {"scope_ids": scope_ids}
    values |= {"lowest": min(classes, default=0), "highest": max(classes, default=0)}
    if len(classes) <= (MOST_IN_ONE if one else MOST_IN_MANY):
        query = _ONE if one else _MANY
    else:
        query = _ONE_ROUND if one else _MANY_ROUND
        values["start"] = random.choice(classes)  # noqa: S311  (whose turn it is among so many is no secret)
    found = session.execute(query, values).one()
    return Taken(found.job_id, found.waits, found.given_before, found.runner_id is not None)


def _where(offer: Offer) -> tuple[int, list[int]]:
    """The kind of the scopes through which the runner finds jobs, and their numbers in any order."""
    scopes = offer.scopes()
    kind = scopes[0][0] if scopes else QueueScope.PROJECT
    return int(kind), random.sample([number for _, number in scopes], len(scopes))


def reach_again(session: Session, project: Project) -> None:
    """Make the project's pending jobs findable as its switches say now."""
    session.flush()
    _hold(session, [project.id])
    session.execute(_HOLD_PENDING, {"project_ids": [project.id]})
    settings = session.get(ProjectSettings, project.id) or ProjectSettings(project_id=project.id)
    probe = Demand(
        project_id=project.id,
        group_ids=tuple(project.group.traversal_ids),
        instance_runners=settings.shared_runners_enabled,
        group_runners=settings.group_runners_enabled,
    )
    scopes = tuple(queue_scopes(probe))
    wider = [scope for scope in scopes if scope[0] is not QueueScope.PROJECT]
    session.execute(_FORGET_WIDER, {"project_ids": [project.id]})
    values = {"kinds": [int(kind) for kind, _ in wider], "scope_ids": [number for _, number in wider]}
    session.execute(_REACH_WIDER, {"project_id": project.id, **values})
    there = (PendingJob.scope_kind == int(QueueScope.PROJECT)) & (PendingJob.scope_id == project.id)
    waiting = session.execute(select(PendingJob.class_id, func.count()).where(there).group_by(PendingJob.class_id))
    queue_news.announce(session, [Announcement(class_id, scopes, jobs) for class_id, jobs in waiting])


def park(session: Session, project_ids: Sequence[int]) -> None:
    """Nobody finds the jobs of these projects, which are being deleted."""
    _hold(session, project_ids)
    session.execute(_HOLD_PENDING, {"project_ids": list(project_ids)})
    session.execute(_FORGET_WIDER, {"project_ids": list(project_ids)})
    values = {"out_of": int(QueueScope.PROJECT), "into": PARKED, "project_ids": list(project_ids)}
    session.execute(_MOVE, values)


def unpark(session: Session, projects: Sequence[Project]) -> None:
    """Queue the jobs of these projects again, which were restored."""
    ids = [each.id for each in projects]
    _hold(session, ids)
    there = (PendingJob.scope_kind == PARKED) & PendingJob.scope_id.in_(ids)
    waiting = set(session.scalars(select(PendingJob.scope_id).where(there).distinct()))
    values = {"out_of": PARKED, "into": int(QueueScope.PROJECT), "project_ids": ids}
    session.execute(_MOVE, values)
    for project in projects:
        if project.id in waiting:
            reach_again(session, project)
