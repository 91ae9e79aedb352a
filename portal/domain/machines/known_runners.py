"""What a server process remembers of runners by their tokens, so that an idle poll asks the database nothing."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import scopes, tokens
from portal.domain.errors import ClientTooOld, RunnerDeleted, TokenOver, TokenUnknown
from portal.domain.jobs import runner_offers
from portal.domain.jobs.job_matching import Offer
from portal.domain.registration import registration
from portal.domain.registration.registration import Configured
from portal.domain.runners import runner_changes
from portal.models import WITH_DELETED, Deletion, QueueScope, RegistrationType, Runner, RunnerToken

MOST_KNOWN = 200_000
MOST_UNKNOWN = 20_000
UNKNOWN_FOR = 10.0  # seconds; a token that is imported later is found soon
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
REFUSAL = (
    "This token belongs to no runner: it was mistyped, has ended, or its runner was deleted. "
    "Create a runner, or reset the token of yours"
)


@dataclass(frozen=True, slots=True)
class KnownRunner:
    """A runner as its token finds it. `ends_at` is when the token stops working, whatever the reason.

    `queue_version` is another text whenever the runner changed, or serves other projects, which is no change of its
    row; `offer` says which jobs it takes, and `scopes` where it finds them. `deleted_at` is set for a runner that is
    deleted and can be restored.
    """

    token_id: int
    runner_id: int
    short: str
    created_by_person: bool
    expires_at: datetime | None
    ends_at: datetime | None
    queue_version: str
    offer: Offer
    scopes: tuple[tuple[QueueScope, int], ...]
    deleted_at: datetime | None = None


class KnownRunners:
    """A bounded memory of tokens by digest, kept true by the changes that `runner_changes` announces.

    While nobody listens for changes (`listening` is false) nothing is remembered and every look-up asks
    the database: slow but right.
    """

    def __init__(self) -> None:
        self.listening = False
        self._known: dict[bytes, KnownRunner] = {}
        self._unknown: dict[bytes, float] = {}
        self._by_runner: dict[int, set[bytes]] = {}
        self._too_old: dict[int, str] = {}
        self._generation = 0
        self._lock = threading.Lock()

    def find(self, open_session: Callable[[], Session], token: str) -> KnownRunner:
        """The runner of a live token. Raises TokenUnknown, and of its kinds TokenOver and RunnerDeleted.

        A mistyped token of our form costs no look-up, nor does one whose refusal is remembered.

        `open_session` is called only when the database has to be asked.
        """
        known = self._remembered(token) or self._look_up(open_session(), tokens.digest(token))
        if known.ends_at is not None and known.ends_at <= now():
            raise TokenOver(_over(known), known.runner_id)
        if known.deleted_at is not None:
            raise RunnerDeleted(known.runner_id, known.deleted_at)
        return known

    def recall(self, token: str) -> KnownRunner | None:
        """The runner of a live token, if this process remembers it; None when `find` has to say.

        Raises TokenUnknown for a token that is mistyped, or that was unknown a moment ago.
        """
        return _live(self._remembered(token))

    def recall_digest(self, digest: bytes) -> KnownRunner | None:
        """The same by the digest of a token, for whoever does not keep the token itself."""
        known = self._known.get(digest)
        if known is None and self._is_unknown(digest):
            raise TokenUnknown(REFUSAL)
        return _live(known)

    def is_welcome(self, runner_id: int) -> bool:
        """Whether this process remembers that the runner's machines without system ID are not refused."""
        return self._too_old.get(runner_id) == ""

    def refuse_too_old(self, open_session: Callable[[], Session], runner_id: int, configured: Configured) -> None:
        """Refuse with ClientTooOld a machine without system ID while registration tokens are off in its scope.

        Asked only for such machines, and of the database only once between two changes.
        """
        sentence = self._too_old.get(runner_id)
        if sentence is None:
            generation = self._generation
            sentence = _why_too_old(open_session(), runner_id, configured)
            with self._lock:
                if self.listening and generation == self._generation and len(self._too_old) < MOST_KNOWN:
                    self._too_old[runner_id] = sentence
        if sentence:
            raise ClientTooOld(sentence, runner_id)

    def _remembered(self, token: str) -> KnownRunner | None:
        if not token or len(token) > tokens.LONGEST:
            raise TokenUnknown(REFUSAL)
        digest = tokens.digest(token)
        known = self._known.get(digest)
        # A fleet whose runners are gone asks with the same tokens again: they are found before a checksum is made.
        if known is None and (self._is_unknown(digest) or tokens.is_mistyped(token)):
            raise TokenUnknown(REFUSAL)
        return known

    def _is_unknown(self, digest: bytes) -> bool:
        return self._unknown.get(digest, 0.0) > time.monotonic()

    def _look_up(self, session: Session, digest: bytes) -> KnownRunner:
        generation = self._generation
        known = _query(session, digest)
        with self._lock:
            # A change announced since the query started may make the answer old: use it, do not keep it.
            if self.listening and generation == self._generation:
                self._keep(digest, known)
        if known is None:
            raise TokenUnknown(REFUSAL)
        return known

    def _keep(self, digest: bytes, known: KnownRunner | None) -> None:
        if known is None:
            if len(self._unknown) >= MOST_UNKNOWN:
                self._unknown.clear()
            self._unknown[digest] = time.monotonic() + UNKNOWN_FOR
            return
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
            self._by_runner.clear()
        self._known[digest] = known
        self._by_runner.setdefault(known.runner_id, set()).add(digest)

    def forget(self, runner_id: int) -> None:
        """Forget one runner, because it changed."""
        with self._lock:
            self._generation += 1
            self._unknown.clear()
            self._too_old.pop(runner_id, None)
            for digest in self._by_runner.pop(runner_id, ()):
                self._known.pop(digest, None)

    def forget_refusals(self) -> None:
        """Forget which machines without system ID are refused, because a registration switch was turned."""
        with self._lock:
            self._generation += 1
            self._too_old.clear()

    def forget_all(self, *, listening: bool | None = None) -> None:
        """Forget everything; `listening` says whether changes are heard from now on."""
        with self._lock:
            self._generation += 1
            self._known.clear()
            self._unknown.clear()
            self._by_runner.clear()
            self._too_old.clear()
            if listening is not None:
                self.listening = listening


def _live(known: KnownRunner | None) -> KnownRunner | None:
    if known is None or known.deleted_at is not None:
        return None
    return known if known.ends_at is None or known.ends_at > now() else None


def _over(known: KnownRunner) -> str:
    """What the holder of a token that worked once is told."""
    if known.expires_at is not None and known.expires_at == known.ends_at:
        return f"This token expired on {known.expires_at:%Y-%m-%d %H:%M} UTC. Reset the runner's token for a new one"
    return "This token was replaced or ended. Use the runner's newest token, or reset it for another one"


def _why_too_old(session: Session, runner_id: int, configured: Configured) -> str:
    runner = session.get(Runner, runner_id)
    if runner is None:
        return ""
    decided = registration.decision(session, scopes.of_runner(runner), configured)
    if decided.allowed:
        return ""
    return (
        f"{decided.sentence} Machines there must send a system ID, and this one sends none: "
        "upgrade its gitlab-runner to 15.10 or newer."
    )


def _query(session: Session, digest: bytes) -> KnownRunner | None:
    row = session.execute(
        select(
            RunnerToken.id,
            RunnerToken.runner_id,
            RunnerToken.short,
            RunnerToken.expires_at,
            RunnerToken.ends_at,
            RunnerToken.cut,
            Runner.registration_type,
            Runner.updated_at,
            *runner_offers.COLUMNS,
            Deletion.created_at.label("deleted_at"),
            Deletion.final_at,
        )
        .join(Runner, Runner.id == RunnerToken.runner_id)
        .outerjoin(Deletion, Deletion.id == Runner.deletion_id)
        .where(RunnerToken.digest == digest),
        execution_options=WITH_DELETED,
    ).one_or_none()
    if row is None or row.final_at is not None:
        return None
    ends = [end for end in (row.expires_at, row.ends_at) if end is not None]
    if row.cut:  # over for good, also for a host whose clock is behind that of the one that cut it
        ends.append(_LONG_AGO)
    offer = runner_offers.offer(session, row)
    return KnownRunner(
        token_id=row.id,
        runner_id=row.runner_id,
        short=row.short,
        created_by_person=row.registration_type == RegistrationType.AUTHENTICATED_USER,
        expires_at=row.expires_at,
        ends_at=min(ends) if ends else None,
        queue_version=f"{runner_changes.version(row.updated_at)}.{_served(offer):x}",
        offer=offer,
        scopes=tuple(offer.scopes()),
        deleted_at=row.deleted_at,
    )


def _served(offer: Offer) -> int:
    """A number that is another one when the runner serves other projects."""
    return zlib.crc32(",".join(map(str, sorted(offer.project_ids))).encode())
