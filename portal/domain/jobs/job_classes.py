"""Classes of jobs that are alike in what decides which runners may take them, and which of them a runner knows."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable

from sqlalchemy import delete, exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from portal.domain.jobs.job_matching import Offer
from portal.models import JobClass, PendingJob

UNTAGGED = 1  # jobs without tags on an unprotected ref, and all checks of runners; it is made with the database
MOST_REMEMBERED = 20_000  # runners
PRUNED_AT_ONCE = 1000


def digest(tags: Iterable[str]) -> bytes:
    """Of the tags, whatever their order."""
    return hashlib.sha256("\0".join(sorted(set(tags))).encode()).digest()


def class_of(session: Session, tags: Iterable[str], ref_protected: bool) -> int:
    """The number of the class; made when these tags are asked for the first time.

    It is held until the transaction ends, so that it is not swept away before its first job is in it.
    """
    values = {"tag_list": sorted(set(tags)), "digest": digest(tags), "ref_protected": ref_protected}
    mine = (JobClass.digest == values["digest"]) & (JobClass.ref_protected == ref_protected)
    held = select(JobClass.id).where(mine).with_for_update(read=True, key_share=True)
    found = session.scalar(held)
    if found is None:
        session.execute(insert(JobClass).values(**values).on_conflict_do_nothing())
        found = session.scalar(held)
    return int(found or 0)


def prune(session: Session) -> int:
    """Delete classes in which no job waits. Returns how many; a batch at a time. Their numbers are not used again."""
    waits = exists().where(PendingJob.class_id == JobClass.id)
    unused = select(JobClass.id).where(~waits, JobClass.id != UNTAGGED).limit(PRUNED_AT_ONCE)
    ids = session.scalars(unused.with_for_update(skip_locked=True)).all()
    if ids:
        # Asked again, as a job may have come into one before it was held.
        session.execute(delete(JobClass).where(JobClass.id.in_(ids), ~waits))
    return len(ids)


class KnownClasses:
    """What one process remembers of the classes, and for each runner those that it may take.

    Nothing has to be announced when a class is new: its first job is, and a class that is not known yet is looked up.
    """

    def __init__(self) -> None:
        self._classes: dict[int, tuple[frozenset[str], bool]] = {}
        self._of_runner: dict[int, tuple[Offer, int, tuple[int, ...]]] = {}
        self._version = 0
        # How often looking the classes up was asked for, and which of these times the last look-up was for.
        self._wanted, self._loaded = 1, 0
        self._lock = threading.Lock()
        self._loading = threading.Lock()

    def expect(self, class_id: int) -> None:
        """A job of this class was announced: look the classes up again when it is new."""
        if class_id not in self._classes:
            self.forget()

    def forget(self) -> None:
        """Look everything up again."""
        with self._lock:
            self._wanted += 1

    def refresh(self, open_session: Callable[[], Session]) -> None:
        """Look the classes up when that was asked for since the last time."""
        if self._loaded < self._wanted:
            self._load(open_session())

    def is_class(self, class_id: int, tags: frozenset[str], ref_protected: bool) -> bool:
        """Whether jobs with these tags on such a ref are of this class; true for a class that is not known yet."""
        return self._classes.get(class_id, (tags, ref_protected)) == (tags, ref_protected)

    def may_take(self, offer: Offer, class_id: int) -> bool:
        """Whether the runner takes jobs of this class, from memory alone; true for a class that is not known yet.

        What is known of a class stays true: its number is never another's.
        """
        known = self._classes.get(class_id)
        return known is None or offer.takes(*known)

    def of(self, open_session: Callable[[], Session], offer: Offer) -> tuple[int, ...]:
        """The numbers of the classes that the runner may take. A query only when classes are new."""
        self.refresh(open_session)
        known = self._of_runner.get(offer.runner_id)
        if known is not None and known[0] == offer and known[1] == self._version:
            return known[2]
        version = self._version
        found = tuple(number for number, (tags, protected) in self._classes.items() if offer.takes(tags, protected))
        with self._lock:
            if len(self._of_runner) >= MOST_REMEMBERED:
                self._of_runner.clear()
            self._of_runner[offer.runner_id] = (offer, version, found)
        return found

    def _load(self, session: Session) -> None:
        # Whoever comes meanwhile waits: with the old classes it would find nothing, and take that for the truth.
        with self._loading:
            wanted = self._wanted  # before the query: what is announced while it runs is looked up again
            if self._loaded >= wanted:
                return
            rows = session.execute(select(JobClass.id, JobClass.tag_list, JobClass.ref_protected)).all()
            found = {row.id: (frozenset(row.tag_list), row.ref_protected) for row in rows}
            with self._lock:
                if found != self._classes:
                    self._classes, self._version = found, self._version + 1
                self._loaded = wanted
