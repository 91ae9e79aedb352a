"""Which runners a scope's page shows: filters, order, pages and counts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Subquery, and_, any_, case, func, or_, select, text, tuple_
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import InstrumentedAttribute, Session

from portal.database import now
from portal.domain.groups.groups import owned_below
from portal.domain.machines import refused_machines
from portal.domain.runners import runner_paging, runner_search, runner_status, token_life
from portal.domain.runners.runner_search import Found
from portal.domain.runners.runner_status import LAST_CONTACT, Status
from portal.domain.scopes import Scope, ScopeKind
from portal.models import (
    Project,
    RegistrationType,
    Runner,
    RunnerProject,
    RunnerToken,
    RunnerType,
    TokenOrigin,
    User,
)

PAGE_SIZE = 20
COUNTED = 1000  # counts stop there, as those of jobs do
LOOKED_AT = 2000  # of a scope's newest runners, for what a filter offers to choose from
SORTS = ("created_desc", "created_asc", "contacted_desc", "contacted_asc")
_NEVER = "-infinity"


@dataclass(frozen=True, slots=True)
class RunnerFilter:
    """What a person asks a list for. `inherited` adds, to a group's list, what it gets from above.

    `due` asks for runners of the scope and below with a token that is due or has expired; whose tokens inherited
    runners have is not the reader's business.
    """

    status: Status | None = None
    type: RunnerType | None = None
    paused: bool | None = None
    tags: tuple[str, ...] = ()
    creator: str = ""
    words: str = ""
    due: bool = False
    registration: RegistrationType | None = None
    inherited: bool = False
    sort: str = "created_desc"

    @property
    def is_active(self) -> bool:
        """Whether anything but the order narrows the list."""
        return replace(self, sort="created_desc", inherited=False) != RunnerFilter()


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a list. `version` and `address` are those of the machine heard of last.

    `cut_off` is a runner that nobody can use with the tokens that its machines have, `imported` one that came with
    its token from elsewhere.
    """

    runner: Runner
    status: Status
    short: str
    managers: int
    version: str | None
    address: str | None
    cut_off: bool = False
    imported: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; `after` and `before` are the cursors of the next and the previous page.

    `cut` says that so many machines fit the words that not all were looked at (see runner_search).
    """

    rows: list[Row]
    after: str | None
    before: str | None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """How many runners fit the filter, by status; the status filter itself is left out of account.

    A number above COUNTED stands for "more than that": none is counted further.
    """

    by_status: dict[Status, int]
    total: int


def shown_in(scope: Scope, *, inherited: bool) -> ColumnElement[bool]:
    """Condition for the runners of a scope's list.

    The instance shows all. A group shows its own and its descendants', and with `inherited` its
    ancestors' and the instance's. A project always shows what it can use: its own, those assigned to it, its groups',
    the instance's.
    """
    mine = owned_below(scope)
    if scope.kind is ScopeKind.INSTANCE or (scope.kind is ScopeKind.GROUP and not inherited):
        return mine
    if scope.project is not None:
        return or_(mine, from_above(scope), assigned_to(scope.project))
    return or_(mine, from_above(scope))


def from_above(scope: Scope) -> ColumnElement[bool]:
    """Condition for the instance's runners, and those of the groups from the top down to this scope."""
    return or_(Runner.group_id.in_(scope.group_ids), Runner.runner_type == RunnerType.INSTANCE)


def created_by(username: str) -> ColumnElement[bool]:
    """Condition for the runners that the person of this name created, whatever the case."""
    return Runner.creator_id.in_(select(User.id).where(func.lower(User.username) == username.lower()))


def assigned_to(project: Project) -> ColumnElement[bool]:
    """Condition for the runners of other projects that were assigned to this one."""
    theirs = select(RunnerProject.runner_id).where(RunnerProject.project_id == project.id)
    # As a list, which an index is asked for; beside other conditions every runner would be asked otherwise.
    return Runner.id == any_(func.array(theirs.scalar_subquery()))


def find(session: Session, scope: Scope, runner_id: int) -> Runner | None:
    """The runner with this id if the scope's pages may show it."""
    return session.scalar(select(Runner).where(Runner.id == runner_id, shown_in(scope, inherited=True)))


def ids(session: Session, scope: Scope, wanted: RunnerFilter | Collection[int], *, limit: int) -> list[int]:
    """The ids of the list's runners that fit the filter, or are among these; the lowest first, at most `limit`."""
    if isinstance(wanted, RunnerFilter):
        which = _wanted(scope, wanted, _searched(session, scope, wanted), with_status=True)
    else:
        which = and_(Runner.id.in_(sorted(wanted)[:limit]), shown_in(scope, inherited=True))
    return list(session.scalars(select(Runner.id).where(which).order_by(Runner.id).limit(limit)))


def is_cut(session: Session, scope: Scope, wanted: RunnerFilter) -> bool:
    """Whether so much begins with the filter's words that not all was looked at, and some that fit are missed."""
    searched = _searched(session, scope, wanted)
    return searched is not None and searched.cut


def page(
    session: Session,
    scope: Scope,
    wanted: RunnerFilter,
    *,
    after: str | None = None,
    before: str | None = None,
    size: int = PAGE_SIZE,
) -> Page:
    """One page. A cursor that is no cursor is treated as the start."""
    backwards = _read_cursor(before) is not None
    cursor = _read_cursor(before) if backwards else _read_cursor(after)
    searched = _searched(session, scope, wanted)
    query = select(Runner.id).where(_wanted(scope, wanted, searched, with_status=True))
    query = _ordered(query, wanted.sort, cursor, backwards=backwards).limit(size + 1)
    chosen = list(session.scalars(query))
    more = len(chosen) > size
    chosen = chosen[:size]
    if backwards:
        chosen.reverse()
    found = runner_paging.loaded(session, chosen)
    has_next, has_previous = (cursor is not None, more) if backwards else (more, cursor is not None)
    return Page(
        rows=_rows(session, found),
        after=_write_cursor(found[-1], wanted.sort) if found and has_next else None,
        before=_write_cursor(found[0], wanted.sort) if found and has_previous else None,
        cut=searched is not None and searched.cut,
    )


def counts(session: Session, scope: Scope, wanted: RunnerFilter) -> Counts:
    """How many there are of each status, the other filters respected; each up to one more than COUNTED."""
    moment = now()
    which = _wanted(scope, wanted, _searched(session, scope, wanted), with_status=False)
    status = case(*((runner_status.condition(each, moment), each.value) for each in Status)).label("status")
    first = select(status).select_from(Runner).where(which).limit(COUNTED + 1).subquery()
    rows = session.execute(select(first.c.status, func.count()).group_by(first.c.status))
    found = dict.fromkeys(Status, 0) | {Status(row[0]): row[1] for row in rows}
    total = sum(found.values())
    if total > COUNTED:
        of_each = [
            select(func.count())
            .select_from(
                select(Runner.id).where(which, runner_status.condition(each, moment)).limit(COUNTED + 1).subquery()
            )
            .scalar_subquery()
            for each in Status
        ]
        found = dict(zip(Status, session.execute(select(*of_each)).one(), strict=True))
    return Counts(found, total)


def count_due(session: Session, scope: Scope) -> int:
    """How many runners of the scope and below have a token that is due or has expired, as far as they are counted."""
    return token_life.count_due(session, owned_below(scope))


def tags_in(session: Session, scope: Scope, *, limit: int = 200) -> list[str]:
    """The tags of the scope's newest runners, the most used first, for the filter."""
    tag = func.unnest(_newest_in(scope, Runner.tag_list).c.tag_list).label("tag")
    rows = select(tag).subquery()
    return list(
        session.scalars(
            select(rows.c.tag).group_by(rows.c.tag).order_by(func.count().desc(), rows.c.tag).limit(limit)
        )
    )


def creators_in(session: Session, scope: Scope, *, limit: int = 200) -> list[User]:
    """The people who created the scope's newest runners, by name, for the filter."""
    ids = select(_newest_in(scope, Runner.creator_id).c.creator_id)
    return list(session.scalars(select(User).where(User.id.in_(ids)).order_by(User.name).limit(limit)))


def _newest_in(scope: Scope, column: InstrumentedAttribute[Any]) -> Subquery:
    """A column of the newest runners that the scope's list shows: what a filter offers is found in these."""
    query = select(column).where(shown_in(scope, inherited=True)).order_by(Runner.id.desc())
    return query.limit(LOOKED_AT).subquery()


def set_so(type_: RunnerType | None, *, paused: bool | None, tags: Collection[str]) -> list[ColumnElement[bool]]:
    """Conditions for runners of this type, paused or not, with all of these tags; nothing asked is no condition."""
    parts: list[ColumnElement[bool]] = []
    if type_ is not None:
        parts.append(Runner.runner_type == type_)
    if paused is not None:
        parts.append(Runner.active == (not paused))
    if tags:
        parts.append(Runner.tag_list.contains(list(tags)))
    return parts


def _searched(session: Session, scope: Scope, wanted: RunnerFilter) -> Found | None:
    """What the words of the filter find; None without words. One query."""
    words = wanted.words.strip()
    return runner_search.found_by(session, scope, words) if words else None


def _wanted(scope: Scope, wanted: RunnerFilter, searched: Found | None, *, with_status: bool) -> ColumnElement[bool]:
    parts = [shown_in(scope, inherited=wanted.inherited)]
    if with_status and wanted.status is not None:
        parts.append(runner_status.condition(wanted.status, now()))
    parts += set_so(wanted.type, paused=wanted.paused, tags=wanted.tags)
    if wanted.creator:
        parts.append(created_by(wanted.creator))
    if wanted.due:
        parts += [owned_below(scope), token_life.due(now())]
    if wanted.registration is not None:
        parts.append(Runner.registration_type == wanted.registration)
    if searched is not None:
        parts.append(searched.condition)
    return and_(*parts)


_Cursor = tuple[str, int]


def _ordered(query: Select[int], sort: str, cursor: _Cursor | None, *, backwards: bool) -> Select[int]:
    column = LAST_CONTACT if sort.startswith("contacted") else Runner.created_at
    down = sort.endswith("_desc") != backwards
    if cursor is not None:
        place = tuple_(text("CAST(:cursor_at AS timestamptz)"), text("CAST(:cursor_id AS bigint)"))
        here = tuple_(column, Runner.id)
        query = query.where(here < place if down else here > place)
        query = query.params(cursor_at=cursor[0], cursor_id=cursor[1])
    return query.order_by(column.desc(), Runner.id.desc()) if down else query.order_by(column, Runner.id)


def _write_cursor(runner: Runner, sort: str) -> str:
    at = runner.contacted_at if sort.startswith("contacted") else runner.created_at
    return f"{at.isoformat() if at else _NEVER}~{runner.id}"


def _read_cursor(text_: str | None) -> _Cursor | None:
    at, separator, number = (text_ or "").rpartition("~")
    if not separator or not number.isdecimal() or len(number) > 18:
        return None
    if at != _NEVER:
        try:
            # "+" of the zone arrives as a space when somebody retypes the address by hand.
            moment = datetime.fromisoformat(at.replace(" ", "+"))
            at = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
        except (ValueError, OverflowError):
            return None
    return at, int(number)


def _rows(session: Session, runners: Sequence[Runner]) -> list[Row]:
    moment, ids = now(), [runner.id for runner in runners]
    machines = _machines(session, ids)
    shorts = short_tokens(session, ids)
    over, moved_in = refused_machines.cut_off(session, ids), imported(session, ids)
    rows = []
    for runner in runners:
        managers, version, address = machines.get(runner.id, (0, runner.version, runner.ip_address))
        status = runner_status.of_runner(runner, moment)
        short, more = shorts.get(runner.id, ""), (runner.id in over, runner.id in moved_in)
        rows.append(Row(runner, status, short, managers, version, address, *more))
    return rows


# How many machines each runner has, and what the one says that was heard of last; both found by an index.
_MACHINES = text("""
SELECT asked.id, (SELECT count(*) FROM ci_runner_machines m WHERE m.runner_id = asked.id), last.version,
  last.ip_address
FROM unnest(CAST(:ids AS bigint[])) AS asked(id), LATERAL (
  SELECT version, ip_address FROM ci_runner_machines m WHERE m.runner_id = asked.id
  ORDER BY contacted_at DESC NULLS LAST LIMIT 1
) AS last
""")


def _machines(session: Session, ids: Sequence[int]) -> dict[int, tuple[int, str | None, str | None]]:
    if not ids:
        return {}
    return {row[0]: (row[1], row[2], row[3]) for row in session.execute(_MACHINES, {"ids": list(ids)})}


def short_tokens(session: Session, ids: Sequence[int]) -> dict[int, str]:
    """The short form of each runner's newest token, by runner id."""
    if not ids:
        return {}
    query = (
        select(RunnerToken.runner_id, RunnerToken.short)
        .where(RunnerToken.runner_id.in_(ids))
        .ext(distinct_on(RunnerToken.runner_id))
        .order_by(RunnerToken.runner_id, RunnerToken.id.desc())
    )
    return {row.runner_id: row.short for row in session.execute(query)}


def imported(session: Session, ids: Sequence[int]) -> set[int]:
    """Those of these runners that an administrator brought from elsewhere, with the token of their machines."""
    if not ids:
        return set()
    theirs = RunnerToken.runner_id.in_(ids), RunnerToken.origin == TokenOrigin.IMPORTED
    return set(session.scalars(select(RunnerToken.runner_id).where(*theirs)))
