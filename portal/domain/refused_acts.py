"""What somebody tried and may not: told on the trail, although nothing was changed."""

from __future__ import annotations

from sqlalchemy.orm import Session

from portal.domain import audit
from portal.domain.actors import Actor, visitor
from portal.domain.errors import Hidden, NotAllowed, RegistrationOff
from portal.domain.scopes import INSTANCE, Scope, ScopeKind, find_group, find_project
from portal.models import AuditEvent

ADDRESSES = 10_000  # that one process remembers at once
SECONDS = 60.0
LONGEST_REQUEST = 500  # characters of a request that the trail repeats


def record(session: Session, actor: Actor, refusal: NotAllowed | Hidden, request: str) -> AuditEvent:
    """Add the event `act_refused`: what the actor may not do, where, and with which request (method and path).

    It stands in the trail of the scope it was tried in; where that is not known, in the instance's.
    """
    where = refusal.where if isinstance(refusal.where, Scope) else INSTANCE
    told = {
        "wanted": (None, refusal.action or str(refusal)),
        "answer": (None, "not found" if isinstance(refusal, Hidden) else "not allowed"),
        "request": (None, request[:LONGEST_REQUEST]),
    }
    return audit.record(session, actor, "act_refused", where, where, told)


def record_registration(
    session: Session, refusal: Exception, *, address: str, request_id: str, unrecorded: int
) -> AuditEvent:
    """Add the event `registration_refused`; `unrecorded` is how many more the address has had since its last one."""
    off = isinstance(refusal, RegistrationOff)
    where = _where(session, refusal) if isinstance(refusal, RegistrationOff) else INSTANCE
    told = {"because": (None, "registration tokens are off" if off else "nobody has this registration token")}
    more = {"not_recorded_before": (None, unrecorded)} if unrecorded else {}
    actor = visitor(address=address, request_id=request_id)
    return audit.record(session, actor, "registration_refused", where, where, told | more)


def _where(session: Session, refusal: RegistrationOff) -> Scope:
    if refusal.kind == ScopeKind.GROUP:
        return find_group(session, refusal.path)
    return find_project(session, refusal.path) if refusal.kind == ScopeKind.PROJECT else INSTANCE


class RefusedRegistrations:
    """Which refused registrations one process records, so that a flood of bad tokens does not fill the trail.

    One for each address and minute, and `most` a minute in all; the others are counted.
    """

    def __init__(self, most: int = 60) -> None:
        self.most = most
        self._since: dict[str, tuple[float, int]] = {}
        self._minute, self._recorded = 0.0, 0

    def take(self, address: str, at: float) -> int | None:
        """How many refusals of the address went unrecorded since its last one; None for one that is only counted.

        `at` is in seconds, by a clock that only goes forward.
        """
        if at - self._minute >= SECONDS:
            self._minute, self._recorded = at, 0
        last, uncounted = self._since.get(address, (at - SECONDS, 0))
        if at - last < SECONDS or self._recorded >= self.most:
            if address in self._since or len(self._since) < ADDRESSES:
                self._since[address] = (last, uncounted + 1)
            return None
        if len(self._since) >= ADDRESSES:
            self._since = {each: had for each, had in self._since.items() if at - had[0] < SECONDS}
        self._since[address] = (at, 0)
        self._recorded += 1
        return uncounted
