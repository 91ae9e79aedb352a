"""The large demo's rows, in the form that COPY reads: people, groups, projects, members, runners and machines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from portal.demo.scale_plan import DAY, HOUR, YEAR, Plan
from portal.demo.scale_words import KINDS, PROTECTED_REF, VERSIONS
from portal.domain import tokens
from portal.models import EXECUTORS, CreationState, RegistrationType, Role, RunnerType, TokenOrigin

NULL = "\\N"
Rows = Iterator[str]


@dataclass(frozen=True, slots=True)
class Copied:
    """Rows for one table."""

    table: str
    columns: tuple[str, ...]
    rows: Rows


def line(*values: object) -> str:
    """One row: None, yes and no, lists, and texts that have nothing in them that COPY reads otherwise."""
    return "\t".join(map(_text, values)) + "\n"


def _text(value: object) -> str:
    if value is None:
        return NULL
    if value is True or value is False:
        return "t" if value else "f"
    if isinstance(value, tuple):
        return "{" + ",".join(map(str, value)) + "}"
    return str(value)


def moment(seconds: float) -> str:
    """A time, given in seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True, slots=True)
class Organisation:
    """The rows of a plan, as seen from the moment `present` (seconds since 1970); from one number to another."""

    plan: Plan
    present: float

    def people(self, start: int, stop: int) -> Iterator[Copied]:
        """People who cannot sign in: they have no password."""
        columns = ("id", "username", "name", "email", "must_change_password", "admin", "created_at")
        first, made = self.plan.first["people"], moment(self.present - 2 * YEAR)
        named = enumerate(self.plan.people[start:stop], start)
        rows = (line(first + n, user, name, f"{user}@large.example", False, False, made) for n, (user, name) in named)
        yield Copied("users", columns, rows)

    def groups(self, start: int, stop: int) -> Iterator[Copied]:
        columns = ("id", "parent_id", "name", "path", "description", "traversal_ids", "created_at")
        made, part = moment(self.present - 2 * YEAR), self.plan.groups[start:stop]
        rows = (
            line(g.id, (None, *g.group_ids)[-2], g.name, _last(g.path), "Part of the large demo", g.group_ids, made)
            for g in part
        )
        yield Copied("namespaces", columns, rows)
        yield Copied("routes", ("path", "namespace_id"), (line(each.path, each.id) for each in part))

    def projects(self, start: int, stop: int) -> Iterator[Copied]:
        columns = ("id", "namespace_id", "name", "path", "description", "created_at")
        made, part = moment(self.present - 2 * YEAR), self.plan.projects[start:stop]
        rows = (line(p.id, p.group_ids[-1], p.name, _last(p.path), "", made) for p in part)
        yield Copied("projects", columns, rows)
        yield Copied("routes", ("path", "project_id"), (line(each.path, each.id) for each in part))
        settings = ("project_id", "protected_refs")
        yield Copied("project_ci_cd_settings", settings, (line(p.id, (PROTECTED_REF,)) for p in part))

    def members(self, start: int, stop: int) -> Iterator[Copied]:
        """Up to four roles of each person: the first people own the groups at the top."""
        columns = ("user_id", "namespace_id", "project_id", "access_level", "created_at")
        yield Copied("members", columns, self._members(start, stop))

    def _members(self, start: int, stop: int) -> Rows:
        plan, made = self.plan, moment(self.present - 2 * YEAR)
        tops = sum(len(each.group_ids) == 1 for each in plan.groups)
        roles = (Role.GUEST, Role.REPORTER, Role.DEVELOPER, Role.MAINTAINER, Role.OWNER)
        for number in range(start, stop):
            chance, person = plan.chance("members", number), plan.first["people"] + number
            owned = {number} if number < tops else set()
            for group in sorted(owned):
                yield line(person, plan.groups[group].id, None, int(Role.OWNER), made)
            for group in sorted({chance.randrange(len(plan.groups)) for _ in range(2)} - owned):
                role = chance.choices(roles, (5, 15, 50, 25, 5))[0]
                yield line(person, plan.groups[group].id, None, int(role), made)
            project = plan.projects[chance.randrange(len(plan.projects))]
            yield line(person, None, project.id, int(chance.choices(roles[:4], (5, 15, 50, 30))[0]), made)

    def runners(self, start: int, stop: int) -> Iterator[Copied]:
        """Runners with a token each, which nobody knows."""
        columns = (
            "id", "runner_type", "namespace_id", "project_id", "creator_id", "registration_type", "creation_state",
            "description", "maintenance_note", "active", "locked", "run_untagged", "access_level", "maximum_timeout",
            "tag_list", "created_at", "updated_at", "contacted_at", "config",
        )  # fmt: skip
        yield Copied("ci_runners", columns, map(self._runner, range(start, stop)))
        of_tokens = ("id", "runner_id", "digest", "short", "origin", "created_at", "first_used_at", "last_used_at")
        yield Copied("ci_runner_tokens", of_tokens, map(self._token, range(start, stop)))
        yield Copied(
            "ci_runner_projects", ("runner_id", "project_id", "created_at"), self._further_projects(start, stop)
        )

    def _runner(self, number: int) -> str:
        plan, each = self.plan, self.plan.runners[number]
        place, born = plan.scope_of(each), moment(self.present - each.age)
        by_person = RegistrationType.REGISTRATION_TOKEN if number % 23 == 0 else RegistrationType.AUTHENTICATED_USER
        return line(
            plan.first["runners"] + number,
            int(each.type),
            place.id if place and each.type is RunnerType.GROUP else None,
            place.id if place and each.type is RunnerType.PROJECT else None,
            None if by_person is RegistrationType.REGISTRATION_TOKEN else plan.first["people"] + each.creator,
            int(by_person),
            int(CreationState.STARTED if each.silent is None else CreationState.FINISHED),
            each.description,
            "Ask its team before you change it" if number % 11 == 0 else "",
            not each.paused,
            each.locked,
            each.untagged,
            int(each.protected),
            each.timeout,
            each.tags,
            born,
            born,
            None if each.silent is None else moment(self.present - each.silent),
            "{}",
        )

    def _token(self, number: int) -> str:
        plan, each = self.plan, self.plan.runners[number]
        born, used = moment(self.present - each.age), each.silent is not None
        return line(
            plan.first["tokens"] + number,
            plan.first["runners"] + number,
            f"\\\\x{os.urandom(32).hex()}",
            short_form(number),
            int(TokenOrigin.REGISTERED if number % 23 == 0 else TokenOrigin.CREATED),
            born,
            born if used else None,
            moment(self.present - (each.silent or 0)) if used else None,
        )

    def _further_projects(self, start: int, stop: int) -> Rows:
        """Every tenth runner of a project that is not locked serves another project too."""
        plan, made = self.plan, moment(self.present - DAY)
        for number in range(start, stop):
            each = plan.runners[number]
            other = (each.place + 1) % len(plan.projects)
            if each.type is RunnerType.PROJECT and number % 10 == 0 and not each.locked and other != each.place:
                yield line(plan.first["runners"] + number, plan.projects[other].id, made)

    def machines(self, start: int, stop: int) -> Iterator[Copied]:
        columns = (
            "id", "runner_id", "system_xid", "creation_state", "created_at", "contacted_at", "token_id", "version",
            "revision", "platform", "architecture", "ip_address", "executor_type", "runtime_features", "labels",
        )  # fmt: skip
        yield Copied("ci_runner_machines", columns, self._machines(start, stop))

    def _machines(self, start: int, stop: int) -> Rows:
        plan, chance = self.plan, self.plan.chance("machines", start)
        for runner in range(plan.runner_of_machine(start), plan.runner_of_machine(stop - 1) + 1):
            begin, end = plan.machines_before[runner : runner + 2]
            for number in range(max(start, begin), min(stop, end)):
                yield self._machine(number, runner, newest=number == begin, chance=chance)

    def _machine(self, number: int, runner: int, *, newest: bool, chance: Random) -> str:
        """One machine; the first of a runner is the one that called last."""
        plan, each = self.plan, self.plan.runners[runner]
        silent = each.silent or 0
        if not newest:
            longer = chance.expovariate(1 / (2 * DAY)) if runner % 3 else chance.random() * 1.5 * HOUR
            silent = min(each.age, silent + int(longer))
        executor, platform, architecture = KINDS[min(len(KINDS) - 1, int(chance.expovariate(0.7)))]
        version, revision = VERSIONS[min(len(VERSIONS) - 1, int(chance.expovariate(0.6)))]
        return line(
            plan.first["machines"] + number,
            plan.first["runners"] + runner,
            system_xid(number),
            int(CreationState.FINISHED),
            moment(self.present - each.age),
            moment(self.present - silent),
            plan.first["tokens"] + runner,
            version,
            revision,
            platform,
            architecture,
            f"10.{runner % 200}.{number // 250 % 250}.{number % 250 + 1}",
            int(EXECUTORS[executor]),
            '{"variables": true, "artifacts": true, "cache": true, "cancel_gracefully": true}',
            "{}",
        )


def system_xid(number: int) -> str:
    """What a machine calls itself."""
    return f"s_{number * 2_654_435_761 % 2**48:012x}"


def short_form(number: int) -> str:
    """The short form of a runner's token, another one for each."""
    mixed, text = number * 2_654_435_761 % 62**tokens.SHORT_LENGTH, ""
    for _ in range(tokens.SHORT_LENGTH):
        mixed, rest = divmod(mixed, 62)
        text += tokens.BASE62[rest]
    return text


def _last(path: str) -> str:
    return path.rpartition("/")[2]
