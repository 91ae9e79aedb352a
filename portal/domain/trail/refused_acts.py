"""What somebody tried and may not: told on the trail, although nothing was changed."""

from __future__ import annotations

from sqlalchemy.orm import Session

from portal.domain import audit
from portal.domain.actors import Actor, visitor
from portal.domain.enrolment.enrolment_keys import scope_of
from portal.domain.errors import Hidden, LastAdministrator, NotAllowed, OwnAccount, RegistrationOff
from portal.domain.scopes import INSTANCE, Scope, ScopeKind, find_group, find_project
from portal.models import AuditEvent, EnrolmentKey

KEYS = 10_000  # that one process remembers at once
SECONDS = 60.0
LONGEST_REASON = 500
LONGEST_REQUEST = 500  # characters of a request that the trail repeats

# What the trail tells of; LastAdministrator and OwnAccount keep administrators from acts that are theirs otherwise.
Recorded = NotAllowed | Hidden | LastAdministrator | OwnAccount


def record(session: Session, actor: Actor, refusal: Recorded, request: str, *, unrecorded: int = 0) -> AuditEvent:
    """Add the event `act_refused`: what the actor may not do, where, and with which request (method and path).

    It stands in the trail of the scope it was tried in; where that is not known, in the instance's. `unrecorded` is
    how many more the actor has had since their last one.
    """
    named = refusal if isinstance(refusal, NotAllowed | Hidden) else None
    where = named.where if named and isinstance(named.where, Scope) else INSTANCE
    wanted = (named and named.action) or ""
    told: dict[str, tuple[None, object]] = {
        **({"wanted": (None, wanted)} if wanted else {"because": (None, str(refusal)[:LONGEST_REASON])}),
        "answer": (None, "not found" if isinstance(refusal, Hidden) else "not allowed"),
        "request": (None, request[:LONGEST_REQUEST]),
    }
    return audit.record(session, actor, "act_refused", where, where, told | _more(unrecorded))


def record_registration(
    session: Session, refusal: Exception, *, address: str, request_id: str, unrecorded: int
) -> AuditEvent:
    """Add the event `registration_refused`; `unrecorded` is how many more the address has had since its last one."""
    off = isinstance(refusal, RegistrationOff)
    where = _where(session, refusal) if isinstance(refusal, RegistrationOff) else INSTANCE
    told = {"because": (None, "registration tokens are off" if off else "nobody has this registration token")}
    actor = visitor(address=address, request_id=request_id)
    return audit.record(session, actor, "registration_refused", where, where, told | _more(unrecorded))


def record_enrolment(
    session: Session, actor: Actor, key: EnrolmentKey, because: str, request: str, *, unrecorded: int = 0
) -> AuditEvent:
    """Add the event `enrolment_refused` of an enrolment key that was shown; `because` names no value of the request.

    It stands in the trail of the key's scope. `unrecorded` is how many more the key has had since its last one.
    """
    told = {"because": (None, because[:LONGEST_REASON]), "request": (None, request[:LONGEST_REQUEST])}
    return audit.record(session, actor, "enrolment_refused", key, scope_of(key), told | _more(unrecorded))


def record_sign_in(session: Session, actor: Actor, *, method: str, reason: str, unrecorded: int = 0) -> AuditEvent:
    """Add the event `sign_in_refused` for a sign-in in which no account was found, nor looked for.

    `reason` is one of the portal's own words, never what somebody sent. `unrecorded` is how many more there were from
    the same network since its last one.
    """
    told = {"method": (None, method), "reason": (None, reason)}
    return audit.record(session, actor, "sign_in_refused", INSTANCE, INSTANCE, told | _more(unrecorded))


def _more(unrecorded: int) -> dict[str, tuple[None, int]]:
    return {"not_recorded_before": (None, unrecorded)} if unrecorded else {}


def _where(session: Session, refusal: RegistrationOff) -> Scope:
    if refusal.kind == ScopeKind.GROUP:
        return find_group(session, refusal.path)
    return find_project(session, refusal.path) if refusal.kind == ScopeKind.PROJECT else INSTANCE


class Flood:
    """Which refusals one process records, so that a flood of them does not fill the trail.

    `each` a minute for whoever a key names (a person, an address), and `most` a minute in all; others are counted.
    """

    def __init__(self, each: int, most: int) -> None:
        self.each, self.most = each, most
        self._known: dict[str, tuple[float, int, int]] = {}  # since when, recorded since then, not recorded
        self._minute, self._recorded = 0.0, 0

    def take(self, key: str, at: float) -> int | None:
        """How many refusals of the key went unrecorded since its last one; None for one that is only counted.

        `at` is in seconds, by a clock that only goes forward.
        """
        if at - self._minute >= SECONDS:
            self._minute, self._recorded = at, 0
        since, recorded, unrecorded = self._known.get(key, (at, 0, 0))
        if at - since >= SECONDS:
            since, recorded = at, 0
        if recorded >= self.each or self._recorded >= self.most:
            if key in self._known or len(self._known) < KEYS:
                self._known[key] = (since, recorded, unrecorded + 1)
            return None
        if len(self._known) >= KEYS:
            self._known = {each: had for each, had in self._known.items() if at - had[0] < SECONDS}
        self._known[key] = (since, recorded + 1, 0)
        self._recorded += 1
        return unrecorded
