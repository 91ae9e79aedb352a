"""Registration tokens, the old way: whether they are allowed, showing and resetting them, registering with one."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import (
    audit,
    runner_changes,
    runner_creation,
    runner_settings,
    runner_tokens,
    scope_settings,
    tokens,
)
from portal.domain.actors import Actor
from portal.domain.errors import Invalid, RegistrationOff, RegistrationTokenUnknown, Stale
from portal.domain.permissions import Action, may, require
from portal.domain.runner_managers import MachineFacts
from portal.domain.runner_settings import RunnerSettings
from portal.domain.runner_tokens import IssuedRunner
from portal.domain.scopes import INSTANCE, Scope, ScopeKind, of_group, of_project
from portal.domain.vault import Vault
from portal.models import Group, Project, RegistrationToken, RegistrationType, Runner, RunnerToken, TokenOrigin, User

ENFORCED_BY = "PORTAL_ENFORCE_CREATE_RUNNER_WORKFLOW"
OWNERS = {ScopeKind.INSTANCE: "An administrator", ScopeKind.GROUP: "An owner", ScopeKind.PROJECT: "A maintainer"}


@dataclass(frozen=True, slots=True)
class Configured:
    """What the portal's configuration says of registration tokens: whether they are forced off, and the keys."""

    enforced: bool
    vault: Vault


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether registration tokens are allowed in a scope, and if not, who decided it.

    `by` is the highest scope on the way down whose own switch is off; None when they are allowed, and when the
    configuration turned them off (`enforced`). `person` and `at` say who turned that switch and when, if known.
    """

    scope: Scope
    allowed: bool
    by: Scope | None = None
    enforced: bool = False
    person: User | None = None
    at: datetime | None = None

    @property
    def locked(self) -> bool:
        """Whether the scope's own switch cannot change anything, because something above has decided."""
        return self.enforced or (self.by is not None and self.by != self.scope)

    @property
    def sentence(self) -> str:
        """Who turned them off for what; empty while they are allowed. Administrators are not named to strangers."""
        if self.enforced:
            return f"The portal's configuration ({ENFORCED_BY}) turned registration tokens off for the whole portal."
        if self.by is None:
            return ""
        if self.by.kind is ScopeKind.INSTANCE:
            return "An administrator turned registration tokens off for the whole portal."
        who = self.person.name if self.person else OWNERS[self.by.kind]
        if self.person and self.person.admin:
            who = "An administrator"
        return f"{who} turned registration tokens off for the {self.by.kind} {self.by.full_path}."

    def refusal(self) -> RegistrationOff:
        """The refusal that goes with it; it names the scope in which to create a runner instead."""
        hidden = self.enforced or (self.by is not None and self.by.kind is ScopeKind.INSTANCE)
        place = INSTANCE if hidden else self.scope
        return RegistrationOff(self.sentence, kind=place.kind.value, path=place.full_path)


def decision(session: Session, scope: Scope, configured: Configured) -> Decision:
    """Whether registration tokens are allowed in the scope: by itself AND by everything above it.

    A scope above that is off wins; one below can only be stricter (design/product.md, "Registration tokens").
    """
    if configured.enforced:
        return Decision(scope, allowed=False, enforced=True)
    for level in scope_settings.chain(session, scope).levels:
        if not level.settings.allow_runner_registration_token:
            row = level.settings
            return Decision(scope, allowed=False, by=level.scope, person=row.switched_by, at=row.switched_at)
    return Decision(scope, allowed=True)


def hold_switch(session: Session, scope: Scope, *, turning: bool = False) -> None:
    """Keep the scope's own switch as it is until the transaction ends; `turning` it waits for those who keep it.

    A registration keeps the switches of its scope and of everything above, so that none that began before a switch
    was turned off is stored after it. Each scope has a lock of its own: a slow registration holds up nobody else's.
    """
    hold = func.pg_advisory_xact_lock if turning else func.pg_advisory_xact_lock_shared
    session.execute(select(hold(func.hashtextextended(f"registration switch of {scope.kind} {scope.id}", 0))))


def hold_switches_down_to(session: Session, scope: Scope) -> None:
    """Keep all switches that count for the scope: the instance's, its groups', its own."""
    for level in scope_settings.chain(session, scope).levels:
        hold_switch(session, level.scope)


def require_allowed(session: Session, scope: Scope, configured: Configured) -> None:
    """Refuse with RegistrationOff while registration tokens are off in the scope."""
    decided = decision(session, scope, configured)
    if not decided.allowed:
        raise decided.refusal()


def may_register(session: Session, actor: Actor, scope: Scope, configured: Configured) -> bool:
    """Whether the actor may see, use and reset the scope's registration token now.

    Where nobody but administrators may create runners nobody may: who registers with the token is no administrator.
    """
    if not may(session, actor, Action.REGISTER_RUNNERS, scope) or runner_creation.closed_because(session, scope):
        return False
    return decision(session, scope, configured).allowed


def live_token(session: Session, scope: Scope) -> RegistrationToken | None:
    """The scope's registration token, if one was ever needed."""
    return session.scalar(select(RegistrationToken).where(_of(scope), RegistrationToken.ended_at.is_(None)))


def make_token(session: Session, actor: Actor, scope: Scope, configured: Configured) -> RegistrationToken:
    """The scope's registration token, made now when there is none. Of two who make it at once both get the same.

    Raises NotFound, NotAllowed or RegistrationOff.
    """
    _require_may_register(session, actor, scope, configured)
    present = live_token(session, scope)
    if present is not None:
        return present
    try:
        with session.begin_nested():
            made = _issue(session, scope, configured.vault)
    except IntegrityError:
        session.expire_all()
        return session.scalars(
            select(RegistrationToken).where(_of(scope), RegistrationToken.ended_at.is_(None))
        ).one()
    audit.record(session, actor, "registration_token_created", made, scope, {"token": (None, made.short)})
    return made


def reset_token(
    session: Session, actor: Actor, scope: Scope, configured: Configured, *, seen_id: int | None = None
) -> RegistrationToken:
    """A new registration token; the old one ends at once. Runners registered with it are not affected.

    `seen_id` is the token that the person decided on; if somebody was quicker, Stale is raised. Raises also
    NotFound, NotAllowed or RegistrationOff.
    """
    _require_may_register(session, actor, scope, configured)
    _hold_owner(session, scope.group.id if scope.group else None, scope.project.id if scope.project else None)
    old = session.scalar(
        select(RegistrationToken)
        .where(_of(scope), RegistrationToken.ended_at.is_(None))
        .with_for_update(of=RegistrationToken)
    )
    if seen_id is not None and (old is None or old.id != seen_id):
        raise Stale("Somebody else reset this registration token a moment ago. It is shown on the page.")
    if old is not None:
        old.ended_at, old.ciphertext = now(), None
        session.flush()
    try:
        with session.begin_nested():
            made = _issue(session, scope, configured.vault)
    except IntegrityError:
        raise Stale("Somebody else reset this registration token a moment ago. It is shown on the page.") from None
    changed = {"token": (old.short if old else None, made.short)}
    audit.record(session, actor, "registration_token_reset", made, scope, changed)
    return made


@dataclass(frozen=True, slots=True)
class Renewed:
    """How many registration tokens are encrypted with the first key now, and how many no key opens."""

    renewed: int
    lost: int


def renew_encryption(session: Session, configured: Configured) -> Renewed:
    """Encrypt every live registration token anew with the first key, so that the keys after it can go.

    The tokens themselves stay as they are, so that nothing goes into the trail. What no key opens is left alone.
    """
    live = select(RegistrationToken).where(RegistrationToken.ended_at.is_(None)).order_by(RegistrationToken.id)
    renewed = lost = 0
    for row in session.scalars(live.with_for_update(of=RegistrationToken)):
        ciphertext = configured.vault.renew(row.ciphertext or b"")
        if ciphertext is None:
            lost += 1
        else:
            row.ciphertext = ciphertext
            renewed += 1
    return Renewed(renewed, lost)


def find(session: Session, text: str) -> RegistrationToken | None:
    """The registration token with this text, ended ones too: found by digest, compared in constant time."""
    if not text or len(text) > tokens.LONGEST:
        return None
    digest = tokens.digest(text)
    row = session.scalar(select(RegistrationToken).where(RegistrationToken.digest == digest))
    return row if row is not None and hmac.compare_digest(row.digest, digest) else None


def scope_of(token: RegistrationToken) -> Scope:
    """The scope that the token registers runners in."""
    if token.project is not None:
        return of_project(token.project)
    return of_group(token.group) if token.group is not None else INSTANCE


@dataclass(frozen=True, slots=True)
class Registering:
    """One request to register a runner: what it shall be, what its machine tells, and where it came from."""

    token: str
    settings: RunnerSettings
    facts: MachineFacts | None = None
    address: str = ""
    request_id: str = ""
    request_key: UUID | None = None


def refuse_while_off(session: Session, configured: Configured) -> None:
    """Refuse with RegistrationOff while the whole portal is off, whatever is asked and with whichever token."""
    hold_switch(session, INSTANCE)
    require_allowed(session, INSTANCE, configured)


def register(session: Session, configured: Configured, wanted: Registering) -> IssuedRunner:
    """A new runner in the scope of a registration token, with its `glrtr-` token.

    Order of decisions (reference/rest.md section 1.1): while the instance is off every token is refused with
    RegistrationOff and nothing is looked up, so that nothing is revealed; an unknown or ended one is
    RegistrationTokenUnknown; then RegistrationOff of the scope, NotAllowed where nobody may create runners,
    Invalid for settings, LimitReached.

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
    _hold_owner(session, found.group_id, found.project_id)
    query = select(RegistrationToken).where(RegistrationToken.id == found.id)
    return session.scalar(query.with_for_update().execution_options(populate_existing=True))


def _hold_owner(session: Session, group_id: int | None, project_id: int | None) -> None:
    """Lock the token's owner before the token, as whoever deletes it does: otherwise each would wait for the other.

    No shared lock: a stream of registrations would hold it for ever between them, and the deletion would starve.
    """
    for owner, key in ((Group, group_id), (Project, project_id)):
        if key is not None:
            session.execute(select(owner.id).where(owner.id == key).with_for_update(key_share=True))


def _create(session: Session, row: RegistrationToken, scope: Scope, wanted: Registering) -> IssuedRunner:
    runner = Runner(
        runner_type=scope.runner_type,
        group=scope.group,
        project=scope.project,
        registration_type=RegistrationType.REGISTRATION_TOKEN,
        registered_with=row,
        ip_address=wanted.address or None,
    )
    runner_settings.apply(runner, wanted.settings, scope.kind)
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


def _require_may_register(session: Session, actor: Actor, scope: Scope, configured: Configured) -> None:
    require(session, actor, Action.REGISTER_RUNNERS, scope)
    runner_creation.require_open(session, scope)
    hold_switches_down_to(session, scope)
    require_allowed(session, scope, configured)


def _of(scope: Scope) -> ColumnElement[bool]:
    return (
        RegistrationToken.group_id.is_(None) if scope.group is None else RegistrationToken.group_id == scope.group.id
    ) & (
        RegistrationToken.project_id.is_(None)
        if scope.project is None
        else RegistrationToken.project_id == scope.project.id
    )


def _issue(session: Session, scope: Scope, vault: Vault) -> RegistrationToken:
    clear = tokens.make_registration()
    made = RegistrationToken(
        group_id=scope.group.id if scope.group else None,
        project_id=scope.project.id if scope.project else None,
        digest=tokens.digest(clear),
        ciphertext=vault.close(clear),
        short=tokens.shorten(clear),
    )
    session.add(made)
    session.flush()
    return made
