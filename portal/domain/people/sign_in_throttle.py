"""How many attempts to sign in are let through: for each account and network, without locking anybody out."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from itsdangerous import BadSignature, URLSafeTimedSerializer
from sqlalchemy import ColumnElement, Row, ScalarSelect, delete, exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit
from portal.domain.actors import Actor
from portal.domain.errors import TryLater
from portal.domain.people import accounts
from portal.domain.scopes import INSTANCE
from portal.models import KnownNetwork, SignInAttempt, User

WINDOW = timedelta(minutes=15)
PER_PLACE = 5  # failures within WINDOW for one name, from one network or one device that is known
PER_NETWORK = 50  # from one network, over all names
PER_ACCOUNT = 30  # for one name, from all networks and devices that its person has never signed in from
KNOWN_FOR = timedelta(days=90)  # after the last sign-in; then a network or a device is a stranger again
PEOPLE_PER_DEVICE = 5
NO_NETWORK = "unknown"
NOTED = "noted"  # stands for the network in rows that count nothing: they say that a refusal is on the trail


def network_of(address: str) -> str:
    """The network that attempts from this address are counted by: the address, of IPv6 its /64."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return NO_NETWORK
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            return str(ipaddress.ip_network((found, 64), strict=False))
        found = found.ipv4_mapped
    return str(found)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One attempt as it is counted. `user_id` is 0 for a name that nobody has."""

    account: bytes
    network: str
    device: bytes | None
    user_id: int


class Throttle:
    """Counts attempts, and knows devices by a mark in a cookie of theirs that the secret key signs.

    A name is counted as it was typed, never by the account behind it: what the throttle answers then tells nothing
    about whether there is one.
    """

    def __init__(self, secret_key: str) -> None:
        self._key = secret_key.encode()
        self._marks = URLSafeTimedSerializer(secret_key, salt="device mark")

    def begin(self, session: Session, visitor: Actor, login: str, mark: str) -> SignInAttempt:
        """Count one attempt with this name, before its password is looked at.

        The caller commits at once, so that attempts at the same moment see each other; also after a refusal, which
        the trail tells of once in WINDOW. Raises TryLater.
        """
        user = accounts.find(session, login)
        tried = _Attempt(
            account=self._digest("name", _word(login)),
            network=network_of(visitor.address),
            device=self._device(mark, user),
            user_id=user.id if user else 0,
        )
        # Always the name first and the network second, so that nobody waits in a circle.
        for lock in (tried.account, self._digest("network", tried.network)):
            session.execute(select(func.pg_advisory_xact_lock(int.from_bytes(lock[:8], signed=True))))
        moment = now()
        if stopped := self._stopped(session, tried, moment):
            rule, free_at = stopped
            self._tell_once(session, visitor, user, rule, moment)
            seconds = max(1, round((free_at - moment).total_seconds()))
            raise TryLater(f"Too many attempts to sign in. Wait {_in_words(seconds)} and try again.", seconds)
        attempt = SignInAttempt(account_digest=tried.account, network=tried.network, device_digest=tried.device)
        session.add(attempt)
        session.flush()
        return attempt

    def give_back(self, session: Session, attempt: SignInAttempt) -> None:
        """The password was not looked at, so the attempt does not count."""
        session.execute(delete(SignInAttempt).where(SignInAttempt.id == attempt.id))

    def succeeded(self, session: Session, user: User, address: str, mark: str) -> str:
        """The person has signed in: forget their failures from here, and remember the network.

        Returns the mark for the device's cookie, good for KNOWN_FOR.
        """
        network, device = network_of(address), self._device(mark, user)
        names = [self._digest("name", _word(name)) for name in (user.username, user.email)]
        session.execute(
            delete(SignInAttempt).where(
                SignInAttempt.account_digest.in_(names),
                SignInAttempt.device_digest.is_not_distinct_from(device),
                *([] if device else [SignInAttempt.network == network]),
            )
        )
        moment = now()
        session.execute(
            insert(KnownNetwork)
            .values(user_id=user.id, network=network, last_used_at=moment)
            .on_conflict_do_update(
                index_elements=[KnownNetwork.user_id, KnownNetwork.network], set_={"last_used_at": moment}
            )
        )
        return self._remarked(mark, user)

    def _stopped(self, session: Session, tried: _Attempt, moment: datetime) -> tuple[bytes, datetime] | None:
        """The rule that refuses the attempt, the one that covers most first, and when it would be let through."""
        found = _counts(session, tried, moment)
        rules = [(found.by_place, self._digest("place", f"{tried.account.hex()} {tried.network} {tried.device!r}"))]
        if tried.device is None:
            if not found.known:
                rules.insert(0, (found.by_account, self._digest("account", tried.account.hex())))
            rules.insert(0, (found.by_network, self._digest("all names", tried.network)))
        full = [(rule, at + WINDOW) for at, rule in rules if at is not None]
        return (full[0][0], max(at for _, at in full)) if full else None

    def _tell_once(self, session: Session, visitor: Actor, user: User | None, rule: bytes, moment: datetime) -> None:
        """Put the refusal on the trail, but for a flood of the same."""
        told = SignInAttempt.account_digest == rule
        if session.scalar(select(exists().where(told, SignInAttempt.created_at > moment - WINDOW))):
            return
        session.add(SignInAttempt(account_digest=rule, network=NOTED))
        refused(session, visitor, user, "too many attempts")

    def _device(self, mark: str, user: User | None) -> bytes | None:
        """The device's digest, if this person has signed in from it."""
        name, people = self._read(mark)
        return self._digest("device", f"{name} {user.id}") if user and user.id in people else None

    def _remarked(self, mark: str, user: User) -> str:
        name, people = self._read(mark)
        others = [each for each in people if each != user.id]
        return self._marks.dumps([name or secrets.token_urlsafe(16), [user.id, *others][:PEOPLE_PER_DEVICE]])

    def _read(self, mark: str) -> tuple[str, list[int]]:
        try:
            name, people = self._marks.loads(mark, max_age=int(KNOWN_FOR.total_seconds()))
        except BadSignature:
            return "", []
        return name, people

    def _digest(self, what: str, text: str) -> bytes:
        # Keyed: people type passwords into the field for the name, and a plain hash of one could be guessed.
        return hmac.digest(self._key, f"sign-in throttle\0{what}\0{text}".encode(), hashlib.sha256)


def refused(session: Session, visitor: Actor, user: User | None, reason: str) -> None:
    """Put a refused sign-in on the trail: about the person, if there is one; what was typed is kept nowhere."""
    audit.record(session, visitor, "sign_in_refused", user or INSTANCE, INSTANCE, {"reason": (None, reason)})


def prune(session: Session, at: datetime) -> int:
    """Delete attempts that count no more and networks not used for long. Returns how many rows."""
    attempts = delete(SignInAttempt).where(SignInAttempt.created_at <= at - WINDOW).returning(SignInAttempt.id)
    networks = delete(KnownNetwork).where(KnownNetwork.last_used_at <= at - KNOWN_FOR).returning(KnownNetwork.user_id)
    return len(session.execute(attempts).all()) + len(session.execute(networks).all())


def _counts(
    session: Session, tried: _Attempt, moment: datetime
) -> Row[datetime | None, datetime | None, datetime | None, bool]:
    """For each rule the moment of the attempt that makes it full, if it is; and whether the network is known."""
    recent = SignInAttempt.created_at > moment - WINDOW
    theirs = SignInAttempt.account_digest == tried.account
    from_here = SignInAttempt.network == tried.network
    unmarked = SignInAttempt.device_digest.is_(None)
    known = (KnownNetwork.user_id == tried.user_id) & (KnownNetwork.last_used_at > moment - KNOWN_FOR)
    strange = SignInAttempt.network.not_in(select(KnownNetwork.network).where(known))
    here = from_here & unmarked if tried.device is None else SignInAttempt.device_digest == tried.device
    return session.execute(
        select(
            _moment_of(PER_PLACE, recent, theirs, here).label("by_place"),
            _moment_of(PER_ACCOUNT, recent, theirs, unmarked, strange).label("by_account"),
            _moment_of(PER_NETWORK, recent, from_here, unmarked).label("by_network"),
            exists().where(known, KnownNetwork.network == tried.network).label("known"),
        )
    ).one()


def _moment_of(limit: int, *where: ColumnElement[bool]) -> ScalarSelect[datetime]:
    """When the newest but limit - 1 was: once that one is old, the next attempt is let through."""
    newest = select(SignInAttempt.created_at).where(*where).order_by(SignInAttempt.created_at.desc())
    return newest.offset(limit - 1).limit(1).scalar_subquery()


def _word(login: str) -> str:
    return login.strip().lower()


def _in_words(seconds: int) -> str:
    if seconds < 60:
        return "a minute"
    minutes = -(-seconds // 60)
    return f"{minutes} minutes" if minutes > 1 else "a minute"
