"""What an import would make where, and what it would leave out and why. Nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.domain.actors import Actor
from portal.domain.errors import Invalid
from portal.domain.imports.import_entries import Entry, Known, Skipped, batches, find_owners, full, what_is_here
from portal.domain.imports.import_formats import INSTANCE_WORD, ReadToken, Written
from portal.domain.permissions import Action, require
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.token_life import Life
from portal.domain.scopes import INSTANCE, Scope
from portal.models import (
    EXECUTORS,
    Route,
    RunnerType,
)

MOST_ENTRIES = 5_000
NOWHERE = "There is no group or project with this full path."
NOT_SAID = (
    "Say where these runners belong: write the full path of a group or project, or the word instance for runners "
    "that take jobs of every project."
)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What counts for every runner that does not say it by itself.

    `scope` is "instance" or a full path; empty: each runner says its own.
    """

    scope: str = ""
    tags: tuple[str, ...] = ()
    run_untagged: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """An entry with what its preview says. `times`: so often the same token stands in what was given.

    `life` is what its scope gives the tokens it makes, where the imported one lives longer.
    """

    entry: Entry
    scope: Scope
    server: str = ""
    times: int = 1
    warnings: tuple[str, ...] = ()
    life: Life | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """What an import would make, and what it would leave out."""

    planned: list[Planned]
    skipped: list[Skipped]

    @property
    def for_everybody(self) -> int:
        """How many of them would be instance runners, which take the jobs of every project."""
        return sum(each.entry.kind is RunnerType.INSTANCE for each in self.planned)


def preview(session: Session, actor: Actor, written: Sequence[Written], defaults: Defaults) -> Preview:
    """What would be imported where, and what would be skipped and why. Stores nothing.

    Raises NotFound or NotAllowed for the actor, Invalid for "scope" when `defaults` name none, or one that does not
    exist, and some runner depends on it, and for "pasted" when there are too many entries.
    """
    require(session, actor, Action.IMPORT_RUNNERS, INSTANCE)
    if len(written) > MOST_ENTRIES:
        raise Invalid({"pasted": [f"There are {len(written)} runners. Import at most {MOST_ENTRIES} at once."]})
    places = _scopes_at(session, {_path(each, defaults) for each in written})
    if any(each.scope is None and not each.problem for each in written) and places[_clean(defaults.scope)] is None:
        raise Invalid({"scope": [NOWHERE if _clean(defaults.scope) else NOT_SAID]})
    known = what_is_here(session, [each.token.digest for each in written if each.token])
    found = Preview([], [])
    seen: dict[bytes, int] = {}
    for each in written:
        if each.token is not None and not each.problem and (first := seen.get(each.token.digest)) is not None:
            found.planned[first] = _once_more(found.planned[first], each, defaults, places)
            continue
        result = _plan(each, defaults, places, known)
        if isinstance(result, Planned):
            seen[result.entry.digest] = len(found.planned)
            found.planned.append(result)
        else:
            found.skipped.append(result)
    return found


def _plan(each: Written, defaults: Defaults, places: Mapping[str, Scope | None], known: Known) -> Planned | Skipped:
    token = each.token
    if token is None or each.problem:
        return Skipped(each.place, f"{each.problem} {_ignored(each)}".strip(), token.short if token else "")
    if refused := known.refusal(each.place, token.short, token.digest, each.expires_at):
        return refused
    scope = places[_path(each, defaults)]
    if scope is None:
        return Skipped(each.place, f"There is no group or project {_shown(each.scope)}.", token.short)
    settings = _settings(each, defaults)
    if problems := settings.problems():
        reason = " ".join(f"{name.replace('_', ' ')}: {' '.join(said)}" for name, said in problems.items())
        return Skipped(each.place, f"{reason} {_ignored(each)}".strip(), token.short)
    if not known.take_room(scope):
        return Skipped(each.place, full(scope), token.short)
    entry = Entry(
        place=each.place,
        digest=token.digest,
        short=token.short,
        by_person=token.by_person,
        kind=scope.runner_type,
        owner_id=scope.id,
        settings=settings,
        expires_at=each.expires_at,
        executor_type=EXECUTORS.get(each.executor),
    )
    return Planned(
        entry,
        scope,
        each.server,
        warnings=tuple(_warnings(each, token, scope)),
        life=known.longer_than(scope, each.expires_at),
    )


def _ignored(each: Written) -> str:
    """What was written and is left out, because nothing here is called so."""
    return f"Left out, because nothing here is called so: {', '.join(each.ignored)}." if each.ignored else ""


def _warnings(each: Written, token: ReadToken, scope: Scope) -> Iterator[str]:
    if ignored := _ignored(each):
        yield ignored
    if token.kind is not None and token.kind != scope.runner_type:
        made_for = {1: "the instance", 2: "a group", 3: "a project"}[token.kind]
        yield f"Its token says that it was made for {made_for}. It works all the same."
    if token.brief:
        yield "Its token is short. Reset it once its machines have moved."


def _once_more(planned: Planned, each: Written, defaults: Defaults, places: Mapping[str, Scope | None]) -> Planned:
    """The same token again: one runner, with what was said first."""
    same = (places[_path(each, defaults)], _settings(each, defaults)) == (planned.scope, planned.entry.settings)
    differs = f"{each.place} says something else of the same token. What was said first counts."
    warnings = planned.warnings if same or each.scope is None else (*planned.warnings, differs)
    return replace(planned, times=planned.times + 1, warnings=warnings)


def _settings(each: Written, defaults: Defaults) -> RunnerSettings:
    return RunnerSettings(
        description=each.description,
        maintenance_note=each.maintenance_note,
        tags=defaults.tags if each.tags is None else each.tags,
        run_untagged=defaults.run_untagged if each.run_untagged is None else each.run_untagged,
        paused=each.paused,
        protected=each.protected,
        locked=each.locked,
        maximum_timeout=each.maximum_timeout,
    )


def _shown(path: str | None) -> str:
    return (path or "")[:200]


def _clean(path: str) -> str:
    """A scope as it is looked up; empty for none, which is never the instance: that takes every project's jobs."""
    return path.strip().strip("/").lower()


def _path(each: Written, defaults: Defaults) -> str:
    return _clean(defaults.scope if each.scope is None else each.scope)


def _scopes_at(session: Session, paths: set[str]) -> dict[str, Scope | None]:
    """The scopes with these paths, the instance by its word; None for those that do not exist."""
    found: dict[str, Scope | None] = dict.fromkeys(paths)
    wanted = [path for path in paths if path not in ("", INSTANCE_WORD)]
    for batch in batches(wanted):
        rows = session.scalars(select(Route).where(func.lower(Route.path).in_(batch))).all()
        owners = find_owners(
            session,
            {row.group_id for row in rows if row.group_id is not None},
            {row.project_id for row in rows if row.project_id is not None},
        )
        for row in rows:
            kind = RunnerType.GROUP if row.project_id is None else RunnerType.PROJECT
            found[row.path.lower()] = owners.get((kind, row.project_id or row.group_id))
    return found | ({INSTANCE_WORD: INSTANCE} if INSTANCE_WORD in paths else {})
