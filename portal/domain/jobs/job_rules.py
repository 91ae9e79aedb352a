"""What is settled for a project's jobs: which refs are protected, how long they may run, whose runners take them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain import audit
from portal.domain.actors import Actor
from portal.domain.errors import NOTHING_HERE, Invalid, NotFound
from portal.domain.groups import scope_settings
from portal.domain.jobs import pending_jobs
from portal.domain.jobs.job_definitions import LONGEST_REF
from portal.domain.permissions import Action, require
from portal.domain.scopes import Scope, is_there
from portal.models import Project, ProjectSettings
from portal.models.scope_settings import DEFAULT_JOB_TIMEOUT

MOST_PATTERNS = 100
SHORTEST_TIMEOUT = 600  # seconds; GitLab's
LONGEST_TIMEOUT = 30 * 86_400  # GitLab's: a month
SWITCHES = ("shared_runners_enabled", "group_runners_enabled")


@dataclass(frozen=True, slots=True)
class JobRules:
    """The settings, by GitLab's names where it has them. `build_timeout` in seconds.

    `protected_refs` are patterns in which `*` stands for anything. `shared_runners_enabled`: instance runners take
    the project's jobs; `group_runners_enabled`: runners of the groups above do.
    """

    protected_refs: tuple[str, ...] = ()
    build_timeout: int = DEFAULT_JOB_TIMEOUT
    shared_runners_enabled: bool = True
    group_runners_enabled: bool = True

    def problems(self) -> dict[str, list[str]]:
        """What is wrong, by field; empty when nothing is."""
        found = {"protected_refs": _patterns(self.protected_refs)}
        if not SHORTEST_TIMEOUT <= self.build_timeout <= LONGEST_TIMEOUT:
            found["build_timeout"] = ["Write a time from 10m to 30d, such as 1h."]
        return {name: sentences for name, sentences in found.items() if sentences}


def _patterns(patterns: tuple[str, ...]) -> list[str]:
    if len(patterns) > MOST_PATTERNS:
        return [f"Too many patterns: {len(patterns)}. Keep to {MOST_PATTERNS}; * stands for anything."]
    wrong = [
        each for each in patterns if not each or len(each) > LONGEST_REF or re.search(r"[\s\x00-\x1f\x7f]", each)
    ]
    if wrong:
        return [
            f"{wrong[0][:40]!r} fits no branch or tag: write 1 to {LONGEST_REF} characters without spaces, "
            "such as main or release/*."
        ]
    return []


def split_patterns(text: str) -> tuple[str, ...]:
    """The patterns of a text with one in each line, each once."""
    return tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


def of_project(session: Session, scope: Scope) -> JobRules:
    """What stands for the project's jobs; the caller has asked who may see them. Raises NotFound for no project."""
    if scope.project is None:
        raise NotFound(NOTHING_HERE)
    return _rules_in(settings_of(session, scope.project))


def of_projects(session: Session, projects: Sequence[Project]) -> dict[int, JobRules]:
    """The same of many projects with one query, by the project's number; the caller has asked who may see them."""
    ids = [each.id for each in projects]
    rows = session.scalars(select(ProjectSettings).where(ProjectSettings.project_id.in_(ids))) if ids else ()
    stored = {row.project_id: _rules_in(row) for row in rows}
    return {number: stored.get(number, JobRules()) for number in ids}


def _rules_in(row: ProjectSettings) -> JobRules:
    values = {each.name: getattr(row, each.name) for each in fields(JobRules)}
    return JobRules(**{**values, "protected_refs": tuple(values["protected_refs"])})


def change(session: Session, actor: Actor, scope: Scope, rules: JobRules) -> bool:
    """Settle this for the project's jobs; returns whether anything changed.

    Jobs that wait keep their timeout and whether their ref is protected, and are found by the runners that may take
    them from now on. Raises NotFound, NotAllowed, Invalid.
    """
    require(session, actor, Action.SET_JOB_RULES, scope)
    if problems := rules.problems():
        raise Invalid(problems)
    return _store(session, actor, scope, _held(session, scope), rules)


def amend(session: Session, actor: Actor, scope: Scope, said: Mapping[str, Any]) -> bool:
    """The same for some of the fields of JobRules; the others stay as they are at this moment."""
    require(session, actor, Action.SET_JOB_RULES, scope)
    row = _held(session, scope)
    rules = replace(_rules_in(row), **said)
    if problems := rules.problems():
        raise Invalid(problems)
    return _store(session, actor, scope, row, rules)


def _held(session: Session, scope: Scope) -> ProjectSettings:
    if scope.project is None or not is_there(session, scope):
        raise NotFound(NOTHING_HERE)
    row = scope_settings.own_for_update(session, scope)
    assert isinstance(row, ProjectSettings)  # noqa: S101
    return row


def _store(session: Session, actor: Actor, scope: Scope, row: ProjectSettings, rules: JobRules) -> bool:
    before, after = asdict(_rules_in(row)), asdict(rules)
    changes = audit.differences(before, after)
    if not changes:
        return False
    for name in changes:
        value = after[name]
        setattr(row, name, list(value) if isinstance(value, tuple) else value)
    audit.record(session, actor, "job_rules_changed", scope, scope, changes)
    if scope.project is not None and any(name in changes for name in SWITCHES):
        pending_jobs.reach_again(session, scope.project)
    return True


def settings_of(session: Session, project: Project) -> ProjectSettings:
    """The project's settings; as installed where nobody has stored any."""
    return session.get(ProjectSettings, project.id) or ProjectSettings(project_id=project.id)


def is_protected(ref: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns, in which `*` stands for anything, fits the whole ref."""
    return any(re.fullmatch(_pattern(each), ref) for each in patterns)


def _pattern(written: str) -> str:
    """The pattern as an expression. Each part is looked for once (atomic groups): many `*` cost no more than few."""
    first, *others = (re.escape(part) for part in written.split("*"))
    return first + "".join(f"(?>.*?{part})" for part in others[:-1]) + "".join(f".*{part}" for part in others[-1:])


def counts_as_protected(session: Session, project: Project, ref: str, said: bool | None) -> bool:
    """Whether a job on this ref is on a protected one: as it was said, or as the project's patterns say."""
    return is_protected(ref, settings_of(session, project).protected_refs) if said is None else said
