"""Which people an administrator's list shows: search, filters, pages and counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, true
from sqlalchemy.orm import Session

from portal.models import SecondFactor, User

PAGE_SIZE = 50


class Standing(StrEnum):
    """How a person stands with the portal; everybody has exactly one."""

    ACTIVE = "active"
    BLOCKED = "blocked"
    NEVER = "never_signed_in"

    @classmethod
    def of(cls, user: User) -> Standing:
        if user.blocked_at is not None:
            return cls.BLOCKED
        return cls.ACTIVE if user.last_signed_in_at is not None else cls.NEVER


_STANDING: dict[Standing, ColumnElement[bool]] = {
    Standing.ACTIVE: and_(User.blocked_at.is_(None), User.last_signed_in_at.is_not(None)),
    Standing.BLOCKED: User.blocked_at.is_not(None),
    Standing.NEVER: and_(User.blocked_at.is_(None), User.last_signed_in_at.is_(None)),
}


@dataclass(frozen=True, slots=True)
class PeopleFilter:
    """What an administrator asks the list for."""

    words: str = ""
    standing: Standing | None = None
    administrators: bool = False
    without_second_factor: bool = False

    @property
    def is_active(self) -> bool:
        """Whether anything narrows the list."""
        return self != PeopleFilter()


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list."""

    user: User
    standing: Standing
    second_factor: bool


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the list; `after` and `before` are the cursors of the next and the previous page."""

    rows: list[Row]
    after: str | None
    before: str | None


def page(session: Session, wanted: PeopleFilter, *, after: str = "", before: str = "", size: int = PAGE_SIZE) -> Page:
    """One page, by user name. A cursor is a user name; the page begins behind it, or ends before it."""
    name, backwards = func.lower(User.username), bool(before)
    query = select(User, _has_second_factor().label("second_factor")).where(_wanted(wanted))
    if cursor := (before or after).lower():
        query = query.where(name < cursor if backwards else name > cursor)
    found = session.execute(query.order_by(name.desc() if backwards else name).limit(size + 1)).all()
    more, found = len(found) > size, found[:size]
    rows = [Row(user, Standing.of(user), has_it) for user, has_it in (reversed(found) if backwards else found)]
    has_next, has_previous = (True, more) if backwards else (more, bool(cursor))
    return Page(
        rows,
        after=rows[-1].user.username if rows and has_next else None,
        before=rows[0].user.username if rows and has_previous else None,
    )


def counts(session: Session, wanted: PeopleFilter) -> Mapping[str, int]:
    """How many fit the filter (`total`), and how many each tile would show with the other filters kept."""
    tiles = {
        "total": wanted,
        "administrators": replace(wanted, administrators=True),
        "blocked": replace(wanted, standing=Standing.BLOCKED),
        "never_signed_in": replace(wanted, standing=Standing.NEVER),
        "without_second_factor": replace(wanted, without_second_factor=True),
    }
    columns = [func.count().filter(_wanted(replace(each, words=""))).label(name) for name, each in tiles.items()]
    return dict(session.execute(select(*columns).select_from(User).where(_worded(wanted.words))).one()._mapping)


def _wanted(wanted: PeopleFilter) -> ColumnElement[bool]:
    parts: list[ColumnElement[bool]] = [_worded(wanted.words)]
    if wanted.standing is not None:
        parts.append(_STANDING[wanted.standing])
    if wanted.administrators:
        parts.append(User.admin.is_(True))
    if wanted.without_second_factor:
        parts.append(~_has_second_factor())
    return and_(*parts)


def _worded(words: str) -> ColumnElement[bool]:
    """Condition: the words stand in the name, the user name or the address, whatever the case."""
    wanted = words.strip().lower()
    if not wanted:
        return true()
    return or_(*(func.strpos(func.lower(each), wanted) > 0 for each in (User.username, User.name, User.email)))


def _has_second_factor() -> ColumnElement[bool]:
    return exists().where(SecondFactor.user_id == User.id, SecondFactor.confirmed_at.is_not(None))
