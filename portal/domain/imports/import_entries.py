"""What an import deals with: runners to be made, what is here already, and both as plain values for a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import scopes
from portal.domain.errors import Stale
from portal.domain.runners import runner_creation, token_life
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.token_life import Life
from portal.domain.scopes import INSTANCE, Scope
from portal.models import (
    WITH_DELETED,
    Group,
    Project,
    RegistrationToken,
    Runner,
    RunnerToken,
    RunnerType,
)

BATCH = 500
OTHER_VERSION = "This preview is of another version of the portal. Open the import again."


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
class Skipped:
    """What is not imported, and why. `runner` is the one that has the token already."""

    place: str
    reason: str
    short: str = ""
    runner: Runner | None = None


@dataclass(slots=True)
class Known:
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
            if runner.deletion is not None:
                return Skipped(place, "Its runner was deleted here and can be restored. Restore it instead.", short)
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


def what_is_here(session: Session, digests: Sequence[bytes]) -> Known:
    """What is known here of these tokens already, asked for in batches."""
    known = Known(session, now())
    for batch in batches(sorted(set(digests))):
        query = select(RunnerToken.digest, Runner).join(Runner, Runner.id == RunnerToken.runner_id)
        theirs = query.where(RunnerToken.digest.in_(batch))
        for digest, runner in session.execute(theirs, execution_options=WITH_DELETED):
            known.runners[digest] = runner
        registrations = select(RegistrationToken.digest).where(RegistrationToken.digest.in_(batch))
        known.registrations.update(session.scalars(registrations))
    return known


def find_owners(
    session: Session, group_ids: set[int], project_ids: set[int]
) -> dict[tuple[RunnerType, int | None], Scope]:
    """The scopes with these owners, by kind and id; the instance is always among them."""
    found: dict[tuple[RunnerType, int | None], Scope] = {(RunnerType.INSTANCE, None): INSTANCE}
    for batch in batches(sorted(group_ids)):
        for group in session.scalars(select(Group).where(Group.id.in_(batch))):
            found[RunnerType.GROUP, group.id] = scopes.of_group(group)
    for batch in batches(sorted(project_ids)):
        for project in session.scalars(select(Project).where(Project.id.in_(batch))):
            found[RunnerType.PROJECT, project.id] = scopes.of_project(project)
    return found


def full(scope: Scope) -> str:
    """Why a scope takes no more runners."""
    return f"{scope.full_path} has as many runners as it may have. Delete some, or raise its limit."


def batches(things: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The things in pieces that one query can take."""
    for start in range(0, len(things), BATCH):
        yield things[start : start + BATCH]


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
        known = {row.id: row for batch in batches(sorted(ids)) for row in _runners(session, batch)}
        return [
            Skipped(each["place"], each["reason"], each["short"], known.get(each["runner"] or 0)) for each in plain
        ]
    except (KeyError, TypeError):
        raise Stale(OTHER_VERSION) from None


def _runners(session: Session, ids: Sequence[int]) -> Iterator[Runner]:
    yield from session.scalars(select(Runner).where(Runner.id.in_(ids)))
