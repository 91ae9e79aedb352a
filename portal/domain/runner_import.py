"""Bringing runners from elsewhere with the tokens that their machines hold: what would be made, and making it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit, runner_changes, runner_creation, runner_settings, scopes, token_life
from portal.domain.actors import Actor
from portal.domain.errors import Invalid, Stale
from portal.domain.import_formats import INSTANCE_WORD, ReadToken, Written
from portal.domain.permissions import Action, require
from portal.domain.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE, Scope
from portal.domain.token_life import Life
from portal.models import (
    EXECUTORS,
    Group,
    Project,
    RegistrationToken,
    RegistrationType,
    Route,
    Runner,
    RunnerToken,
    RunnerType,
    TokenOrigin,
)

MOST_ENTRIES = 5_000
BATCH = 500
OTHER_VERSION = "This preview is of another version of the portal. Open the import again."
NOWHERE = "There is no group or project with this full path."
NOT_SAID = (
    "Say where these runners belong: write the full path of a group or project, or the word instance for runners "
    "that take jobs of every project."
)
_ONE_AFTER_ANOTHER = 0x72756E6E  # of two imports at once one waits, so that neither makes what the other makes


@dataclass(frozen=True, slots=True)
class Defaults:
    """What counts for every runner that does not say it by itself.

    `scope` is "instance" or a full path; empty: each runner says its own.
    """

    scope: str = ""
    tags: tuple[str, ...] = ()
    run_untagged: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One runner that can be imported. Its token is known by digest and short form only.

    `owner_id` is the id of the group or project, None for the instance: a path may be another's a moment later.
    """

    place: str
    digest: bytes
    short: str
    by_person: bool
    kind: RunnerType
    owner_id: int | None
    settings: RunnerSettings
    expires_at: datetime | None = None
    executor_type: int | None = None


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
class Skipped:
    """What is not imported, and why. `runner` is the one that has the token already."""

    place: str
    reason: str
    short: str = ""
    runner: Runner | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """What an import would make, and what it would leave out."""

    planned: list[Planned]
    skipped: list[Skipped]

    @property
    def for_everybody(self) -> int:
        """How many of them would be instance runners, which take the jobs of every project."""
        return sum(each.entry.kind is RunnerType.INSTANCE for each in self.planned)


@dataclass(frozen=True, slots=True)
class Made:
    """A runner that an import made."""

    place: str
    runner: Runner
    short: str


@dataclass(frozen=True, slots=True)
class Report:
    """What an import made, and what it left out."""

    made: list[Made]
    skipped: list[Skipped]

    @property
    def repeated(self) -> bool:
        """Whether nothing was made because every runner is here already: the same import was confirmed twice."""
        return not self.made and bool(self.skipped) and all(each.runner is not None for each in self.skipped)

    @property
    def scope(self) -> Scope | None:
        """Where all that was made belongs; None when that is more than one place, or nothing was made."""
        places = {scopes.of_runner(each.runner) for each in self.made}
        return places.pop() if len(places) == 1 else None


@dataclass(slots=True)
class _Known:
    """What is here already at this moment, asked for once: tokens, scopes and the room that is left in them."""

    session: Session
    moment: datetime
    runners: dict[bytes, Runner] = field(default_factory=dict)
    registrations: set[bytes] = field(default_factory=set)
    room: dict[Scope, int | None] = field(default_factory=dict)
    lives: dict[Scope, Life | None] = field(default_factory=dict)

    def refusal(self, place: str, short: str, digest: bytes, expires_at: datetime | None) -> Skipped | None:
        """Why a token cannot be imported, if so: it is here, or its life is over."""
        if (runner := self.runners.get(digest)) is not None:
            return Skipped(place, "Its token is known here already.", short, runner)
        if digest in self.registrations:
            return Skipped(place, "This is a registration token of this portal, no runner's token.", short)
        if expires_at is not None and expires_at <= self.moment:
            reason = f"Its token expired on {expires_at:%Y-%m-%d %H:%M} UTC. Reset it where it is, then import it."
            return Skipped(place, reason, short)
        return None

    def longer_than(self, scope: Scope, expires_at: datetime | None) -> Life | None:
        """The life that the scope gives its tokens, if this one lives longer."""
        if scope not in self.lives:
            self.lives[scope] = token_life.of_new_runners(self.session, scope)
        life = self.lives[scope]
        if life is None or (expires_at is not None and expires_at <= self.moment + life.time):
            return None
        return life

    def take_room(self, scope: Scope) -> bool:
        """Whether the scope may have one more runner; counts it."""
        if scope not in self.room:
            self.room[scope] = runner_creation.room(self.session, scope)
        left = self.room[scope]
        if left is not None:
            self.room[scope] = left - 1
        return left is None or left > 0


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
    known = _known(session, [each.token.digest for each in written if each.token])
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


def _plan(each: Written, defaults: Defaults, places: Mapping[str, Scope | None], known: _Known) -> Planned | Skipped:
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
        return Skipped(each.place, _full(scope), token.short)
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


def _full(scope: Scope) -> str:
    return f"{scope.full_path} has as many runners as it may have. Delete some, or raise its limit."


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
    for batch in _batches(wanted):
        rows = session.scalars(select(Route).where(func.lower(Route.path).in_(batch))).all()
        owners = _owners(
            session,
            {row.group_id for row in rows if row.group_id is not None},
            {row.project_id for row in rows if row.project_id is not None},
        )
        for row in rows:
            kind = RunnerType.GROUP if row.project_id is None else RunnerType.PROJECT
            found[row.path.lower()] = owners.get((kind, row.project_id or row.group_id))
    return found | ({INSTANCE_WORD: INSTANCE} if INSTANCE_WORD in paths else {})


def _owners(
    session: Session, group_ids: set[int], project_ids: set[int]
) -> dict[tuple[RunnerType, int | None], Scope]:
    """The scopes with these owners, by kind and id; the instance is always among them."""
    found: dict[tuple[RunnerType, int | None], Scope] = {(RunnerType.INSTANCE, None): INSTANCE}
    for batch in _batches(sorted(group_ids)):
        for group in session.scalars(select(Group).where(Group.id.in_(batch))):
            found[RunnerType.GROUP, group.id] = scopes.of_group(group)
    for batch in _batches(sorted(project_ids)):
        for project in session.scalars(select(Project).where(Project.id.in_(batch))):
            found[RunnerType.PROJECT, project.id] = scopes.of_project(project)
    return found


def _known(session: Session, digests: Sequence[bytes]) -> _Known:
    known = _Known(session, now())
    for batch in _batches(sorted(set(digests))):
        query = select(RunnerToken.digest, Runner).join(Runner, Runner.id == RunnerToken.runner_id)
        for digest, runner in session.execute(query.where(RunnerToken.digest.in_(batch))):
            known.runners[digest] = runner
        registrations = select(RegistrationToken.digest).where(RegistrationToken.digest.in_(batch))
        known.registrations.update(session.scalars(registrations))
    return known


def _batches(things: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(things), BATCH):
        yield things[start : start + BATCH]


def carry_out(session: Session, actor: Actor, entries: Sequence[Entry]) -> Report:
    """Make the runners of a preview, each with its imported token; one event each.

    Everything is checked again: what somebody else has imported, deleted or filled up meanwhile is skipped. Raises
    NotFound or NotAllowed for the actor.
    """
    require(session, actor, Action.IMPORT_RUNNERS, INSTANCE)
    session.execute(select(func.pg_advisory_xact_lock(_ONE_AFTER_ANOTHER)))
    owners = _owners(
        session,
        {each.owner_id for each in entries if each.kind is RunnerType.GROUP and each.owner_id},
        {each.owner_id for each in entries if each.kind is RunnerType.PROJECT and each.owner_id},
    )
    for scope in sorted(owners.values(), key=lambda scope: (scope.kind, scope.id or 0)):
        if scope.id is not None:
            runner_creation.hold(session, scope)
    report = Report([], [])
    known = _known(session, [each.digest for each in entries])
    wanted = []
    for each in entries:
        refused = _refused_now(each, owners, known)
        if refused is None:
            wanted.append(each)
        else:
            report.skipped.append(refused)
    for batch in _batches(wanted):
        _store(session, actor, batch, owners, report)
    if report.made:
        runner_changes.announce_everything(session)
    return report


def _refused_now(each: Entry, owners: Mapping[tuple[RunnerType, int | None], Scope], known: _Known) -> Skipped | None:
    if refused := known.refusal(each.place, each.short, each.digest, each.expires_at):
        return refused
    scope = owners.get((each.kind, each.owner_id))
    if scope is None:
        return Skipped(each.place, f"Its {each.kind.name.lower()} was deleted meanwhile.", each.short)
    if not known.take_room(scope):
        return Skipped(each.place, _full(scope), each.short)
    return None


def _store(
    session: Session,
    actor: Actor,
    entries: Sequence[Entry],
    owners: Mapping[tuple[RunnerType, int | None], Scope],
    report: Report,
) -> None:
    """Make these runners together; if one of them cannot be made, halve until that one stands alone."""
    try:
        with session.begin_nested():
            made = _make(session, actor, entries, owners)
    except IntegrityError:
        if len(entries) > 1:
            half = len(entries) // 2
            _store(session, actor, entries[:half], owners, report)
            _store(session, actor, entries[half:], owners, report)
            return
        report.skipped.append(_why_not(session, entries[0]))
        return
    report.made.extend(made)


def _why_not(session: Session, entry: Entry) -> Skipped:
    runner = _known(session, [entry.digest]).runners.get(entry.digest)
    gone = f"Its {entry.kind.name.lower()} was deleted meanwhile."
    return Skipped(entry.place, "Its token came here a moment ago." if runner else gone, entry.short, runner)


def _make(
    session: Session,
    actor: Actor,
    entries: Sequence[Entry],
    owners: Mapping[tuple[RunnerType, int | None], Scope],
) -> list[Made]:
    pairs = [(each, owners[each.kind, each.owner_id]) for each in entries]
    runners = [_runner(actor, each, scope) for each, scope in pairs]
    session.add_all(runners)
    session.flush()
    for (each, scope), runner in zip(pairs, runners, strict=True):
        session.add(
            RunnerToken(
                runner_id=runner.id,
                digest=each.digest,
                short=each.short,
                origin=TokenOrigin.IMPORTED,
                expires_at=each.expires_at,
            )
        )
        changes = {**runner_settings.chosen(runner), "token": (None, each.short)}
        audit.record(session, actor, "runner_imported", runner, scope, changes)
    session.flush()
    return [Made(each.place, runner, each.short) for each, runner in zip(entries, runners, strict=True)]


def _runner(actor: Actor, entry: Entry, scope: Scope) -> Runner:
    """gitlab-runner decides by the prefix `glrt-` whether a person created the runner, so the portal does too."""
    person = entry.by_person
    runner = Runner(
        runner_type=scope.runner_type,
        group=scope.group,
        project=scope.project,
        creator=actor.user if person else None,
        registration_type=RegistrationType.AUTHENTICATED_USER if person else RegistrationType.REGISTRATION_TOKEN,
        executor_type=entry.executor_type,
    )
    runner_settings.apply(runner, entry.settings, scope.kind)
    return runner


def to_plain(entry: Entry) -> dict[str, Any]:
    """The entry as plain values, for a text that a page carries from the preview to the confirmation."""
    plain = asdict(entry)
    plain["digest"] = entry.digest.hex()
    plain["kind"] = int(entry.kind)
    plain["settings"]["tags"] = list(entry.settings.tags)
    plain["expires_at"] = entry.expires_at.isoformat() if entry.expires_at else None
    return plain


def from_plain(plain: Mapping[str, Any]) -> Entry:
    """The entry of `to_plain`. Raises Stale for values that it has not made."""
    try:
        settings = dict(plain["settings"])
        settings["tags"] = tuple(settings["tags"])
        end = plain["expires_at"]
        return Entry(
            **{
                **plain,
                "digest": bytes.fromhex(plain["digest"]),
                "kind": RunnerType(plain["kind"]),
                "settings": RunnerSettings(**settings),
                "expires_at": datetime.fromisoformat(end) if end else None,
            }
        )
    except (KeyError, TypeError, ValueError):
        raise Stale(OTHER_VERSION) from None


def skipped_to_plain(skipped: Skipped) -> dict[str, Any]:
    """What a preview has left out, as plain values that go with its entries, so that the report tells it too."""
    runner_id = skipped.runner.id if skipped.runner else None
    return {"place": skipped.place, "reason": skipped.reason, "short": skipped.short, "runner": runner_id}


def skipped_from_plain(session: Session, plain: Sequence[Mapping[str, Any]]) -> list[Skipped]:
    """The ones of `skipped_to_plain`; a runner that was deleted meanwhile is not named. Raises Stale."""
    try:
        ids = {each["runner"] for each in plain if each["runner"]}
        known = {row.id: row for batch in _batches(sorted(ids)) for row in _runners(session, batch)}
        return [
            Skipped(each["place"], each["reason"], each["short"], known.get(each["runner"] or 0)) for each in plain
        ]
    except (KeyError, TypeError):
        raise Stale(OTHER_VERSION) from None


def _runners(session: Session, ids: Sequence[int]) -> Iterator[Runner]:
    yield from session.scalars(select(Runner).where(Runner.id.in_(ids)))
