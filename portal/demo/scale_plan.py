"""The large demo's plan: how much there is of everything and how it hangs together, the same every time."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from random import Random
from typing import Any

from portal.demo.scale_words import (
    AREAS,
    FIRST_NAMES,
    LAST_NAMES,
    NOBODYS_TAGS,
    TAGS,
    TEAMS,
    THINGS,
    USES,
)
from portal.models import RunnerType

HOUR, DAY = 3600, 86_400
YEAR = 365 * DAY
BRANCHES = 3  # groups in each group, until a tree has its hundred: that makes five levels
TREE = 100
AT_SCALE_1 = {
    "people": 20,
    "groups": 100,
    "projects": 200,
    "runners": 1000,
    "machines": 5000,
    "jobs": 10_000,
    "events": 100_000,
}
TABLES = {
    "people": "users",
    "groups": "namespaces",
    "projects": "projects",
    "runners": "ci_runners",
    "tokens": "ci_runner_tokens",
    "machines": "ci_runner_machines",
    "jobs": "ci_builds",
    "definitions": "p_ci_job_definitions",
    "events": "audit_events",
}
LARGE = 5000  # of so many runners one has a share of the machines that runs into the thousands


@dataclass(frozen=True, slots=True)
class Place:
    """A group or a project of the plan: by its place in the plan, and by its ids."""

    id: int
    name: str
    path: str
    group_ids: tuple[int, ...]  # from the top down, with the group itself


@dataclass(frozen=True, slots=True)
class Planned:
    """A runner of the plan; ages and silences are in seconds before the filling."""

    type: RunnerType
    place: int  # in the list of groups or projects; of no meaning for one of the instance
    description: str
    tags: tuple[str, ...]
    untagged: bool
    protected: bool
    paused: bool
    locked: bool
    timeout: int | None
    age: int
    silent: int | None  # None for one that no machine has ever called for
    creator: int


@dataclass
class Plan:
    """Everything that can be said before there is a database: `first` has the first id of each kind."""

    scale: float
    first: dict[str, int]

    groups: list[Place] = field(init=False)
    projects: list[Place] = field(init=False)

    def __post_init__(self) -> None:
        self.groups = self._groups()
        self.projects = self._projects()

    @cached_property
    def sizes(self) -> dict[str, int]:
        return sizes(self.scale)

    def chance(self, *of: Any) -> Random:
        """What is left to chance in one part, the same each time."""
        return Random(" ".join(map(str, of)))  # noqa: S311  (the same portal every time; no secret)

    def _groups(self) -> list[Place]:
        made: list[Place] = []
        tops = max(1, self.sizes["groups"] // TREE)
        for number in range(self.sizes["groups"]):
            name = (AREAS if number < tops else TEAMS)[number % len(AREAS if number < tops else TEAMS)]
            path = f"{name}-{number + 1}"
            own = self.first["groups"] + number
            if number < tops:
                made.append(Place(own, f"{name.title()} {number + 1}", path, (own,)))
            else:
                above = made[(number - tops) // BRANCHES]
                ids = (*above.group_ids, own)
                made.append(Place(own, f"{name.title()} {number + 1}", f"{above.path}/{path}", ids))
        return made

    def _projects(self) -> list[Place]:
        chance, made = self.chance("projects"), []
        for number in range(self.sizes["projects"]):
            group = self.groups[int(len(self.groups) * chance.random() ** 1.5)]
            name = THINGS[number % len(THINGS)]
            path = f"{group.path}/{name}-{number + 1}"
            made.append(Place(self.first["projects"] + number, f"{name.title()} {number + 1}", path, group.group_ids))
        return made

    @cached_property
    def people(self) -> list[tuple[str, str]]:
        """(user name, name)"""
        named = []
        for number in range(self.sizes["people"]):
            first = FIRST_NAMES[number % len(FIRST_NAMES)]
            last = LAST_NAMES[number // len(FIRST_NAMES) % len(LAST_NAMES)]
            named.append((f"{first.lower()}.{last.lower()}.{number + 1}", f"{first} {last}"))
        return named

    @cached_property
    def below(self) -> list[list[int]]:
        """For each group the projects in it and below, by their places in the list; all, for one without any."""
        found: list[list[int]] = [[] for _ in self.groups]
        first = self.first["groups"]
        for number, project in enumerate(self.projects):
            for group_id in project.group_ids:
                found[group_id - first].append(number)
        return found

    @cached_property
    def runners(self) -> list[Planned]:
        chance = self.chance("runners")
        return [self._runner(number, chance) for number in range(self.sizes["runners"])]

    def _runner(self, number: int, chance: Random) -> Planned:
        kind = chance.choices((RunnerType.INSTANCE, RunnerType.GROUP, RunnerType.PROJECT), (2, 48, 50))[0]
        scopes = len(self.projects if kind is RunnerType.PROJECT else self.groups)
        place = int(scopes * chance.random() ** 1.5)
        tags = _tags(chance)
        untagged = not tags or chance.random() < 0.25
        age, silent = _ages(chance)
        return Planned(
            type=kind,
            place=place,
            description=f"{AREAS[number % len(AREAS)].title()} {USES[chance.randrange(len(USES))]} {number + 1}",
            tags=tags,
            untagged=untagged,
            protected=chance.random() < 0.08,
            paused=chance.random() < 0.05,
            locked=kind is RunnerType.PROJECT and chance.random() < 0.4,
            timeout=3600 * chance.randint(1, 24) if chance.random() < 0.2 else None,
            age=age,
            silent=silent,
            creator=chance.randrange(max(1, self.sizes["people"])),
        )

    @cached_property
    def machines_of(self) -> list[int]:
        """How many machines each runner has: a few have thousands, most one to ten, some none."""
        chance = self.chance("machines")
        many = [1 + min(9, int(chance.expovariate(0.22))) if each.silent is not None else 0 for each in self.runners]
        spare = self.sizes["machines"] - sum(many)
        large = [n for n, each in enumerate(self.runners) if each.silent is not None and each.silent < HOUR]
        large = large[: max(1, self.sizes["runners"] // LARGE)]
        for number in large:
            many[number] += max(0, spare // len(large))
        return many

    @cached_property
    def machines_before(self) -> list[int]:
        """How many machines the runners before each one have together; at the end how many there are in all."""
        return [0, *accumulate(self.machines_of)]

    def runner_of_machine(self, number: int) -> int:
        return bisect_left(self.machines_before, number + 1) - 1

    def scope_of(self, runner: Planned) -> Place | None:
        """The group or project that the runner belongs to; None for the instance."""
        if runner.type is RunnerType.INSTANCE:
            return None
        return (self.projects if runner.type is RunnerType.PROJECT else self.groups)[runner.place]

    def a_project_for(self, runner: Planned, chance: Random) -> int | None:
        """One whose jobs the runner may take, by its place in the list; None where there is none."""
        if runner.type is RunnerType.PROJECT:
            return runner.place
        if runner.type is RunnerType.INSTANCE:
            return int(len(self.projects) * chance.random() ** 1.5)
        below = self.below[runner.place]
        return below[int(len(below) * chance.random())] if below else None


def sizes(scale: float) -> dict[str, int]:
    """How many rows there are of each kind at this scale."""
    return {name: max(1, round(number * scale)) for name, number in AT_SCALE_1.items()}


def wanted_tags(chance: Random) -> tuple[str, ...]:
    """Tags that a job asks for; rarely such that nobody has."""
    return (chance.choice(NOBODYS_TAGS),) if chance.random() < 0.02 else _tags(chance)[:2]


def _tags(chance: Random) -> tuple[str, ...]:
    """Up to five tags; the common ones are very common, and the rare ones rare."""
    if chance.random() < 0.04:
        return ()
    found = {TAGS[min(len(TAGS) - 1, int(chance.expovariate(0.16)))] for _ in range(chance.randint(1, 4))}
    if chance.random() < 0.05:
        found.add(TAGS[chance.randrange(len(TAGS))])
    return tuple(sorted(found))


def _ages(chance: Random) -> tuple[int, int | None]:
    """How old a runner is, and for how long it has been silent: online, offline, stale and never contacted."""
    kind = chance.random()
    age = chance.randint(8 * DAY, 2 * YEAR)
    if kind < 0.45:
        return age, chance.randint(0, 2 * HOUR - 300)
    if kind < 0.70:
        return age, chance.randint(2 * HOUR + 300, 7 * DAY - HOUR)
    if kind < 0.88:
        return age, min(age, chance.randint(7 * DAY, YEAR))
    return (chance.randint(HOUR, 6 * DAY), None) if kind < 0.97 else (age, None)
