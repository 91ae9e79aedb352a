"""Heartbeats on their way to the database: collected in the process, written together about once a second."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, NamedTuple

from portal.domain.machines.machine_facts import MachineFacts, read_facts
from portal.domain.machines.runner_managers import Contact

MOST_MACHINES = 200_000
TELL_AGAIN = 60.0  # seconds after which what a machine is gets written again, in case another process wrote otherwise
AT_ONCE = 0.0  # of the monotonic clock: with the next write


class _Told(NamedTuple):
    """What a machine told of itself last, and what was read of it. In one, so that nobody sees half of a change."""

    info: Mapping[str, Any] | None
    facts: MachineFacts | None


@dataclass(slots=True)
class _Machine:
    token_id: int
    polled: bool
    told: _Told
    tell_at: float  # when to write the facts next, on the monotonic clock


class Heartbeats:
    """The machines that this process has seen (and that have a row), and what they said since the last write."""

    def __init__(self) -> None:
        self._machines: dict[tuple[int, str], _Machine] = {}
        self._pending: dict[tuple[int, str], Contact] = {}
        self._lock = threading.Lock()

    def facts_of(self, runner_id: int, system_xid: str, info: Any) -> MachineFacts | None:
        """The facts in `info`, read once per machine as long as it says the same. Raises BadRequest."""
        machine = self._machines.get((runner_id, system_xid))
        if machine is None or info is None:
            return read_facts(info)
        told = machine.told
        if told.info is info:  # as in each poll that is the same as the one before
            return told.facts
        if told.info == info:
            machine.told = _Told(info, told.facts)
            return told.facts
        return read_facts(info)

    def note(self, contact: Contact, info: Mapping[str, Any] | None) -> bool:
        """Keep a contact for the next write. False for a machine that must be recorded at once instead:
        one that is new here, uses another token than before, or polls for the first time.
        """
        key = (contact.runner_id, contact.system_xid)
        with self._lock:
            machine = self._machines.get(key)
            if machine is None or machine.token_id != contact.token_id or (contact.polled and not machine.polled):
                return False
            if contact.facts is not None and machine.told.facts is not contact.facts:
                machine.told, machine.tell_at = _Told(info, contact.facts), AT_ONCE
            self._pending[key] = _merged(self._pending.get(key), contact)
            return True

    def remember(self, contact: Contact, info: Mapping[str, Any] | None) -> None:
        """From now on this machine's contacts may wait: its row exists and its token is marked used."""
        key = (contact.runner_id, contact.system_xid)
        with self._lock:
            if len(self._machines) >= MOST_MACHINES:
                self._machines.clear()
            self._machines[key] = _Machine(contact.token_id, contact.polled, _Told(info, contact.facts), AT_ONCE)

    def take(self) -> list[Contact]:
        """Hand over what is to be written, in the one order that all processes use, so that two cannot deadlock.

        What a machine is goes with it only when it is new or was not written for a while: it is ten times as long as
        all the rest.
        """
        at = monotonic()
        with self._lock:
            pending, self._pending = self._pending, {}
        return [self._in_short(key, pending[key], at) for key in sorted(pending)]

    def _in_short(self, key: tuple[int, str], contact: Contact, at: float) -> Contact:
        """The contact without facts that were written lately; those that it is left with count as written now."""
        with self._lock:  # for each by itself: polls do not wait until ten thousand are looked at
            machine = self._machines.get(key)
            if contact.facts is None or machine is None or machine.told.facts is not contact.facts:
                return contact
            if machine.tell_at > at:
                return contact._replace(facts=None)
            machine.tell_at = at + TELL_AGAIN
            return contact

    def put_back(self, contacts: list[Contact]) -> None:
        """Keep contacts whose write failed, unless something newer came in meanwhile."""
        with self._lock:
            for contact in contacts:
                key = (contact.runner_id, contact.system_xid)
                newer = self._pending.get(key)
                if contact.facts is not None:
                    self._tell_again(key)
                self._pending[key] = _merged(contact, newer) if newer else contact

    def tell_again(self, keys: set[tuple[int, str]]) -> None:
        """What these machines are was not written after all; it goes with their next heartbeat."""
        with self._lock:
            for key in keys:
                self._tell_again(key)

    def _tell_again(self, key: tuple[int, str]) -> None:
        machine = self._machines.get(key)
        if machine is not None:
            machine.tell_at = AT_ONCE

    def forget(self, keys: set[tuple[int, str]]) -> None:
        """These machines have no row any more; their next contact makes one."""
        with self._lock:
            for key in keys:
                self._machines.pop(key, None)

    def forget_runner(self, runner_id: int) -> None:
        """The same for all machines of a runner, and what they said is not written any more."""
        with self._lock:
            for kept in (self._machines, self._pending):
                for key in [key for key in kept if key[0] == runner_id]:
                    kept.pop(key, None)

    def forget_all(self) -> None:
        """Forget which machines have rows; what waits to be written still is."""
        with self._lock:
            self._machines.clear()


def _merged(older: Contact | None, newer: Contact) -> Contact:
    """The newer contact, with what only the older one told."""
    if older is None or (newer.polled and newer.facts is not None):
        return newer
    return newer._replace(polled=newer.polled or older.polled, facts=newer.facts or older.facts)
