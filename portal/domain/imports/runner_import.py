"""Bringing runners from elsewhere with the tokens that their machines hold: making what a preview has shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.domain import audit, scopes
from portal.domain.actors import Actor
from portal.domain.imports.import_entries import Entry, Known, Skipped, batches, find_owners, full, what_is_here
from portal.domain.permissions import Action, require
from portal.domain.runners import runner_changes, runner_creation, runner_settings
from portal.domain.scopes import INSTANCE, Scope
from portal.models import (
    RegistrationType,
    Runner,
    RunnerToken,
    RunnerType,
    TokenOrigin,
)

_ONE_AFTER_ANOTHER = 0x72756E6E  # of two imports at once one waits, so that neither makes what the other makes


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


def carry_out(session: Session, actor: Actor, entries: Sequence[Entry]) -> Report:
    """Make the runners of a preview, each with its imported token; one event each.

    Everything is checked again: what somebody else has imported, deleted or filled up meanwhile is skipped. Raises
    NotFound or NotAllowed for the actor.
    """
    require(session, actor, Action.IMPORT_RUNNERS, INSTANCE)
    session.execute(select(func.pg_advisory_xact_lock(_ONE_AFTER_ANOTHER)))
    owners = find_owners(
        session,
        {each.owner_id for each in entries if each.kind is RunnerType.GROUP and each.owner_id},
        {each.owner_id for each in entries if each.kind is RunnerType.PROJECT and each.owner_id},
    )
    for scope in sorted(owners.values(), key=lambda scope: (scope.kind, scope.id or 0)):
        if scope.id is not None:
            runner_creation.hold(session, scope)
            if not scopes.is_there(session, scope):
                del owners[scope.runner_type, scope.id]
    report = Report([], [])
    known = what_is_here(session, [each.digest for each in entries])
    wanted = []
    for each in entries:
        refused = _refused_now(each, owners, known)
        if refused is None:
            wanted.append(each)
        else:
            report.skipped.append(refused)
    for batch in batches(wanted):
        _store(session, actor, batch, owners, report)
    if report.made:
        runner_changes.announce_everything(session)
    return report


def _refused_now(each: Entry, owners: Mapping[tuple[RunnerType, int | None], Scope], known: Known) -> Skipped | None:
    if refused := known.refusal(each.place, each.short, each.digest, each.expires_at):
        return refused
    scope = owners.get((each.kind, each.owner_id))
    if scope is None:
        return Skipped(each.place, f"Its {each.kind.name.lower()} was deleted meanwhile.", each.short)
    if not known.take_room(scope):
        return Skipped(each.place, full(scope), each.short)
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
    runner = what_is_here(session, [entry.digest]).runners.get(entry.digest)
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
    runner_settings.apply(runner, entry.settings)
    return runner
