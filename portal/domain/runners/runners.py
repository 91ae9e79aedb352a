"""Runners: create, change, pause, delete."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit
from portal.domain.actors import Actor
from portal.domain.deletions import deletions
from portal.domain.errors import ChangedSince, Invalid, LimitReached, NotFound, Stale
from portal.domain.permissions import Action
from portal.domain.runners import runner_access, runner_changes, runner_creation, runner_settings
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.runner_tokens import IssuedRunner, issue, refuse_repeated
from portal.domain.scopes import Scope, is_there, of_runner
from portal.models import Deletion, EnrolmentKey, RegistrationType, Runner, RunnerManager, TokenOrigin


def create_runner(
    session: Session,
    actor: Actor,
    scope: Scope,
    settings: RunnerSettings,
    *,
    request_key: UUID | None = None,
    request_digest: bytes | None = None,
    enrolled_with: EnrolmentKey | None = None,
) -> IssuedRunner:
    """A new runner in the scope, with its first token.

    `request_key` is the nonce of the form: sending the same form again raises AlreadyIssued with the runner
    that the first sending made, and KeyReused when `request_digest`, of what is asked for, is another than then.
    Raises also NotFound, NotAllowed, Invalid, LimitReached.
    """
    runner_creation.require_may_create(session, actor, scope)
    refuse_repeated(session, request_key, request_digest)
    if problems := settings.problems():
        raise Invalid(problems)
    try:
        runner_creation.require_room(session, scope)
    except LimitReached:  # the same form may have taken the last room while this one waited for it
        refuse_repeated(session, request_key, request_digest)
        raise
    if not is_there(session, scope):
        raise NotFound(f"{scope.title} was deleted meanwhile.")
    runner = Runner(
        runner_type=scope.runner_type,
        group=scope.group,
        project=scope.project,
        creator=actor.user,
        registration_type=RegistrationType.AUTHENTICATED_USER,
        enrolled_with=enrolled_with,
    )
    runner_settings.apply(runner, settings)
    try:
        with session.begin_nested():
            session.add(runner)
            session.flush()
            issued = issue(
                session, runner, TokenOrigin.CREATED, request_key=request_key, request_digest=request_digest
            )
    except IntegrityError:
        # The only unique value a client can repeat is the key: the same form arrived twice at once.
        refuse_repeated(session, request_key, request_digest)
        raise NotFound(f"{scope.title} was deleted meanwhile.") from None
    audit.record(session, actor, "runner_created", runner, scope, runner_settings.chosen(runner))
    runner_changes.announce(session, runner.id)
    return issued


def version_of(runner: Runner) -> str:
    """What changes with every change of the runner; a form says by it what its reader has seen."""
    return runner_changes.version(runner.updated_at)


def update_runner(
    session: Session, actor: Actor, runner: Runner, settings: RunnerSettings, *, seen: str | None = None
) -> bool:
    """Change a runner's settings. Returns whether anything changed.

    `seen` is the version that the person decided on; if somebody changed the runner since, Stale is raised, so
    that nobody undoes a change that they have not seen. Raises also NotFound, NotAllowed, Invalid.
    """
    runner_access.require(session, actor, Action.WRITE_RUNNERS, runner)
    _hold(session, runner)
    if seen is not None and seen != version_of(runner):
        raise Stale(
            "Somebody else changed this runner since you opened the form. What you wrote still stands below; "
            "compare it with the runner, then save again."
        )
    return _change(session, actor, runner, settings)


def change_settings(session: Session, actor: Actor, runner: Runner, **changed: Any) -> bool:
    """Change those settings (of RunnerSettings, by name) and leave the others as they are at that moment.

    Two scripts that change different settings at once both have their way. Returns whether anything changed.
    Raises NotFound, NotAllowed, Invalid.
    """
    runner_access.require(session, actor, Action.WRITE_RUNNERS, runner)
    _hold(session, runner)
    return _change(session, actor, runner, replace(runner_settings.settings_of(runner), **changed))


def _change(session: Session, actor: Actor, runner: Runner, settings: RunnerSettings) -> bool:
    if problems := settings.problems():
        raise Invalid(problems)
    changed = change_held(session, actor, runner, settings)
    if changed:
        runner_changes.announce(session, runner.id)
    return changed


def _hold(session: Session, runner: Runner) -> None:
    """Lock the runner until the end, and know it as it is now; what was changed of it and not written yet is kept."""
    query = select(Runner).where(Runner.id == runner.id).with_for_update(of=Runner)
    if session.scalar(query.execution_options(populate_existing=True)) is None:
        raise NotFound("This runner was deleted meanwhile.")


def change_held(session: Session, actor: Actor, runner: Runner, settings: RunnerSettings) -> bool:
    """Give a runner, whose row is held, settings that were found right. Returns whether that changed anything.

    Whoever calls has asked for the right to it, and announces the change.
    """
    scope = of_runner(runner)
    old = runner_settings.facts(runner)
    runner_settings.apply(runner, settings)
    changed = audit.differences(old, runner_settings.facts(runner))
    if not changed:
        return False
    runner.updated_at = now()
    action = {True: "runner_paused", False: "runner_resumed"}[runner.paused] if set(changed) == {"paused"} else ""
    audit.record(session, actor, action or "runner_updated", runner, scope, changed)
    return True


def set_paused(session: Session, actor: Actor, runner: Runner, paused: bool) -> bool:
    """Pause or resume. Returns whether that changed anything. Raises NotFound or NotAllowed."""
    runner_access.require(session, actor, Action.WRITE_RUNNERS, runner)
    _hold(session, runner)
    if runner.paused == paused:
        return False
    runner.active, runner.updated_at = not paused, now()
    audit.record(
        session,
        actor,
        "runner_paused" if paused else "runner_resumed",
        runner,
        of_runner(runner),
        {"paused": (not paused, paused)},
    )
    runner_changes.announce(session, runner.id)
    return True


def delete_runner(
    session: Session,
    actor: Actor,
    runner: Runner,
    *,
    deletion: Deletion | None = None,
    unmodified_since: datetime | None = None,
) -> Deletion:
    """Delete a runner so that it can be restored with its machines and tokens; meanwhile nothing of it works.

    It goes by the act `deletion` together with others, or by an act of its own, which is returned.
    Raises NotFound or NotAllowed, and ChangedSince when its settings changed after `unmodified_since`.
    """
    scope = of_runner(runner)
    runner_access.require_delete(session, actor, runner)
    return _delete(session, actor, runner, scope, deletion, unmodified_since)


def _delete(
    session: Session,
    actor: Actor,
    runner: Runner,
    scope: Scope,
    deletion: Deletion | None = None,
    unmodified_since: datetime | None = None,
) -> Deletion:
    _hold(session, runner)
    if unmodified_since is not None and runner.updated_at.replace(microsecond=0) > unmodified_since:
        raise ChangedSince("This runner was changed since then. Look at it, then delete it.")
    deletion = deletion or deletions.begin(session, actor, "runner", runner.title, scope.full_path)
    managers = session.scalar(select(func.count()).where(RunnerManager.runner_id == runner.id)) or 0
    delete_held(session, actor, runner, deletion, machines=managers)
    runner_changes.announce(session, runner.id, managers_gone=True)
    session.flush()
    return deletion


def delete_held(session: Session, actor: Actor, runner: Runner, deletion: Deletion, *, machines: int) -> None:
    """Delete a runner, whose row is held, by this act; it has so many machines.

    Whoever calls has asked for the right to it, and announces the change.
    """
    audit.record(session, actor, "runner_deleted", runner, of_runner(runner), {"machines": (machines, 0)})
    runner.deletion = deletion


def unregister(session: Session, actor: Actor, runner: Runner) -> None:
    """Delete a runner on its own machine's request: only one that a registration token made. People can restore it.

    A runner that a person created is never deleted by a machine; the caller removes the manager instead.
    """
    if runner.created_by_person:
        raise NotFound("This runner was created by a person and is not deleted by a machine.")
    _delete(session, actor, runner, of_runner(runner))
