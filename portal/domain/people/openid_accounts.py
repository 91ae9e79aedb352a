"""Accounts at an OpenID Connect provider: whom one belongs to, first use, connecting and disconnecting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.config import MappedRole
from portal.database import now
from portal.domain import audit
from portal.domain.actors import Actor
from portal.domain.errors import IdentityRefused, Invalid, NotFound
from portal.domain.names import username_problems
from portal.domain.people import accounts, openid_roles
from portal.domain.scopes import INSTANCE
from portal.models import User, UserIdentity

LONGEST_ISSUER, LONGEST_SUBJECT, LONGEST_EMAIL = 1024, 255, 255
LONGEST_USERNAME = 200  # leaves room for the number that makes it unique
CONNECT = "Sign in with its password, then connect the two on the page Single sign-on of your account."


@dataclass(frozen=True, slots=True)
class Identity:
    """What a provider vouches for. Issuer and subject say who it is; all the rest may change there, or lie.

    `groups` is None when the provider did not say, which is not the same as being in none.
    """

    issuer: str
    subject: str
    username: str = ""
    name: str = ""
    email: str = ""
    email_refuted: bool = False  # the provider says that nobody has checked the address
    groups: frozenset[str] | None = frozenset()


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says: whether first use makes an account, and what groups give."""

    create: bool = False
    roles: tuple[MappedRole, ...] = ()
    passwords: bool = True  # whether anybody may sign in with a password


def find(session: Session, identity: Identity) -> UserIdentity | None:
    """The account here that this one is connected to: by issuer and subject, never by name or address."""
    return session.scalar(
        select(UserIdentity).where(UserIdentity.issuer == identity.issuer, UserIdentity.subject == identity.subject)
    )


def signed_in(session: Session, actor: Actor, identity: Identity, rules: Rules) -> User:
    """The person an identity belongs to, made now if the rules say so, with the roles that their groups give.

    Raises IdentityRefused for who has no account, cannot get one, or is blocked.
    """
    _hold(session, identity)
    found = find(session, identity) or _first_use(session, actor, identity, rules)
    user = found.user
    session.refresh(user)
    if user.blocked_at is not None:
        raise IdentityRefused(
            "Your account on this portal is blocked. An administrator can unblock it.",
            reason="blocked",
            user_id=user.id,
        )
    found.last_used_at, found.email = now(), identity.email[:LONGEST_EMAIL]
    if identity.groups is not None:
        openid_roles.apply(session, _sign_on(actor), user, identity.groups, rules.roles)
    return user


def record_refusal(session: Session, actor: Actor, identity: Identity, refusal: IdentityRefused) -> None:
    """Add the event `sign_in_refused`: who the provider said it was, and why that did not do."""
    user = session.get(User, refusal.user_id) if refusal.user_id is not None else None
    told = {
        "method": (None, "openid"),
        "reason": (None, refusal.reason),
        "provider": (None, identity.issuer[:LONGEST_ISSUER]),
        "subject": (None, identity.subject[:LONGEST_SUBJECT]),
    }
    audit.record(session, actor, "sign_in_refused", user or INSTANCE, INSTANCE, told)


def of_person(session: Session, user: User) -> Sequence[UserIdentity]:
    """The person's accounts at providers, the oldest first."""
    return session.scalars(
        select(UserIdentity).where(UserIdentity.user_id == user.id).order_by(UserIdentity.id)
    ).all()


def connect(session: Session, actor: Actor, identity: Identity) -> UserIdentity:
    """From now on the actor signs in with this identity too. Connecting it again changes nothing.

    Raises NotFound without a person, and IdentityRefused when it belongs to somebody else here.
    """
    if actor.user is None:
        raise NotFound("Sign in first.")
    _hold(session, identity)
    found = find(session, identity)
    if found is None:
        return _add(session, actor, actor.user, identity)
    if found.user_id != actor.user.id:
        raise IdentityRefused(
            "The account that you signed in with there is connected to somebody else on this portal. "
            "Sign out there, then try again with your own.",
            reason="connected to somebody else",
            user_id=actor.user.id,
        )
    return found


def confirmed(session: Session, actor: Actor, identity: Identity) -> None:
    """The actor has proved once more who they are, if this identity is theirs. Raises IdentityRefused if not."""
    found = find(session, identity)
    if found is None or actor.user is None or found.user_id != actor.user.id:
        raise IdentityRefused(
            "The account that you signed in with there is not connected to the one you use here. "
            "Sign in there with the account that is.",
            reason="not the person's own",
            user_id=actor.user.id if actor.user else None,
        )


def disconnect(session: Session, actor: Actor, identity_id: int, rules: Rules) -> UserIdentity:
    """The actor no longer signs in with this identity. With the last one go the roles that its groups gave.

    Raises NotFound for one that is not theirs, and Invalid when it is their only way to sign in.
    """
    if actor.user is None:
        raise NotFound("Sign in first.")
    user = actor.user
    mine = select(UserIdentity).where(UserIdentity.user_id == user.id).order_by(UserIdentity.id)
    held = session.scalars(mine.with_for_update(of=UserIdentity)).all()
    found = next((each for each in held if each.id == identity_id), None)
    if found is None:
        raise NotFound("This account is not connected any more.")
    if len(held) == 1 and not (rules.passwords and user.password_digest):
        raise Invalid({"identity": ["This is your only way to sign in, so it stays. An administrator can help."]})
    changes = {"provider": (found.issuer, None), "subject": (found.subject, None)}
    audit.record(session, actor, "identity_disconnected", user, INSTANCE, changes)
    session.delete(found)
    if len(held) == 1:
        openid_roles.apply(session, _sign_on(actor), user, frozenset(), ())
    session.flush()
    return found


def _sign_on(actor: Actor) -> Actor:
    """Who makes accounts and gives roles by the configuration, from where the person signs in."""
    return replace(actor, kind="system", name="single sign-on", id=None, user=None, roles={})


def _hold(session: Session, identity: Identity) -> None:
    """Of two sign-ins with the same identity at once the second waits, also when it is new here."""
    words = f"openid {identity.issuer} {identity.subject}"
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(words, 0))))


def _first_use(session: Session, actor: Actor, identity: Identity, rules: Rules) -> UserIdentity:
    if not rules.create:
        raise IdentityRefused(
            "No account on this portal is connected to the one that you signed in with. "
            + (f"If you have one: {CONNECT[0].lower()}{CONNECT[1:]} If not, ask" if rules.passwords else "Ask")
            + " an administrator for one.",
            reason="no account",
        )
    _check_address(session, identity, rules)
    by = _sign_on(actor)
    try:
        user = accounts.create_person(
            session,
            by,
            username=_free_username(session, identity),
            name=(identity.name or identity.username or identity.email)[:255],
            email=identity.email,
            password=None,
            must_change_password=False,
        )
    except Invalid as invalid:
        raise IdentityRefused(
            f"An account could not be made for you. {invalid} Tell an administrator.",
            reason="no account could be made",
        ) from None
    return _add(session, by, user, identity)


def _check_address(session: Session, identity: Identity, rules: Rules) -> None:
    """A new account needs an address of its own. An existing one is never taken over by its address."""
    if not identity.email:
        raise IdentityRefused(
            "The provider did not tell your e-mail address, and an account needs one. Tell an administrator.",
            reason="no e-mail address",
        )
    if identity.email_refuted:
        raise IdentityRefused(
            "Your e-mail address is not verified at the provider. Verify it there, then sign in again.",
            reason="e-mail address not verified",
        )
    taken = session.scalar(select(User).where(func.lower(User.email) == identity.email.strip().lower()))
    if taken is not None:
        way = CONNECT if rules.passwords else "An administrator can change the address of that account."
        raise IdentityRefused(
            f"There is an account with your e-mail address here already. {way}",
            reason="e-mail address taken",
            user_id=taken.id,
        )


def _add(session: Session, actor: Actor, user: User, identity: Identity) -> UserIdentity:
    made = UserIdentity(
        user=user,
        issuer=identity.issuer,
        subject=identity.subject,
        email=identity.email[:LONGEST_EMAIL],
    )
    session.add(made)
    session.flush()
    changes = {"provider": (None, identity.issuer), "subject": (None, identity.subject)}
    audit.record(session, actor, "identity_connected", user, INSTANCE, changes)
    return made


def _free_username(session: Session, identity: Identity) -> str:
    """A user name that nobody has, as near as can be to what the provider calls the person."""
    words = (identity.username, identity.email, identity.name)
    base = next((name for name in map(_as_username, words) if name), "person")
    alike = func.lower(User.username).startswith(base.lower(), autoescape=True)
    taken = set(session.scalars(select(func.lower(User.username)).where(alike)))
    candidates = (base if number == 1 else f"{base}-{number}" for number in count(1))
    return next(each for each in candidates if each.lower() not in taken)


def _as_username(text: str) -> str:
    """The text as a user name may be written; empty when nothing usable is left of it."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", text.partition("@")[0]).strip("-._")[:LONGEST_USERNAME].rstrip("-._")
    return "" if username_problems(plain) else plain
