"""What was put into the queue lately, as one process has heard it, so that an idle poll asks the database nothing.

Whoever puts a job into the queue takes the next mark and announces it with the job's class and scopes. Marks are in
the order of the commits: the lock that comes with one is held until then. A client that was told a mark has been
looked for work at it or later, and needs looking for again only when something it may take was announced since.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import event, text
from sqlalchemy.orm import Session

from portal.models import QueueScope

CHANNEL = "portal_jobs"
LOCK = 0x706F7274616C03  # advisory: who announces holds it until the commit
LONGEST_VALUE = 64  # characters; ours have about forty
MOST_ANNOUNCED = 200_000  # scopes and classes that are remembered
_TO_SAY = "announcements"  # where a session keeps them until its commit
Scopes = Iterable[tuple[QueueScope, int]]

_ANNOUNCE = text("""
WITH held AS MATERIALIZED (SELECT pg_advisory_xact_lock(:lock)),
     mark AS MATERIALIZED (SELECT nextval('ci_queue_marks') AS number FROM held)
SELECT pg_notify(:channel, number || ' ' || said) FROM mark, unnest(CAST(:said AS text[])) AS said
""")
# Shared with nobody who announces: no mark up to the one that is read is still on its way.
_PRESENT = text("""
WITH held AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(:lock))
SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM held, ci_queue_marks
""")


@dataclass(frozen=True, slots=True)
class Announcement:
    """So many jobs of this class can be found through these scopes.

    `system_xid` is for a check that one machine alone may take. `mark` is the announcement's own, once it was made:
    that of all announcements of one transaction, of which the `last` says that the mark is complete.
    """

    class_id: int
    scopes: tuple[tuple[QueueScope, int], ...]
    jobs: int = 1
    system_xid: str = ""
    mark: int = 0
    last: bool = True

    def text(self) -> str:
        """What is sent behind the mark; the system ID comes last, since it may hold anything."""
        scopes = ",".join(f"{int(kind)}:{number}" for kind, number in self.scopes)
        return f"{int(self.last)} {self.class_id} {self.jobs} {scopes} {self.system_xid}"


def read(payload: str) -> Announcement | None:
    """An announcement as it arrived; None for what nobody announces so."""
    try:
        mark, last, class_id, jobs, scopes, system_xid = payload.split(" ", 5)
        pairs = (each.split(":") for each in scopes.split(","))
        found = tuple((QueueScope(int(kind)), int(number)) for kind, number in pairs)
        return Announcement(int(class_id), found, int(jobs), system_xid, int(mark), bool(int(last)))
    except ValueError:
        return None


def announce(session: Session, announcements: Iterable[Announcement]) -> None:
    """Tell every process when, and only when, the transaction commits.

    It is said as the transaction's very last act: who announces makes everybody else wait who does, and must wait for
    nobody from then on.
    """
    counted: dict[Announcement, int] = session.info.setdefault(_TO_SAY, {})
    for each in announcements:
        alike = replace(each, jobs=0)
        counted[alike] = counted.get(alike, 0) + each.jobs


@event.listens_for(Session, "before_commit")
def _say(session: Session) -> None:
    if session.in_nested_transaction():  # the end of a savepoint is not that of the transaction
        return
    counted: dict[Announcement, int] = session.info.pop(_TO_SAY, {})
    made = [replace(each, jobs=jobs, last=False) for each, jobs in counted.items()]
    if made:
        said = [each.text() for each in (*made[:-1], replace(made[-1], last=True))]
        session.execute(_ANNOUNCE, {"lock": LOCK, "channel": CHANNEL, "said": said})


@event.listens_for(Session, "after_rollback")
def _unsay(session: Session) -> None:
    session.info.pop(_TO_SAY, None)


def present_mark(session: Session) -> int:
    """The mark up to which everything is committed."""
    return int(session.scalar(_PRESENT, {"lock": LOCK}) or 0)


class QueueNews:
    """The memory of one process. While nobody listens, there is always news: slow but right."""

    def __init__(self) -> None:
        self.listening = False
        self.mark = 0
        self._since = 0  # what was announced up to this mark is not remembered
        self._by_scope: dict[tuple[QueueScope, int], dict[int, int]] = {}
        self._newest: dict[tuple[QueueScope, int], int] = {}
        self._kept = 0
        self._found_nothing: dict[tuple[int, str], tuple[str, int]] = {}
        self._lock = threading.Lock()

    def start(self, mark: int) -> None:
        """From now on everything after this mark is heard."""
        with self._lock:
            self._clear(mark)
            self._found_nothing.clear()
            self.listening = True

    def stop(self) -> None:
        """Nothing is heard any more."""
        with self._lock:
            self.listening = False

    def hear(self, said: Announcement, expect: Callable[[int], None]) -> None:
        """Take in an announcement.

        `expect` is called with the class before anything of it can be read here: who reads of a class knows it.
        """
        expect(said.class_id)
        with self._lock:
            if self._kept + len(said.scopes) > MOST_ANNOUNCED:
                self._clear(self.mark)
            for scope in said.scopes:
                classes = self._by_scope.setdefault(scope, {})
                self._kept += said.class_id not in classes
                classes[said.class_id] = self._newest[scope] = said.mark
            self.mark = max(self.mark, said.mark)

    def found_nothing(self, runner_id: int, system_xid: str, runner_version: str, mark: int) -> None:
        """A search for this machine of the runner, as that was then, found at this mark that nothing waits for it.

        Another machine of the runner may have found a check that is for that machine alone.
        """
        with self._lock:
            if len(self._found_nothing) >= MOST_ANNOUNCED:
                self._found_nothing.clear()
            self._found_nothing[(runner_id, system_xid)] = (runner_version, mark)

    def searched(self, runner_id: int, system_xid: str, runner_version: str) -> int | None:
        """The mark at which this process last found nothing for the machine; None when the runner changed since."""
        version, mark = self._found_nothing.get((runner_id, system_xid), ("", None))
        return mark if version == runner_version else None

    def is_quiet(
        self, since: int, scopes: Sequence[tuple[QueueScope, int]], takes: Callable[[int], bool], checks: int
    ) -> bool:
        """Whether nothing was announced after this mark that a runner with these scopes and classes could take.

        `checks` is the runner's number: its checks are announced by it, and are of no class. A mark that was not
        heard here says nothing: another process hears sooner, or the database was put back to a backup since.
        """
        if not self.listening or not self._since <= since <= self.mark:
            return False
        if since == self.mark:
            return True
        if self._newest.get((QueueScope.RUNNER, checks), 0) > since:
            return False
        for scope in scopes:
            if self._newest.get(scope, 0) > since:
                classes = list(self._by_scope.get(scope, {}).items())
                if any(mark > since and takes(class_id) for class_id, mark in classes):
                    return False
        return True

    def _clear(self, mark: int) -> None:
        self._since = mark  # first: what is read of it meanwhile says that there is news
        self._by_scope.clear()
        self._newest.clear()
        self._kept = 0
        self.mark = mark


def queue_value(runner_version: str, mark: int) -> str:
    """The opaque text of `X-GitLab-Last-Update`: the runner as it was, and up to which mark work was looked for.

    A client echoes it, to whichever process; it means the same to all of them.
    """
    return f"{runner_version}-{mark:x}"


def mark_in(value: object, runner_version: str) -> int | None:
    """The mark of an echoed value; None when it is no such text, or the runner has changed since."""
    if not isinstance(value, str) or len(value) > LONGEST_VALUE:
        return None
    version, _, mark = value.rpartition("-")
    try:
        return int(mark, 16) if version == runner_version else None
    except ValueError:
        return None
