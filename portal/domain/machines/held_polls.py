"""Polls that wait for work: whom to wake when jobs are announced, and nobody else."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from typing import Generic, TypeVar

from portal.domain.jobs.job_matching import Offer
from portal.domain.jobs.queue_news import Announcement
from portal.domain.machines.known_runners import KnownRunner
from portal.models import QueueScope

Scope = tuple[QueueScope, int]
Taste = tuple[frozenset[str], bool, bool]  # of an offer: what decides which classes of jobs it takes
_numbers = count()


class HeldPoll:
    """One poll that waits. `number` is in the order in which they came."""

    __slots__ = ("known", "number", "system_xid")

    def __init__(self, known: KnownRunner, system_xid: str) -> None:
        self.known = known
        self.system_xid = system_xid
        self.number = next(_numbers)


P = TypeVar("P", bound=HeldPoll)


class _Runner(Generic[P]):
    """The polls of one runner, as it was when they began to wait, the longest waiting first."""

    __slots__ = ("known", "polls", "taste")

    def __init__(self, known: KnownRunner) -> None:
        self.known = known
        self.taste = _taste(known.offer)
        self.polls: dict[P, None] = {}


class HeldPolls(Generic[P]):
    """All polls that wait in this process. Not for several threads.

    An announcement is compared with the different tastes in its scopes, not with the polls: many polls are alike.
    """

    def __init__(self) -> None:
        self._runners: dict[tuple[int, str], _Runner[P]] = {}
        self._versions: dict[int, dict[str, None]] = {}  # of each runner; two only while it is changing
        self._by_scope: dict[Scope, dict[Taste, OrderedDict[_Runner[P], None]]] = {}
        self._held = 0

    def __len__(self) -> int:
        return self._held

    def scopes(self) -> list[Scope]:
        """Where jobs would have to appear to wake anybody."""
        return [*self._by_scope, *((QueueScope.RUNNER, runner_id) for runner_id in self._versions)]

    def add(self, poll: P) -> None:
        """From now on the poll is found."""
        known = poll.known
        key = (known.runner_id, known.queue_version)
        runner = self._runners.get(key)
        if runner is None:
            runner = self._runners[key] = _Runner(known)
            self._versions.setdefault(known.runner_id, {})[known.queue_version] = None
            for scope in () if known.offer.paused else known.scopes:
                self._by_scope.setdefault(scope, {}).setdefault(runner.taste, OrderedDict())[runner] = None
        self._held += poll not in runner.polls
        runner.polls[poll] = None

    def remove(self, poll: P) -> bool:
        """It is not found any more. False when it was not there."""
        key = (poll.known.runner_id, poll.known.queue_version)
        runner = self._runners.get(key)
        if runner is None or poll not in runner.polls:
            return False
        del runner.polls[poll]
        self._held -= 1
        if not runner.polls:
            self._forget(key, runner)
        return True

    def take_for(self, said: Announcement, may_take: Callable[[Offer, int], bool]) -> list[P]:
        """Remove those that are to look for the announced jobs: at most one for each job, who waits longest first."""
        found = list(islice(self._takers(said, may_take), max(said.jobs, 0)))
        for poll in found:
            self.remove(poll)
            self._to_the_end(poll, said)
        return found

    def take_of(self, runner_id: int) -> list[P]:
        """Remove all polls of this runner."""
        versions = list(self._versions.get(runner_id, ()))
        found = [poll for version in versions for poll in self._runners[runner_id, version].polls]
        for poll in found:
            self.remove(poll)
        return found

    def take_all(self) -> list[P]:
        """Remove all polls there are."""
        found = [poll for runner in self._runners.values() for poll in runner.polls]
        self._runners.clear()
        self._versions.clear()
        self._by_scope.clear()
        self._held = 0
        return found

    def _to_the_end(self, poll: P, said: Announcement) -> None:
        """Whose poll was taken comes after all others, also if another of its polls waits already."""
        runner = self._runners.get((poll.known.runner_id, poll.known.queue_version))
        if runner is None:
            return
        for scope in said.scopes:
            ring = self._by_scope.get(scope, {}).get(runner.taste)
            if ring is not None and runner in ring:
                ring.move_to_end(runner)

    def _takers(self, said: Announcement, may_take: Callable[[Offer, int], bool]) -> Iterator[P]:
        kind, number = said.scopes[0]
        if kind is QueueScope.RUNNER:
            return self._for_check(number, said.system_xid)
        rings = [
            _in_turn(runners)
            for scope in said.scopes
            for runners in self._by_scope.get(scope, {}).values()
            if may_take(next(iter(runners)).known.offer, said.class_id)
        ]
        return heapq.merge(*rings, key=lambda poll: poll.number)

    def _for_check(self, runner_id: int, system_xid: str) -> Iterator[P]:
        for version in self._versions.get(runner_id, ()):
            runner = self._runners[runner_id, version]
            if not runner.known.offer.paused:
                yield from (poll for poll in runner.polls if system_xid in ("", poll.system_xid))

    def _forget(self, key: tuple[int, str], runner: _Runner[P]) -> None:
        del self._runners[key]
        versions = self._versions[key[0]]
        del versions[key[1]]
        if not versions:
            del self._versions[key[0]]
        for scope in () if runner.known.offer.paused else runner.known.scopes:
            tastes = self._by_scope[scope]
            del tastes[runner.taste][runner]
            if not tastes[runner.taste]:
                del tastes[runner.taste]
            if not tastes:
                del self._by_scope[scope]


def _taste(offer: Offer) -> Taste:
    return offer.tags, offer.run_untagged, offer.protected


def _in_turn(runners: Iterable[_Runner[P]]) -> Iterator[P]:
    """The first poll of each runner, then the second of each: no runner with many machines gets everything."""
    waiting: list[Iterator[P]] = []
    for runner in runners:  # as far as it is asked for: there may be thousands, and one job
        polls = iter(runner.polls)
        yield next(polls)
        if len(runner.polls) > 1:
            waiting.append(polls)
    while waiting:
        still = []
        for polls in waiting:
            poll = next(polls, None)
            if poll is not None:
                yield poll
                still.append(polls)
        waiting = still
