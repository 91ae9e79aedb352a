"""The queue: pending jobs, with a row for each scope through which runners find them (reference/performance.md 4)."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, insert, select, text
from sqlalchemy.orm import Session

from portal.domain.jobs import job_classes, queue_news
from portal.domain.jobs.job_matching import Demand, Offer, queue_scopes
from portal.domain.jobs.queue_news import Announcement
from portal.models import Job, PendingJob, Project, ProjectSettings, QueueScope

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

# Where to look: in the one scope of a runner, whatever waits there, for each class that it may take …
_EACH_CLASS = """
WITH probes AS (
  SELECT s.kind, s.id, c.id FROM unnest(CAST(:kinds AS smallint[]), CAST(:scope_ids AS bigint[])) AS s(kind, id)
  CROSS JOIN unnest(CAST(:classes AS bigint[])) AS c(id)
"""
# … and in many projects only for those that wait there, one step of the index each: a thousand projects by two
# hundred classes are not to be looked through where nothing is.
_CLASSES_THERE = """
WITH RECURSIVE there(kind, scope_id, class_id) AS (
  SELECT s.kind, s.id, lowest.class_id
  FROM unnest(CAST(:kinds AS smallint[]), CAST(:scope_ids AS bigint[])) AS s(kind, id)
  CROSS JOIN LATERAL (SELECT p.class_id FROM ci_pending_builds p WHERE p.scope_kind = s.kind AND p.scope_id = s.id
    ORDER BY p.class_id LIMIT 1) AS lowest
  UNION ALL
  SELECT there.kind, there.scope_id, higher.class_id FROM there
  CROSS JOIN LATERAL (SELECT p.class_id FROM ci_pending_builds p WHERE p.scope_kind = there.kind
    AND p.scope_id = there.scope_id AND p.class_id > there.class_id ORDER BY p.class_id LIMIT 1) AS higher
), probes AS (
  SELECT kind, scope_id, class_id FROM there WHERE class_id = ANY(CAST(:classes AS bigint[]))
"""
# The first job of each class in each scope; checks of the runner go before everything else. Where projects share an
# instance runner, the one goes first whose last job on such a runner began the longest ago; else the oldest job.
# The rows are looked at without a lock: the claim asks again, for the class it has chosen.
_BEST = """
  UNION ALL
  SELECT CAST(4 AS smallint), CAST(:runner_id AS bigint), CAST(:untagged AS bigint)
)
SELECT probes.kind, probes.scope_id, probes.class_id
FROM probes AS probes(kind, scope_id, class_id)
CROSS JOIN LATERAL (
  SELECT p.job_id FROM ci_pending_builds p
  WHERE p.scope_kind = probes.kind AND p.scope_id = probes.scope_id AND p.class_id = probes.class_id
    AND (probes.kind <> 4 OR EXISTS (
      SELECT 1 FROM ci_builds b WHERE b.id = p.job_id AND (b.system_xid IS NULL OR b.system_xid = :system_xid)))
  ORDER BY p.turn, p.job_id LIMIT 1
) AS head
LEFT JOIN LATERAL (
  SELECT d.started_at FROM ci_builds j JOIN ci_builds d ON d.project_id = j.project_id AND d.runner_type = 1
  WHERE j.id = head.job_id AND probes.kind = 1 ORDER BY d.started_at DESC LIMIT 1
) AS served ON true
ORDER BY probes.kind = 4 DESC, served.started_at NULLS FIRST, head.job_id
LIMIT 100
"""
_HEADS_IN_ONE, _HEADS_IN_MANY = text(_EACH_CLASS + _BEST), text(_CLASSES_THERE + _BEST)
# Who holds the job's row has the job: the queue's rows are only the way to it, and a job has several of them. Asked
# once more for its status, since another may have taken it and committed between our look and our lock.
_TAKE = text("""
SELECT b.id FROM ci_pending_builds p JOIN ci_builds b ON b.id = p.job_id
WHERE p.scope_kind = :kind AND p.scope_id = :scope_id AND p.class_id = :class_id
  AND b.status = 'pending' AND (b.system_xid IS NULL OR b.system_xid = :system_xid)
ORDER BY p.turn, p.job_id LIMIT 1 FOR UPDATE OF b SKIP LOCKED
""")

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
        queue_news.announce(session, [Announcement(class_id, scopes)])


def _hold(session: Session, project_ids: Sequence[int]) -> None:
    """Let nobody else queue for these projects, nor change how what waits is found, until the transaction ends."""
    values = {"lock": _TURNS_LOCK, "places": _PLACES, "project_ids": list(project_ids)}
    session.execute(_HOLD_TURNS, values)


def _is_deleted(session: Session, job: Job) -> bool:
    return session.scalar(select(Project.id).where(Project.id == job.project_id)) is None


def take_out(session: Session, job_id: int) -> None:
    """Nobody finds this job any more. The caller holds its row."""
    session.execute(delete(PendingJob).where(PendingJob.job_id == job_id))


def heads(
    session: Session, offer: Offer, classes: Sequence[int], system_xid: str
) -> list[tuple[QueueScope, int, int]]:
    """Where jobs wait that the runner may take, as (kind of scope, its number, class), the best first."""
    scopes = offer.scopes()
    values = {
        "runner_id": offer.runner_id,
        "untagged": job_classes.UNTAGGED,
        "kinds": [int(kind) for kind, _ in scopes],
        "scope_ids": [number for _, number in scopes],
        "classes": list(classes),
        "system_xid": system_xid,
    }
    rows = session.execute(_HEADS_IN_ONE if len(scopes) == 1 else _HEADS_IN_MANY, values)
    return [(QueueScope(row.kind), row.scope_id, row.class_id) for row in rows]


def hold_next(session: Session, head: tuple[QueueScope, int, int], system_xid: str) -> int | None:
    """The number of the next job there, held until the transaction ends; None when others have taken them all."""
    kind, scope_id, class_id = head
    values = {"kind": int(kind), "scope_id": scope_id, "class_id": class_id, "system_xid": system_xid}
    found: int | None = session.scalar(_TAKE, values)
    return found


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
    classes = session.scalars(select(PendingJob.class_id).where(there).distinct())
    queue_news.announce(session, [Announcement(class_id, scopes) for class_id in classes])


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
