"""Enrolment keys: secrets that create runners in one scope, from one template, and can do nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, joinedload

from portal.database import now
from portal.domain import audit, tokens
from portal.domain.actors import Actor
from portal.domain.enrolment import enrolment_networks
from portal.domain.errors import (
    NOTHING_HERE,
    AlreadyMade,
    CredentialRefused,
    EnrolmentKeyOver,
    Hidden,
    Invalid,
    NotFound,
)
from portal.domain.people import people_secrets
from portal.domain.permissions import Action, may, require
from portal.domain.runners import runner_creation
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE, Scope, is_there, of_group, of_project
from portal.models import AccessLevel, EnrolmentKey, User

MOST_RUNNERS = 10_000  # that one key may make
NO_SUCH_KEY = "There is no such enrolment key here."


@dataclass(frozen=True, slots=True)
class NewEnrolmentKey:
    """What is chosen for a key; `expires_at` is the first day (UTC) on which it makes nothing any more.

    `template` are the settings of its runners, `networks` where it may be used from (none: from everywhere).
    """

    name: str
    most_runners: int | None
    expires_at: date | None
    template: RunnerSettings = field(default_factory=RunnerSettings)
    networks: tuple[str, ...] = ()

    def problems(self, today: date, longest: timedelta) -> dict[str, list[str]]:
        """What is wrong, by field; empty when nothing is. `longest` is how long a key may live."""
        found = self.template.problems()
        found |= people_secrets.problems(self.name, self.expires_at, today, longest)
        if self.most_runners is None or not 1 <= self.most_runners <= MOST_RUNNERS:
            found["most_runners"] = [f"Write how many runners it may create: 1 to {MOST_RUNNERS:,}."]
        if wrong := enrolment_networks.problems(self.networks):
            found["networks"] = wrong
        return found


@dataclass(frozen=True, slots=True)
class IssuedEnrolmentKey:
    """A key in clear, with its record: shown once, never stored, never logged."""

    record: EnrolmentKey
    token: str

    def __repr__(self) -> str:
        return f"IssuedEnrolmentKey(record={self.record.id}, token=[not shown])"


def create_key(
    session: Session,
    actor: Actor,
    scope: Scope,
    wanted: NewEnrolmentKey,
    *,
    longest: timedelta,
    request_key: UUID | None = None,
) -> IssuedEnrolmentKey:
    """A new key of the scope, by somebody who may create runners there; it never can more than they may.

    `longest` is how long a key may live. `request_key` is the nonce of the form: sending it again raises AlreadyMade.
    Raises also NotFound, NotAllowed and Invalid.
    """
    runner_creation.require_may_create(session, actor, scope)
    _refuse_repeated(session, request_key)
    if actor.user is None:
        raise Invalid({"creator": ["A key can do what its creator may, so only a person can make one."]})
    if problems := wanted.problems(now().date(), longest):
        raise Invalid(problems)
    if not is_there(session, scope):
        raise NotFound(f"{scope.title} was deleted meanwhile.")
    clear = tokens.make_for_person(tokens.ENROLMENT)
    record = _row(scope, wanted, actor.user)
    record.digest, record.short, record.request_key = (
        tokens.digest(clear),
        tokens.shorten_of_people(clear),
        request_key,
    )
    try:
        with session.begin_nested():
            session.add(record)
            session.flush()
    except IntegrityError:
        _refuse_repeated(session, request_key)  # the same form arrived twice at once
        raise NotFound(NOTHING_HERE) from None  # its creator was deleted meanwhile
    audit.record(session, actor, "enrolment_key_created", record, scope, _told(record))
    return IssuedEnrolmentKey(record, clear)


def _refuse_repeated(session: Session, request_key: UUID | None) -> None:
    if request_key and session.scalar(select(EnrolmentKey.id).where(EnrolmentKey.request_key == request_key)):
        raise AlreadyMade


def _row(scope: Scope, wanted: NewEnrolmentKey, creator: User) -> EnrolmentKey:
    template = wanted.template
    return EnrolmentKey(
        group=scope.group,
        project=scope.project,
        creator=creator,
        name=wanted.name.strip(),
        description=template.description.strip(),
        maintenance_note=template.maintenance_note.strip(),
        tag_list=list(template.tags),
        run_untagged=template.run_untagged,
        locked=template.locked,
        access_level=AccessLevel.REF_PROTECTED if template.protected else AccessLevel.NOT_PROTECTED,
        maximum_timeout=template.maximum_timeout,
        token_expiration_interval=template.token_expiration_interval,
        most_runners=wanted.most_runners,
        networks=list(dict.fromkeys(enrolment_networks.read(each) for each in wanted.networks)),
        expires_at=wanted.expires_at,
    )


def _told(key: EnrolmentKey) -> dict[str, tuple[object, object]]:
    """What the trail tells of a new key; nothing of its secret."""
    facts: dict[str, object] = {
        "runners_at_most": key.most_runners,
        "expires_on": key.expires_at.isoformat(),
        "networks": list(key.networks),
        "tags": list(key.tag_list),
        "run_untagged": key.run_untagged,
        "protected": key.access_level == AccessLevel.REF_PROTECTED,
        "locked": key.locked,
        "maximum_timeout": key.maximum_timeout,
        "token_expiration_interval": key.token_expiration_interval,
    }
    return {name: (None, value) for name, value in facts.items() if value not in ("", None, [], False)}


def template_of(key: EnrolmentKey) -> RunnerSettings:
    """The settings of the key's runners."""
    return RunnerSettings(
        description=key.description,
        maintenance_note=key.maintenance_note,
        tags=tuple(key.tag_list),
        run_untagged=key.run_untagged,
        locked=key.locked,
        protected=key.access_level == AccessLevel.REF_PROTECTED,
        maximum_timeout=key.maximum_timeout,
        token_expiration_interval=key.token_expiration_interval,
    )


def scope_of(key: EnrolmentKey) -> Scope:
    """Where the key creates runners, be it deleted at present."""
    if key.project is not None:
        return of_project(key.project)
    return of_group(key.group) if key.group is not None else INSTANCE


def is_in_deleted(key: EnrolmentKey) -> bool:
    """Whether the key's group or project is deleted at present; restored, it has the key again."""
    owner = key.project or key.group
    return owner is not None and owner.deletion_id is not None


def find(session: Session, text: str) -> EnrolmentKey:
    """The good key with this text, of somebody who may come in.

    What does not have the form, checksum included, is refused without a query. Raises CredentialRefused, and for a
    key that is there and over its kind EnrolmentKeyOver. Used up it is found still: it may read what it made.
    """
    if not tokens.is_of_people(text, tokens.ENROLMENT):
        raise CredentialRefused("Enrolment key was not found. Check it for a missing or mistyped character.")
    known = select(EnrolmentKey).where(EnrolmentKey.digest == tokens.digest(text))
    row = session.scalar(known.options(joinedload(EnrolmentKey.creator)))
    if row is None:
        raise CredentialRefused("Enrolment key was not found. It may belong to another portal.")
    require_good(row)
    return row


def require_good(key: EnrolmentKey) -> None:
    """Refuse a key that opens nothing any more, or not at present: EnrolmentKeyOver."""
    ask = f"Ask those who look after the runners of {scope_of(key).title} for a new one."
    if key.revoked_at is not None:
        raise EnrolmentKeyOver(f"Enrolment key was revoked. {ask}", key=key)
    if key.expires_at <= now().date():
        raise EnrolmentKeyOver(f"Enrolment key is expired since {key.expires_at} (UTC). {ask}", key=key)
    if is_in_deleted(key):
        raise EnrolmentKeyOver("The group or project of this enrolment key was deleted.", key=key)
    if key.creator is None:
        raise EnrolmentKeyOver(f"The account of who made this enrolment key is gone. {ask}", key=key)
    if key.creator.blocked_at is not None:
        raise EnrolmentKeyOver(f"The account of who made this enrolment key is blocked. {ask}", key=key)


def hold(session: Session, key_id: int) -> EnrolmentKey:
    """Lock the key until the transaction ends and read it afresh, its creator too. Raises NotFound.

    A key comes after its group or project, and before its creator.
    """
    query = select(EnrolmentKey).where(EnrolmentKey.id == key_id).with_for_update(of=EnrolmentKey)
    found = session.scalar(query.execution_options(populate_existing=True))
    if found is None:
        raise NotFound("This enrolment key was deleted meanwhile.")
    if found.creator is not None:
        session.refresh(found.creator)
    return found


def in_scope(scope: Scope) -> ColumnElement[bool]:
    """Condition for the keys of exactly this scope, not of what lies below."""
    if scope.project is not None:
        return EnrolmentKey.project_id == scope.project.id
    if scope.group is not None:
        return EnrolmentKey.group_id == scope.group.id
    return and_(EnrolmentKey.group_id.is_(None), EnrolmentKey.project_id.is_(None))


def lives() -> ColumnElement[bool]:
    """Condition for keys that may still create something, as far as it is theirs to say."""
    spent = EnrolmentKey.runners_created >= EnrolmentKey.most_runners
    return and_(EnrolmentKey.revoked_at.is_(None), EnrolmentKey.expires_at > now().date(), ~spent)


def get(session: Session, actor: Actor, scope: Scope, key_id: int) -> EnrolmentKey:
    """The key with this number, of the scope or of what lies below, for who may change the scope's runners.

    Raises NotFound or NotAllowed.
    """
    require(session, actor, Action.WRITE_RUNNERS, scope)
    found = _numbered(session, key_id)
    if not _lies_in(scope_of(found), scope):
        raise NotFound(NO_SUCH_KEY)
    return found


def by_number(session: Session, actor: Actor, key_id: int) -> EnrolmentKey:
    """The key with this number, wherever, for who may change the runners there; to others it is not there.

    Raises NotFound.
    """
    found = _numbered(session, key_id)
    scope, action = scope_of(found), Action.WRITE_RUNNERS
    if not may(session, actor, action, scope):
        raise Hidden(NO_SUCH_KEY, action=action.value, where=scope)
    return found


def _numbered(session: Session, key_id: int) -> EnrolmentKey:
    query = select(EnrolmentKey).where(EnrolmentKey.id == key_id).options(joinedload(EnrolmentKey.creator))
    found = session.scalar(query)
    if found is None or is_in_deleted(found):
        raise NotFound(NO_SUCH_KEY)
    return found


def _lies_in(home: Scope, scope: Scope) -> bool:
    if scope.project is not None:
        return home.project is not None and home.project.id == scope.project.id
    return scope.group is None or scope.group.id in home.group_ids


def revoke(session: Session, actor: Actor, key: EnrolmentKey) -> bool:
    """End the key at once and for good; the runners that it made stay. Returns whether that changed anything.

    Raises NotFound or NotAllowed.
    """
    require(session, actor, Action.WRITE_RUNNERS, scope_of(key))
    return revoke_held(session, actor, hold(session, key.id))


def revoke_held(session: Session, actor: Actor, key: EnrolmentKey) -> bool:
    """The same for a key that is held, by who was asked for the right to it."""
    if key.revoked_at is not None:
        return False
    key.revoked_at = now()
    made = {"runners_created": (None, key.runners_created)}
    audit.record(session, actor, "enrolment_key_revoked", key, scope_of(key), made)
    return True
