"""Registration tokens, the old way: whether they are allowed in a scope, and who decided that."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.domain.errors import RegistrationOff
from portal.domain.groups import scope_settings
from portal.domain.scopes import INSTANCE, Scope, ScopeKind
from portal.domain.vault import Vault
from portal.models import User

ENFORCED_BY = "PORTAL_ENFORCE_CREATE_RUNNER_WORKFLOW"
OWNERS = {ScopeKind.INSTANCE: "An administrator", ScopeKind.GROUP: "An owner", ScopeKind.PROJECT: "A maintainer"}


@dataclass(frozen=True, slots=True)
class Configured:
    """What the portal's configuration says of registration tokens: whether they are forced off, and the keys."""

    enforced: bool
    vault: Vault


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether registration tokens are allowed in a scope, and if not, who decided it.

    `by` is the highest scope on the way down whose own switch is off; None when they are allowed, and when the
    configuration turned them off (`enforced`). `person` and `at` say who turned that switch and when, if known.
    """

    scope: Scope
    allowed: bool
    by: Scope | None = None
    enforced: bool = False
    person: User | None = None
    at: datetime | None = None

    @property
    def locked(self) -> bool:
        """Whether the scope's own switch cannot change anything, because something above has decided."""
        return self.enforced or (self.by is not None and self.by != self.scope)

    @property
    def sentence(self) -> str:
        """Who turned them off for what; empty while they are allowed. Administrators are not named to strangers."""
        if self.enforced:
            return f"The portal's configuration ({ENFORCED_BY}) turned registration tokens off for the whole portal."
        if self.by is None:
            return ""
        place = "whole portal" if self.by.kind is ScopeKind.INSTANCE else f"{self.by.kind} {self.by.full_path}"
        return f"{self.who} turned registration tokens off for the {place}."

    @property
    def who(self) -> str:
        """Who turned the switch of `by`: by name, or by what they are; empty when nobody did."""
        if self.by is None:
            return ""
        if self.person is None or self.by.kind is ScopeKind.INSTANCE:
            return OWNERS[self.by.kind]
        return OWNERS[ScopeKind.INSTANCE] if self.person.admin else self.person.name

    def refusal(self) -> RegistrationOff:
        """The refusal that goes with it; it names the scope in which to create a runner instead."""
        hidden = self.enforced or (self.by is not None and self.by.kind is ScopeKind.INSTANCE)
        place = INSTANCE if hidden else self.scope
        return RegistrationOff(self.sentence, kind=place.kind.value, path=place.full_path)


def decision(session: Session, scope: Scope, configured: Configured) -> Decision:
    """Whether registration tokens are allowed in the scope: by itself AND by everything above it.

    A scope above that is off wins; one below can only be stricter (design/product.md, "Registration tokens").
    """
    if configured.enforced:
        return Decision(scope, allowed=False, enforced=True)
    for level in scope_settings.chain(session, scope).levels:
        if not level.settings.allow_runner_registration_token:
            row = level.settings
            return Decision(scope, allowed=False, by=level.scope, person=row.switched_by, at=row.switched_at)
    return Decision(scope, allowed=True)


def hold_switch(session: Session, scope: Scope, *, turning: bool = False) -> None:
    """Keep the scope's own switch as it is until the transaction ends; `turning` it waits for those who keep it.

    A registration keeps the switches of its scope and of everything above, so that none that began before a switch
    was turned off is stored after it. Each scope has a lock of its own: a slow registration holds up nobody else's.
    """
    hold = func.pg_advisory_xact_lock if turning else func.pg_advisory_xact_lock_shared
    session.execute(select(hold(func.hashtextextended(f"registration switch of {scope.kind} {scope.id}", 0))))


def hold_switches_down_to(session: Session, scope: Scope) -> None:
    """Keep all switches that count for the scope: the instance's, its groups', its own."""
    for level in scope_settings.chain(session, scope).levels:
        hold_switch(session, level.scope)


def require_allowed(session: Session, scope: Scope, configured: Configured) -> None:
    """Refuse with RegistrationOff while registration tokens are off in the scope."""
    decided = decision(session, scope, configured)
    if not decided.allowed:
        raise decided.refusal()


def refuse_while_off(session: Session, configured: Configured) -> None:
    """Refuse with RegistrationOff while the whole portal is off, whatever is asked and with whichever token."""
    hold_switch(session, INSTANCE)
    require_allowed(session, INSTANCE, configured)
