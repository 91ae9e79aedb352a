"""Which runners a script's list is about, and what narrows it; the machines of those that it shows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    and_,
    any_,
    false,
    func,
    or_,
    select,
    text,
    true,
)
from sqlalchemy.orm import Session, aliased

from portal.database import as_array
from portal.domain import permissions, tokens
from portal.domain.actors import Actor
from portal.domain.permissions import Action
from portal.domain.runners import runner_lists
from portal.domain.runners.runner_paging import among
from portal.domain.runners.runner_status import LAST_CONTACT, ONLINE_WINDOW, Status, condition
from portal.domain.scopes import Scope, ScopeKind
from portal.models import Group, Project, Runner, RunnerManager, RunnerProject, RunnerToken, RunnerType

STATUSES = ("online", "offline", "never_contacted", "stale", "active", "paused")  # the last two are deprecated
MEMBERSHIPS = ("direct", "descendants", "all_available")
MOST_MANAGERS = 100  # of one runner in a list
MOST_VERSIONS = 500  # that are asked for one by one


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
    administrator's. Source: reference/rest.md section 2.3, "available". Asks two queries.
    """
    if actor.is_admin:
        return Runner.runner_type != RunnerType.INSTANCE
    of_groups, holding, projects = permissions.places_with(session, actor, Action.WRITE_RUNNERS)
    return or_(
        and_(Runner.runner_type == RunnerType.GROUP, Runner.group_ids.overlap(as_array(of_groups))),
        and_(Runner.runner_type == RunnerType.PROJECT, Runner.group_ids.overlap(as_array(holding))),
        Runner.project_id == any_(as_array(projects)),
        among(_assigned_from_elsewhere(session, holding, projects)),
    )


def _assigned_from_elsewhere(session: Session, holding: Sequence[int], projects: Sequence[int]) -> list[int]:
    """The runners that serve these projects, or those of these groups, and belong to projects outside the groups."""
    query = select(RunnerProject.runner_id).join(Project, Project.id == RunnerProject.project_id)
    query = query.join(Group, Group.id == Project.group_id).join(Runner, Runner.id == RunnerProject.runner_id)
    served = or_(Project.id == any_(as_array(projects)), Group.traversal_ids.overlap(as_array(holding)))
    return list(session.scalars(query.where(served, ~Runner.group_ids.overlap(as_array(holding)))))


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


def narrowed(session: Session, which: ColumnElement[bool], query: RunnerQuery, at: datetime) -> ColumnElement[bool]:
    """The condition with all that the query asks for, at this moment. One query more for a version or a token.

    Statuses are GitLab's (reference/rest.md sections 2.3 and 5): online, offline (contact more than 2 hours ago) and
    never_contacted are all runners, each in one of them. Stale ones are among the last two.
    """
    parts = [which]
    if query.status is not None:
        parts.append(_has_status(query.status, at))
    parts += runner_lists.set_so(query.type, paused=query.paused, tags=query.tags)
    if query.version_prefix:
        parts.append(_has_version(session, query.version_prefix))
    if query.search:
        parts.append(_found_by(session, query.search, at))
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


# Each version that machines have, from one on: as many steps in an index as there are versions.
_VERSIONS = text("""
WITH RECURSIVE found AS (
  (SELECT version FROM ci_runner_machines WHERE version ~>=~ CAST(:begun AS text)
    ORDER BY version USING ~<~ LIMIT 1)
  UNION ALL
  SELECT (SELECT m.version FROM ci_runner_machines m WHERE m.version ~>~ found.version
    ORDER BY m.version USING ~<~ LIMIT 1)
  FROM found WHERE starts_with(found.version, CAST(:begun AS text))
)
SELECT version FROM found WHERE starts_with(version, CAST(:begun AS text)) LIMIT :most
""")


def _has_version(session: Session, prefix: str) -> ColumnElement[bool]:
    """A machine's version begins with these components; what follows the numbers is passed over, as in GitLab.

    Machines alone are asked, as in GitLab: what a registration told of itself would be a second way to be found, and
    with two the database would look at every machine of the portal for every page. Which versions begin so is looked
    up first: of whole versions the database knows how common they are, and chooses its way by that.
    """
    numbers = re.match(r"[0-9]+(?:\.[0-9]+)*", prefix, re.ASCII)
    if numbers is None:
        return false()  # no version begins so
    begun = numbers[0]
    known = session.scalars(_VERSIONS, {"begun": begun, "most": MOST_VERSIONS}).all()
    version = RunnerManager.version
    whole: ColumnElement[bool]
    if len(known) < MOST_VERSIONS:
        whole = version.in_([each for each in known if not re.match("[0-9]", each[len(begun) :], re.ASCII)])
    else:
        follows = func.substr(version, len(begun) + 1, 1)
        whole = and_(version.like(f"{begun}%"), follows.op("!~")("[0-9]"))  # no component is cut in two
    return Runner.id.in_(select(RunnerManager.runner_id).where(whole))


def _found_by(session: Session, search: str, at: datetime) -> ColumnElement[bool]:
    """A whole token that works, by its digest alone, or a part of the description whatever the case."""
    described = func.strpos(func.lower(Runner.description), search.lower()) > 0
    if len(search) > tokens.LONGEST:
        return described
    token = select(RunnerToken.runner_id).where(RunnerToken.digest == tokens.digest(search), RunnerToken.lives(at))
    runner_id = session.scalar(token)
    return described if runner_id is None else or_(described, Runner.id == runner_id)


def _owned_by(owner: Scope) -> ColumnElement[bool]:
    if owner.kind is ScopeKind.INSTANCE:
        return Runner.runner_type == RunnerType.INSTANCE
    return (Runner.group_id if owner.kind is ScopeKind.GROUP else Runner.project_id) == owner.id


def newest_managers(
    session: Session, runner_ids: Sequence[int], *, each: int = MOST_MANAGERS
) -> dict[int, list[RunnerManager]]:
    """The managers of each of these runners, those heard of last first, at most `each`; by runner id. One query."""
    asked = select(Runner.id).where(among(runner_ids)).subquery()
    newest = (RunnerManager.contacted_at.desc().nulls_last(), RunnerManager.id)
    its = select(RunnerManager).where(RunnerManager.runner_id == asked.c.id).order_by(*newest).limit(each).lateral()
    manager = aliased(RunnerManager, its)
    query = select(manager).select_from(asked).join(manager, true())
    found: dict[int, list[RunnerManager]] = {runner_id: [] for runner_id in runner_ids}
    for one in session.scalars(query):
        found[one.runner_id].append(one)
    return found
