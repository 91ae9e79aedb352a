"""`/runners/:id`: one runner, for its people's scripts (reference/rest.md section 2.5)."""

from __future__ import annotations

from typing import Any, Literal

from flask import g, request
from pydantic import model_validator
from sqlalchemy import func, select

from portal.api import credentials
from portal.api.for_users import enrolment, runner_shapes
from portal.api.for_users.door import looking_for, operation
from portal.api.for_users.paging import Page, Paged
from portal.api.for_users.parameters import (
    Flag,
    Id,
    OptionalFlag,
    OptionalNumber,
    OptionalText,
    Parameters,
    Words,
    at_least_one_of,
    only_one_of,
)
from portal.api.for_users.runner_shapes import NewToken, RunnerDetails, RunnerManagerShape
from portal.api.for_users.shapes import ProjectBasic, projects_in_short
from portal.database import db, now
from portal.domain.jobs import job_lists
from portal.domain.machines import runner_managers
from portal.domain.permissions import Action
from portal.domain.runners import runner_access, runner_projects, runner_tokens, runners
from portal.models import Runner, TokenScope

MANAGE = (TokenScope.MANAGE_RUNNER,)
ROOM = "Runners"
MOST_MANAGERS = 10_000  # in one answer, which has no pages


class OneRunner(Parameters):
    """One runner."""

    runner_id: Id


class RunnerAsked(OneRunner):
    """One runner, with or without the projects that it is assigned to."""

    include_projects: Flag = True


class RunnerChange(OneRunner):
    """What is to be different; the rest stays. A text or a number that is null is taken away, a flag stays."""

    description: OptionalText = None
    active: OptionalFlag = None
    paused: OptionalFlag = None
    tag_list: Words = ()
    run_untagged: OptionalFlag = None
    locked: OptionalFlag = None
    access_level: Literal["not_protected", "ref_protected"] | None = None
    maximum_timeout: OptionalNumber = None
    maintenance_note: OptionalText = None

    @model_validator(mode="after")
    def _changes_something(self) -> RunnerChange:
        only_one_of(self, "active", "paused")
        at_least_one_of(self, *(name for name in type(self).model_fields if name != "runner_id"))
        return self

    def settings(self) -> dict[str, Any]:
        """The changes in the words of RunnerSettings."""
        found: dict[str, Any] = {
            "description": self.description or "",
            "maintenance_note": self.maintenance_note or "",
            "maximum_timeout": self.maximum_timeout,
        }
        found = {name: value for name, value in found.items() if self.given(name)}
        if self.given("tag_list"):
            found["tags"] = self.tag_list
        pausing = self.paused if self.active is None else not self.active
        level = None if self.access_level is None else self.access_level == "ref_protected"
        flags = {"paused": pausing, "protected": level, "run_untagged": self.run_untagged, "locked": self.locked}
        return found | {name: value for name, value in flags.items() if value is not None}


class RunnerPaged(Paged, OneRunner):
    """A page of what belongs to one runner."""


@operation("GET", "/runners/<int:runner_id>", room=ROOM, opens=MANAGE, refuses=(404,), enrolment=True)
def show(given: RunnerAsked) -> RunnerDetails:
    """Everything about one runner. An enrolment key reads the runners that it made."""
    if (key := g.credential.key) is not None:
        return enrolment.details(key, given.runner_id)
    runner = readable(given.runner_id)
    return runner_shapes.details(db.session(), credentials.actor(), runner, projects=given.include_projects)


@operation("PUT", "/runners/<int:runner_id>", room=ROOM, opens=MANAGE, refuses=(400, 404))
def update(given: RunnerChange) -> RunnerDetails:
    """Change some of a runner's settings; what is not given stays as it is."""
    session, runner = db.session(), writable(given.runner_id)
    with looking_for("Runner"):
        runners.change_settings(session, credentials.actor(), runner, **given.settings())
    answer = runner_shapes.details(session, credentials.actor(), runner)
    session.commit()
    return answer


@operation(
    "DELETE", "/runners/<int:runner_id>", room=ROOM, opens=MANAGE, refuses=(404, 412), reads=("If-Unmodified-Since",)
)
def delete(given: OneRunner) -> None:
    """Delete a runner. For a while people can restore it in the browser, with its machines and tokens.

    With the header `If-Unmodified-Since` only if its settings were not changed after that.
    """
    runner = writable(given.runner_id)
    with looking_for("Runner"):
        runners.delete_runner(db.session(), credentials.actor(), runner, unmodified_since=request.if_unmodified_since)
    db.session.commit()


@operation("GET", "/runners/<int:runner_id>/managers", room=ROOM, opens=MANAGE, refuses=(404,))
def managers(given: OneRunner) -> list[RunnerManagerShape]:
    """The machines that use the runner's token, the most recently heard of first; not in pages.

    Their addresses are told to those who look after the runner.
    """
    session, runner, at = db.session(), readable(given.runner_id), now()
    trusted = runner_access.may(session, credentials.actor(), Action.READ_RUNNERS, runner)
    found = runner_managers.of_runner_newest_first(session, runner, MOST_MANAGERS)
    busy = job_lists.busy_managers(session, found)
    return [runner_shapes.manager(each, at, busy=each.id in busy, trusted=trusted) for each in found]


@operation("GET", "/runners/<int:runner_id>/projects", room=ROOM, opens=MANAGE, refuses=(400, 404))
def projects(given: RunnerPaged) -> Page[ProjectBasic]:
    """The projects that the runner serves, as far as one may see them: its owner first."""
    session, runner = db.session(), readable(given.runner_id)
    query = runner_projects.serving(credentials.actor(), runner)
    total = session.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0
    rows = session.scalars(query.limit(given.per_page).offset(given.offset))
    return Page(projects_in_short(rows), given, total)


@operation(
    "POST",
    "/runners/<int:runner_id>/reset_authentication_token",
    room=ROOM,
    status=201,
    opens=MANAGE,
    refuses=(404,),
)
def reset_authentication_token(given: OneRunner) -> NewToken:
    """A new token, shown in this answer only; every older one of the runner ends at once."""
    session, runner = db.session(), writable(given.runner_id)
    with looking_for("Runner"):
        issued = runner_tokens.reset_token(session, credentials.actor(), runner, seen_token_id=None)
    answer = NewToken(token=issued.token, token_expires_at=issued.record.expires_at)
    session.commit()
    return answer


def readable(runner_id: int) -> Runner:
    """The runner, if who asks may read it. Raises NotFound, which says "404 Runner Not Found"."""
    with looking_for("Runner"):
        return runner_access.readable(db.session(), credentials.actor(), runner_id)


def writable(runner_id: int) -> Runner:
    """The runner, if who asks may change it. Raises NotFound, or NotAllowed for who may read it."""
    with looking_for("Runner"):
        return runner_access.writable(db.session(), credentials.actor(), runner_id)


def allowing(action: Action, runner_id: int) -> Runner:
    """The runner, if who asks may do this with it. Raises NotFound, or NotAllowed for who may read it."""
    with looking_for("Runner"):
        return runner_access.allowing(db.session(), credentials.actor(), action, runner_id)
