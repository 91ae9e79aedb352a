"""The registration tokens themselves: one for each scope, made when needed, shown, reset, found by their text."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from sqlalchemy import ColumnElement, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit, tokens
from portal.domain.actors import Actor
from portal.domain.errors import NOTHING_HERE, NotFound, Stale
from portal.domain.permissions import Action, may, require
from portal.domain.registration.registration import Configured, decision, hold_switches_down_to
from portal.domain.registration.registration_readers import require_allowed
from portal.domain.runners import runner_creation
from portal.domain.scopes import INSTANCE, Scope, of_group, of_project
from portal.domain.vault import Vault
from portal.models import Group, Project, RegistrationToken


def may_register(session: Session, actor: Actor, scope: Scope, configured: Configured) -> bool:
    """Whether the actor may see, use and reset the scope's registration token now.

    Where nobody but administrators may create runners nobody may: who registers with the token is no administrator.
    """
    if not may(session, actor, Action.REGISTER_RUNNERS, scope) or runner_creation.closed_because(session, scope):
        return False
    return decision(session, scope, configured).allowed


def live_token(session: Session, scope: Scope) -> RegistrationToken | None:
    """The scope's registration token, if one was ever needed."""
    return session.scalar(select(RegistrationToken).where(_of(scope), RegistrationToken.ended_at.is_(None)))


def make_token(session: Session, actor: Actor, scope: Scope, configured: Configured) -> RegistrationToken:
    """The scope's registration token, made now when there is none. Of two who make it at once both get the same.

    Raises NotFound, NotAllowed or RegistrationOff.
    """
    _require_may_register(session, actor, scope, configured)
    present = live_token(session, scope)
    if present is not None:
        return present
    try:
        with session.begin_nested():
            made = _issue(session, scope, configured.vault)
    except IntegrityError:
        session.expire_all()
        return session.scalars(
            select(RegistrationToken).where(_of(scope), RegistrationToken.ended_at.is_(None))
        ).one()
    audit.record(session, actor, "registration_token_created", made, scope, {"token": (None, made.short)})
    return made


def reset_token(
    session: Session, actor: Actor, scope: Scope, configured: Configured, *, seen_id: int | None = None
) -> RegistrationToken:
    """A new registration token; the old one ends at once. Runners registered with it are not affected.

    `seen_id` is the token that the person decided on; if somebody was quicker, Stale is raised. Raises also
    NotFound, NotAllowed or RegistrationOff.
    """
    _require_may_register(session, actor, scope, configured)
    if not hold_owner(session, scope.group.id if scope.group else None, scope.project.id if scope.project else None):
        raise NotFound(NOTHING_HERE)
    old = session.scalar(
        select(RegistrationToken)
        .where(_of(scope), RegistrationToken.ended_at.is_(None))
        .with_for_update(of=RegistrationToken)
    )
    if seen_id is not None and (old is None or old.id != seen_id):
        raise Stale("Somebody else reset this registration token a moment ago. It is shown on the page.")
    if old is not None:
        old.ended_at, old.ciphertext = now(), None
        session.flush()
    try:
        with session.begin_nested():
            made = _issue(session, scope, configured.vault)
    except IntegrityError:
        raise Stale("Somebody else reset this registration token a moment ago. It is shown on the page.") from None
    changed = {"token": (old.short if old else None, made.short)}
    audit.record(session, actor, "registration_token_reset", made, scope, changed)
    return made


@dataclass(frozen=True, slots=True)
class Renewed:
    """How many registration tokens are encrypted with the first key now, and how many no key opens."""

    renewed: int
    lost: int


def renew_encryption(session: Session, actor: Actor, configured: Configured) -> Renewed:
    """Encrypt every live registration token anew with the first key, so that the keys after it can go.

    The tokens themselves stay as they are; one event says how many. What no key opens is left alone.
    """
    live = select(RegistrationToken).where(RegistrationToken.ended_at.is_(None)).order_by(RegistrationToken.id)
    renewed = lost = 0
    for row in session.scalars(live.with_for_update(of=RegistrationToken)):
        ciphertext = configured.vault.renew(row.ciphertext or b"")
        if ciphertext is None:
            lost += 1
        else:
            row.ciphertext = ciphertext
            renewed += 1
    if renewed:
        audit.record(
            session, actor, "encryption_renewed", INSTANCE, INSTANCE, {"registration_tokens": (None, renewed)}
        )
    return Renewed(renewed, lost)


def find(session: Session, text: str) -> RegistrationToken | None:
    """The registration token with this text, ended ones too: found by digest, compared in constant time."""
    if not text or len(text) > tokens.LONGEST:
        return None
    digest = tokens.digest(text)
    row = session.scalar(select(RegistrationToken).where(RegistrationToken.digest == digest))
    return row if row is not None and hmac.compare_digest(row.digest, digest) else None


def scope_of(token: RegistrationToken) -> Scope:
    """The scope that the token registers runners in."""
    if token.project is not None:
        return of_project(token.project)
    return of_group(token.group) if token.group is not None else INSTANCE


def hold_owner(session: Session, group_id: int | None, project_id: int | None) -> bool:
    """Lock the token's owner before the token, as whoever deletes it does: otherwise each would wait for the other.

    No shared lock: a stream of registrations would hold it for ever between them, and the deletion would starve.
    Returns whether the owner is there; then it stays so until the transaction ends.
    """
    for owner, key in ((Group, group_id), (Project, project_id)):
        if key is not None:
            held = select(owner.id).where(owner.id == key).with_for_update(key_share=True, of=owner)
            if session.scalar(held) is None:
                return False
    return True


def _require_may_register(session: Session, actor: Actor, scope: Scope, configured: Configured) -> None:
    require(session, actor, Action.REGISTER_RUNNERS, scope)
    runner_creation.require_open(session, scope)
    hold_switches_down_to(session, scope)
    require_allowed(session, actor, scope, configured)


def _of(scope: Scope) -> ColumnElement[bool]:
    return (
        RegistrationToken.group_id.is_(None) if scope.group is None else RegistrationToken.group_id == scope.group.id
    ) & (
        RegistrationToken.project_id.is_(None)
        if scope.project is None
        else RegistrationToken.project_id == scope.project.id
    )


def _issue(session: Session, scope: Scope, vault: Vault) -> RegistrationToken:
    clear = tokens.make_registration()
    made = RegistrationToken(
        group_id=scope.group.id if scope.group else None,
        project_id=scope.project.id if scope.project else None,
        digest=tokens.digest(clear),
        ciphertext=vault.close(clear),
        short=tokens.shorten(clear),
    )
    session.add(made)
    session.flush()
    return made
