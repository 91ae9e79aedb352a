"""Lists of runners: one's own, all of them, a group's and a project's (reference/rest.md sections 2.3 and 2.4)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError
from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from portal.api import credentials
from portal.api.for_users import places, runner_shapes
from portal.api.for_users.door import operation
from portal.api.for_users.operations import Answer
from portal.api.for_users.paging import MOST_COUNTED, Page, Paged, Stretch
from portal.api.for_users.parameters import OptionalFlag, OptionalText, Words
from portal.api.for_users.runner_shapes import RunnerManagerShape, RunnerWithManagers
from portal.database import db, now
from portal.domain import permissions, tokens
from portal.domain.actors import Actor
from portal.domain.errors import BadRequest, NotAllowed
from portal.domain.jobs import job_lists
from portal.domain.permissions import Action
from portal.domain.runners import runner_access, runner_paging, runner_queries
from portal.domain.runners.runner_paging import Order
from portal.domain.runners.runner_queries import MOST_MANAGERS, RunnerQuery
from portal.domain.scopes import INSTANCE, Scope
from portal.models import Runner, RunnerType

ROOM = "Runners"
TYPES = {name: kind for kind, name in runner_shapes.TYPES.items()}
Listed = Answer[Page[RunnerWithManagers]]


def _nothing(value: Any) -> Any:
    """An empty parameter asks for nothing, as in GitLab."""
    return None if value == "" else value


def _version(value: Any) -> Any:
    if value in ("", None):
        return None
    if not isinstance(value, str) or not re.match(r"[0-9+.]", value) or "\0" in value:
        raise PydanticCustomError("version", "is invalid")
    return value


_VERSION = {"type": "string", "pattern": r"^([0-9+.][\s\S]*)?$"}
_SEARCH = {"type": "string", "pattern": "^(?!glrtr?-)"}
Types = Literal["instance_type", "group_type", "project_type"]
Statuses = Literal["online", "offline", "never_contacted", "stale", "active", "paused"]
Scopes = Literal[
    "specific",
    "shared",
    "instance_type",
    "group_type",
    "project_type",
    "online",
    "offline",
    "never_contacted",
    "stale",
    "active",
    "paused",
]


class Narrowed(Paged):
    """Which runners of a list, and how they come. `search`, `creator`, `include` and paging by cursor are ours."""

    type: Annotated[Types | None, BeforeValidator(_nothing)] = None
    status: Annotated[Statuses | None, BeforeValidator(_nothing)] = None
    paused: OptionalFlag = None
    tag_list: Words = ()
    version_prefix: Annotated[str | None, BeforeValidator(_version), WithJsonSchema(_VERSION)] = None
    search: Annotated[OptionalText, WithJsonSchema(_SEARCH)] = None
    creator: OptionalText = None
    include: Annotated[Literal["managers"] | None, BeforeValidator(_nothing)] = None
    pagination: Annotated[Literal["keyset", "legacy"] | None, BeforeValidator(_nothing)] = None
    order_by: Annotated[Literal["id"] | None, BeforeValidator(_nothing)] = None
    sort: Annotated[Literal["asc", "desc"] | None, BeforeValidator(_nothing)] = None
    cursor: OptionalText = None

    @model_validator(mode="after")
    def _seeks_no_token(self) -> Narrowed:
        """Addresses are logged everywhere, so a token in one is refused rather than looked up."""
        if (self.search or "").startswith((tokens.CREATED, tokens.REGISTERED)):
            said = "search takes no token: addresses are kept in logs. Send it in the body of a GraphQL query instead"
            raise PydanticCustomError("token", said)
        return self

    @property
    def order(self) -> Order:
        """The lowest id first, as in GitLab, unless asked otherwise."""
        return Order.ID_DESC if self.sort == "desc" else Order.ID_ASC

    def query(self) -> RunnerQuery:
        """The filters in the words of the domain."""
        return RunnerQuery(
            status=self.status,
            type=TYPES[self.type] if self.type else None,
            paused=self.paused,
            tags=self.tag_list,
            version_prefix=self.version_prefix or "",
            search=self.search or "",
            creator_username=self.creator or "",
        )


class NarrowedByScope(Narrowed):
    """The same with GitLab's older filter, which is one more besides the others."""

    scope: Annotated[Scopes | None, BeforeValidator(_nothing)] = None

    def older(self) -> RunnerQuery:
        """What `scope` asks for besides."""
        if self.scope in runner_queries.STATUSES:
            return RunnerQuery(status=self.scope)
        kind = RunnerType.INSTANCE if self.scope == "shared" else TYPES.get(self.scope or "")
        return RunnerQuery(type=kind, specific=self.scope == "specific")


class OfGroup(Narrowed):
    """A group's."""

    group: str


class OfProject(NarrowedByScope):
    """A project's."""

    project: str


@operation("GET", "/runners", room=ROOM, refuses=(400,))
def index(given: NarrowedByScope) -> Listed:
    """The runners that one looks after: those of groups as their owner, those of projects as their maintainer.

    An administrator looks after those of all groups and projects; the instance's are in `/runners/all`. `scope` takes
    statuses only.
    """
    if given.scope is not None and given.scope not in runner_queries.STATUSES:
        raise BadRequest("Scope contains invalid value")
    session = db.session()
    return _listed(session, runner_queries.available_to(session, credentials.actor()), given)


@operation("GET", "/runners/all", room=ROOM, refuses=(400,))
def everything(given: NarrowedByScope) -> Listed:
    """Every runner there is, for administrators."""
    if not permissions.may(db.session(), credentials.actor(), Action.READ_RUNNERS, INSTANCE):
        said = "Only administrators see every runner. Ask for /runners, or for a group's or a project's."
        raise NotAllowed(said, action=Action.READ_RUNNERS.value, where=INSTANCE)
    return _listed(db.session(), runner_queries.everywhere(), given)


@operation("GET", "/groups/<path:group>/runners", room=ROOM, refuses=(400, 404))
def of_group(given: OfGroup) -> Listed:
    """The runners that a group can use: its own, those of the groups above, and the instance's."""
    scope = _readable(places.group(given.group))
    return _listed(db.session(), runner_queries.usable_in_group(scope), given)


@operation("GET", "/projects/<path:project>/runners", room=ROOM, refuses=(400, 404))
def of_project(given: OfProject) -> Listed:
    """The runners that a project can use: its own, those assigned to it, those of its groups, and the instance's."""
    scope = _readable(places.project(given.project))
    return _listed(db.session(), runner_queries.usable_in_project(scope), given)


def _readable(scope: Scope) -> Scope:
    permissions.require(db.session(), credentials.actor(), Action.READ_RUNNERS, scope)
    return scope


def _listed(session: Session, which: ColumnElement[bool], given: Narrowed) -> Listed:
    """The page, or the stretch from a cursor on, that is asked for."""
    at = now()
    which = runner_queries.narrowed(session, which, given.query(), at)
    if isinstance(given, NarrowedByScope) and given.scope is not None:
        which = runner_queries.narrowed(session, which, given.older(), at)
    if given.pagination == "keyset":
        return Answer(cast("Page[RunnerWithManagers]", _stretch(session, which, given, at)))
    return Answer(_page(session, which, given, at))


def _page(session: Session, which: ColumnElement[bool], given: Narrowed, at: datetime) -> Page[RunnerWithManagers]:
    size = given.per_page
    found = runner_paging.page_by_number(session, which, offset=given.offset, limit=size + 1, order=given.order)
    total = _total(session, which, given, len(found))
    return Page(_rows(session, found[:size], given, at), given, total, more=len(found) > size)


def _total(session: Session, which: ColumnElement[bool], given: Narrowed, found: int) -> int | None:
    """How many there are in all; the last page says it by itself."""
    if found <= given.per_page and (found or given.page == 1):
        total = given.offset + found
        return total if total <= MOST_COUNTED else None
    return runner_paging.count(session, which, most=MOST_COUNTED)


def _stretch(
    session: Session, which: ColumnElement[bool], given: Narrowed, at: datetime
) -> Stretch[RunnerWithManagers]:
    size = given.per_page
    found = runner_paging.page_by_cursor(session, which, given.order, first=size, after=given.cursor or None)
    after = found.cursors[-1] if found.has_next and found.cursors else None
    return Stretch(_rows(session, found.runners, given, at), after)


def _rows(session: Session, runners: Sequence[Runner], given: Narrowed, at: datetime) -> list[RunnerWithManagers]:
    machines = _machines(session, credentials.actor(), runners, at) if given.include == "managers" else {}
    busy = job_lists.busy(session, runners)
    return [
        RunnerWithManagers(
            **runner_shapes.in_list(runner, at, busy=runner.id in busy), managers=machines.get(runner.id)
        )
        for runner in runners
    ]


def _machines(
    session: Session, actor: Actor, runners: Sequence[Runner], at: datetime
) -> dict[int, list[RunnerManagerShape]]:
    """The machines of each runner, those heard of last first; addresses as `/runners/:id/managers` tells them."""
    trusted = runner_access.among(session, actor, Action.READ_RUNNERS, runners)
    found = runner_queries.newest_managers(session, [each.id for each in runners], each=MOST_MANAGERS)
    busy = job_lists.busy_managers(session, [each for managers in found.values() for each in managers])
    return {
        runner_id: [
            runner_shapes.manager(each, at, busy=each.id in busy, trusted=runner_id in trusted) for each in managers
        ]
        for runner_id, managers in found.items()
    }
