"""What turning registration tokens off in a scope would do: who is refused, what goes on, in numbers and names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, and_, any_, exists, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased, joinedload

from portal.database import as_array, now
from portal.domain import audit
from portal.domain.audit import NEWEST_FIRST
from portal.domain.groups.groups import below, owned_below
from portal.domain.runners.runner_status import LAST_CONTACT
from portal.domain.scopes import Scope, ScopeKind
from portal.domain.slices import count
from portal.models import (
    LEGACY,
    AuditEvent,
    Group,
    GroupSettings,
    Project,
    ProjectSettings,
    Runner,
    RunnerManager,
)

Thing = TypeVar("Thing")
LATELY = timedelta(days=30)
COUNTED = 1000  # numbers on the page stop there
SHOWN = 20  # names of each kind on the page; the CSV has all
# Versions of gitlab-runner that send no system ID when they poll (reference/wire.md section 15).
NAMELESS = r"^([0-9]|1[0-4])\.|^15\.[0-7](\.|$)"


@dataclass(frozen=True, slots=True)
class Some(Generic[Thing]):
    """The first `SHOWN` of some things, and how many there are; one more than COUNTED stands for more than that."""

    total: int
    first: Sequence[Thing]

    @property
    def rest(self) -> int:
        """How many are not among the first."""
        return self.total - len(self.first)


@dataclass(frozen=True, slots=True)
class Source:
    """One address that registrations came from lately."""

    address: str
    registrations: int
    last: datetime


@dataclass(frozen=True, slots=True)
class Effects:
    """What would change. What is turned off below already is not counted: nothing changes there.

    `refused` are machines that send no system ID; `expected` are registered runners of which no machine has polled
    yet, but whose version says that it will send none. `lasting` are registered runners that go on working.
    """

    registered: int
    registrations: int  # in the last 30 days, those included whose runner is gone again
    sources: Some[Source]
    refused: Some[RunnerManager]
    expected: Some[Runner]
    lasting: Some[Runner]
    groups: Some[Group]
    projects: Some[Project]

    @property
    def stopping(self) -> int:
        """How many machines will hear a refusal."""
        return self.refused.total + self.expected.total

    @property
    def nothing(self) -> bool:
        """Whether nobody would notice."""
        return not (self.registered or self.registrations or self.stopping)


def effects(session: Session, scope: Scope, *, most: int | None = COUNTED) -> Effects:
    """What turning off would touch, in the scope and below, counted now, each up to one more than `most`.

    Changes nothing.
    """
    mine = _registered(scope)
    lately = select(AuditEvent.address, AuditEvent.created_at).where(_registrations(scope))
    lately = lately.order_by(AuditEvent.created_at.desc())
    return Effects(
        registered=count(session, select(Runner).where(mine), Runner.id, most=most),
        registrations=count(session, select(AuditEvent).where(_registrations(scope)), AuditEvent.id, most=most),
        sources=_sources(session, lately.limit(most + 1) if most is not None else lately),
        refused=_some(session, _nameless(scope), RunnerManager.id, most),
        expected=_some(session, _runners(mine, _unseen_and_old()), Runner.id, most),
        lasting=_some(session, _runners(mine, ~_stops()), Runner.id, most),
        groups=_some(session, _groups_below(scope), Group.id, most),
        projects=_some(session, _projects_below(scope), Project.id, most),
    )


def _groups_below(scope: Scope) -> Select[Group]:
    return select(Group).where(_open_groups(scope), Group.id != _own(scope.group)).order_by(Group.id)


def _projects_below(scope: Scope) -> Select[Project]:
    return select(Project).where(_open_projects(scope), Project.id != _own(scope.project)).order_by(Project.id)


def _own(owner: Group | Project | None) -> int:
    return owner.id if owner else 0


def _some(
    session: Session, query: Select[Any], key: InstrumentedAttribute[Any], most: int | None = COUNTED
) -> Some[Any]:
    """The first of what the query finds, and how many it finds.

    Few are put in order by themselves: in the order of all there are, they would be looked for among all.
    """
    ids = query.order_by(None).with_only_columns(key, maintain_column_froms=True)
    found = session.scalars(ids.limit(most + 1) if most is not None else ids).all()
    if most is None or len(found) <= most:
        query = query.where(key == any_(as_array(found)))
    return Some(len(found), session.scalars(query.limit(SHOWN)).all() if found else [])


def _open_groups(scope: Scope) -> ColumnElement[bool]:
    """Condition for the groups of the scope, itself included, that no switch below has turned off yet."""
    off = GroupSettings.group_id == func.any(Group.traversal_ids)
    return and_(below(scope)[0], ~exists().where(off, ~GroupSettings.allow_runner_registration_token))


def _open_projects(scope: Scope) -> ColumnElement[bool]:
    """The same for projects."""
    off_here = ProjectSettings.project_id == Project.id
    group = aliased(Group)
    above = (group.id == Project.group_id) & (GroupSettings.group_id == func.any(group.traversal_ids))
    return and_(
        below(scope)[1],
        ~exists().where(off_here, ~ProjectSettings.allow_runner_registration_token),
        ~exists().where(above, ~GroupSettings.allow_runner_registration_token),
    )


def _open_runners(scope: Scope) -> ColumnElement[bool]:
    """Condition for the runners of the scope and below where registration tokens are allowed now."""
    off_above = GroupSettings.group_id == func.any(Runner.group_ids)
    off_here = ProjectSettings.project_id == Runner.project_id
    return and_(
        owned_below(scope),
        ~exists().where(off_above, ~GroupSettings.allow_runner_registration_token),
        ~exists().where(off_here, ~ProjectSettings.allow_runner_registration_token),
    )


def _registered(scope: Scope) -> ColumnElement[bool]:
    return and_(_open_runners(scope), Runner.registered_with_id.is_not(None))


def _has_machine(*which: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(RunnerManager.runner_id == Runner.id, *which)


def _unseen_and_old() -> ColumnElement[bool]:
    """Condition for registered runners without a machine yet whose version sends no system ID."""
    return and_(~_has_machine(), func.coalesce(Runner.version, "").regexp_match(NAMELESS))


def _stops() -> ColumnElement[bool]:
    """Condition for runners all of whose machines will be refused."""
    nameless = RunnerManager.system_xid == LEGACY
    return or_(and_(_has_machine(nameless), ~_has_machine(~nameless)), _unseen_and_old())


def _runners(*conditions: ColumnElement[bool]) -> Select[Runner]:
    query = select(Runner).where(*conditions).options(joinedload(Runner.group), joinedload(Runner.project))
    return query.order_by(LAST_CONTACT.desc(), Runner.id.desc())


def _nameless(scope: Scope) -> Select[RunnerManager]:
    query = select(RunnerManager).join(Runner).where(RunnerManager.system_xid == LEGACY, _open_runners(scope))
    runner = joinedload(RunnerManager.runner)
    query = query.options(runner.joinedload(Runner.group), runner.joinedload(Runner.project))
    return query.order_by(RunnerManager.contacted_at.desc().nulls_last(), RunnerManager.id)


def _registrations(scope: Scope) -> ColumnElement[bool]:
    """The registrations of the last 30 days, from the trail: it keeps those whose runner has gone again."""
    lately = and_(AuditEvent.action == "runner_registered", AuditEvent.created_at > now() - LATELY)
    return lately if scope.kind is ScopeKind.INSTANCE else and_(lately, audit.inside(scope))


def _sources(session: Session, lately: Select[str, datetime]) -> Some[Source]:
    """The addresses that these registrations came from, the last one first."""
    each = lately.subquery()
    last = func.max(each.c.created_at)
    query = select(each.c.address, func.count(), last).group_by(each.c.address).order_by(last.desc())
    rows = [Source(*row) for row in session.execute(query)]
    return Some(len(rows), rows[:SHOWN])


COLUMNS = ("kind", "what_happens", "scope", "runner_id", "runner", "system_id", "version", "address", "when")
REFUSED, GOES_ON = "refused from then on", "goes on working"


def listed(session: Session, scope: Scope) -> Iterator[tuple[object, ...]]:
    """Everything that turning off would touch, as rows of `COLUMNS`, read from the database piece by piece."""
    piecewise = {"yield_per": 500}
    newest = select(RunnerManager.version).where(RunnerManager.runner_id == Runner.id)
    version = newest.order_by(RunnerManager.contacted_at.desc().nulls_last()).limit(1).scalar_subquery()
    registered = _runners(_registered(scope)).add_columns(func.coalesce(version, Runner.version), _stops())
    for runner, its_version, stops in session.execute(registered.execution_options(**piecewise)):
        happens = REFUSED if stops else GOES_ON
        kept = ("", its_version, runner.ip_address, runner.contacted_at)
        yield ("runner registered by token", happens, *_named(runner), *kept)
    for manager in session.scalars(_nameless(scope).execution_options(**piecewise)):
        kept = (manager.system_xid, manager.version, manager.ip_address, manager.contacted_at)
        yield ("machine without system ID", REFUSED, *_named(manager.runner), *kept)
    events = select(AuditEvent).where(_registrations(scope)).order_by(*NEWEST_FIRST)
    for event in session.scalars(events.execution_options(**piecewise)):
        place = event.scope_path or "instance"
        what = ("registration in the last 30 days", "", place, event.target_id, event.target_name)
        yield (*what, "", "", event.address, event.created_at)
    yield from _places(session, scope)


def _places(session: Session, scope: Scope) -> Iterator[tuple[object, ...]]:
    nothing = ("", "", "", "", "", "")
    for group in session.scalars(_groups_below(scope).execution_options(yield_per=500)):
        yield ("group below", "its registration token is refused", group.full_path, *nothing)
    for project in session.scalars(_projects_below(scope).execution_options(yield_per=500)):
        yield ("project below", "its registration token is refused", project.full_path, *nothing)


def _named(runner: Runner) -> tuple[object, ...]:
    owner = runner.project or runner.group
    return (owner.full_path if owner else "instance", runner.id, runner.title)


def turned_off_below(session: Session, scope: Scope) -> Some[str]:
    """The full paths of groups and projects below the scope whose own switch is off."""
    groups, projects = below(scope)
    off_groups = select(Group).join(GroupSettings, GroupSettings.group_id == Group.id)
    off_groups = off_groups.where(groups, Group.id != _own(scope.group))
    off_projects = select(Project).join(ProjectSettings, ProjectSettings.project_id == Project.id)
    off_projects = off_projects.where(projects, Project.id != _own(scope.project))
    first = _some(session, off_groups.where(~GroupSettings.allow_runner_registration_token), Group.id)
    second = _some(session, off_projects.where(~ProjectSettings.allow_runner_registration_token), Project.id)
    names = sorted(owner.full_path for owner in (*first.first, *second.first))
    return Some(first.total + second.total, names[:SHOWN])
