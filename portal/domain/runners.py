"""Runners: create, change, pause, delete, and the tokens that are issued for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit, runner_changes, tokens
from portal.domain.actors import Actor
from portal.domain.errors import AlreadyIssued, Invalid, NotFound, Stale, TokenUnknown, TryLater
from portal.domain.job_queue import queue_value
from portal.domain.permissions import Action, require
from portal.domain.scopes import Scope, ScopeKind, of_runner
from portal.models import (
    AccessLevel,
    RegistrationType,
    Runner,
    RunnerManager,
    RunnerToken,
    TokenOrigin,
)

MOST_TAGS = 50
LONGEST_TAG = 255
LONGEST_TEXT = 1024
SHORTEST_TIMEOUT = 600  # seconds
LONGEST_TIMEOUT = 2_147_483_647  # the column's
UNUSED_RESETS = 20  # a family may hold this many unused tokens minted by machines, or two for each machine


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """What a person chooses for a runner; forms and API bodies build this and nothing else decides.

    `maximum_timeout` is in seconds. `locked` counts for project runners only.
    """

    description: str = ""
    maintenance_note: str = ""
    tags: tuple[str, ...] = ()
    run_untagged: bool = False
    paused: bool = False
    protected: bool = False
    locked: bool = False
    maximum_timeout: int | None = None

    def problems(self) -> dict[str, list[str]]:
        """What is wrong, by field, in GitLab's rules (reference/rest.md section 8); empty when nothing is."""
        found: dict[str, list[str]] = {}
        for name in ("description", "maintenance_note"):
            if len(getattr(self, name)) > LONGEST_TEXT:
                found[name] = [f"It is too long: at most {LONGEST_TEXT} characters."]
            elif "\0" in getattr(self, name):
                found[name] = ["It has a character that cannot be stored."]
        if tag_problems := self._tag_problems():
            found["tags"] = tag_problems
        if self.maximum_timeout is not None and self.maximum_timeout < SHORTEST_TIMEOUT:
            found["maximum_timeout"] = ["It needs to be at least 10 minutes (600 seconds), or empty for no limit."]
        elif self.maximum_timeout is not None and self.maximum_timeout > LONGEST_TIMEOUT:
            found["maximum_timeout"] = [f"It is too long: at most {LONGEST_TIMEOUT} seconds, or empty for no limit."]
        return found

    def _tag_problems(self) -> list[str]:
        if not self.tags and not self.run_untagged:
            return ["Add at least one tag, or let the runner take untagged jobs; otherwise no job could ever match."]
        if len(self.tags) > MOST_TAGS:
            return [f"Too many tags: {len(self.tags)}. Keep to {MOST_TAGS}."]
        too_long = [tag[:40] for tag in self.tags if len(tag) > LONGEST_TAG]
        if too_long:
            return [f"A tag is too long (at most {LONGEST_TAG} characters): {too_long[0]}…"]
        return ["A tag has a character that cannot be stored."] if any("\0" in tag for tag in self.tags) else []


def split_tags(text: str) -> tuple[str, ...]:
    """Tags from a comma separated text: trimmed, without empty ones, each once, in the order written."""
    return tuple(dict.fromkeys(tag for tag in (part.strip() for part in text.split(",")) if tag))


def settings_of(runner: Runner) -> RunnerSettings:
    """The runner's present settings."""
    return RunnerSettings(
        description=runner.description,
        maintenance_note=runner.maintenance_note,
        tags=tuple(runner.tag_list),
        run_untagged=runner.run_untagged,
        paused=runner.paused,
        protected=runner.protected,
        locked=runner.locked,
        maximum_timeout=runner.maximum_timeout,
    )


@dataclass(frozen=True, slots=True)
class IssuedRunner:
    """A runner with its new token in clear: the only type that carries one. Never stored, never logged."""

    runner: Runner
    record: RunnerToken
    token: str

    def __repr__(self) -> str:
        return f"IssuedRunner(runner={self.runner.id}, token=[not shown])"


def create_runner(
    session: Session,
    actor: Actor,
    scope: Scope,
    settings: RunnerSettings,
    *,
    request_key: UUID | None = None,
) -> IssuedRunner:
    """A new runner in the scope, with its first token.

    `request_key` is the nonce of the form: sending the same form again raises AlreadyIssued with the runner
    that the first sending made. Raises also NotFound, NotAllowed, Invalid.
    """
    require(session, actor, Action.WRITE_RUNNERS, scope)
    _refuse_repeated(session, request_key)
    if problems := settings.problems():
        raise Invalid(problems)
    runner = Runner(
        runner_type=scope.runner_type,
        group=scope.group,
        project=scope.project,
        creator=actor.user,
        registration_type=RegistrationType.AUTHENTICATED_USER,
    )
    _apply(runner, settings, scope.kind)
    try:
        with session.begin_nested():
            session.add(runner)
            session.flush()
            issued = _issue(session, runner, TokenOrigin.CREATED, request_key=request_key)
    except IntegrityError:
        # The only unique value a client can repeat is the key: the same form arrived twice at once.
        _refuse_repeated(session, request_key)
        raise NotFound(f"{scope.title} was deleted meanwhile.") from None
    changes = {name: (None, value) for name, value in _facts(runner).items() if value not in ("", None, [], False)}
    audit.record(session, actor, "runner_created", runner, scope, changes)
    runner_changes.announce(session, runner.id)
    return issued


def version_of(runner: Runner) -> str:
    """What changes with every change of the runner; a form says by it what its reader has seen."""
    return queue_value(runner.updated_at)


def update_runner(
    session: Session, actor: Actor, runner: Runner, settings: RunnerSettings, *, seen: str | None = None
) -> bool:
    """Change a runner's settings. Returns whether anything changed.

    `seen` is the version that the person decided on; if somebody changed the runner since, Stale is raised, so
    that nobody undoes a change that they have not seen. Raises also NotFound, NotAllowed, Invalid.
    """
    scope = of_runner(runner)
    require(session, actor, Action.WRITE_RUNNERS, scope)
    session.refresh(runner, with_for_update={"of": Runner})
    if seen is not None and seen != version_of(runner):
        raise Stale(
            "Somebody else changed this runner since you opened the form. What you wrote still stands below; "
            "compare it with the runner, then save again."
        )
    if problems := settings.problems():
        raise Invalid(problems)
    old = _facts(runner)
    _apply(runner, settings, scope.kind)
    changed = audit.differences(old, _facts(runner))
    if not changed:
        return False
    runner.updated_at = now()
    action = {True: "runner_paused", False: "runner_resumed"}[runner.paused] if set(changed) == {"paused"} else ""
    audit.record(session, actor, action or "runner_updated", runner, scope, changed)
    runner_changes.announce(session, runner.id)
    return True


def set_paused(session: Session, actor: Actor, runner: Runner, paused: bool) -> bool:
    """Pause or resume. Returns whether that changed anything. Raises NotFound or NotAllowed."""
    scope = of_runner(runner)
    require(session, actor, Action.WRITE_RUNNERS, scope)
    if runner.paused == paused:
        return False
    runner.active, runner.updated_at = not paused, now()
    audit.record(
        session,
        actor,
        "runner_paused" if paused else "runner_resumed",
        runner,
        scope,
        {"paused": (not paused, paused)},
    )
    runner_changes.announce(session, runner.id)
    return True


def delete_runner(session: Session, actor: Actor, runner: Runner) -> None:
    """Delete a runner with its machines and tokens. Raises NotFound or NotAllowed."""
    scope = of_runner(runner)
    require(session, actor, Action.WRITE_RUNNERS, scope)
    _delete(session, actor, runner, scope)


def _delete(session: Session, actor: Actor, runner: Runner, scope: Scope) -> None:
    managers = session.scalar(select(func.count()).where(RunnerManager.runner_id == runner.id)) or 0
    audit.record(session, actor, "runner_deleted", runner, scope, {"machines": (managers, 0)})
    runner_changes.announce(session, runner.id)
    session.delete(runner)
    session.flush()


def unregister(session: Session, actor: Actor, runner: Runner) -> None:
    """Delete a runner on its own machine's request: only one that a registration token made.

    A runner that a person created is never deleted by a machine; the caller removes the manager instead.
    """
    if runner.created_by_person:
        raise NotFound("This runner was created by a person and is not deleted by a machine.")
    _delete(session, actor, runner, of_runner(runner))


def last_issued(session: Session, runner: Runner) -> RunnerToken:
    """The newest token that was shown to a person; what a reset page has seen when it asks to reset."""
    shown = (RunnerToken.runner_id == runner.id) & (RunnerToken.origin != TokenOrigin.RESET_BY_MACHINE)
    return session.scalars(select(RunnerToken).where(shown).order_by(RunnerToken.id.desc()).limit(1)).one()


def family(session: Session, runner: Runner) -> list[RunnerToken]:
    """The runner's tokens that machines may still use, the newest first."""
    moment = now()
    rows = session.scalars(
        select(RunnerToken).where(RunnerToken.runner_id == runner.id).order_by(RunnerToken.id.desc())
    )
    return [row for row in rows if row.is_live(moment)]


def reset_token(
    session: Session,
    actor: Actor,
    runner: Runner,
    *,
    seen_token_id: int | None,
    request_key: UUID | None = None,
) -> IssuedRunner:
    """A person's reset: one new token, every older one of the family ends at once.

    `seen_token_id` is the newest token when the person decided; if somebody was quicker, Stale is raised,
    so that nobody walks away with a token that is dead already. Raises also AlreadyIssued, NotFound,
    NotAllowed.
    """
    scope = of_runner(runner)
    require(session, actor, Action.WRITE_RUNNERS, scope)
    session.execute(select(Runner.id).where(Runner.id == runner.id).with_for_update())
    _refuse_repeated(session, request_key)
    if seen_token_id is not None and last_issued(session, runner).id != seen_token_id:
        raise Stale("Somebody else reset this token a moment ago. Ask them for it, or reset it once more.")
    moment = now()
    ended = session.execute(
        update(RunnerToken)
        .where(
            RunnerToken.runner_id == runner.id,
            or_(RunnerToken.ends_at.is_(None), RunnerToken.ends_at > moment),
        )
        .values(ends_at=moment)
        .returning(RunnerToken.short)
    ).scalars()
    old = ", ".join(sorted(ended))
    issued = _issue(session, runner, TokenOrigin.RESET_BY_PERSON, request_key=request_key, prefix=_prefix_of(runner))
    audit.record(session, actor, "runner_token_reset", runner, scope, {"token": (old, issued.record.short)})
    runner_changes.announce(session, runner.id)
    return issued


def reset_token_by_machine(
    session: Session, token: str, *, grace: timedelta, address: str = "", request_id: str = ""
) -> IssuedRunner:
    """A machine's own reset: one more token of the family.

    The token it was made with, and the new one while nobody uses it, end after `grace`. The request does
    not say which machine asks, so each call mints: two machines with the same old token each get their own.
    Raises TokenUnknown, or TryLater when a family holds too many unused tokens (a loop somewhere).
    """
    known = token_row(session, token)
    runner = session.scalars(select(Runner).where(Runner.id == known.runner_id).with_for_update(of=Runner)).one()
    session.refresh(known)
    moment = now()
    if not known.is_live(moment):  # a person's reset came first, while we waited for the lock
        raise TokenUnknown("This token has ended.")
    _refuse_loop(session, runner, moment)
    end = moment + grace
    if known.first_used_at is None:
        known.first_used_at = moment
    known.ends_at = min(known.ends_at, end) if known.ends_at else end
    issued = _issue(
        session,
        runner,
        TokenOrigin.RESET_BY_MACHINE,
        minted_from=known,
        ends_at=end,
        prefix=_prefix_of(runner),
    )
    actor = _machine(runner, known, address, request_id)
    audit.record(
        session,
        actor,
        "runner_token_rotated",
        runner,
        of_runner(runner),
        {"token": (known.short, issued.record.short)},
    )
    runner_changes.announce(session, runner.id)
    return issued


def token_row(session: Session, token: str) -> RunnerToken:
    """The live token with this text. Raises TokenUnknown; a mistyped one is refused without a query."""
    if not token or len(token) > tokens.LONGEST or tokens.is_mistyped(token):
        raise TokenUnknown("No runner has this token.")
    row = session.scalar(select(RunnerToken).where(RunnerToken.digest == tokens.digest(token)))
    if row is None or not row.is_live(now()):
        raise TokenUnknown("No runner has this token.")
    return row


def mark_used(session: Session, runner_id: int, token_id: int) -> None:
    """Note a token's first use; an unused one that a machine's reset minted would end with the grace period."""
    moment = now()
    marked = session.execute(
        update(RunnerToken)
        .where(
            RunnerToken.id == token_id,
            RunnerToken.first_used_at.is_(None),
            or_(RunnerToken.ends_at.is_(None), RunnerToken.ends_at > moment),  # never revive one that was cut
        )
        .values(first_used_at=moment, last_used_at=moment, ends_at=None)
        .returning(RunnerToken.id)
    ).all()
    if marked:
        runner_changes.announce(session, runner_id)


def _machine(runner: Runner, token: RunnerToken, address: str, request_id: str) -> Actor:
    return Actor("runner", f"runner {token.short}", runner.id, None, address, request_id)


def _prefix_of(runner: Runner) -> str:
    return tokens.CREATED if runner.created_by_person else tokens.REGISTERED


def _refuse_loop(session: Session, runner: Runner, moment: datetime) -> None:
    unused = session.scalar(
        select(func.count()).where(
            RunnerToken.runner_id == runner.id,
            RunnerToken.origin == TokenOrigin.RESET_BY_MACHINE,
            RunnerToken.first_used_at.is_(None),
            RunnerToken.ends_at > moment,
        )
    )
    managers = session.scalar(select(func.count()).where(RunnerManager.runner_id == runner.id)) or 0
    if (unused or 0) >= max(UNUSED_RESETS, 2 * managers):
        raise TryLater("This runner has many new tokens that no machine uses yet. Use one of them, or wait.", 60)


def _refuse_repeated(session: Session, request_key: UUID | None) -> None:
    if request_key is None:
        return
    runner_id = session.scalar(select(RunnerToken.runner_id).where(RunnerToken.request_key == request_key))
    if runner_id is not None:
        raise AlreadyIssued(runner_id)


def _issue(
    session: Session,
    runner: Runner,
    origin: TokenOrigin,
    *,
    request_key: UUID | None = None,
    minted_from: RunnerToken | None = None,
    ends_at: datetime | None = None,
    prefix: str = tokens.CREATED,
) -> IssuedRunner:
    clear = tokens.make(runner.runner_type, prefix=prefix)
    record = RunnerToken(
        runner_id=runner.id,
        digest=tokens.digest(clear),
        short=tokens.shorten(clear),
        origin=origin,
        request_key=request_key,
        minted_from_id=minted_from.id if minted_from else None,
        ends_at=ends_at,
    )
    session.add(record)
    session.flush()
    return IssuedRunner(runner, record, clear)


def _apply(runner: Runner, settings: RunnerSettings, kind: ScopeKind) -> None:
    runner.description = settings.description.strip()
    runner.maintenance_note = settings.maintenance_note.strip()
    runner.tag_list = list(settings.tags)
    runner.run_untagged = settings.run_untagged
    runner.active = not settings.paused
    runner.access_level = AccessLevel.REF_PROTECTED if settings.protected else AccessLevel.NOT_PROTECTED
    runner.locked = settings.locked and kind is ScopeKind.PROJECT
    runner.maximum_timeout = settings.maximum_timeout


def _facts(runner: Runner) -> dict[str, object]:
    """The settings as the trail names them."""
    return {
        "description": runner.description,
        "maintenance_note": runner.maintenance_note,
        "tags": list(runner.tag_list),
        "run_untagged": runner.run_untagged,
        "paused": runner.paused,
        "protected": runner.protected,
        "locked": runner.locked,
        "maximum_timeout": runner.maximum_timeout,
    }
