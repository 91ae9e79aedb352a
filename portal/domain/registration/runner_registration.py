"""Registering a runner with a registration token: what `POST /runners` does."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit, tokens
from portal.domain.actors import Actor
from portal.domain.errors import Invalid, RegistrationTokenUnknown, ScopeDeleted
from portal.domain.machines.machine_facts import MachineFacts
from portal.domain.registration.registration import (
    Configured,
    hold_switches_down_to,
    refuse_while_off,
    require_allowed,
)
from portal.domain.registration.registration_tokens import find, hold_owner, scope_of
from portal.domain.runners import runner_changes, runner_creation, runner_settings, runner_tokens
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.domain.scopes import Scope
from portal.models import RegistrationToken, RegistrationType, Runner, RunnerToken, TokenOrigin


@dataclass(frozen=True, slots=True)
class Registering:
    """One request to register a runner: what it shall be, what its machine tells, and where it came from."""

    token: str
    settings: RunnerSettings
    facts: MachineFacts | None = None
    address: str = ""
    request_id: str = ""
    request_key: UUID | None = None


def register(session: Session, configured: Configured, wanted: Registering) -> IssuedRunner:
    """A new runner in the scope of a registration token, with its `glrtr-` token.

    Order of decisions (reference/rest.md section 1.1): while the instance is off every token is refused with
    RegistrationOff and nothing is looked up, so that nothing is revealed; an unknown or ended one is
    RegistrationTokenUnknown, that of a deleted scope ScopeDeleted; then RegistrationOff of the scope, NotAllowed
    where nobody may create runners, Invalid for settings, LimitReached.

    `request_key` is the id that a client repeats when it sends the same registration again after a lost answer:
    then the runner that the first sending made gets a new token, unless a machine has used it already.
    """
    refuse_while_off(session, configured)
    row = _held(session, wanted.token)
    if row is None or row.ended_at is not None:
        raise RegistrationTokenUnknown(_unknown(wanted.token))
    scope = scope_of(row)
    require_allowed(session, scope, configured)
    runner_creation.require_open(session, scope)
    if problems := wanted.settings.problems():
        raise Invalid(problems)
    row.last_used_at = now()
    if (again := _sent_before(session, row, wanted.request_key)) is not None:
        return _issue_again(session, row, *again, wanted)
    runner_creation.require_room(session, scope)
    return _create(session, row, scope, wanted)


def _held(session: Session, text: str) -> RegistrationToken | None:
    """The token, locked until the transaction ends: a reset waits for us, or we see that it was quicker."""
    found = find(session, text)
    if found is None:
        return None
    hold_switches_down_to(session, scope_of(found))
    if not hold_owner(session, found.group_id, found.project_id) and found.ended_at is None:
        raise ScopeDeleted(
            f"The {scope_of(found).kind} of this registration token was deleted. Those who look after it may still "
            "be able to restore it; then the token works again"
        )
    query = select(RegistrationToken).where(RegistrationToken.id == found.id)
    return session.scalar(query.with_for_update().execution_options(populate_existing=True))


def _create(session: Session, row: RegistrationToken, scope: Scope, wanted: Registering) -> IssuedRunner:
    runner = Runner(
        runner_type=scope.runner_type,
        group=scope.group,
        project=scope.project,
        registration_type=RegistrationType.REGISTRATION_TOKEN,
        registered_with=row,
        ip_address=wanted.address or None,
    )
    runner_settings.apply(runner, wanted.settings)
    if wanted.facts is not None:
        _keep_facts(runner, wanted.facts)
    session.add(runner)
    session.flush()
    taken = _token_with(session, wanted.request_key) is not None
    issued = _issue_first(session, runner, None if taken else wanted.request_key)
    audit.record(session, _registrar(row, wanted), "runner_registered", runner, scope, runner_settings.chosen(runner))
    runner_changes.announce(session, runner.id)
    return issued


def _keep_facts(runner: Runner, facts: MachineFacts) -> None:
    """The fall-back for CiRunner's machine fields, until a machine of the runner has a row of its own."""
    runner.version, runner.revision = facts.version, facts.revision
    runner.platform, runner.architecture = facts.platform, facts.architecture
    runner.executor_type, runner.config = facts.executor_type, dict(facts.config)


def _token_with(session: Session, key: UUID | None) -> RunnerToken | None:
    return session.scalar(select(RunnerToken).where(RunnerToken.request_key == key)) if key else None


def _issue_first(session: Session, runner: Runner, key: UUID | None) -> IssuedRunner:
    try:
        with session.begin_nested():
            return _issue_registered(session, runner, key)
    except IntegrityError:
        # The same request came with another registration token at the same moment; that runner has the key now.
        return _issue_registered(session, runner, None)


def _issue_registered(session: Session, runner: Runner, key: UUID | None) -> IssuedRunner:
    return runner_tokens.issue(session, runner, TokenOrigin.REGISTERED, request_key=key, prefix=tokens.REGISTERED)


def _sent_before(session: Session, row: RegistrationToken, key: UUID | None) -> tuple[Runner, RunnerToken] | None:
    """What the same request has made before with the same token, locked, while no machine has used it."""
    found = _token_with(session, key)
    if found is None:
        return None
    mine = (Runner.id == found.runner_id) & (Runner.registered_with_id == row.id)
    fresh = {"populate_existing": True}
    runner = session.scalar(select(Runner).where(mine).with_for_update(of=Runner).execution_options(**fresh))
    query = select(RunnerToken).where(RunnerToken.id == found.id).with_for_update()
    first = session.scalar(query.execution_options(**fresh)) if runner is not None else None
    if runner is None or first is None or first.first_used_at is not None or not first.is_live(now()):
        return None
    return runner, first


def _issue_again(
    session: Session, row: RegistrationToken, runner: Runner, first: RunnerToken, wanted: Registering
) -> IssuedRunner:
    first.ends_at, first.cut, first.request_key = now(), True, None
    session.flush()
    issued = _issue_registered(session, runner, wanted.request_key)
    changed = {"token": (first.short, issued.record.short)}
    audit.record(session, _registrar(row, wanted), "runner_registered_again", runner, scope_of(row), changed)
    runner_changes.announce(session, runner.id)
    return issued


def _registrar(row: RegistrationToken, wanted: Registering) -> Actor:
    name = f"registration token {row.short}"
    return Actor("registration_token", name, row.id, None, wanted.address, wanted.request_id)


def _unknown(text: str) -> str:
    if tokens.is_created_by_person(text):
        return (
            "This is a runner's authentication token, no registration token. Register with "
            "`--token` and gitlab-runner 15.10 or newer"
        )
    return "No scope has this registration token: it was mistyped or reset"
