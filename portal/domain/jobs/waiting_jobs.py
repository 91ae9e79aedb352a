"""What waits in the queue, told as announcements: for who may have missed them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.orm import Session

from portal.domain.jobs.queue_news import Announcement
from portal.models import QueueScope

# One step of the index for each class that waits in a scope, and as many for its jobs as are counted.
_WAITING = text("""
WITH RECURSIVE there(kind, scope_id, class_id) AS (
  SELECT s.kind, s.id, lowest.class_id
  FROM unnest(CAST(:kinds AS smallint[]), CAST(:scope_ids AS bigint[])) AS s(kind, id)
  CROSS JOIN LATERAL (SELECT p.class_id FROM ci_pending_builds p WHERE p.scope_kind = s.kind AND p.scope_id = s.id
    ORDER BY p.class_id LIMIT 1) AS lowest
  UNION ALL
  SELECT there.kind, there.scope_id, higher.class_id FROM there
  CROSS JOIN LATERAL (SELECT p.class_id FROM ci_pending_builds p WHERE p.scope_kind = there.kind
    AND p.scope_id = there.scope_id AND p.class_id > there.class_id ORDER BY p.class_id LIMIT 1) AS higher
)
SELECT kind, scope_id, class_id, (
  SELECT count(*) FROM (SELECT 1 FROM ci_pending_builds p WHERE p.scope_kind = there.kind
    AND p.scope_id = there.scope_id AND p.class_id = there.class_id LIMIT :most) AS counted
) AS jobs FROM there
""")


# A check is of one runner, and perhaps of one of its machines, which would not be found among many otherwise.
_CHECKS = text("""
SELECT p.scope_kind AS kind, p.scope_id, p.class_id, coalesce(b.system_xid, '') AS system_xid, count(*) AS jobs
FROM ci_pending_builds p JOIN ci_builds b ON b.id = p.job_id
WHERE p.scope_kind = 4 AND p.scope_id = ANY(CAST(:runner_ids AS bigint[]))
GROUP BY p.scope_kind, p.scope_id, p.class_id, b.system_xid
""")


def waiting(session: Session, scopes: Sequence[tuple[QueueScope, int]], most: int) -> list[Announcement]:
    """An announcement for each class of jobs that waits in each of these scopes, counted up to `most`.

    It has no mark of its own: it says nothing new.
    """
    wide = [scope for scope in scopes if scope[0] is not QueueScope.RUNNER]
    values = {"kinds": [int(kind) for kind, _ in wide], "scope_ids": [number for _, number in wide], "most": most}
    rows = [(row, "") for row in session.execute(_WAITING, values)]
    runner_ids = [number for kind, number in scopes if kind is QueueScope.RUNNER]
    rows += [(row, row.system_xid) for row in session.execute(_CHECKS, {"runner_ids": runner_ids})]
    return [
        Announcement(row.class_id, ((QueueScope(row.kind), row.scope_id),), row.jobs, system_xid)
        for row, system_xid in rows
    ]
