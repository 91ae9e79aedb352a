"""The second factor of a sign-in: one-time passwords of an authenticator app, and recovery codes in its place."""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import pyotp
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import actors, audit
from portal.domain.actors import Actor
from portal.domain.errors import Invalid, NotAllowed, NotFound, Stale
from portal.domain.people import user_sessions
from portal.domain.permissions import Action, require
from portal.domain.scopes import INSTANCE
from portal.domain.vault import Vault
from portal.models import RecoveryCode, SecondFactor, User, UserSession

STEP = 30  # seconds; with six digits and SHA-1 the one form that every authenticator app takes
WINDOW = 1  # steps before and after the present one, for a clock that is off
WRONG_AT_ONCE, AT_ONCE = 5, timedelta(minutes=15)
# With three passwords good at a time, 20 guesses a day find one in 45 years on average.
WRONG_IN_A_DAY, A_DAY = 20, timedelta(days=1)
RECOVERY_CODES = 10
RECOVERY_BYTES = 15  # 120 random bits, so that a plain digest will do (ASVS 6.5.2)
DRAFT_GOOD_FOR = timedelta(minutes=30)
LONGEST_CODE = 64  # characters; nothing longer is looked at

WRONG = "This code is wrong."
USED = "This code was used already. Wait until your app shows the next one."
LOST = (
    "The portal can no longer read the key of your authenticator app, because its encryption key was replaced. "
    "Use a recovery code, or ask an administrator to remove your second factor."
)


class Demand(enum.StrEnum):
    """Of whom a second factor is demanded (PORTAL_SECOND_FACTOR)."""

    OPTIONAL = "optional"
    ADMINISTRATORS = "administrators"
    EVERYBODY = "everybody"


@dataclass(frozen=True, slots=True)
class Configured:
    """What the portal's configuration says of second factors: of whom one is demanded, and the keys."""

    demand: Demand
    vault: Vault

    def demands_of(self, user: User) -> bool:
        """Whether this person may not go without."""
        return self.demand is Demand.EVERYBODY or (self.demand is Demand.ADMINISTRATORS and user.admin)


@dataclass(frozen=True, slots=True)
class Draft:
    """A key that nobody has confirmed yet. It is stored nowhere: the form carries it on, `sealed`.

    `key` is base32, `address` what the QR code holds. Both are shown to their person only.
    """

    key: str
    address: str
    sealed: str

    @property
    def grouped(self) -> str:
        """The key as people type it."""
        return _groups(self.key)


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a typed code: it passed, or the sentence that says why not.

    `ends` is set when so many were wrong that who tries begins again with the first proof.
    """

    passed: bool
    sentence: str = ""
    ends: bool = False


def find(session: Session, user: User) -> SecondFactor | None:
    """The person's second factor, if they have one."""
    return session.get(SecondFactor, user.id, populate_existing=True)


def codes_left(session: Session, user: User) -> int:
    """How many of the person's recovery codes are still good."""
    unused = select(func.count()).where(RecoveryCode.user_id == user.id, RecoveryCode.used_at.is_(None))
    return session.scalar(unused) or 0


def wrong_lately(factor: SecondFactor, at: datetime | None = None) -> int:
    """How many wrong codes were typed in the last day."""
    return len(_since(factor, (at or now()) - A_DAY))


def paused_until(factor: SecondFactor, at: datetime | None = None) -> datetime | None:
    """Until when no code of the app is taken, after too many wrong ones; None while they are taken.

    Recovery codes are taken all the same: nobody locks a person out by guessing.
    """
    moment = at or now()
    for most, span in ((WRONG_IN_A_DAY, A_DAY), (WRONG_AT_ONCE, AT_ONCE)):
        lately = _since(factor, moment - span)
        if len(lately) >= most:
            return lately[-most] + span
    return None


def draft(user: User, configured: Configured, *, portal: str, at: datetime | None = None) -> Draft:
    """A new key for the person's app. `portal` is the portal's address, for the name that the app shows."""
    return _draft(user, configured, pyotp.random_base32(), portal, at or now())


def reopened(user: User, configured: Configured, sealed: str, *, portal: str, at: datetime | None = None) -> Draft:
    """The same draft again, from what its form carried. Raises Stale when it is too old or not this person's."""
    key, begun_at = _opened(user, configured, sealed, at or now())
    return _draft(user, configured, key, portal, begun_at)


def set_up(
    session: Session,
    actor: Actor,
    configured: Configured,
    *,
    sealed: str,
    code: str,
    here: UserSession | None = None,
    at: datetime | None = None,
) -> Sequence[str]:
    """The draft becomes the actor's second factor, as their app has shown a right code. Replaces an older one.

    Returns the recovery codes, shown once. Their other sessions end; the one they are in (`here`) counts as
    proven twice. Raises Invalid for a wrong code, Stale when the draft is too old or something else was set up
    meanwhile.
    """
    user, moment = _person(actor), at or now()
    key, begun_at = _opened(user, configured, sealed, moment)
    old = _locked(session, user) or _held_place(session, user)
    if old is not None and old.confirmed_at >= begun_at:
        raise Stale("A second factor was set up meanwhile. Look at this page again.")
    step = _step_of(key, code, moment)
    if step is None:
        raise Invalid({"code": [f"{WRONG} Type the one that your app shows now. Is the clock of your device right?"]})
    factor = old or SecondFactor(user_id=user.id)
    factor.ciphertext, factor.confirmed_at = configured.vault.close(key), moment
    factor.last_step, factor.refused_at = step, []
    session.add(factor)
    session.flush()
    codes = _issue_codes(session, user)
    ended = user_sessions.end_all(session, user, but=here)
    if here is not None:
        here.second_factor = True
    changes = {"replaced": (None, True)} if old else {}
    audit.record(session, actor, "second_factor_set_up", user, INSTANCE, {**changes, "other_sessions": (ended, 0)})
    return codes


def check(
    session: Session, actor: Actor, user: User, code: str, configured: Configured, *, at: datetime | None = None
) -> Tried:
    """Try a code of the person's app, or one of their recovery codes: each passes once, whatever races happen.

    A wrong one leaves an event by `actor` and counts: commit in either case. Without a second factor none passes.
    """
    moment, typed = at or now(), code[: LONGEST_CODE + 1].strip()
    factor = _locked(session, user)
    if factor is None:
        return Tried(False, WRONG, ends=True)
    digits = typed.replace(" ", "")
    if digits.isascii() and digits.isdecimal() and len(digits) <= 8:
        why = _refusal_of_app(factor, digits, configured, moment)
    else:
        why = "" if _take_recovery_code(session, actor, user, typed, moment) else WRONG
    if not why:
        return Tried(True)
    _note_refusal(session, actor, user, factor, why, moment)
    return Tried(False, why, ends=paused_until(factor, moment) is not None)


def new_codes(session: Session, actor: Actor) -> Sequence[str]:
    """Ten new recovery codes of the actor's, shown once; the old ones die. Raises NotFound without a factor."""
    user = _person(actor)
    if _locked(session, user) is None:
        raise NotFound("You have no second factor, so there are no recovery codes.")
    left = codes_left(session, user)
    codes = _issue_codes(session, user)
    audit.record(session, actor, "recovery_codes_made", user, INSTANCE, {"codes": (left, len(codes))})
    return codes


def are_codes_of(session: Session, user: User, codes: Sequence[str]) -> bool:
    """Whether all these are recovery codes of the person; for the file that a page with them offers."""
    digests = {_digest(user, code) for code in codes[: RECOVERY_CODES + 1]}
    mine = session.scalars(select(RecoveryCode.digest).where(RecoveryCode.user_id == user.id)).all()
    return bool(digests) and len(codes) <= RECOVERY_CODES and digests <= set(mine)


def turn_off(
    session: Session,
    actor: Actor,
    code: str,
    configured: Configured,
    *,
    here: UserSession | None = None,
    at: datetime | None = None,
) -> Tried:
    """The actor does without a second factor from now on, if the code is right; their other sessions end.

    A wrong code counts, so commit in either case. Raises NotFound without one, NotAllowed where it is demanded.
    """
    user = _person(actor)
    if configured.demands_of(user):
        raise NotAllowed("This portal demands a second factor of you. You can set up another app in its place.")
    if find(session, user) is None:
        raise NotFound("You have no second factor.")
    tried = check(session, actor, user, code, configured, at=at)
    if tried.passed:
        _forget(session, user)
        ended = user_sessions.end_all(session, user, but=here)
        if here is not None:
            here.second_factor = False
        audit.record(session, actor, "second_factor_turned_off", user, INSTANCE, {"other_sessions": (ended, 0)})
    return tried


def remove(session: Session, actor: Actor, user: User) -> None:
    """Take somebody's second factor away, who has lost app and codes; all their sessions end.

    For administrators and the command line. Raises NotAllowed, or NotFound when they have none.
    """
    require(session, actor, Action.WRITE_PEOPLE, INSTANCE)
    if _locked(session, user) is None:
        raise NotFound(f"{user.name} has no second factor.")
    _forget(session, user)
    ended = user_sessions.end_all(session, user)
    audit.record(session, actor, "second_factor_removed", user, INSTANCE, {"sessions": (ended, 0)})


@dataclass(frozen=True, slots=True)
class Renewed:
    """How many second factors are encrypted with the first key now, and how many no key opens."""

    renewed: int
    lost: int


def renew_encryption(session: Session, actor: Actor, configured: Configured) -> Renewed:
    """Encrypt every shared key anew with the first key; nobody's app notices, and one event says how many.

    What no key opens is left alone.
    """
    renewed = lost = 0
    for factor in session.scalars(select(SecondFactor).order_by(SecondFactor.user_id).with_for_update()):
        ciphertext = configured.vault.renew(factor.ciphertext)
        if ciphertext is None:
            lost += 1
        else:
            factor.ciphertext = ciphertext
            renewed += 1
    if renewed:
        audit.record(session, actor, "encryption_renewed", INSTANCE, INSTANCE, {"second_factors": (None, renewed)})
    return Renewed(renewed, lost)


def _person(actor: Actor) -> User:
    if actor.user is None:
        raise NotFound("Sign in first.")
    return actor.user


def _held_place(session: Session, user: User) -> SecondFactor | None:
    """There is no factor to lock yet: of two who set one up at once the second waits here, and finds the first's."""
    session.execute(select(User.id).where(User.id == user.id).with_for_update(key_share=True))
    return _locked(session, user)


def _locked(session: Session, user: User) -> SecondFactor | None:
    """The person's factor as it is now, held until the end of the transaction."""
    held = select(SecondFactor).where(SecondFactor.user_id == user.id).with_for_update()
    return session.scalar(held.execution_options(populate_existing=True))


def _draft(user: User, configured: Configured, key: str, portal: str, at: datetime) -> Draft:
    host = urlsplit(portal).hostname or "portal"
    address = pyotp.TOTP(key).provisioning_uri(name=user.username, issuer_name=f"Runner Portal ({host})")
    sealed = configured.vault.close(f"{user.id} {at.isoformat()} {key}")
    return Draft(key, address, sealed.decode())


def _opened(user: User, configured: Configured, sealed: str, at: datetime) -> tuple[str, datetime]:
    """(key, when it was drafted) of a draft. Raises Stale."""
    words = (configured.vault.open(sealed.encode()) or "").split(" ")
    if len(words) != 3 or words[0] != str(user.id):
        raise Stale("This form is not complete. Start setting up again.")
    begun_at = datetime.fromisoformat(words[1])
    if begun_at + DRAFT_GOOD_FOR < at:
        raise Stale("Setting up took more than half an hour. Start again: you get a new QR code.")
    return words[2], begun_at


def _refusal_of_app(factor: SecondFactor, code: str, configured: Configured, at: datetime) -> str:
    """Why the app's code is not taken; empty when it is, and then it and older ones are taken never again."""
    if until := paused_until(factor, at):
        return (
            f"Too many wrong codes were typed. Until {until:%H:%M} UTC only a recovery code is taken."
            if until - at < AT_ONCE
            else f"Too many wrong codes were typed in a day. Until {until:%Y-%m-%d %H:%M} UTC only a recovery code "
            "is taken. If it was not you, somebody knows your password: change it."
        )
    key = configured.vault.open(factor.ciphertext)
    if key is None:
        return LOST
    step = _step_of(key, code, at)
    if step is None:
        return WRONG
    if step <= factor.last_step:
        return USED
    factor.last_step = step
    return ""


def _step_of(key: str, code: str, at: datetime) -> int | None:
    """The newest step near this moment whose password the code is."""
    app, present = pyotp.TOTP(key), int(at.timestamp()) // STEP
    digits = code.replace(" ", "").encode()
    fitting = [
        step
        for step in range(present - WINDOW, present + WINDOW + 1)
        if hmac.compare_digest(app.generate_otp(step).encode(), digits)
    ]
    return max(fitting, default=None)


def _take_recovery_code(session: Session, actor: Actor, user: User, typed: str, at: datetime) -> bool:
    unused = (RecoveryCode.user_id == user.id, RecoveryCode.used_at.is_(None))
    found = session.scalar(select(RecoveryCode).where(RecoveryCode.digest == _digest(user, typed), *unused))
    if found is None:
        return False
    found.used_at = at
    session.flush()
    proven = actors.person(user, address=actor.address, request_id=actor.request_id)
    left = codes_left(session, user)
    audit.record(session, proven, "recovery_code_used", user, INSTANCE, {"codes": (left + 1, left)})
    return True


def _note_refusal(session: Session, actor: Actor, user: User, factor: SecondFactor, why: str, at: datetime) -> None:
    if why == WRONG:
        factor.refused_at = [*_since(factor, at - A_DAY), at][-WRONG_IN_A_DAY:]
    reasons = {WRONG: "wrong", USED: "used before", LOST: "key lost"}
    reason = reasons.get(why, "too many wrong ones")
    audit.record(session, actor, "second_factor_refused", user, INSTANCE, {"reason": (None, reason)})


def _since(factor: SecondFactor, moment: datetime) -> list[datetime]:
    return [each for each in factor.refused_at if each > moment]


def _issue_codes(session: Session, user: User) -> list[str]:
    session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user.id))
    random = [secrets.token_bytes(RECOVERY_BYTES) for _ in range(RECOVERY_CODES)]
    codes = [_groups(base64.b32encode(each).decode(), "-") for each in random]
    session.add_all(RecoveryCode(user_id=user.id, digest=_digest(user, code)) for code in codes)
    session.flush()
    return codes


def _digest(user: User, code: str) -> bytes:
    # Base32 has no 0 and no 1, which people type for O and I.
    plain = "".join(each for each in code.upper() if each.isalnum()).replace("0", "O").replace("1", "I")
    return hashlib.sha256(f"{user.id} {plain}".encode()).digest()


def _forget(session: Session, user: User) -> None:
    for table in (RecoveryCode, SecondFactor):
        session.execute(delete(table).where(table.user_id == user.id))


def _groups(text: str, between: str = " ") -> str:
    return between.join(text[place : place + 4] for place in range(0, len(text), 4))
