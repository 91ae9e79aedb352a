"""Which runners a script's list is about: filters, order, pages by number and by cursor, counts that stop."""

from __future__ import annotations

import enum
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NoBase64
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    ColumnElement,
    Select,
    and_,
    any_,
    cast,
    exists,
    false,
    func,
    null,
    or_,
    select,
    text,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session, aliased, joinedload
from sqlalchemy.sql.selectable import Subquery

from portal.domain import permissions, runner_lists, tokens
from portal.domain.actors import Actor
from portal.domain.errors import BadRequest
from portal.domain.permissions import Action
from portal.domain.runner_status import LAST_CONTACT, ONLINE_WINDOW, Status, condition
from portal.domain.scopes import Scope, ScopeKind
from portal.models import Group, Project, Runner, RunnerManager, RunnerProject, RunnerToken, RunnerType

STATUSES = ("online", "offline", "never_contacted", "stale", "active", "paused")  # the last two are deprecated
MEMBERSHIPS = ("direct", "descendants", "all_available")
MOST_MANAGERS = 100  # of one runner in a list


@dataclass(frozen=True, slots=True)
class RunnerQuery:
    """What a script asks a list for; None and () ask for nothing.

    `status` is one of STATUSES, in GitLab's sense: `narrowed` says which. `version_prefix` counts in whole components
    (15 is no beginning of 150.1). `search` is a whole token, or a part of the description.
    `specific`, an older word, is what a group or a project owns.
    """

    status: str | None = None
    type: RunnerType | None = None
    paused: bool | None = None
    tags: tuple[str, ...] = ()
    version_prefix: str = ""
    search: str = ""
    creator_id: int | None = None
    creator_username: str = ""
    owner: Scope | None = None
    owned_by_administrators: bool = False
    specific: bool = False


def everywhere() -> ColumnElement[bool]:
    """Condition for every runner there is."""
    return true()


def available_to(session: Session, actor: Actor) -> ColumnElement[bool]:
    """Condition for the runners that the actor looks after: a group's as its owner, a project's as its maintainer.

    A project's runners are its own and those assigned to it; the instance's are nobody's, and everything else is an
    administrator's. Source: reference/rest.md section 2.3, "available". Asks two queries, so that indexes are used.
    """
    if actor.is_admin:
        return Runner.runner_type != RunnerType.INSTANCE
    of_groups, of_projects = permissions.where_allowed(actor, Action.WRITE_RUNNERS)
    group_ids = session.scalars(select(Group.id).where(of_groups)).all()
    project_ids = session.scalars(select(Project.id).where(of_projects)).all()
    assigned = select(RunnerProject.runner_id).where(RunnerProject.project_id == any_(_array(project_ids)))
    return or_(
        Runner.group_id == any_(_array(group_ids)),
        Runner.project_id == any_(_array(project_ids)),
        Runner.id.in_(assigned),
    )


def _array(ids: Sequence[int]) -> ColumnElement[Any]:
    """One parameter, however many there are."""
    return cast(list(ids), ARRAY(BigInteger))


def usable_in_group(scope: Scope) -> ColumnElement[bool]:
    """Condition for a group's own runners, those of the groups above, and the instance's."""
    return runner_lists.from_above(scope)


def usable_in_project(scope: Scope) -> ColumnElement[bool]:
    """Condition for a project's own runners, those assigned to it, those of its groups, and the instance's."""
    return runner_lists.shown_in(scope, inherited=True)


def in_group(scope: Scope, membership: str) -> ColumnElement[bool]:
    """Condition for a group's runners: `direct` its own, `descendants` also those of all below it.

    `all_available` adds to these the runners of the groups above, and the instance's.
    """
    if membership == "direct":
        return Runner.group_id == scope.id
    return runner_lists.shown_in(scope, inherited=membership == "all_available")


def narrowed(which: ColumnElement[bool], query: RunnerQuery, at: datetime) -> ColumnElement[bool]:
    """The condition with all that the query asks for, at this moment.

    Statuses are GitLab's (reference/rest.md sections 2.3 and 5): online, offline (contact more than 2 hours ago) and
    never_contacted are all runners, each in one of them. Stale ones are among the last two.
    """
    parts = [which]
    if query.status is not None:
        parts.append(_has_status(query.status, at))
    if query.type is not None:
        parts.append(Runner.runner_type == query.type)
    if query.paused is not None:
        parts.append(Runner.active == (not query.paused))
    if query.tags:
        parts.append(Runner.tag_list.contains(list(query.tags)))
    if query.version_prefix:
        parts.append(_has_version(query.version_prefix))
    if query.search:
        parts.append(_found_by(query.search, at))
    if query.creator_id is not None:
        parts.append(Runner.creator_id == query.creator_id)
    if query.creator_username:
        parts.append(runner_lists.created_by(query.creator_username))
    if query.owner is not None:
        parts.append(_owned_by(query.owner))
    if query.owned_by_administrators:
        parts.append(Runner.runner_type == RunnerType.INSTANCE)
    if query.specific:
        parts.append(Runner.runner_type != RunnerType.INSTANCE)
    return and_(*parts)


def _has_status(status: str, at: datetime) -> ColumnElement[bool]:
    match status:
        case "active" | "paused":
            return Runner.active == (status == "active")
        case "offline":
            return and_(Runner.contacted_at.is_not(None), at - ONLINE_WINDOW >= LAST_CONTACT)
        case "never_contacted":
            return Runner.contacted_at.is_(None)
    return condition(Status(status), at)


def _has_version(prefix: str) -> ColumnElement[bool]:
    """A machine's version begins with these components; what follows the numbers is passed over, as in GitLab.

    Machines alone are asked, as in GitLab: what a registration told of itself would be a second way to be found, and
    with two the database would look at every machine of the portal for every page.
    """
    numbers = re.match(r"[0-9]+(?:\.[0-9]+)*", prefix, re.ASCII)
    if numbers is None:
        return false()  # no version begins so
    version, begun = RunnerManager.version, numbers[0]
    follows = func.substr(version, len(begun) + 1, 1)
    whole = and_(version.like(f"{begun}%"), follows.op("!~")("[0-9]"))  # no component is cut in two
    return Runner.id.in_(select(RunnerManager.runner_id).where(whole))


def _found_by(search: str, at: datetime) -> ColumnElement[bool]:
    """A whole token that works, by its digest alone, or a part of the description whatever the case."""
    described = func.strpos(func.lower(Runner.description), search.lower()) > 0
    if len(search) > tokens.LONGEST:
        return described
    token = select(RunnerToken.runner_id).where(RunnerToken.digest == tokens.digest(search), RunnerToken.lives(at))
    return or_(described, Runner.id == token.scalar_subquery())


def _owned_by(owner: Scope) -> ColumnElement[bool]:
    if owner.kind is ScopeKind.INSTANCE:
        return Runner.runner_type == RunnerType.INSTANCE
    return (Runner.group_id if owner.kind is ScopeKind.GROUP else Runner.project_id) == owner.id


class Order(enum.StrEnum):
    """The order of a list. Runners without contact count as heard of longest ago, endless tokens as ending last."""

    CREATED_DESC = "created_desc"
    CREATED_ASC = "created_asc"
    CONTACTED_DESC = "contacted_desc"
    CONTACTED_ASC = "contacted_asc"
    TOKEN_EXPIRES_AT_ASC = "token_expires_at_asc"  # noqa: S105  (an order)
    TOKEN_EXPIRES_AT_DESC = "token_expires_at_desc"  # noqa: S105
    ID_DESC = "id_desc"
    ID_ASC = "id_asc"

    @property
    def by(self) -> str:
        """What it goes by: created, contacted, token_expires_at or id."""
        return self.value.rpartition("_")[0]

    @property
    def descends(self) -> bool:
        return self.value.endswith("_desc")


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a list from a cursor on; `cursors` are those of the runners, in the same order."""

    runners: list[Runner]
    has_next: bool
    has_previous: bool
    cursors: list[str] = field(default_factory=list)


def page_by_number(
    session: Session, which: ColumnElement[bool], *, offset: int, limit: int, order: Order = Order.ID_ASC
) -> list[Runner]:
    """The runners from this place on, at most `limit`, with creator, group and project; in two queries.

    The lowest id comes first, as in GitLab.
    """
    ids = _line(order).ids(which).offset(offset).limit(limit)
    return _loaded(session, [row.id for row in session.execute(ids)])


def count(session: Session, which: ColumnElement[bool], *, most: int | None = None) -> int | None:
    """How many runners there are; None when there are more than `most`, which are not all counted."""
    found = select(Runner.id).where(which)
    if most is not None:
        found = found.limit(most + 1)
    total = session.scalar(select(func.count()).select_from(found.subquery())) or 0
    return total if most is None or total <= most else None


def page_by_cursor(
    session: Session,
    which: ColumnElement[bool],
    order: Order,
    *,
    first: int | None = None,
    last: int | None = None,
    after: str | None = None,
    before: str | None = None,
) -> Stretch:
    """The `first` (or the `last`) runners between two cursors, with creator, group and project; in two queries.

    Of `first` and `last` the caller gives one, and sees to it that it is not too many. Raises BadRequest for a cursor
    that is none, or is one of another order.
    """
    backwards = first is None
    size = (last if backwards else first) or 0
    line = _line(order)
    query = line.ids(which, backwards=backwards)
    if after:
        query = query.where(line.beyond(after, forwards=True))
    if before:
        query = query.where(line.beyond(before, forwards=False))
    rows = list(session.execute(query.limit(size + 1)))
    more, rows = len(rows) > size, rows[:size]
    if backwards:
        rows.reverse()
    has_next, has_previous = (bool(before), more) if backwards else (more, bool(after))
    told, runners = {row.id: row.told for row in rows}, _loaded(session, [row.id for row in rows])
    cursors = [_write(order, told[runner.id], runner.id) for runner in runners]
    return Stretch(runners, has_next, has_previous, cursors)


def cursor_of(runner: Runner, order: Order, *, token_expires_at: datetime | None = None) -> str:
    """The cursor of this runner; when its token expires, as `token_expiries` says, is needed in that order only."""
    places = {"created": runner.created_at, "contacted": runner.contacted_at, "token_expires_at": token_expires_at}
    return _write(order, places.get(order.by), runner.id)


def token_expiries(session: Session, runner_ids: Sequence[int]) -> dict[int, datetime]:
    """When each runner's newest token expires, by the runner's id; those without end are left out. One query."""
    expiry = _expiry()
    rows = session.execute(select(expiry).where(expiry.c.runner_id.in_(runner_ids))) if runner_ids else ()
    return {row.runner_id: row.expires_at for row in rows}


def newest_managers(
    session: Session, runner_ids: Sequence[int], *, each: int = MOST_MANAGERS
) -> dict[int, list[RunnerManager]]:
    """The managers of each of these runners, those heard of last first, at most `each`; by runner id. One query."""
    asked = select(Runner.id).where(Runner.id == any_(_array(runner_ids))).subquery()
    newest = (RunnerManager.contacted_at.desc().nulls_last(), RunnerManager.id)
    its = select(RunnerManager).where(RunnerManager.runner_id == asked.c.id).order_by(*newest).limit(each).lateral()
    manager = aliased(RunnerManager, its)
    query = select(manager).select_from(asked).join(manager, true())
    found: dict[int, list[RunnerManager]] = {runner_id: [] for runner_id in runner_ids}
    for one in session.scalars(query):
        found[one.runner_id].append(one)
    return found


@dataclass(frozen=True, slots=True)
class _Line:
    """Runners in their order: by `keys`, of which `told` is what a cursor holds besides the id."""

    order: Order
    told: ColumnElement[Any]
    keys: tuple[ColumnElement[Any], ...]
    expiry: Subquery | None = None

    def ids(self, which: ColumnElement[bool], *, backwards: bool = False) -> Select[Any]:
        """The ids, from the first one or from the last, each with what its cursor holds."""
        query = select(Runner.id, self.told.label("told")).where(which)
        if self.expiry is not None:
            query = query.outerjoin(self.expiry, self.expiry.c.runner_id == Runner.id)
        down = self.order.descends != backwards
        return query.order_by(*(key.desc() if down else key.asc() for key in self.keys))

    def beyond(self, cursor: str, *, forwards: bool) -> ColumnElement[bool]:
        """Condition for what comes behind the cursor, or before it. Raises BadRequest."""
        at, runner_id = _read(self.order, cursor)
        smaller = self.order.descends == forwards
        place: list[ColumnElement[Any]] = [cast(runner_id, BigInteger)]
        if self.order.by != "id":
            place.insert(0, cast(at, TIMESTAMP(timezone=True)))
        here, there = tuple_(*self.keys), tuple_(*place)
        return here < there if smaller else here > there


def _line(order: Order) -> _Line:
    number = Runner.id.expression
    match order.by:
        case "created":
            return _Line(order, Runner.created_at.expression, (Runner.created_at.expression, number))
        case "contacted":
            return _Line(order, Runner.contacted_at.expression, (LAST_CONTACT, number))
        case "token_expires_at":
            expiry = _expiry()
            never = func.coalesce(expiry.c.expires_at, text("'infinity'::timestamptz"))
            return _Line(order, expiry.c.expires_at, (never, number), expiry)
    return _Line(order, null(), (number,))


def _expiry() -> Subquery:
    """When the newest tokens of runners expire, of those that do: few do, and an index has them."""
    newer = aliased(RunnerToken)
    replaced = exists().where(newer.runner_id == RunnerToken.runner_id, newer.id > RunnerToken.id)
    query = select(RunnerToken.runner_id, RunnerToken.expires_at).where(
        RunnerToken.expires_at.is_not(None), ~replaced
    )
    return query.subquery("expiry")


def _loaded(session: Session, ids: Sequence[int]) -> list[Runner]:
    """These runners in this order, with whom and what a list says of them; only they are joined, not all of the list.

    One that was deleted since the ids were found is left out.
    """
    if not ids:
        return []
    with_owner = (joinedload(Runner.creator), joinedload(Runner.group), joinedload(Runner.project))
    query = select(Runner).where(Runner.id.in_(ids)).options(*with_owner)
    found = {runner.id: runner for runner in session.scalars(query)}
    return [found[each] for each in ids if each in found]


_NOWHERE = {"contacted": "-infinity", "token_expires_at": "infinity"}  # where those stand that have no time
_CURSOR = re.compile(r"(created|contacted|token_expires_at|id)~([^~]{0,40})~(\d{1,18})", re.ASCII)


def _write(order: Order, at: datetime | None, runner_id: int) -> str:
    moment = at.astimezone(UTC).isoformat() if at is not None else _NOWHERE.get(order.by, "")
    return urlsafe_b64encode(f"{order.by}~{moment}~{runner_id}".encode()).decode().rstrip("=")


def _read(order: Order, cursor: str) -> tuple[str, int]:
    """The time and the number in the cursor. Raises BadRequest."""
    try:
        words = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (NoBase64, ValueError):
        words = ""
    found = _CURSOR.fullmatch(words)
    if found is None or found[1] != order.by or not _is_place(order, found[2]):
        raise BadRequest("This is no cursor of this list in this order. Take one from its answer, or begin without.")
    return found[2], int(found[3])


def _is_place(order: Order, at: str) -> bool:
    if order.by == "id" or at == _NOWHERE.get(order.by):
        return order.by != "id" or not at
    try:
        return datetime.fromisoformat(at).tzinfo is not None
    except ValueError:
        return False
