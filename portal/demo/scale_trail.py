"""The large demo's trail: what happens on a portal, and its places in the chain, in the form that COPY reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from random import Random

from portal.demo.scale_jobs import SPAN, Work
from portal.demo.scale_plan import Place, Plan
from portal.demo.scale_rows import NULL, short_form
from portal.demo.scale_words import REFS
from portal.domain.permissions import Action
from portal.domain.trail.audit_chain import COLUMNS
from portal.models import RunnerType

LINK_COLUMNS = ("position", "event_id", "previous_hash", "hash")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Where:
    """A scope as events name it: `copied` and `told` are its groups for the table and for the chain's text."""

    kind: str
    path: str
    copied: str
    told: str
    project: int | None
    id: int | None

    @classmethod
    def of(cls, place: Place | None, kind: RunnerType) -> Where:
        if place is None:
            return cls("instance", "", "{}", "[]", None, None)
        ids = ", ".join(map(str, place.group_ids))
        project = place.id if kind is RunnerType.PROJECT else None
        return cls(kind.name.lower(), place.path, f"{{{ids}}}".replace(" ", ""), f"[{ids}]", project, place.id)


@dataclass(frozen=True, slots=True)
class Told:
    """One event without its id and its time. `changes` is as jsonb prints it: keys by length, then by bytes."""

    action: str
    target: tuple[str, int | None, str]
    where: Where
    changes: str
    actor: tuple[str, int | None, str] | None = None  # None: a person


Teller = Callable[[Random, float], Told]


@dataclass
class Trail:
    """The events of a plan; `work` knows which jobs there were at which time."""

    plan: Plan
    work: Work
    present: float

    @cached_property
    def _groups(self) -> list[Where]:
        return [Where.of(each, RunnerType.GROUP) for each in self.plan.groups]

    @cached_property
    def _projects(self) -> list[Where]:
        return [Where.of(each, RunnerType.PROJECT) for each in self.plan.projects]

    @cached_property
    def _instance(self) -> Where:
        return Where.of(None, RunnerType.INSTANCE)

    @cached_property
    def _tellers(self) -> tuple[Sequence[Teller], Sequence[float]]:
        """What happens, and how often: in a hundred events."""
        often: dict[Teller, float] = {
            self._job_submitted: 46,
            self._runner_updated: 14,
            self._runner_paused: 6,
            self._machines_forgotten: 6,
            self._token_rotated: 5,
            self._signed_in: 6,
            self._runner_created: 4,
            self._job_canceled: 4,
            self._job_retried: 3,
            self._member_changed: 2.5,
            self._token_reset: 1.5,
            self._signed_out: 1,
            self._refused: 0.4,
            self._sign_in_refused: 0.4,
            self._made: 0.2,
        }
        return list(often), list(often.values())

    def texts(self, start: int, stop: int) -> Iterator[tuple[str, str]]:
        """Each event as a row, and as the text that its hash is made of."""
        chance, total, first = self.plan.chance("trail", start), self.plan.sizes["events"], self.plan.first["events"]
        tellers, often = self._tellers
        for number, tell in enumerate(chance.choices(tellers, often, k=stop - start), start):
            at = self.present - SPAN + SPAN * number / total
            told = tell(chance, at)
            actor = told.actor or self._person(chance)
            yield _texts(first + number, at, told, actor, _address(chance, actor[1] or number), f"{number:020x}")

    def _person(self, chance: Random) -> tuple[str, int | None, str]:
        """Whoever does it: a few people do most, some of it by their scripts."""
        number = int(self.plan.sizes["people"] * chance.random() ** 2.5)
        name = self.plan.people[number][1]
        if chance.random() < 0.25:
            return (
                "access_token",
                self.plan.first["people"] + number,
                f"{name} (access token ci, {number % 9000 + 1000}…)",
            )
        return "user", self.plan.first["people"] + number, name

    def _runner(self, chance: Random) -> tuple[int, tuple[str, int | None, str], Where]:
        number = int(len(self.plan.runners) * chance.random() ** 1.5)
        each = self.plan.runners[number]
        where = self._instance
        if each.type is not RunnerType.INSTANCE:
            where = (self._projects if each.type is RunnerType.PROJECT else self._groups)[each.place]
        return number, ("runner", self.plan.first["runners"] + number, each.description), where

    def _job(self, chance: Random, at: float) -> tuple[int, tuple[str, int | None, str], Where]:
        number = self.plan.first["jobs"] + self.work.job_at(at)
        where = self._projects[int(len(self._projects) * chance.random() ** 1.5)]
        return number, ("job", number, f"unit tests (#{number})"), where

    def _job_submitted(self, chance: Random, at: float) -> Told:
        number, target, where = self._job(chance, at)
        ref = REFS[number % len(REFS)]
        return Told("job_submitted", target, where, f'{{"job": [null, {number}], "ref": [null, "{ref}"]}}')

    def _job_canceled(self, chance: Random, at: float) -> Told:
        number, target, where = self._job(chance, at)
        changes = f'{{"job": [{number}, {number}], "status": ["pending", "canceled"]}}'
        return Told("job_canceled", target, where, changes)

    def _job_retried(self, chance: Random, at: float) -> Told:
        number, target, where = self._job(chance, at)
        return Told("job_retried", target, where, f'{{"job": [{number}, {number + 1}]}}')

    def _runner_updated(self, chance: Random, _: float) -> Told:
        number, target, where = self._runner(chance)
        tags = ", ".join(f'"{tag}"' for tag in self.plan.runners[number].tags)
        changes = (
            f'{{"tags": [["docker"], [{tags}]]}}',
            '{"maximum_timeout": [3600, 7200]}',
            '{"run_untagged": [false, true]}',
            '{"maintenance_note": ["", "Ask its team before you change it"]}',
        )
        return Told("runner_updated", target, where, changes[chance.randrange(len(changes))])

    def _runner_paused(self, chance: Random, _: float) -> Told:
        target, where = self._runner(chance)[1:]
        if chance.random() < 0.5:
            return Told("runner_paused", target, where, '{"paused": [false, true]}')
        return Told("runner_resumed", target, where, '{"paused": [true, false]}')

    def _runner_created(self, chance: Random, _: float) -> Told:
        number, target, where = self._runner(chance)
        tags = ", ".join(f'"{tag}"' for tag in self.plan.runners[number].tags)
        changes = f'{{"tags": [null, [{tags}]], "description": [null, "{target[2]}"]}}'
        return Told("runner_created", target, where, changes)

    def _token_reset(self, chance: Random, _: float) -> Told:
        number, target, where = self._runner(chance)
        return Told(
            "runner_token_reset", target, where, f'{{"token": ["{short_form(number + 1)}", "{short_form(number)}"]}}'
        )

    def _token_rotated(self, chance: Random, _: float) -> Told:
        number, target, where = self._runner(chance)
        changes = f'{{"token": ["{short_form(number)}", "{short_form(number + 2)}"]}}'
        return Told(
            "runner_token_rotated", target, where, changes, ("runner", target[1], f"runner {short_form(number)}")
        )

    def _machines_forgotten(self, chance: Random, _: float) -> Told:
        target, where = self._runner(chance)[1:]
        gone = f'{{"machines": [null, {chance.randint(1, 40)}]}}'
        return Told("machines_forgotten", target, where, gone, ("system", None, "clean-up"))

    def _signed_in(self, chance: Random, _: float) -> Told:
        person = self._themselves(chance)
        changes = '{"method": [null, "password"], "second_factor": [null, false]}'
        return Told("signed_in", ("person", person[1], person[2]), self._instance, changes, person)

    def _signed_out(self, chance: Random, _: float) -> Told:
        person = self._themselves(chance)
        return Told("signed_out", ("person", person[1], person[2]), self._instance, "{}", person)

    def _themselves(self, chance: Random) -> tuple[str, int | None, str]:
        number = chance.randrange(self.plan.sizes["people"])
        return "user", self.plan.first["people"] + number, self.plan.people[number][1]

    def _member_changed(self, chance: Random, _: float) -> Told:
        person = self._themselves(chance)
        where = self._groups[chance.randrange(len(self._groups))]
        if chance.random() < 0.6:
            return Told("member_added", ("member", person[1], person[2]), where, '{"role": [null, "developer"]}')
        return Told(
            "member_role_changed", ("member", person[1], person[2]), where, '{"role": ["developer", "maintainer"]}'
        )

    def _refused(self, chance: Random, _: float) -> Told:
        where = self._groups[chance.randrange(len(self._groups))]
        request = f"POST /groups/{where.path}/-/runners/new"
        changes = (
            f'{{"answer": [null, "not allowed"], "wanted": [null, "{Action.WRITE_RUNNERS}"], '
            f'"request": [null, "{request}"]}}'
        )
        return Told("act_refused", ("group", where.id, where.path), where, changes)

    def _sign_in_refused(self, chance: Random, _: float) -> Told:
        person = self._themselves(chance)
        changes = '{"reason": [null, "wrong password"]}'
        visitor = ("visitor", None, "somebody")
        return Told("sign_in_refused", ("person", person[1], person[2]), self._instance, changes, visitor)

    def _made(self, chance: Random, _: float) -> Told:
        """A project or a group is made."""
        places = self._projects if chance.random() < 0.7 else self._groups
        where = places[chance.randrange(len(places))]
        target = (where.kind, where.id, where.path)
        return Told(f"{where.kind}_created", target, where, f'{{"path": [null, "{where.path}"]}}')


def links(texts: Sequence[str], first: int, position: int, last: bytes | None) -> Iterator[str]:
    """The links of these events, whose ids begin with `first`, behind the link with that position and hash."""
    before = last or bytes(32)
    for number, text in enumerate(texts):
        position += 1
        digest = hashlib.sha256(before + text.encode()).digest()
        yield f"{position}\t{first + number}\t\\\\x{before.hex()}\t\\\\x{digest.hex()}\n"
        before = digest


def _texts(
    number: int, at: float, told: Told, actor: tuple[str, int | None, str], address: str, request: str
) -> tuple[str, str]:
    made = (_EPOCH + timedelta(seconds=at)).isoformat(timespec="microseconds")[:-6] + "Z"
    where, (kind, target, name), (actor_kind, actor_id, actor_name) = told.where, told.target, actor
    row = (
        f"{number}\t{made}\t{actor_kind}\t{_null(actor_id, NULL)}\t{actor_name}\t{told.action}\t{kind}\t"
        f"{_null(target, NULL)}\t{name}\t{where.kind}\t{where.path}\t{where.copied}\t{_null(where.project, NULL)}\t"
        f"{address}\t{request}\t{told.changes}\n"
    )
    text = (
        f'[{number}, "{made}", "{actor_kind}", {_null(actor_id, "null")}, "{actor_name}", "{told.action}", "{kind}", '
        f'{_null(target, "null")}, "{name}", "{where.kind}", "{where.path}", {where.told}, '
        f'{_null(where.project, "null")}, "{address}", "{request}", {told.changes}]'
    )
    return row, text


def _null(value: int | None, null: str) -> object:
    return null if value is None else value


def _address(chance: Random, of: int) -> str:
    return f"10.{of % 60}.{of // 60 % 250}.{1 + int(chance.random() * 3)}"


EVENT_COLUMNS = COLUMNS
