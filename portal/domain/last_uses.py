"""When sessions and access tokens were last used, and from where: collected in memory, written once a second."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import case, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

Use = tuple[datetime, str]


class LastUses:
    """What one process has noted since it was last written. A GET changes nothing, and no request costs a write."""

    def __init__(self) -> None:
        self._uses: dict[int, Use] = {}
        self._lock = threading.Lock()

    def note(self, row_id: int, at: datetime, address: str) -> None:
        """The session or token with this number was used at this moment from this address."""
        with self._lock:
            self._uses[row_id] = (at, address)

    def last(self, row_id: int) -> datetime | None:
        """What was noted and may not be written yet."""
        use = self._uses.get(row_id)
        return use[0] if use else None

    def take(self) -> dict[int, Use]:
        """Everything noted since the last time."""
        with self._lock:
            taken, self._uses = self._uses, {}
        return taken


def write(
    session: Session, uses: Mapping[int, Use], at: InstrumentedAttribute[Any], address: InstrumentedAttribute[str]
) -> None:
    """Write what was collected into these columns, in one statement, the lower id first.

    What somebody else holds at this moment is left out: losing a second of it is no loss.
    """
    model = at.class_
    query = select(model.id).where(model.id.in_(sorted(uses))).order_by(model.id)
    ids = session.scalars(query.with_for_update(skip_locked=True, of=model)).all() if uses else []
    if not ids:
        return
    told = {
        at: case({each: uses[each][0] for each in ids}, value=model.id),
        address: case({each: uses[each][1] for each in ids}, value=model.id),
    }
    session.execute(update(model).where(model.id.in_(ids)).values(told).execution_options(synchronize_session=False))
