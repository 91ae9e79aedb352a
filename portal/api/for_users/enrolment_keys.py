"""`/enrolment_keys`, which are ours: keys of a scope, made, read and revoked by who may create runners there."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import model_validator

from portal.api import credentials
from portal.api.for_users import places
from portal.api.for_users.door import looking_for, operation
from portal.api.for_users.operations import Shape
from portal.api.for_users.paging import MOST_COUNTED, Page, Paged
from portal.api.for_users.parameters import (
    Day,
    Flag,
    Id,
    OptionalFlag,
    OptionalId,
    OptionalNumber,
    OptionalText,
    Parameters,
    Text,
    Words,
    only_one_of,
)
from portal.api.for_users.runner_shapes import ACCESS_LEVELS
from portal.api.for_users.shapes import Moment, UserBasic, user_basic
from portal.database import db
from portal.domain.enrolment import enrolment_key_lists, enrolment_keys
from portal.domain.enrolment.enrolment_keys import NewEnrolmentKey
from portal.domain.permissions import Action
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import Scope
from portal.models import AccessLevel, EnrolmentKey
from portal.requests import settings

ROOM = "Enrolment keys"


class Place(Parameters):
    """A group or a project; the instance without either."""

    group_id: OptionalId = None
    project_id: OptionalId = None

    @model_validator(mode="after")
    def _is_one(self) -> Place:
        only_one_of(self, "group_id", "project_id")
        return self


class KeysAsked(Paged, Place):
    """The keys of one group or project, of the instance without either; with `below` those of all below it too."""

    below: Flag = False


class OneKey(Parameters):
    """One enrolment key."""

    key_id: Id


class KeyWanted(Place):
    """What is chosen for a new key of the group or project, or of the instance without either.

    `expires_at` is the first day (UTC) on which it creates nothing. `networks` are addresses or networks from where
    it may be used; without any, from everywhere. `token_expiration_interval` is how many seconds the tokens of its
    runners live.
    """

    name: Text
    most_runners: OptionalNumber
    expires_at: Day
    networks: Words = ()
    description: OptionalText = None
    maintenance_note: OptionalText = None
    tag_list: Words = ()
    run_untagged: OptionalFlag = None
    locked: OptionalFlag = None
    access_level: Literal["not_protected", "ref_protected"] | None = None
    maximum_timeout: OptionalNumber = None
    token_expiration_interval: OptionalNumber = None

    def wanted(self) -> NewEnrolmentKey:
        """The same in the domain's words, with the defaults of `POST /user/runners`."""
        template = RunnerSettings(
            description=self.description or "",
            maintenance_note=self.maintenance_note or "",
            tags=self.tag_list,
            run_untagged=self.run_untagged is not False,
            protected=self.access_level == "ref_protected",
            locked=bool(self.locked),
            maximum_timeout=self.maximum_timeout,
            token_expiration_interval=self.token_expiration_interval,
        )
        return NewEnrolmentKey(self.name, self.most_runners, self.expires_at, template, self.networks)


class EnrolmentKeyShape(Shape):
    """One enrolment key, without what is secret of it. `active` says whether it may still create runners."""

    id: int
    name: str
    short: str
    group_id: int | None
    project_id: int | None
    description: str
    maintenance_note: str
    tag_list: list[str]
    run_untagged: bool
    locked: bool
    access_level: str
    maximum_timeout: int | None
    token_expiration_interval: int | None
    most_runners: int
    runners_created: int
    networks: list[str]
    expires_at: date
    created_at: Moment
    created_by: UserBasic | None
    last_used_at: Moment | None
    last_used_address: str | None
    revoked: bool
    active: bool
    state: str


class NewEnrolmentKeyShape(EnrolmentKeyShape):
    """A new enrolment key: the only time that it is shown."""

    key: str


def attributes(row: enrolment_key_lists.Row) -> dict[str, Any]:
    """The attributes of an EnrolmentKeyShape."""
    key = row.key
    names = (
        "id name short group_id project_id description maintenance_note run_untagged locked maximum_timeout "
        "token_expiration_interval most_runners runners_created expires_at created_at last_used_at"
    )
    return {name: getattr(key, name) for name in names.split()} | {
        "tag_list": list(key.tag_list),
        "access_level": ACCESS_LEVELS[AccessLevel(key.access_level)],
        "networks": list(key.networks),
        "created_by": UserBasic(**user_basic(key.creator)) if key.creator else None,
        "last_used_address": key.last_used_address or None,
        "revoked": key.revoked_at is not None,
        "active": row.state is enrolment_key_lists.State.GOOD,
        "state": row.state.value,
    }


@operation("GET", "/enrolment_keys", room=ROOM, refuses=(400, 404))
def index(given: KeysAsked) -> Page[EnrolmentKeyShape]:
    """The keys of a group, a project, or the instance: those that may still create runners first, then the newest.

    Of exactly that place; `below=true` adds those of all groups and projects below it, so that an administrator's
    `GET /enrolment_keys?below=true` tells of every key.
    """
    session, scope = db.session(), _scope(given)
    rows = enrolment_key_lists.of_scope(
        session,
        scope,
        below=given.below,
        actor=credentials.actor(),
        offset=given.offset,
        limit=given.per_page,
    )
    total = enrolment_key_lists.count(session, scope, below=given.below)
    shown = [EnrolmentKeyShape(**attributes(each)) for each in rows]
    return Page(shown, given, total if total <= MOST_COUNTED else None, more=total > given.offset + given.per_page)


@operation("POST", "/enrolment_keys", room=ROOM, status=201, refuses=(400, 404))
def create(given: KeyWanted) -> NewEnrolmentKeyShape:
    """A new key, which is shown in this answer only."""
    issued = enrolment_keys.create_key(
        db.session(), credentials.actor(), _scope(given), given.wanted(), longest=settings().access_token_longest
    )
    answer = NewEnrolmentKeyShape(**attributes(_row(issued.record)), key=issued.token)
    db.session.commit()
    return answer


@operation("GET", "/enrolment_keys/<int:key_id>", room=ROOM, refuses=(404,))
def show(given: OneKey) -> EnrolmentKeyShape:
    """One key."""
    return EnrolmentKeyShape(**attributes(_row(_found(given.key_id))))


@operation("DELETE", "/enrolment_keys/<int:key_id>", room=ROOM, refuses=(404,))
def revoke(given: OneKey) -> None:
    """End a key at once and for good; the runners that it made stay."""
    enrolment_keys.revoke(db.session(), credentials.actor(), _found(given.key_id))
    db.session.commit()


def _scope(given: Place) -> Scope:
    if given.group_id is not None:
        return places.group(given.group_id)
    return places.project(given.project_id) if given.project_id else places.instance(Action.WRITE_RUNNERS)


def _found(key_id: int) -> EnrolmentKey:
    with looking_for("Enrolment Key"):
        return enrolment_keys.by_number(db.session(), credentials.actor(), key_id)


def _row(key: EnrolmentKey) -> enrolment_key_lists.Row:
    return enrolment_key_lists.with_states(db.session(), [key])[0]
