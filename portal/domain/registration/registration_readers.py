"""What people are told of who turned registration tokens off."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.orm import Session

from portal.domain.actors import Actor
from portal.domain.people import people_search
from portal.domain.registration import registration
from portal.domain.registration.registration import Configured, Decision
from portal.domain.scopes import Scope


def decision_for(session: Session, actor: Actor, scope: Scope, configured: Configured) -> Decision:
    """Whether registration tokens are allowed in the scope, and who decided it, as the actor may know it."""
    return told(session, actor, registration.decision(session, scope, configured))


def told(session: Session, actor: Actor, decided: Decision) -> Decision:
    """The decision with its person for those who find them among people, and without for others.

    Who may not see the group above may still see its owners, on every members page below it; who has no role there
    any more is no longer told of to them.
    """
    person = decided.person
    if person is None or person.admin or people_search.knows(session, actor, person):
        return decided  # of an administrator nobody reads the name but administrators
    return replace(decided, person=None)


def require_allowed(session: Session, actor: Actor, scope: Scope, configured: Configured) -> None:
    """Refuse with RegistrationOff while registration tokens are off in the scope."""
    decided = decision_for(session, actor, scope, configured)
    if not decided.allowed:
        raise decided.refusal()
