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


def waiting(session: Session, scopes: Sequence[tuple[QueueScope, int]], most: int) -> list[Announcement]:
    """An announcement for each class of jobs that waits in each of these scopes, counted up to `most`.

    It has no mark of its own: it says nothing new.
    """
    values = {"kinds": [int(kind) for kind, _ in scopes], "scope_ids": [number for _, number in scopes], "most": most}
    rows = session.execute(_WAITING, values)
    return [Announcement(row.class_id, ((QueueScope(row.kind), row.scope_id),), row.jobs) for row in rows]
