"""Polls that get nothing, recognised by the memory of this process alone: what most of all requests are."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from portal.database import now
from portal.domain.errors import BadRequest
from portal.domain.jobs.job_classes import KnownClasses
from portal.domain.jobs.queue_news import QueueNews, mark_in, queue_value
from portal.domain.machines import machine_facts
from portal.domain.machines.heartbeats import Heartbeats
from portal.domain.machines.known_runners import KnownRunner, KnownRunners
from portal.domain.machines.runner_managers import Contact
from portal.models import LEGACY


class Poll(NamedTuple):  # made in half the time that a frozen dataclass takes, for each of most of all requests
    """What a machine sends when it asks for a job, as it came: each may be anything.

    Where it is kept, the token's digest stands in the token's place.
    """

    token: Any
    system_id: Any
    info: Any
    last_update: Any
    digest: bytes = b""


class Idle(NamedTuple):
    """A poll that gets nothing. `since` is the mark up to which nothing waits for the machine.

    `echoed` says that the client knows the queue's present value: it hears nothing new, and may be kept waiting.
    """

    known: KnownRunner
    system_xid: str
    since: int
    echoed: bool

    @property
    def value(self) -> str:
        """What the answer's X-GitLab-Last-Update says."""
        return queue_value(self.known.queue_version, self.since)


class Polls:
    """The rules of a poll over what this process remembers; it never asks the database."""

    def __init__(self, known: KnownRunners, heartbeats: Heartbeats, news: QueueNews, classes: KnownClasses) -> None:
        self.known = known
        self.heartbeats = heartbeats
        self.news = news
        self.classes = classes

    def idle(self, poll: Poll, address: str) -> Idle | None:
        """Take the poll for a sign of life and say that it gets nothing; None when the database has to be asked.

        Raises TokenUnknown for a token that is mistyped, or that was unknown a moment ago.
        """
        if poll.digest:
            known = self.known.recall_digest(poll.digest)
        elif isinstance(poll.token, str) and poll.token:
            known = self.known.recall(poll.token)
        else:
            return None
        if known is None:
            return None
        try:
            found = self._quiet(known, machine_facts.read_system_id(poll.system_id), poll.last_update)
            return found if found is not None and self._hear(found, poll, address) else None
        except BadRequest:  # told by the door that tells everything else that is wrong
            return None

    def idle_again(self, digest: bytes, system_xid: str, last_update: object) -> Idle | None:
        """The same for a poll that was heard before and waits still; `digest` is its token's."""
        known = self.known.recall_digest(digest)
        return self._quiet(known, system_xid, last_update) if known is not None else None

    def quiet_since(self, known: KnownRunner, system_xid: str, last_update: object) -> int | None:
        """The mark up to which nothing waits for the machine, and nothing was announced since; None to look for it.

        Clients that echo no value are spared the search too, when this process has made it.
        """
        return self._quiet_since(known, system_xid, mark_in(last_update, known.queue_version))

    def _quiet_since(self, known: KnownRunner, system_xid: str, told: int | None) -> int | None:
        seen = self.news.searched(known.runner_id, system_xid, known.queue_version)
        since = told if seen is None or (told is not None and told > seen) else seen
        if since is None:
            return None
        offer = known.offer
        takes = partial(self.classes.may_take, offer)
        quiet = self.news.is_quiet(since, known.scopes, takes, offer.runner_id)
        return since if quiet else None

    def _quiet(self, known: KnownRunner, system_xid: str, last_update: object) -> Idle | None:
        if not self.news.listening or (system_xid == LEGACY and not self.known.is_welcome(known.runner_id)):
            return None
        mark = self.news.mark
        told = mark_in(last_update, known.queue_version)
        since = self._quiet_since(known, system_xid, told)
        if since is None and known.offer.paused:
            since = mark
        if since is None:
            return None
        return Idle(known, system_xid, since, told is not None)

    def _hear(self, found: Idle, poll: Poll, address: str) -> bool:
        """Keep the sign of life for the next write. False for a machine that must be written down at once."""
        known = found.known
        facts = self.heartbeats.facts_of(known.runner_id, found.system_xid, poll.info)
        contact = Contact(known.runner_id, known.token_id, found.system_xid, now(), address, polled=True, facts=facts)
        return self.heartbeats.note(contact, poll.info)
